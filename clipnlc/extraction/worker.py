"""One process's part of an extraction: embed spans of rows and seal them."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np

from clipnlc.extraction.embedding import Batch, Embedded, Spent, embed_batches
from clipnlc.extraction.models import Models
from clipnlc.extraction.order import Order, Span
from clipnlc.stores import shards

OnBatch = Callable[[int, Spent], None]
"""Called with the images of a batch (0 for the sealing of a shard) and the seconds it took."""

TRIES: Final = 3
"""How often a range is started before the run fails because its worker died every time."""


def embed(
    order: Order, spans: Iterable[Span], models: Models, *, threads: int, on_batch: OnBatch
) -> None:
    """Embed spans of an order and seal their shards; decoders work ahead, across spans.

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
    ends: deque[tuple[Span, bool]] = deque()  # of each batch on its way: is it its span's last?

    def batches() -> Iterator[Batch]:
        for span, start, stop in _cut(spans, order.batch_size):
            ends.append((span, stop == span.stop))
            backbones = [models.load(job.backbone) for job in span.jobs]
            yield Batch(order.split, order.rows[start:stop], backbones)

    embedded = embed_batches(
        batches(),
        device=models.device,
        precision=order.precision,
        threads=threads,
        decoders=order.decoders,
        batch_size=order.batch_size,
        on_bad_image=order.on_bad_image,
        max_pixels=order.max_pixels,
    )
    found: list[Embedded] = []
    with closing(embedded):
        for batch in embedded:
            span, is_last = ends.popleft()
            found.append(batch)
            on_batch(sum(map(len, batch.parts)), batch.spent)
            if is_last:
                began = time.perf_counter()
                _seal(span, found)
                found.clear()
                on_batch(0, Spent({"write": time.perf_counter() - began}))


def _cut(spans: Iterable[Span], size: int) -> Iterator[tuple[Span, int, int]]:
    """Cut spans into batches at multiples of the batch size."""
    for span in spans:
        cuts = range(span.start - span.start % size + size, span.stop, size)
        for start, stop in itertools.pairwise([span.start, *cuts, span.stop]):
            yield span, start, stop


def _seal(span: Span, found: Sequence[Embedded]) -> None:
    parts = [part for batch in found for part in batch.parts]
    labels = np.array([label for part in parts for label in part.labels], dtype=np.int64)
    sample_id = tuple(s for part in parts for s in part.sample_id)
    skipped = tuple((s.sample_id, s.message) for part in parts for s in part.skipped)
    for i, job in enumerate(span.jobs):
        features = np.concatenate([batch.features[i] for batch in found])
        shard = shards.Shard(span.start, span.stop, features, labels, sample_id, skipped)
        shards.write_shard(job.path, job.key, shard)


class Part:
    """What a worker process keeps between spans: the order, and the backbones it needs."""

    def __init__(self, device: str, threads: int) -> None:
        self._device, self._threads = device, threads
        self._order: Order | None = None
        self._models: Models | None = None

    def take(self, order: Order) -> None:
        """Switch to another order; backbones that it does not need are released."""
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
