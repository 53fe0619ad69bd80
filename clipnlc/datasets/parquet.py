"""Parquet files. Labels and names are read directly; images through `datasets`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.columns import choose_columns
from clipnlc.datasets.fingerprints import digest_texts, hash_files
from clipnlc.datasets.hf import UNREADABLE, one_line
from clipnlc.datasets.rows import Options, Rows
from clipnlc.datasets.tables import PreparedImages, number_labels, sample_ids
from clipnlc.errors import DataError
from clipnlc.files import open_regular

T = TypeVar("T")


@dataclass(frozen=True)
class ParquetFiles:
    """The parquet files of a split, in order. Labels and names are read without `datasets`."""

    root: Path
    names: tuple[str, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """The first file's schema; files that disagree on class names are refused."""
        schemas = [self._tell(name, pq.read_schema) for name in self.names]
        features = {(s.metadata or {}).get(b"huggingface") for s in schemas}
        if len(features) > 1:
            raise DataError(
                f"the parquet files {self.names[0]} to {self.names[-1]} of {self.root} differ in their features (class names); write them again from one data set"
            )
        return schemas[0]

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read whole columns of all files."""
        tables = [
            self._tell(name, lambda path: pq.ParquetFile(path).read(columns=list(columns)))
            for name in self.names
        ]
        try:
            return pa.concat_tables(tables, promote_options="permissive").select(list(columns))
        except (pa.ArrowException, KeyError) as error:
            raise DataError(
                f"the parquet files {self.names[0]} to {self.names[-1]} of {self.root} differ in columns {', '.join(columns)}: {one_line(error)}; write them again alike"
            ) from error

    def row_names(self) -> list[str]:
        """Name every row by its file and its number there."""
        return [
            f"{split_names.stem(name)}:{row}"
            for name in self.names
            for row in range(self._tell(name, lambda path: pq.read_metadata(path).num_rows))
        ]

    def _tell(self, name: str, read: Callable[[Path], T]) -> T:
        try:
            open_regular(self.root / name).close()  # of a named pipe, pyarrow would wait for ever
            return read(self.root / name)
        except UNREADABLE as error:
            raise DataError(
                f"cannot read {self.root / name}: {one_line(error)}; copy the file again"
            ) from error


def open_parquet(root: Path, split: str, options: Options) -> Rows:
    """Open a split of parquet files.

    Raises:
        DataError: no such split, no usable columns, a missing label, unreadable files.
    """
    groups = options.files or split_names.list_files(root, ".parquet")
    name, files = split_names.pick(groups, split, root)
    base = root if root.is_dir() else root.parent
    tables = {s: ParquetFiles(base, tuple(names)) for s, names in groups.items()}
    columns = choose_columns(
        tables[name].schema, str(root), options.image_column, options.label_column
    )
    content = digest_texts([columns.image, *files, *hash_files(base, files, options.hash_cache)])
    sample_id, notes = sample_ids(tables[name], columns, str(root), tables[name].row_names)
    labels, identifiers, more = number_labels(tables, name, columns.label, str(root), sample_id)
    images = PreparedImages("parquet", base, tuple(files), content, columns.image, sample_id)
    return Rows(name, labels, identifiers, sample_id, images, content, notes + more)
