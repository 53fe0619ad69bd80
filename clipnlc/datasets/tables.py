"""What parquet, saved folders and tars share: labels, sample names and images from columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from clipnlc.datasets import columns as choice
from clipnlc.datasets import splits as split_names
from clipnlc.datasets.hf import prepare, quiet
from clipnlc.errors import DataError
from clipnlc.wording import count

if TYPE_CHECKING:
    import datasets as hf

_BATCH = 64
"""Images held at a time while a row range is read."""

_SCAN = 10_000
"""Rows looked at together while empty cells are sought (no image is read)."""


@runtime_checkable
class Table(Protocol):
    """The small columns of one split."""

    @property
    def schema(self) -> pa.Schema:
        """The columns, their types, and the features of `datasets` where it wrote them."""
        ...

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read whole columns (labels, names; never images)."""
        ...


@dataclass(frozen=True)
class MappedTable:
    """One `datasets.Dataset`, mapped into memory."""

    rows: "hf.Dataset"

    @property
    def schema(self) -> pa.Schema:
        """The schema with the features of `datasets`."""
        return self.rows.features.arrow_schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read whole columns."""
        return self.rows.select_columns(list(columns)).with_format("arrow")[:]


@dataclass(frozen=True)
class MappedImages:
    """The image column of a `datasets.Dataset` mapped into memory.

    Attributes:
        rows: this column alone, in arrow's format: to make that of a `datasets.Dataset` takes time
            that grows with its rows, and a read must not.
        column: its name.
        sample_id: one per row.
        where: the data set, for messages.
    """

    rows: "hf.Dataset"
    column: str
    sample_id: tuple[str, ...]
    where: str

    def __post_init__(self) -> None:
        """Find cells without image bytes (this reads validity bits, not images)."""
        for first in range(0, len(self.rows), _SCAN):
            for offset, cells in _cells(self.rows[first : first + _SCAN].column(self.column)):
                stored = pc.struct_field(cells, "bytes")
                if stored.null_count:
                    row = pc.index(stored.is_null(), value=True).as_py()
                    cell = cells[row].as_py() or {}
                    self._refuse(first + offset + row, cell.get("path"))

    def _refuse(self, row: int, path: str | None) -> NoReturn:
        found = f"only a path ({path})" if path else "no image"
        raise DataError(
            f"row {row} ({self.sample_id[row]}) of {self.where} holds {found} in column {self.column!r}; store the image file's bytes in every row, under one name or extension, or give a folder of images"
        )

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the image bytes of the rows `start` to `stop`."""
        stop = min(stop, len(self.rows))
        for first in range(start, stop, _BATCH):
            batch = self.rows[first : min(first + _BATCH, stop)]
            for _, cells in _cells(batch.column(self.column)):
                yield from pc.struct_field(cells, "bytes").to_pylist()


def mapped_images(
    rows: "hf.Dataset", column: str, sample_id: tuple[str, ...], where: str
) -> MappedImages:
    """Take the image column as encoded bytes.

    Raises:
        DataError: a cell holds no image bytes.
    """
    import datasets as hf  # noqa: PLC0415

    with quiet():
        cast = rows.select_columns([column]).cast_column(column, hf.Image(decode=False))
    return MappedImages(cast.with_format("arrow"), column, sample_id, where)


@dataclass(frozen=True)
class PreparedImages:
    """The image column of parquet files or tars, prepared by `datasets` when first read.

    Sent to another process, it leaves behind what was prepared and prepares it again there, where
    the cache of `datasets` may be another one.
    """

    builder: str
    root: Path
    files: tuple[str, ...]
    digest: str
    column: str
    sample_id: tuple[str, ...]

    @cached_property
    def mapped(self) -> MappedImages:
        """The column in memory; cells without an image are refused."""
        import datasets as hf  # noqa: PLC0415  (heavy; not needed while all is cached)

        options: dict[str, object] = {}
        if self.builder == "parquet":  # the images alone: the other columns are read directly
            features = hf.Features({self.column: hf.Image(decode=False)})
            options = {"columns": [self.column], "features": features}
        rows = prepare(self.builder, self.root, self.files, self.digest, **options)
        return mapped_images(rows, self.column, self.sample_id, str(self.root))

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the image bytes of the rows `start` to `stop`."""
        return self.mapped.read(start, stop)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what was prepared."""
        return {name: value for name, value in vars(self).items() if name != "mapped"}


def number_labels(
    tables: Mapping[str, Table], split: str, label: str, where: str, sample_id: Sequence[str]
) -> tuple[Int64[np.ndarray, " samples"], tuple[str, ...] | None, tuple[str, ...]]:
    """Return a split's labels, numbered over the classes of all splits together.

    Returns:
        The labels; the class identifiers in label order, or None when labels are bare numbers;
        notes.

    Raises:
        DataError: a label is missing, negative, or beyond the class names.
    """
    table = tables[split]
    labelled = [tables[s] for s in split_names.in_order(tables) if label in tables[s].schema.names]
    values = choice.label_values(
        table.read([label]).column(0), where, label, lambda row: f"{row} ({sample_id[row]})"
    )
    own = choice.class_label_names(table.schema, label)
    if own is None and isinstance(values, np.ndarray):
        return values, None, ()
    if isinstance(values, np.ndarray):
        lists = [choice.class_label_names(t.schema, label) for t in labelled]
        identifiers = tuple(dict.fromkeys(name for names in lists for name in names or ()))
        number = np.array([identifiers.index(name) for name in own or ()], dtype=np.int64)
        if len(values) and values.max() >= len(number):
            raise DataError(
                f"row {values.argmax()} of {where} has label {values.max()}, but column {label!r} has only {count(len(number), 'class name')}; write the data set again"
            )
        alike = all(names in (None, own) for names in lists)
        notes = () if alike else ("splits list other classes; labels were matched by name",)
        return number[values], identifiers, notes
    words = set(values).union(*(_words(t, label) for t in labelled))
    identifiers = tuple(sorted(words))
    index = {word: i for i, word in enumerate(identifiers)}
    return np.array([index[word] for word in values], dtype=np.int64), identifiers, ()


def _words(table: Table, label: str) -> set[str]:
    unique = table.read([label]).column(0).unique().to_pylist()
    return {str(value) for value in unique if value is not None}


def sample_ids(
    table: Table, columns: choice.Columns, row_names: Callable[[], list[str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name samples by their own column when it is complete and unique, else by row."""
    if columns.id is None:
        return tuple(row_names()), ()
    ids = table.read([columns.id]).column(0).to_pylist()
    if None not in ids and len(set(ids)) == len(ids):
        return tuple(str(i) for i in ids), ()
    return tuple(row_names()), (
        f"column {columns.id!r} is not unique, so samples are named by row",
    )


def _cells(column: pa.ChunkedArray) -> Iterator[tuple[int, pa.StructArray]]:
    """Yield a column's chunks, each with the number of rows before it."""
    offset = 0
    for chunk in column.chunks:
        yield offset, chunk
        offset += len(chunk)
