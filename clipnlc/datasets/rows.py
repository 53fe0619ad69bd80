"""What every kind of source gives: rows with labels and names, images read on demand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8


@dataclass(frozen=True)
class Options:
    """What the user may say about a data set on disk; None lets the source decide.

    Attributes:
        image_column: the column with the images or their files, where there are columns.
        label_column: the column with the labels, where there are columns.
        hash_cache: an SQLite file that remembers the hashes of unchanged files.
        files: for parquet and tars, the files of each split relative to the root, where they are
            known; None has them told by their names.
        labels: a table of the images of a folder and their labels, wherever it lies: the only one
            that is read then.
        classes: the class names, where they are more than there are labels of.
    """

    image_column: str | None = None
    label_column: str | None = None
    hash_cache: Path | None = None
    files: Mapping[str, Sequence[str]] | None = None
    labels: Path | None = None
    classes: tuple[str, ...] = ()


@runtime_checkable
class Images(Protocol):
    """The encoded images of a split, by row."""

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the file bytes of the rows `start` to `stop` (excluded), in order."""
        ...


@dataclass(frozen=True)
class Rows:
    """A split before its class names are decided.

    Attributes:
        split: its canonical name.
        labels: the class of each row, as an index into `identifiers` where there are any.
        identifiers: what the source calls the classes, in label order; None for bare numbers.
        sample_id: one stable, unique name per row.
        images: the image bytes, read on demand.
        content: digest of the files that hold the rows: their bytes and relative names.
        notes: things the user should know.
        places: identifier -> where a table of labels names it first; empty without such a table.
        recorded: the classes that the labels were chosen among, where that was recorded.
        digests: of each image (`fingerprints.digest_image`), where they cost nothing; else None.
    """

    split: str
    labels: Int64[np.ndarray, " samples"]
    identifiers: tuple[str, ...] | None
    sample_id: tuple[str, ...]
    images: Images
    content: str
    notes: tuple[str, ...] = field(default=())
    places: Mapping[str, str] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    digests: UInt8[np.ndarray, "samples 16"] | None = None
