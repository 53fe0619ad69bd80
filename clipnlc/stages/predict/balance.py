"""Balance the classes over all photos of one prediction: two passes, features spooled between them.

Nothing is known of the photos but the photos: offsets per class and weights of the backbones are
learnt from them (`combiners.balanced`), so an answer depends on what stands beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.errors import DataError
from clipnlc.extraction.photos import Photos
from clipnlc.labels import Labels
from clipnlc.runs.fitted import fit

if TYPE_CHECKING:
    from clipnlc.runs.predictor import Predictor

COMBINER: Final = "balanced"

LEAST_PHOTOS: Final = 16
LEAST_PER_CLASS: Final = 2
"""Fewer photos say nothing of how the classes are balanced: our choice."""

POOL_CELLS: Final = 2**27
"""Numbers of the photos' logits that are learnt from; of more photos, as many at random."""


@dataclass(frozen=True)
class _Block:
    """Where the features of a block of photos are in the spool."""

    files: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...]
    first: int


class Spool:
    """Features of photos on disk, one unnamed temporary file per backbone."""

    def __init__(self, files: Sequence[IO[bytes]]) -> None:
        self._files = files
        self._widths: list[int] = []
        self._blocks: list[_Block] = []
        self.photos = 0

    def add(self, photos: Photos) -> None:
        """Write the features of a block."""
        self._blocks.append(_Block(photos.files, photos.skipped, self.photos))
        self.photos += len(photos.files)
        if photos.files:
            self._widths = [features.shape[1] for features in photos.features]
            for file, features in zip(self._files, photos.features, strict=True):
                file.write(np.ascontiguousarray(features, dtype=np.float32).tobytes())

    def blocks(self) -> Generator[Photos, None, None]:
        """Yield every block again."""
        stored = self._stored()
        for block in self._blocks:
            rows = slice(block.first, block.first + len(block.files))
            features = tuple(np.array(one[rows]) for one in stored)
            yield Photos(block.files, features, block.skipped)

    def rows(self, index: Int[np.ndarray, " rows"]) -> tuple[Float[np.ndarray, "rows _"], ...]:
        """Return the features of some photos, one array per backbone."""
        return tuple(np.array(one[index]) for one in self._stored())

    def _stored(self) -> tuple[np.ndarray, ...]:
        found = []
        for file, width in zip(self._files, self._widths, strict=False):  # no photo: no width
            file.flush()
            found.append(np.memmap(file, np.float32, "r", shape=(self.photos, width)))
        return tuple(found)


@contextmanager
def spool(backbones: int) -> Iterator[Spool]:
    """Open a spool, which is gone in the end."""
    files = [tempfile.TemporaryFile() for _ in range(backbones)]  # noqa: SIM115  (closed below)
    try:
        yield Spool(files)
    finally:
        for file in files:
            file.close()


def fill(spooled: Spool, blocks: Iterable[Photos], on_spooled: Callable[[int], None]) -> None:
    """Take up the features of every block; tell how many photos there are so far."""
    for photos in blocks:
        spooled.add(photos)
        on_spooled(spooled.photos)


def least_photos(classes: int) -> int:
    """Return how many photos say enough of how so many classes are balanced.

    >>> least_photos(3), least_photos(20)
    (16, 40)
    """
    return max(LEAST_PHOTOS, LEAST_PER_CLASS * classes)


def balanced(
    predictor: Predictor, spooled: Spool, classes: Int[np.ndarray, " classes"]
) -> Predictor:
    """Fit `balanced` on the photos of a spool.

    Raises:
        DataError: there are too few photos.
    """
    least = least_photos(len(classes))
    if spooled.photos < least:
        raise DataError(
            f"{spooled.photos} photos say too little of how {len(classes)} classes are balanced; "
            f"give at least {least}, or predict them without --balance"
        )
    heads = predictor.heads
    most = max(least, POOL_CELLS // (len(heads.backbones) * len(classes)))
    index = np.arange(spooled.photos)
    if len(index) > most:
        index = np.sort(np.random.default_rng(0).choice(index, most, replace=False))
    ids = [f"{row:012d}" for row in index]
    pool = heads.ensemble(spooled.rows(index), ids, classes=classes)
    nothing = np.empty(0, dtype=np.int64)
    fitted = fit(COMBINER, pool.rows(nothing), nothing, which=Labels.none(), pool=pool)
    return replace(predictor, fitted=fitted)
