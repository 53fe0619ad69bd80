"""Batches of samples to features, in memory: decoders work ahead, backbones share the pixels.

Nothing here knows of stores: `worker` seals what comes out, `photos` hands it to the caller.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Int64

from clipnlc.datasets.images import MAX_PIXELS
from clipnlc.errors import BackboneError
from clipnlc.extraction.pixels import BadImage, Pixels, Source, read_pixels, resizers

if TYPE_CHECKING:
    from clipnlc.backbones.loaded import LoadedBackbone

_CHUNK: Final = 16
"""Images that one decoder takes at a time: several decoders then share a large batch."""


@dataclass
class Spent:
    """Seconds that one batch took in threads."""

    seconds: dict[str, float] = field(default_factory=dict)
    forward: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples to embed together.

    Attributes:
        source: where they are read from.
        rows: which ones.
        backbones: that embed them.
    """

    source: Source
    rows: Int64[np.ndarray, " rows"]
    backbones: Sequence[LoadedBackbone]


@dataclass(frozen=True, eq=False)
class InTurn:
    """Backbones one after the other, each only for the images that still need it.

    Attributes:
        order: the numbers of the backbones, in the order in which they embed.
        waits: says which images need the next backbone, given how many are done, and the features
            of every backbone for the images asked about; those to come have `TO_COME` throughout.
    """

    order: tuple[int, ...]
    waits: Callable[[int, Sequence[np.ndarray]], Bool[np.ndarray, " images"]]


TO_COME: Final = 1.0
"""Stands for features that were not computed: finite and not 0, so that heads can be applied."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """One batch after all its backbones.

    Attributes:
        parts: its samples, without pixels.
        features: one array of (readable samples, dim) per backbone, in the order given.
        spent: the seconds it took.
    """

    parts: list[Pixels]
    features: list[np.ndarray]
    spent: Spent


def embed_batches(
    batches: Iterable[Batch],
    *,
    device: str,
    precision: str,
    threads: int,
    decoders: int,
    batch_size: int,
    on_bad_image: BadImage,
    max_pixels: int = MAX_PIXELS,
    crop: int | None = None,
    in_turn: InTurn | None = None,
) -> Generator[Embedded, None, None]:
    """Yield each batch's features, in order.

    Decoders work ahead of the device, so batches are taken from the iterable before their results
    are asked for; a few are in memory at a time. On a CPU each of `threads` threads takes whole
    batches through all backbones, with one thread of torch's own: that is faster than sharing every
    operation, and the features' last bits do not depend on how many threads there are.

    Close the iterator (`contextlib.closing`) if you may leave it early: its threads end with it.

    Args:
        batches: what to embed.
        device: of the backbones.
        precision: of the backbones.
        threads: that embed; 1 for a GPU.
        decoders: threads that decode and resize.
        batch_size: images of the largest batch.
        on_bad_image: `fail` at an unreadable image, or `skip` it.
        max_pixels: a larger image is unreadable.
        crop: number of the augmented crop that the backbones see; None for the images as they are.
        in_turn: which images need which backbones; None for all.

    Raises:
        DataError: an image cannot be read and is not to be skipped.
        BackboneError: memory is short, or torch cannot compile here.
    """
    ahead = threads + 1 + decoders * _CHUNK // batch_size
    waiting: deque[Future[Embedded]] = deque()
    with embedders(threads, on_cpu=device == "cpu") as forward, _decoders(decoders) as decode:
        for batch in batches:
            resize = resizers([b.preprocessing for b in batch.backbones], crop)
            parts = [
                decode.submit(
                    read_pixels,
                    batch.source,
                    batch.rows[i : i + _CHUNK],
                    resize,
                    on_bad_image,
                    max_pixels,
                    crop,
                )
                for i in range(0, len(batch.rows), _CHUNK)
            ]
            waiting.append(forward.submit(_embed, parts, batch.backbones, precision, in_turn))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
        # No thread is left when an error or Ctrl-C ends the work.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


@contextmanager
def _decoders(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, "decode")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _embed(
    parts: Sequence[Future[Pixels]],
    backbones: Sequence[LoadedBackbone],
    precision: str,
    in_turn: InTurn | None,
) -> Embedded:
    """Take one batch through its backbones; those that agree on their input share one tensor."""
    began = time.perf_counter()
    pixels = [part.result() for part in parts]
    spent = Spent({"wait": time.perf_counter() - began, "forward": 0.0})
    for part in pixels:
        for name, seconds in part.seconds.items():
            spent.seconds[name] = spent.seconds.get(name, 0.0) + seconds
    kept = np.float32 if precision == "fp32" else np.float16
    rows = sum(len(part.sample_id) for part in pixels)
    features = [np.full((rows, b.dim), TO_COME, kept) for b in backbones]
    waiting = np.arange(rows)
    finished, shown = None, None
    for done, number in enumerate(in_turn.order if in_turn else _by_input(backbones), start=1):
        if not len(waiting):  # every image is done, or none is readable
            break
        backbone = backbones[number]
        began = time.perf_counter()
        if finished is None or backbone.input != shown:
            finished, shown = None, backbone.input  # one tensor at a time
            geometry = backbone.preprocessing.geometry
            arrays = [part.pixels[geometry] for part in pixels if part.sample_id]
            with _memory(backbone.name):
                finished = backbone.finish(
                    arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
                )
        now = time.perf_counter()
        spent.seconds["resize"] += now - began
        with _memory(backbone.name):
            if len(waiting) == rows:
                features[number] = backbone.forward(finished)
            else:
                features[number][waiting] = backbone.forward(finished[waiting])
        spent.forward[backbone.name] = time.perf_counter() - now
        if in_turn and done < len(backbones):
            waiting = waiting[in_turn.waits(done, [each[waiting] for each in features])]
    spent.seconds["forward"] = sum(spent.forward.values())
    # Batches wait for the end of their shard; with their pixels they would take gigabytes.
    samples = [replace(part, pixels={}) for part in pixels]
    return Embedded(samples, features, spent)


def _by_input(backbones: Sequence[LoadedBackbone]) -> list[int]:
    """Return the numbers of the backbones, those with the same input side by side."""
    inputs = list(dict.fromkeys(backbone.input for backbone in backbones))
    return sorted(range(len(backbones)), key=lambda number: inputs.index(backbones[number].input))


@contextmanager
def _memory(backbone: str) -> Iterator[None]:
    """Turn an out-of-memory error into one line that says what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as problem:
        text = str(problem)
        if not isinstance(problem, MemoryError) and not any(
            sign in text for sign in ("out of memory", "can't allocate memory")
        ):
            raise
        raise BackboneError(
            f"out of memory while embedding with {backbone}; use a smaller --batch-size or fewer "
            "backbones at a time (extract: --together; what is sealed stays)"
        ) from problem
