"""One process's part of an extraction: embed spans of rows and seal them."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from clipnlc.errors import BackboneError
from clipnlc.extraction.order import Order, Span, Spent
from clipnlc.extraction.pixels import Pixels, read_pixels, resizers
from clipnlc.stores import shards

if TYPE_CHECKING:
    from clipnlc.backbones.loaded import LoadedBackbone
    from clipnlc.extraction.models import Models

OnBatch = Callable[[int, Spent], None]
"""Called with the images of a batch (0 for the sealing of a shard) and the seconds it took."""

_CHUNK: Final = 16
"""Images that one decoder takes at a time: several decoders then share a large batch."""


@dataclass(frozen=True)
class _Embedded:
    """One batch after all backbones: its samples without pixels, and features per backbone."""

    parts: list[Pixels]
    features: list[np.ndarray]
    spent: Spent


def embed(
    order: Order, spans: Iterable[Span], models: Models, *, threads: int, on_batch: OnBatch
) -> None:
    """Embed spans of an order and seal their shards.

    Decoders work ahead of the device, across spans; a few batches are in memory at a time. On a
    CPU each of `threads` threads takes whole batches through all backbones, with one thread of
    torch's own: that is faster than sharing every operation, and the features' last bits do not
    depend on how many threads there are.

    Args:
        order: what is to be embedded.
        spans: the part of it to do here.
        models: where the backbones are loaded.
        threads: that embed; 1 for a GPU.
        on_batch: called in this thread.

    Raises:
        DataError: an image cannot be read and is not to be skipped.
        BackboneError: weights cannot be loaded, or memory is short.
        StoreError: a shard cannot be written.
    """
    on_cpu = models.device == "cpu"
    with embedders(threads, on_cpu=on_cpu) as forward, _decoders(order.decoders) as decode:
        ahead = threads + 1 + order.decoders * _CHUNK // order.batch_size
        waiting: deque[tuple[Span, int, Future[_Embedded]]] = deque()
        found: list[_Embedded] = []

        def take() -> None:
            span, stop, future = waiting.popleft()
            batch = future.result()
            found.append(batch)
            on_batch(sum(map(len, batch.parts)), batch.spent)
            if stop == span.stop:
                began = time.perf_counter()
                _seal(span, found)
                found.clear()
                on_batch(0, Spent({"write": time.perf_counter() - began}))

        for span, start, stop in _batches(spans, order.batch_size):
            backbones = [models.load(job.backbone) for job in span.jobs]
            resize = resizers([b.preprocessing for b in backbones])
            rows = order.rows[start:stop]
            parts = [
                decode.submit(
                    read_pixels, order.split, rows[i : i + _CHUNK], resize, order.on_bad_image
                )
                for i in range(0, len(rows), _CHUNK)
            ]
            waiting.append((span, stop, forward.submit(_embed, parts, backbones, order.precision)))
            if len(waiting) > ahead:
                take()
        while waiting:
            take()


@contextmanager
def embedders(threads: int, *, on_cpu: bool) -> Iterator[ThreadPoolExecutor]:
    """Make the threads that embed; on a CPU, torch has one thread in each of them."""
    import torch

    def one_thread() -> None:
        torch.set_num_threads(1)

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "embed", initializer=one_thread if on_cpu else None)
    try:
        yield pool
    finally:
        # Nothing is left of them when an error or Ctrl-C ends the work.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


@contextmanager
def _decoders(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, "decode")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(spans: Iterable[Span], size: int) -> Iterator[tuple[Span, int, int]]:
    """Cut spans into batches at multiples of the batch size."""
    for span in spans:
        cuts = range(span.start - span.start % size + size, span.stop, size)
        for start, stop in itertools.pairwise([span.start, *cuts, span.stop]):
            yield span, start, stop


def _embed(
    parts: Sequence[Future[Pixels]], backbones: Sequence[LoadedBackbone], precision: str
) -> _Embedded:
    """Take one batch through all backbones; those that agree on their input share one tensor."""
    began = time.perf_counter()
    pixels = [part.result() for part in parts]
    spent = Spent({"wait": time.perf_counter() - began, "forward": 0.0})
    for part in pixels:
        for name, seconds in part.seconds.items():
            spent.seconds[name] = spent.seconds.get(name, 0.0) + seconds
    kept = np.float32 if precision == "fp32" else np.float16
    features = {b.name: np.empty((0, b.dim), kept) for b in backbones}  # should none be readable
    if any(part.sample_id for part in pixels):
        inputs: dict[tuple[object, ...], list[LoadedBackbone]] = {}
        for backbone in backbones:
            inputs.setdefault(backbone.input, []).append(backbone)
        for sharing in inputs.values():
            began = time.perf_counter()
            geometry = sharing[0].preprocessing.geometry
            arrays = [part.pixels[geometry] for part in pixels if part.sample_id]
            with _memory(sharing[0].name):
                finished = sharing[0].finish(
                    arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
                )
            now = time.perf_counter()
            spent.seconds["resize"] += now - began
            for backbone in sharing:
                with _memory(backbone.name):
                    features[backbone.name] = backbone.forward(finished)
                began, now = now, time.perf_counter()
                spent.forward[backbone.name] = now - began
            del finished
    spent.seconds["forward"] = sum(spent.forward.values())
    # Batches wait for the end of their shard, by when the pixels would take gigabytes.
    samples = [replace(part, pixels={}) for part in pixels]
    return _Embedded(samples, [features[b.name] for b in backbones], spent)


@contextmanager
def _memory(backbone: str) -> Iterator[None]:
    """Turn a device's want of memory into one line with the cure."""
    try:
        yield
    except (RuntimeError, MemoryError) as problem:
        text = str(problem)
        if not isinstance(problem, MemoryError) and not any(
            sign in text for sign in ("out of memory", "can't allocate memory")
        ):
            raise
        raise BackboneError(
            f"memory was short while embedding with {backbone}; what is sealed stays: go on with "
            "a smaller --batch-size, or fewer backbones at a time (--together)"
        ) from problem


def _seal(span: Span, found: Sequence[_Embedded]) -> None:
    parts = [part for batch in found for part in batch.parts]
    labels = np.array([label for part in parts for label in part.labels], dtype=np.int64)
    sample_id = tuple(s for part in parts for s in part.sample_id)
    skipped = tuple(s for part in parts for s in part.skipped)
    for i, job in enumerate(span.jobs):
        features = np.concatenate([batch.features[i] for batch in found])
        shard = shards.Shard(span.start, span.stop, features, labels, sample_id, skipped)
        shards.write_shard(job.path, job.key, shard)
