"""Sealed writing: arrays and attributes go to a file under another name, which is then renamed."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from clipnlc.digests import canonical_json, content_digest
from clipnlc.files import replacing
from clipnlc.stores._h5 import blocks
from clipnlc.stores._h5.contents import (
    DIGESTS,
    LONGEST_ATTRIBUTE,
    PLAIN,
    WRITTEN,
    Attribute,
    Dataset,
    Rows,
    digests_of,
)
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.place import PLACE, place_of


def write_sealed(
    path: Path,
    file_format: str,
    *,
    attributes: Mapping[str, Attribute],
    datasets: Mapping[str, Dataset],
    groups: Mapping[str, Mapping[str, Attribute]] | None = None,
    version: int = WRITTEN,
) -> str:
    """Write a file under another name, seal it, sync it and move it to `path`.

    A process that dies on the way leaves `path` as it was. Returns the content's digest. A file is
    of an older version as long as that can say its content, so that older readers read it.

    Raises:
        StoreError: the disk is full or cannot be written.
        ValueError: an attribute is too long, or an array's type has no place in the format.
    """
    place = place_of(path)
    root = {**attributes, "format": file_format, "format-version": version}
    if place is not None:
        root[PLACE] = place
    with disk_errors(path), replacing(path) as partial, partial.open("wb+", buffering=0) as raw:
        sink = Sink(raw)
        with h5py.File(sink, "w") as file:
            root["contents"] = _write_tree(file, sink, datasets, groups or {})
            digest = content_digest(root)
            for name in sorted(root):
                _write_attribute(file, name, root[name])
            _write_attribute(file, "digest", digest)
            _write_attribute(file, "complete", 1)
        sink.check()
    return digest


class Sink:
    """A file whose first failure is kept until `check`, and which takes no more after it.

    HDF5 cannot stand a write that fails under it: it prints tracebacks when it closes what it
    could not flush, keeps it open, and may crash at exit.
    """

    def __init__(self, raw: FileIO) -> None:
        self.raw = raw
        self.failure: OSError | None = None

    def check(self) -> None:
        """Raise what the disk refused since the file was opened."""
        if self.failure is not None:
            raise self.failure

    def write(self, data: Any) -> int:  # noqa: ANN401  (any buffer)
        view = memoryview(data)
        self._unless_failed(lambda: self._write_all(view))
        return view.nbytes

    def truncate(self, size: int) -> None:
        self._unless_failed(lambda: self.raw.truncate(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()

    def read(self, size: int) -> bytes:
        return self.raw.read(size) or b""

    def flush(self) -> None:
        """Do nothing: the file is not buffered, and is synced when it is whole."""

    def _unless_failed(self, work: Callable[[], object]) -> None:
        if self.failure is None:
            try:
                work()
            except OSError as error:
                self.failure = error

    def _write_all(self, data: memoryview) -> None:
        while data:
            data = data[self.raw.write(data) or 0 :]


def _write_tree(
    file: h5py.File,
    sink: Sink,
    datasets: Mapping[str, Dataset],
    groups: Mapping[str, Mapping[str, Attribute]],
) -> str:
    """Write arrays and groups in sorted order; return the text of `contents`."""
    entries = {name: _write_dataset(file, sink, name, datasets[name]) for name in sorted(datasets)}
    for group in sorted(groups):
        node = file.require_group(group)
        for name in sorted(groups[group]):
            _write_attribute(node, name, groups[group][name])
    digests = {group: content_digest(groups[group]) for group in groups}
    return canonical_json({"arrays": entries, "groups": digests})


def _write_dataset(
    file: h5py.File, sink: Sink, name: str, data: Dataset
) -> dict[str, str | int | tuple[int, ...]]:
    """Write one array, and the digests of its blocks where it has some; return its entry."""
    if isinstance(data, tuple):
        data = _encoded(data)
    shape = data.shape
    dtype = data.dtype.newbyteorder("<")
    if dtype.kind not in PLAIN:
        raise ValueError(f"{name!r} is of type {dtype}; expected numbers or strings")
    assert name.split("/", maxsplit=1)[0] != DIGESTS, "that group is taken"
    stored = h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype
    target = file.create_dataset(name, shape, dtype=stored, track_times=False)
    block_rows = blocks.stored_length(shape, dtype)
    entry = {"dtype": dtype.str, "shape": shape}
    if block_rows is None:
        digest = hashlib.blake2b(digest_size=blocks.DIGEST_BYTES)
        for rows in _write_rows(target, sink, data, stored):
            digest.update(blocks.as_bytes(rows))
        return {**entry, "blake2b": digest.hexdigest()}
    digests = blocks.BlockDigests(block_rows)
    for rows in _write_rows(target, sink, data, stored):
        digests.update(rows)
    table = digests.table()
    file.create_dataset(digests_of(name), data=table, track_times=False)
    return {**entry, "blake2b": blocks.blake2b(table).hex(), "block_rows": block_rows}


def _write_rows(
    target: h5py.Dataset, sink: Sink, data: np.ndarray | Rows, dtype: np.dtype[Any]
) -> Iterator[np.ndarray]:
    """Write an array at once or block by block; give each piece when it is written."""
    if isinstance(data, Rows):
        start = 0
        for block in data.blocks:
            plain = np.ascontiguousarray(block, dtype)
            target[start : start + len(plain)] = plain
            yield plain
            sink.check()
            start += len(plain)
        assert start == data.shape[0], "the blocks fill the array"
    else:
        plain = np.asarray(data, dtype, order="C")
        target[...] = plain
        yield plain


def _write_attribute(node: h5py.Group, name: str, value: Attribute) -> None:
    if isinstance(value, str):
        text = value.encode()
        if len(text) > LONGEST_ATTRIBUTE or b"\0" in text:
            raise ValueError(
                f"attribute {name!r} takes {len(text)} bytes; expected at most "
                f"{LONGEST_ATTRIBUTE} without NUL: put a digest of the long value in it"
            )
        dtype = h5py.string_dtype("utf-8", max(len(text), 1))
        node.attrs.create(name, np.bytes_(text), shape=(), dtype=dtype)
    else:
        node.attrs.create(name, value, shape=(), dtype="<i8" if isinstance(value, int) else "<f8")


def _encoded(texts: tuple[str, ...]) -> np.ndarray:
    """Encode strings as UTF-8 at the length of the longest."""
    encoded = [text.encode() for text in texts]
    if any(b"\0" in text for text in encoded):
        raise ValueError("a string holds NUL, which ends a stored string")
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
