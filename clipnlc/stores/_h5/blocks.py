"""Blocks of rows: which rows share a checksum, and which blocks a read touches. No file is opened.

Rows of a matrix are checked in blocks of about 64 KiB, so that a few rows can be read and checked
without the rest. How many rows a block has follows from the matrix' shape and type alone.
"""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt8

BLOCK_BYTES = 1 << 16  # of a block; a block holds at least one row
PIECE_BYTES = 1 << 22  # of consecutive blocks that are read together
DIGEST_BYTES = 16

Dtype = np.dtype[np.generic]


def block_length(shape: tuple[int, ...], dtype: Dtype) -> int:
    """Return how many rows of an array one block has.

    >>> block_length((50_000, 1000), np.dtype(np.float32))
    16
    """
    return max(1, BLOCK_BYTES // max(1, dtype.itemsize * math.prod(shape[1:])))


def stored_length(shape: tuple[int, ...], dtype: Dtype) -> int | None:
    """Return the rows per block where a file keeps the digests of an array's blocks, else None.

    It does for matrices of numbers with more than one block.
    """
    length = block_length(shape, dtype)
    matrix = len(shape) == len(("rows", "columns")) and dtype.kind in "fiu"
    return length if matrix and shape[0] > length else None


def as_bytes(array: np.ndarray) -> memoryview:
    """View a contiguous array as its bytes."""
    return array.reshape(-1).view(np.uint8).data


def blake2b(array: np.ndarray) -> bytes:
    """Return the BLAKE2b-128 of a contiguous array's bytes."""
    return hashlib.blake2b(as_bytes(array), digest_size=DIGEST_BYTES).digest()


class BlockDigests:
    """Digests of the blocks of an array whose rows arrive in pieces of any length.

    Args:
        length: rows per block; the last block may have fewer.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._digests: list[bytes] = []
        self._block = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._filled = 0  # rows of the block in work

    def update(self, rows: np.ndarray) -> None:
        """Add the next rows, which are contiguous."""
        start = 0
        while start < len(rows):
            stop = start + self.length - self._filled
            part = rows[start:stop]
            self._block.update(as_bytes(part))
            self._filled += len(part)
            if self._filled == self.length:
                self._close()
            start = stop

    def table(self) -> UInt8[np.ndarray, "blocks 16"]:
        """Return one digest per block, when all rows have been added."""
        if self._filled:
            self._close()
        joined = np.frombuffer(b"".join(self._digests), np.uint8)
        return joined.reshape(-1, DIGEST_BYTES)

    def _close(self) -> None:
        self._digests.append(self._block.digest())
        self._block = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._filled = 0


def piece_length(shape: tuple[int, ...], dtype: Dtype, length: int) -> int:
    """Return how many rows to read together: whole blocks, a few MB of them."""
    block = length * dtype.itemsize * math.prod(shape[1:])
    return length * max(1, PIECE_BYTES // max(1, block))


def touched(
    ordered: Int64[np.ndarray, " wanted"], length: int, longest: int
) -> Iterator[tuple[int, int]]:
    """Group sorted rows into ranges of whole blocks, each at most `longest` rows.

    >>> list(touched(np.array([0, 3, 4, 17]), length=2, longest=4))
    [(0, 4), (4, 6), (16, 18)]
    """
    blocks = np.unique(ordered // length)
    for run in np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1):
        if run.size:
            end = (int(run[-1]) + 1) * length
            for start in range(int(run[0]) * length, end, longest):
                yield start, min(start + longest, end)
