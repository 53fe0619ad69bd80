"""Who works an order off: this process, one process per device, or a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Final, Literal, Protocol, runtime_checkable

from clipnlc.errors import BackboneError, ClipnlcError
from clipnlc.extraction.models import Models
from clipnlc.extraction.order import Order, Progress, Range, Span, Spent, span_size, spans
from clipnlc.extraction.worker import OnBatch, embed
from clipnlc.machine import cores

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

EngineName = Literal["local", "ray"]

SHARD_ROWS: Final = 2048
"""Samples of one sealed shard; a kill loses at most this many per backbone."""

TRIES: Final = 3
"""How often a range is begun before a worker that dies over it is given up."""


@dataclass(frozen=True)
class Engine:
    """Where the work is done.

    Attributes:
        devices: one worker each; a single one is this process itself.
        name: `local`, or `ray`.
        ray_address: of a running cluster; without one, Ray starts its own on this machine.
    """

    devices: tuple[str, ...] = ("auto",)
    name: EngineName = "local"
    ray_address: str | None = None


@runtime_checkable
class Workers(Protocol):
    """Whoever embeds the spans of one order after the other."""

    def embed(self, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:
        """Embed and seal spans; `on_batch` is called in this thread.

        Raises:
            DataError: an image cannot be read and is not to be skipped.
            BackboneError: weights cannot be loaded, memory is short, or a worker died repeatedly.
            StoreError: a shard cannot be written.
        """
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


def open_engine(engine: Engine, models: Models) -> Workers:
    """Make the workers of a run; they start when they are first needed."""
    if engine.name == "ray":
        from clipnlc.extraction.on_ray import RayCrew

        return RayCrew(engine.devices, engine.ray_address)
    return Alone(models) if len(engine.devices) == 1 else Crew(engine.devices)


def work_off(
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
        workers: who does it.
        count: how many they are.
        within: only these rows.
        rest: images of the splits to come, for those who watch.
        on_progress: called after every batch, in this thread.

    Raises:
        ClipnlcError: as `Workers.embed`, or a shard that is there is damaged.
    """
    most = max(SHARD_ROWS - SHARD_ROWS % order.batch_size, order.batch_size)
    start, stop = within or (0, len(order.rows))
    size = span_size(stop - start, order.batch_size, count, most)
    todo = spans(order, size=size, within=within)
    if not todo:
        return
    there = stop - start - sum(span.stop - span.start for span in todo)
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
    """The process at hand, with the backbones it has loaded."""

    models: Models

    def embed(self, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:
        """Embed and seal spans; see `Workers.embed`."""
        threads = cores() if self.models.device == "cpu" else 1
        embed(order, todo, self.models, threads=threads, on_batch=on_batch)

    def close(self) -> None:
        """Do nothing."""


@dataclass
class _Member:
    """One process and what it is at; `words` are its last, where it could say what broke it."""

    device: str
    process: SpawnProcess
    pipe: connection.Connection
    span: Span | None = None
    done: int = 0
    words: str = ""


class Crew:
    """One process per device; spans are handed out one by one, and again when a process dies."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = tuple(devices)
        self.members: list[_Member] = []

    def embed(self, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:
        """Embed and seal spans; see `Workers.embed`."""
        waiting = deque(todo)
        tries: dict[tuple[int, int], int] = {}
        for device in self.devices[len(self.members) : len(waiting)]:
            self.members.append(self._start(device))
        for member in self.members:
            _tell(member, order)
            self._hand(member, waiting)
        while any(member.span for member in self.members):
            ready = connection.wait([m.pipe for m in self.members if m.span])
            for i in [i for i, m in enumerate(self.members) if m.pipe in ready]:
                member = self.members[i]
                try:
                    self._hear(member, on_batch)
                except (EOFError, OSError):
                    waiting.appendleft(self._bury(order, member, tries))
                    on_batch(-member.done, Spent())
                    member = self.members[i] = self._start(member.device)
                    _tell(member, order)
                if member.span is None:
                    self._hand(member, waiting)

    def close(self) -> None:
        """End the processes: idle ones by themselves, the others at once."""
        for member in self.members:
            member.pipe.close()
            if member.span is not None:
                member.process.kill()
            member.process.join()
        self.members.clear()

    def _start(self, device: str) -> _Member:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        threads = max(1, cores() // self.devices.count("cpu")) if device == "cpu" else 1
        process = spawn.Process(target=_serve, args=(theirs, device, threads), daemon=True)
        with _interrupts_held():
            process.start()
        theirs.close()
        return _Member(device, process, ours)

    def _hand(self, member: _Member, waiting: deque[Span]) -> None:
        if waiting:
            member.span, member.done = waiting.popleft(), 0
            _tell(member, member.span)

    def _hear(self, member: _Member, on_batch: OnBatch) -> None:
        message = member.pipe.recv()
        if isinstance(message, ClipnlcError):
            member.span = None
            raise message
        if message is None:
            member.span = None
            return
        if isinstance(message, str):
            member.words = message
            return
        images, spent = message
        member.done += images
        on_batch(images, spent)

    def _bury(self, order: Order, member: _Member, tries: dict[tuple[int, int], int]) -> Span:
        """Count a death; return the span that must be begun again."""
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


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes that never see Ctrl-C, which is for the parent to answer."""
    resource_tracker.ensure_running()  # which would let them loose as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell(member: _Member, message: Order | Span) -> None:
    """Send to a process; that it has died is noticed where it is listened to."""
    with suppress(BrokenPipeError, ConnectionResetError):
        member.pipe.send(message)


def _worker_died(order: Order, span: Span, member: _Member) -> BackboneError:
    """Make the error for a worker that dies again and again."""
    code = member.process.exitcode or 0
    how = f"killed by signal {-code}, as for want of memory" if code < 0 else f"exit code {code}"
    return BackboneError(
        f"a worker on {member.device} died {TRIES} times over the images {span.start} to {span.stop} of "
        f"{order.dataset}/{order.split.name} ({member.words or how}); what is sealed stays: go on with fewer "
        "--devices, a smaller --batch-size, or fewer backbones at a time (--together)"
    )


def _serve(pipe: connection.Connection, device: str, threads: int) -> None:
    """Embed the spans that come through the pipe, each of the order before it, until it closes."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow_the_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow_the_parent, daemon=True).start()
    part = Part(device, threads)
    try:
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
    except (EOFError, ConnectionError):
        return


class Part:
    """What a worker process keeps between spans: the order, and the backbones it needs."""

    def __init__(self, device: str, threads: int) -> None:
        self._device, self._threads = device, threads
        self._order: Order | None = None
        self._models: Models | None = None

    def take(self, order: Order) -> None:
        """Turn to another order; backbones that it does not need are let go."""
        wanted = {job.backbone for job in order.jobs}
        if self._order is None or {job.backbone for job in self._order.jobs} != wanted:
            if self._models is not None:
                self._models.release()
            self._models = Models(
                self._device,
                order.precision,
                compiled=order.compiled,
                batch_size=order.batch_size,
            )
        self._order = order

    def embed(self, span: Span, on_batch: OnBatch) -> None:
        """Embed and seal one span of the order.

        Raises:
            ClipnlcError: as `worker.embed`.
        """
        assert self._order is not None
        assert self._models is not None
        # A source that prepares itself when first read does so here, before many threads read it.
        next(iter(self._order.split.read(0, 1)))
        embed(self._order, [span], self._models, threads=self._threads, on_batch=on_batch)
