"""One process's part of an extraction: embed spans of rows and seal them."""

from __future__ import annotations

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
from clipnlc.stores.features import DIGEST_BYTES, open_features

OnBatch = Callable[[int, Spent], None]
"""Called with the images of a batch (0 for the sealing of a shard) and the seconds it took."""

TRIES: Final = 3
"""How often a range is started before the run fails because its worker died every time."""


def embed(
    order: Order, spans: Iterable[Span], models: Models, *, threads: int, on_batch: OnBatch
) -> None:
    """Embed spans of an order and seal their shards; decoders work ahead, across spans.

    Rows that the order reuses are copied from the jobs' existing files.

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

    def seal(span: Span, found: Sequence[Embedded]) -> None:
        began = time.perf_counter()
        _seal(order, span, found)
        on_batch(0, Spent({"write": time.perf_counter() - began}))

    def batches() -> Iterator[Batch]:
        for span in spans:
            places = order.lacking(span.start, span.stop)
            if not len(places):
                seal(span, ())
                continue
            backbones = [models.load(job.backbone) for job in span.jobs]
            # At multiples of the batch size, wherever the span begins: see `order.spans`.
            first = order.batch_size - span.start % order.batch_size
            parts = np.split(places, range(first, len(places), order.batch_size))
            for number, part in enumerate(parts, 1):
                ends.append((span, number == len(parts)))
                yield Batch(order.split, order.rows[part], backbones)

    embedded = embed_batches(
        batches(),
        device=models.device,
        precision=order.precision,
        threads=threads,
        decoders=order.decoders,
        batch_size=order.batch_size,
        on_bad_image=order.on_bad_image,
        max_pixels=order.max_pixels,
        crop=order.crop,
    )
    found: list[Embedded] = []
    with closing(embedded):
        for batch in embedded:
            span, is_last = ends.popleft()
            found.append(batch)
            on_batch(sum(map(len, batch.parts)), batch.spent)
            if is_last:
                seal(span, found)
                found.clear()


def _seal(order: Order, span: Span, found: Sequence[Embedded]) -> None:
    """Write the shard of every job: what was embedded now, and what its existing file has."""
    parts = [part for batch in found for part in batch.parts]
    skipped = tuple((s.sample_id, s.reason) for part in parts for s in part.skipped)
    left_out = {name for name, _ in skipped}
    names = [order.split.sample_id[row] for row in order.rows[span.start : span.stop]]
    kept = np.flatnonzero([name not in left_out for name in names])  # places in the span
    old = np.full(len(kept), -1) if order.reused is None else order.reused[span.start + kept]
    digests = np.frombuffer(b"".join(d for part in parts for d in part.digests), np.uint8)
    for i, job in enumerate(span.jobs):
        features = [batch.features[i] for batch in found]
        content = [digests.reshape(-1, DIGEST_BYTES)]
        if (old >= 0).any():
            with open_features(job.path) as file:
                features.append(file.read(old[old >= 0]))
                content.append(file.digests(old[old >= 0]))
        # Back into the order of the split: those embedded stand first.
        places = np.argsort(np.argsort(old >= 0, kind="stable"), kind="stable")
        shard = shards.Shard(
            span.start,
            span.stop,
            np.concatenate(features)[places],
            order.split.labels[order.rows[span.start + kept]],
            tuple(names[place] for place in kept),
            skipped,
            np.concatenate(content)[places],
        )
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
