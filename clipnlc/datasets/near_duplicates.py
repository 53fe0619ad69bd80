"""Images that show nearly the same picture: saved again, resized, or taken in one burst.

An image is reduced to 8 x 8 cells of its mean colour, a perceptual hash that is compared cell by cell.
Two images are alike if no cell differs by more than `MOST` levels in any channel and the means of all
cells by no more than `MOST_MEAN`; groups are chains of images alike. The two numbers are ours: a photo
saved again as a JPEG or at half its size differs by up to 10 levels, and unlike images of the nano
training pools by 20 or more but for a few emoji and icons. Crops, mirror images and other exposures are
not found.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from clipnlc.datasets.fingerprints import cached_cells, keep_cells
from clipnlc.datasets.images import ImageError, load
from clipnlc.datasets.rows import Images
from clipnlc.machine import cores

SIDE: Final = 8
"""Cells of a row and of a column."""

MOST: Final = 16
"""Levels, of 255, by which a cell may differ."""

MOST_MEAN: Final = 2
"""Levels by which the means may differ."""

RULE: Final = {"cells": SIDE, "most": MOST, "most_mean": MOST_MEAN}
"""What names the rule in a key."""

_DECODED: Final = 64
"""Pixels of the shorter side, at least, that a JPEG is decoded at."""

_TOGETHER: Final = 64
"""Images in memory at a time."""


def cells_of(data: bytes) -> bytes:
    """Return the mean colours of an image's cells, three bytes each, row by row.

    Those of an image that cannot be decoded are empty: it is like no other.
    """
    try:
        image = load(data, at_least=_DECODED).convert("RGB")
    except ImageError:
        return b""
    return image.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def groups_of_images(
    images: Images, digests: UInt8[np.ndarray, "samples 16"], cache: Path | None = None
) -> Int64[np.ndarray, " samples"]:
    """Return the group of each image, numbered from 0; equal bytes are always in one.

    Args:
        images: the encoded images.
        digests: of their bytes.
        cache: an SQLite file that remembers the cells of images that were seen before.

    Raises:
        DataError: an image file is gone, or the cache is not ours.
    """
    content, first, of = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    of = of.reshape(-1)
    names = [one.tobytes() for one in content]
    known = cached_cells(cache, names) if cache is not None else {}
    lacking = [row for row in np.sort(first).tolist() if digests[row].tobytes() not in known]
    made: dict[bytes, bytes] = {}
    for row, cells in zip(lacking, _cells(images, lacking), strict=True):
        made[digests[row].tobytes()] = cells
    if cache is not None and made:
        keep_cells(cache, made)
    known |= made
    seen = np.array([number for number, name in enumerate(names) if known[name]], dtype=np.int64)
    group = np.arange(len(names))
    if len(seen):
        every = b"".join(known[names[number]] for number in seen)
        alike = chains(np.frombuffer(every, np.uint8).reshape(len(seen), -1))
        group[seen] = seen[alike]
    return np.unique(group[of], return_inverse=True)[1].reshape(-1)


def _cells(images: Images, rows: Sequence[int]) -> Iterator[bytes]:
    """Yield the cells of some rows; neighbours are read together, and decoded in threads."""
    with ThreadPoolExecutor(cores()) as pool:
        start = 0
        while start < len(rows):
            stop = start + 1
            while (
                stop < len(rows) and stop - start < _TOGETHER and rows[stop] == rows[stop - 1] + 1
            ):
                stop += 1
            yield from pool.map(cells_of, list(images.read(rows[start], rows[stop - 1] + 1)))
            start = stop


def chains(cells: UInt8[np.ndarray, "images values"]) -> Int64[np.ndarray, " images"]:
    """Return for each image the first one of its chain of images alike.

    >>> dark, light = np.full((1, 192), 10, np.uint8), np.full((1, 192), 99, np.uint8)
    >>> chains(np.concatenate([dark, light, dark + 1])).tolist()
    [0, 1, 0]
    """
    from scipy.sparse import coo_array  # noqa: PLC0415  (keeps the import of data sets quick)
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    count, values = cells.shape
    total = cells.sum(axis=1, dtype=np.int64)
    order = np.argsort(total, kind="stable")
    cells, total = cells[order].astype(np.int16), total[order]
    pairs = []
    for step in range(1, count):  # of images sorted by brightness, only near ones can be alike
        left = np.flatnonzero(total[step:] - total[:-step] <= MOST_MEAN * values)
        if not len(left):
            break
        left = left[(np.abs(cells[left + step] - cells[left]) <= MOST).all(axis=1)]
        pairs.append(np.stack([left, left + step]))
    joined = np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1)
    links = coo_array((np.ones(joined.shape[1], bool), tuple(joined)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    found = np.empty(count, np.int64)
    found[order] = component
    firsts = np.full(count, count)
    np.minimum.at(firsts, found, np.arange(count))
    return firsts[found]
