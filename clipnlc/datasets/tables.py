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
from clipnlc.datasets.hf import UNREADABLE, one_line, prepare, quiet
from clipnlc.errors import DataError, shown
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
    """One `datasets.Dataset`, mapped into memory; `where` it lies, for messages."""

    rows: "hf.Dataset"
    where: str

    @property
    def schema(self) -> pa.Schema:
        """The schema with the features of `datasets`."""
        return self.rows.features.arrow_schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read whole columns.

        Raises:
            DataError: they are damaged.
        """
        import datasets as hf  # noqa: PLC0415

        try:
            table = self.rows.select_columns(list(columns)).with_format("arrow")[:]
            table.validate(full=True)  # reading what lies outside its file would end the process
        except (hf.exceptions.DatasetsError, *UNREADABLE) as error:
            raise DataError(
                f"cannot read columns {', '.join(columns)} of {self.where}: {one_line(error)}; restore its files, or write the data set again"
            ) from error
        return table


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
        """Find cells without image bytes (this reads where cells begin and end, not images)."""
        for first in range(0, len(self.rows), _SCAN):
            for offset, cells in _cells(self.rows[first : first + _SCAN].column(self.column)):
                self._check(cells)
                stored = pc.struct_field(cells, "bytes")
                if stored.null_count:
                    row = pc.index(stored.is_null(), value=True).as_py()
                    self._refuse(first + offset + row, cells[row].as_py() or {})

    def _check(self, cells: pa.StructArray) -> None:
        """Refuse cells that lie outside their file: reading one would end the process."""
        try:
            cells.validate(full=True)
        except pa.ArrowException as error:
            raise DataError(
                f"column {self.column!r} of {self.where} is damaged: {one_line(error)}; restore its files"
            ) from error

    def _refuse(self, row: int, cell: Mapping[str, str | None]) -> NoReturn:
        path = cell.get("path")
        found = f"only a path ({shown(path)})" if path else "no image"
        raise DataError(
            f"row {row} ({shown(self.sample_id[row])}) of {self.where} holds {found} in column {self.column!r}; store the image file's bytes in every row, under one name or extension, or give a folder of images"
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
        DataError: a cell holds no image bytes, or the column is damaged or of another type.
    """
    import datasets as hf  # noqa: PLC0415

    try:
        with quiet():
            cast = rows.select_columns([column]).cast_column(column, hf.Image(decode=False))
    except (hf.exceptions.DatasetsError, *UNREADABLE) as error:
        raise DataError(
            f"column {column!r} of {where} cannot be read as images: {one_line(error)}; write the data set again, with an encoded image in every row"
        ) from error
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
        DataError: a label is missing, negative, or beyond the class names; splits hold words and
            numbers.
    """
    table = tables[split]
    labelled = [tables[s] for s in split_names.in_order(tables) if label in tables[s].schema.names]
    values = choice.label_values(
        table.read([label]).column(0), where, label, lambda row: f"{row} ({shown(sample_id[row])})"
    )
    for other in labelled:
        if choice.holds_text(other.schema, label) != choice.holds_text(table.schema, label):
            kinds = [shown(t.schema.field(label).type) for t in (table, other)]
            raise DataError(
                f"label column {label!r} of {where} holds {kinds[0]} in split {split} and {kinds[1]} in another; write them alike"
            )
    own = choice.class_label_names(table.schema, label, where)
    if own is None and isinstance(values, np.ndarray):
        return values, None, ()
    if isinstance(values, np.ndarray):
        lists = [choice.class_label_names(t.schema, label, where) for t in labelled]
        identifiers = tuple(dict.fromkeys(name for names in lists for name in names or ()))
        number = np.array([identifiers.index(name) for name in own or ()], dtype=np.int64)
        if len(values) and values.max() >= len(number):
            raise DataError(
                f"row {values.argmax()} of {where} has label {values.max()}, but column {label!r} has only {count(len(number), 'class name')}; write the data set again"
            )
        alike = all(names in (None, own) for names in lists)
        notes = () if alike else ("splits list other classes; labels were matched by name",)
        return number[values], identifiers, notes
    words = set(values).union(*(_words(t, where, label) for t in labelled))
    identifiers = tuple(sorted(words))
    index = {word: i for i, word in enumerate(identifiers)}
    return np.array([index[word] for word in values], dtype=np.int64), identifiers, ()


def _words(table: Table, where: str, label: str) -> set[str]:
    """Return the words that a split uses for its classes."""
    return set(choice.texts(table.read([label]).column(0).unique().drop_null(), where, label))


def sample_ids(
    table: Table, columns: choice.Columns, where: str, row_names: Callable[[], list[str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name samples by their own column when it is complete and unique, else by row.

    Raises:
        DataError: a name is no UTF-8.
    """
    if columns.id is None:
        return tuple(row_names()), ()
    column = table.read([columns.id]).column(0)
    if not column.null_count:
        ids = choice.texts(column, where, columns.id)
        if len(set(ids)) == len(ids):
            return tuple(ids), ()
    return tuple(row_names()), (
        f"column {columns.id!r} is not unique, so samples are named by row",
    )


def _cells(column: pa.ChunkedArray) -> Iterator[tuple[int, pa.StructArray]]:
    """Yield a column's chunks, each with the number of rows before it."""
    offset = 0
    for chunk in column.chunks:
        yield offset, chunk
        offset += len(chunk)
