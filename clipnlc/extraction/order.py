"""The work of one split: picklable, so that any process on any machine can do a part of it."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from clipnlc.backbones import Backbone
from clipnlc.datasets.images import MAX_PIXELS
from clipnlc.datasets.source import Split
from clipnlc.extraction.embedding import Spent
from clipnlc.extraction.pixels import BadImage
from clipnlc.stores.key import Key
from clipnlc.stores.shards import missing_ranges

Range = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """One feature file to make or check."""

    backbone: Backbone
    path: Path
    key: Key


@dataclass(frozen=True, eq=False)
class Order:
    """One split to embed with some backbones.

    Attributes:
        dataset: its key.
        split: its samples; images are read where they are needed.
        rows: the samples to embed, as rows of the split.
        jobs: one feature file per backbone.
        precision: `fp32`, `fp16` or `bf16`.
        compiled: whether forwards are compiled.
        batch_size: images of one forward.
        decoders: threads that decode and resize.
        on_bad_image: `fail` at an unreadable image, or `skip` and record it.
        max_pixels: a larger image is unreadable.
        crop: number of the augmented crop that the backbones see; None for the images as they are.
        reused: for each of `rows`, its row in the existing file of every job, or -1 where it must
            be embedded (`reuse`); None embeds all.
    """

    dataset: str
    split: Split
    rows: Int64[np.ndarray, " rows"]
    jobs: tuple[Job, ...]
    precision: str
    compiled: bool
    batch_size: int
    decoders: int
    on_bad_image: BadImage
    max_pixels: int = MAX_PIXELS
    crop: int | None = None
    reused: Int64[np.ndarray, " rows"] | None = None

    def lacking(self, start: int, stop: int) -> Int64[np.ndarray, " lacking"]:
        """Return which of the places `[start, stop)` of `rows` must be embedded."""
        if self.reused is None:
            return np.arange(start, stop)
        return start + np.flatnonzero(self.reused[start:stop] < 0)


@dataclass(frozen=True)
class Span:
    """A range of an order's rows, and the jobs that lack it."""

    start: int
    stop: int
    jobs: tuple[Job, ...]


@dataclass
class Progress:
    """Progress of one split's extraction, reported after every batch.

    Attributes:
        dataset: its key.
        split: its name.
        total: images of this split.
        done: images embedded by every requested backbone.
        began_at: images that were embedded before this run began, or are copied.
        rest: images of the later splits of this pass; None if unknown.
        seconds: time that threads spent, by `wait` (for pixels), `decode`, `resize`, `forward`
            and `write`.
        forward: seconds of `forward`, by backbone.
        embedded: images, by backbone, in this run.
    """

    dataset: str
    split: str
    total: int
    done: int = 0
    began_at: int = 0
    rest: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    forward: dict[str, float] = field(default_factory=dict)
    embedded: dict[str, int] = field(default_factory=dict)

    def add(self, images: int, spent: Spent) -> None:
        """Count one batch, or one sealed shard (of no new images)."""
        self.done += images
        for name, seconds in spent.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, seconds in spent.forward.items():
            self.forward[name] = self.forward.get(name, 0.0) + seconds
            self.embedded[name] = self.embedded.get(name, 0) + images


def spans(order: Order, *, size: int, within: Range | None = None) -> list[Span]:
    """Cut what is not sealed yet into ranges of at most `size` rows, in order, none overlapping.

    Cuts lie on multiples of `size`, itself a multiple of the batch size, so that the batches, and
    with them the last bits of the features, do not depend on which worker does which range. Other
    cuts lie only where `within` or an existing shard ends.

    Raises:
        StoreError: a shard is damaged.
    """
    start, stop = within or (0, len(order.rows))
    gaps = [
        missing_ranges(job.path, job.key, len(order.rows), len(order.rows)) for job in order.jobs
    ]
    ends = {end for ranges in gaps for gap in ranges for end in gap if start < end < stop}
    inner = range(start - start % size + size, stop, size)
    found = []
    for a, b in itertools.pairwise(sorted({start, *ends, *inner, stop})):
        lacking = [
            job
            for job, ranges in zip(order.jobs, gaps, strict=True)
            if any(first <= a and b <= last for first, last in ranges)
        ]
        if lacking:
            found.append(Span(a, b, tuple(lacking)))
    return found


def span_size(rows: int, batch_size: int, workers: int, most: int) -> int:
    """Choose the rows of a shard: `most`, or fewer so that every one of several workers has work.

    >>> span_size(100_000, 64, 1, 2048), span_size(1000, 64, 2, 2048)
    (2048, 128)
    """
    if workers == 1:
        return most
    shares = 4 * workers  # a slow worker then holds up the others by a quarter of its part
    batches = -(-rows // (shares * batch_size))
    return min(most, max(1, batches) * batch_size)
