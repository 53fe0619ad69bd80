"""Tables of images and labels: CSV, TSV and JSON lines, with the column names that people use."""

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.hf import one_line
from clipnlc.errors import DataError
from clipnlc.wording import count, some

_FILE_WORDS = "file files filename filenames filepath filepaths fname image images imageid imagename imagepath img imgs imgname imgpath path paths photo picture"
_LABEL_WORDS = "breed category categories class classes classid classlabel classname label labels labelid labelname species target targets"
_SPLIT_WORDS = "dataset partition phase set split splits subset"

_Words = tuple[frozenset[str], frozenset[str]]
"""A column is called so if its name has one of the first words, and no others than both have."""

# `image_path`, `FileName`; `id`, `name`; `class_id`; `data set`.
_FILES: Final[_Words] = (frozenset(_FILE_WORDS.split()), frozenset(("id", "ids", "name", "names")))
_NAMES: Final[_Words] = (frozenset(("id", "ids", "key", "name", "uid", "uuid")), frozenset())
_LABELS: Final[_Words] = (
    frozenset(_LABEL_WORDS.split()),
    frozenset(("id", "ids", "idx", "image", "index", "name", "names", "true")),
)
_SPLITS: Final[_Words] = (frozenset(_SPLIT_WORDS.split()), frozenset(("data", "name")))
_RESULTS: Final = frozenset(
    ("predicted", "prediction", "predictions", "preds", "results", "submission")
)


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: posix, relative to the data set's root.
        header: its columns.
        rows: line number and cells of each row; a cell that JSON leaves out is "".
    """

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def folder(self) -> str:
        """The folder it lies in."""
        return self.path.rpartition("/")[0]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column, without white space around them."""
        at = self.header.index(name)
        return [cells[at].strip() for _, cells in self.rows]

    def named(self, wanted: _Words) -> list[str]:
        """Return the columns so called."""
        telling, others = wanted
        named = {name: set(split_names.words(name)) for name in self.header}
        return [n for n, its in named.items() if its & telling and its <= telling | others]

    def files(self) -> list[str]:
        """Return the columns that may name image files, the likeliest first."""
        return list(dict.fromkeys((*self.named(_FILES), *self.named(_NAMES))))

    def splits(self) -> str | None:
        """Return the column of the splits: `split`, or another one with nothing but splits in it."""
        for name in self.named(_SPLITS):
            words = set(self.column(name))
            if name.casefold() == "split" or all(map(split_names.is_alias, words)):
                return name
        return None

    def labels(self, root: Path, asked: str | None, others: Sequence[str | None]) -> str | None:
        """Return the column of the labels, None without one; words before numbers.

        Args:
            root: the data set's root, for messages.
            asked: the column that the user named.
            others: columns that hold something else.

        Raises:
            DataError: several columns hold words.
        """
        if asked is not None:
            return asked if asked in self.header else None
        found = [name for name in self.named(_LABELS) if name not in others]
        worded = [name for name in found if not all_numbers(self.column(name))] or found[:1]
        if len(worded) > 1 and len({tuple(self.column(name)) for name in worded}) > 1:
            raise DataError(
                f"{root / self.path} has several columns of labels ({', '.join(worded)}); choose one with --label-column"
            )
        return worded[0] if worded else None

    @property
    def is_result(self) -> bool:
        """Whether it is called like predictions, which are no labels."""
        return bool(_RESULTS & set(split_names.words(self.path.rpartition("/")[2])))

    @property
    def split(self) -> str | None:
        """The split in its name or its folder's: `train.csv`, `test_labels.csv`, `val/metadata.csv`."""
        *folders, file = self.path.split("/")
        rest = [
            word
            for word in split_names.words(split_names.stem(file))
            if word not in ("labels", "label", "metadata", "annotations", "list", "info", "csv")
        ]
        for name in ("_".join(rest), *reversed(folders)):
            if split_names.is_alias(name):
                return split_names.canonical(name)
        return None


def all_numbers(cells: Iterable[str]) -> bool:
    """Return whether all cells that are not blank are whole numbers, such as labels are."""
    return all(re.fullmatch(r"-?[0-9]{1,18}", cell) for cell in cells if cell)


def read_header(root: Path, path: str) -> Table:
    """Read the columns of a table alone.

    Raises:
        DataError: it cannot be read.
    """
    return _read(root, path, rows=0)


def read_table(root: Path, path: str) -> Table:
    """Read a table as text.

    Raises:
        DataError: it cannot be read, or a row does not fit its header; with the line.
    """
    return _read(root, path, rows=None)


def _read(root: Path, path: str, rows: int | None) -> Table:
    file = root / path
    if not file.is_file():
        raise DataError(f"{file} is no regular file; remove it")
    most = None if rows is None else rows + 1
    read = _json_rows if path.lower().endswith(".jsonl") else _csv_rows
    try:
        if path.lower().endswith(".parquet"):
            found = list(itertools.islice(_parquet_rows(file), most))
        else:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                found = list(itertools.islice(read(file, lines), most))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {one_line(error)}; save it as UTF-8") from error
    (_, names), *rest = found or [(1, ())]
    header = tuple(name.strip() for name in names)
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise DataError(f"{file} has two columns called {twice[0]!r}; rename one")
    for line, cells in rest:
        if len(cells) != len(header):
            raise DataError(
                f"{file}, line {line}: {count(len(cells), 'cell')} under {count(len(header), 'column')} ({some(header)}); fix the line, with quotes around cells that hold the separator"
            )
    return Table(path, header, tuple(rest))


def _csv_rows(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    first = next(lines, "")
    separator = max(",\t;|", key=first.count)
    reader = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, tuple(cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}, line {line}: {error}; fix the line") from error


def _json_rows(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the keys of the first line that holds some, and the values of every line under them."""
    header: tuple[str, ...] = ()
    for line, written in enumerate(lines, start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {line}: {one_line(error)}; expected JSON") from error
        if not isinstance(row, dict):
            raise DataError(
                f'{file}, line {line}: expected a JSON object, as {{"file_name": "1.jpg", "label": "cat"}}'
            )
        if not header:
            header = tuple(row)
            yield line, header
        yield line, tuple(_spelled(row.get(name)) for name in header)


def _parquet_rows(file: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the names of the columns, and every row under them; rows are numbered from 2, as lines.

    Raises:
        DataError: it cannot be read, or has no column of texts or numbers alone.
    """
    import pyarrow as pa  # noqa: PLC0415  (other tables need none)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        parquet = pq.ParquetFile(file)
        kinds = {field.name: field.type for field in parquet.schema_arrow}
        plain = [
            name
            for name, kind in kinds.items()
            if not (pa.types.is_nested(kind) or pa.types.is_binary(kind))
        ]
        yield 1, tuple(plain)
        number = 2
        for batch in parquet.iter_batches(columns=plain):
            for row in batch.to_pylist():
                yield number, tuple(_spelled(row[name]) for name in plain)
                number += 1
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"cannot read {file}: {one_line(error)}; write it again") from error


def _spelled(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
