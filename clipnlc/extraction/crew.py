"""Where an extraction order runs: in this process, in one per device, or on a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from clipnlc.errors import BackboneError, ClipnlcError
from clipnlc.extraction.embedding import Spent
from clipnlc.extraction.models import Models
from clipnlc.extraction.order import Order, Progress, Range, Span, span_size, spans
from clipnlc.extraction.request import Engine
from clipnlc.extraction.worker import TRIES, OnBatch, Part, embed
from clipnlc.machine import cores
from clipnlc.processes import send, signals_held, start

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

SHARD_ROWS: Final = 2048
"""Samples of one sealed shard; a kill loses at most this many per backbone."""


@runtime_checkable
class Workers(Protocol):
    """What embeds the spans of one order after the other."""

    def embed(self, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:
        """Embed and seal spans; `on_batch` is called in this thread.

        Raises:
            DataError: an image cannot be read and is not to be skipped.
            BackboneError: weights cannot be loaded, memory is short, or a worker died repeatedly.
            StoreError: a shard cannot be written.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


def open_workers(engine: Engine, models: Models) -> Workers:
    """Make the workers of a run; they start when they are first needed."""
    if engine.name == "ray":
        from clipnlc.extraction.on_ray import RayCrew

        return RayCrew(engine.devices, engine.ray_address)
    return Alone(models) if len(engine.devices) == 1 else Crew(engine.devices)


def run_order(
    order: Order,
    workers: Workers,
    count: int,
    *,
    within: Range | None = None,
    rest: int | None = None,
    on_progress: Callable[[Progress], None],
) -> None:
    """Embed what an order lacks and seal it, shard by shard.

    Args:
        order: what is to be embedded.
        workers: that embed it.
        count: how many they are.
        within: only these rows.
        rest: images of the later splits, for the progress.
        on_progress: called after every batch, in this thread.

    Raises:
        ClipnlcError: as `Workers.embed`, or an existing shard is damaged.
    """
    most = max(SHARD_ROWS - SHARD_ROWS % order.batch_size, order.batch_size)
    start, stop = within or (0, len(order.rows))
    size = span_size(stop - start, order.batch_size, count, most)
    todo = spans(order, size=size, within=within)
    if not todo:
        return
    there = stop - start - sum(len(order.lacking(span.start, span.stop)) for span in todo)
    progress = Progress(
        order.dataset,
        order.split.name,
        total=stop - start,
        done=there,
        began_at=there,
        rest=rest,
    )

    def on_batch(images: int, spent: Spent) -> None:
        progress.add(images, spent)
        on_progress(progress)

    # Sources that prepare themselves when first read do it here, once, for all workers.
    next(iter(order.split.read(0, 1)))
    workers.embed(order, todo, on_batch)


@dataclass(frozen=True)
class Alone:
    """The current process, with the backbones it has loaded."""

    models: Models

    def embed(self, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:
        """Embed and seal spans; see `Workers.embed`."""
        threads = cores() if self.models.device == "cpu" else 1
        embed(order, todo, self.models, threads=threads, on_batch=on_batch)

    def close(self) -> None:
        """Do nothing."""


@dataclass
class _Member:
    """One process and its current span; `error` is the last error it reported before it died."""

    device: str
    process: SpawnProcess
    pipe: connection.Connection
    span: Span | None = None
    done: int = 0
    error: str = ""


class Crew:
    """One process per device; spans are sent one by one, and again when a process dies."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = tuple(devices)
        self.members: list[_Member] = []

    def embed(self, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:
        """Embed and seal spans; see `Workers.embed`."""
        waiting = deque(todo)
        tries: dict[tuple[int, int], int] = {}
        for device in self.devices[len(self.members) : len(waiting)]:
            with signals_held():
                self.members.append(self._start(device))
        for member in self.members:
            send(member.pipe, order)
            self._next_span(member, waiting)
        while any(member.span for member in self.members):
            ready = connection.wait([m.pipe for m in self.members if m.span])
            for i in [i for i, m in enumerate(self.members) if m.pipe in ready]:
                member = self.members[i]
                try:
                    self._receive(member, on_batch)
                except (EOFError, OSError):
                    waiting.appendleft(self._died(order, member, tries))
                    on_batch(-member.done, Spent())
                    with signals_held():
                        member = self.members[i] = self._start(member.device)
                    send(member.pipe, order)
                if member.span is None:
                    self._next_span(member, waiting)

    def close(self) -> None:
        """End the processes: idle ones by themselves, the others at once."""
        for member in self.members:
            member.pipe.close()
            if member.span is not None:
                member.process.kill()
            member.process.join()
        self.members.clear()

    def _start(self, device: str) -> _Member:
        threads = max(1, cores() // self.devices.count("cpu")) if device == "cpu" else 1
        process, pipe = start(_serve, device, threads)
        return _Member(device, process, pipe)

    def _next_span(self, member: _Member, waiting: deque[Span]) -> None:
        if waiting:
            member.span, member.done = waiting.popleft(), 0
            send(member.pipe, member.span)

    def _receive(self, member: _Member, on_batch: OnBatch) -> None:
        message = member.pipe.recv()
        if isinstance(message, ClipnlcError):
            member.span = None
            raise message
        if message is None:
            member.span = None
            return
        if isinstance(message, str):
            member.error = message
            return
        images, spent = message
        member.done += images
        on_batch(images, spent)

    def _died(self, order: Order, member: _Member, tries: dict[tuple[int, int], int]) -> Span:
        """Count a death; return the span that must be started again."""
        span = member.span
        assert span is not None
        member.process.join()
        member.pipe.close()
        place = (span.start, span.stop)
        tries[place] = tries.get(place, 0) + 1
        if tries[place] == TRIES:
            member.span = None
            raise _worker_died(order, span, member)
        return span


def _worker_died(order: Order, span: Span, member: _Member) -> BackboneError:
    """Make the error for a worker that died every time."""
    code = member.process.exitcode or 0
    how = f"killed by signal {-code}, probably out of memory" if code < 0 else f"exit code {code}"
    return BackboneError(
        f"a worker on {member.device} died {TRIES} times over the images {span.start} to {span.stop} of "
        f"{order.dataset}/{order.split.name} ({member.error or how}); what is sealed stays: continue with fewer "
        "--devices, a smaller --batch-size, or fewer backbones at a time (--together)"
    )


def _serve(pipe: connection.Connection, device: str, threads: int) -> None:
    """Embed the spans that come through the pipe, each of the order before it."""
    part = Part(device, threads)
    while True:
        message = pipe.recv()
        if isinstance(message, Order):
            part.take(message)
            continue
        try:
            part.embed(message, lambda images, spent: pipe.send((images, spent)))
        except ClipnlcError as problem:
            pipe.send(problem)
            return
        except RuntimeError as problem:  # torch's only kind: a fresh process may do better
            pipe.send(" ".join(f"{type(problem).__name__}: {problem}".split())[:160])
            return
        pipe.send(None)
