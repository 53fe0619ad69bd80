"""Strict reading: nothing is given before its checksum has matched, whole arrays or parts."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int, Shaped, UInt8

from clipnlc.digests import content_digest
from clipnlc.errors import StoreError
from clipnlc.files import open_regular, reason
from clipnlc.stores._h5 import blocks
from clipnlc.stores._h5.contents import (
    LONGEST_ATTRIBUTE,
    PLAIN,
    VERSION,
    Attribute,
    Content,
    Entry,
    Header,
    as_mapping,
    damaged,
    digests_of,
    missing,
)
from clipnlc.stores.layout import maker
from clipnlc.stores.place import check_place
from clipnlc.wording import quoted

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNSEALED = ("digest", "complete")  # the two attributes that `digest` does not cover
# What h5py and the parsing of attributes raise on damaged bytes. UnicodeDecodeError and
# JSONDecodeError are ValueErrors, RecursionError is a RuntimeError; a damaged group of
# properties comes back as an object without the expected method.
DAMAGE = (
    AttributeError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


class SealedFile:
    """An open file with a checked header, whose arrays are read and checked when asked for.

    Args:
        file: open, complete and of the format asked for.
        header: what it says of its content.
    """

    def __init__(self, file: h5py.File, header: Header) -> None:
        self.header = header
        self._file = file
        self._blocks: dict[str, _Blocks] = {}

    def content(self, wanted: Callable[[str], bool] = lambda _name: True) -> Content:
        """Read the arrays whose name is `wanted`, all by default.

        Raises:
            StoreError: an array is damaged.
        """
        with _damage(self.header.path):
            names = [name for name in self.header.entries if wanted(name)]
            return Content(self.header, {name: self._array(name) for name in names})

    def rows(
        self,
        name: str,
        wanted: Int[np.ndarray, " wanted"],
        *,
        columns: Int[np.ndarray, " columns"] | None = None,
        out: Shaped[np.ndarray, "wanted ..."] | None = None,
    ) -> Shaped[np.ndarray, "wanted ..."]:
        """Read rows of the array `name` in the order given; a row may be wanted repeatedly.

        Besides the result, a few MB are in memory.

        Args:
            name: of an array with at least one dimension.
            wanted: row numbers, from 0.
            columns: of a matrix, the columns to give, in this order; all by default.
            out: where to put the rows, of another type if need be; a new array by default.

        Raises:
            StoreError: there is no such array, or a block with one of the rows is damaged.
            IndexError: there is no such row.
        """
        source = self._source(name)
        shape = source.dataset.shape
        order = np.argsort(wanted, kind="stable")
        ordered = np.asarray(wanted, np.int64)[order]
        if ordered.size and not 0 <= ordered[0] <= ordered[-1] < shape[0]:
            raise IndexError(f"{quoted(name)} has rows 0 to {shape[0] - 1}")
        if out is None:
            width = shape[1:] if columns is None else (len(columns),)
            out = np.empty((len(order), *width), source.dataset.dtype)
        with _damage(self.header.path):
            for start, stop in blocks.touched(ordered, source.length, source.piece):
                piece = source.read(start, stop)
                first, last = np.searchsorted(ordered, [start, stop])
                found = piece[ordered[first:last] - start]
                out[order[first:last]] = found if columns is None else found[:, columns]
        return out

    def blocks(self, name: str, rows: int) -> Iterator[Shaped[np.ndarray, "block ..."]]:
        """Read the array `name` at most `rows` rows at a time, each checked before it is given.

        Raises:
            StoreError: there is no such array, or it is damaged.
        """
        source = self._source(name)
        total = len(source.dataset)
        for start in range(0, total, rows):
            stop = min(start + rows, total)
            with _damage(self.header.path):
                first = start // source.length * source.length
                block = source.read(first, -(-stop // source.length) * source.length)
            yield block[start - first : stop - first]

    def _source(self, name: str) -> "_Blocks":
        if name not in self.header.entries:
            raise damaged(self.header.path, f"has no array {quoted(name)}")
        if name not in self._blocks:
            with _damage(self.header.path):
                self._blocks[name] = _Blocks(self._file, name, self.header.entries[name])
        return self._blocks[name]

    def _array(self, name: str) -> np.ndarray:
        entry = self.header.entries[name]
        if entry.block_rows is None:
            return _read_dataset(self._file, name, entry)
        return self._source(name).whole()


class _Blocks:
    """An array of an open file, read by ranges of blocks that are each checked.

    Where the file has no digests of the array's blocks (they came with version 2; small arrays
    have none), the whole array is read through once, against its own checksum, to make them.
    """

    def __init__(self, file: h5py.File, name: str, entry: Entry) -> None:
        self.name = name
        self.dataset = _checked_dataset(file, name, entry)
        shape, dtype = self.dataset.shape, self.dataset.dtype
        self.length = entry.block_rows or blocks.block_length(shape, dtype)
        self.piece = blocks.piece_length(shape, dtype, self.length)
        if entry.block_rows is None:
            self.digests = self._made(entry)
        else:
            self.digests = _read_dataset(file, digests_of(name), entry.digests)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read and check the rows from `start`, where a block begins, to the end of a block."""
        rows: np.ndarray = self.dataset[start:stop]
        self._check(start, rows)
        return rows

    def whole(self) -> np.ndarray:
        """Read and check the whole array."""
        array = np.empty(self.dataset.shape, self.dataset.dtype)
        self.dataset.read_direct(array)
        self._check(0, array)
        return array

    def _check(self, start: int, rows: np.ndarray) -> None:
        for offset in range(0, len(rows), self.length):
            block = rows[offset : offset + self.length]
            number = (start + offset) // self.length
            if blocks.blake2b(block) != self.digests[number].tobytes():
                raise ValueError(
                    f"the checksum of {quoted(self.name)} does not match in rows {start + offset} to "
                    f"{start + offset + len(block) - 1}"
                )

    def _made(self, entry: Entry) -> UInt8[np.ndarray, "blocks 16"]:
        whole = hashlib.blake2b(digest_size=blocks.DIGEST_BYTES)
        digests = blocks.BlockDigests(self.length)
        for start in range(0, len(self.dataset), self.piece):
            rows = self.dataset[start : start + self.piece]
            whole.update(blocks.as_bytes(rows))
            digests.update(rows)
        if whole.hexdigest() != entry.blake2b:
            raise ValueError(f"the checksum of {quoted(self.name)} does not match")
        return digests.table()


def read_header(path: Path, file_format: str) -> Header:
    """Read and check the attributes and the list of contents; no array is read.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, unfinished, of another format or of a newer version.
    """
    with _opened(path, file_format) as file, _damage(path):
        return _header(path, file)


def read(
    path: Path, file_format: str, wanted: Callable[[str], bool] = lambda _name: True
) -> Content:
    """Read and check the header and the arrays whose name is `wanted`, all by default.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, unfinished, of another format or of a newer version.
    """
    with opened(path, file_format) as file:
        return file.content(wanted)


@contextmanager
def opened(path: Path, file_format: str) -> Iterator[SealedFile]:
    """Open a file to read arrays or parts of them; its header is read and checked once.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, unfinished, of another format or of a newer version.
    """
    with _opened(path, file_format) as file:
        with _damage(path):
            header = _header(path, file)
            _check_tree(file, header)
        yield SealedFile(file, header)


@contextmanager
def _opened(path: Path, file_format: str) -> Iterator[h5py.File]:
    """Open a complete file of this format."""
    _check_signature(path)
    with _damage(path):
        file = h5py.File(path, "r", locking=False)
    try:
        with _damage(path):
            _check_format(path, file, file_format)
        yield file
    finally:
        with _damage(path):
            file.close()


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn any error of h5py and the parsing on damage into a StoreError."""
    try:
        yield
    except DAMAGE as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise damaged(path, f"is damaged ({detail[:160]})") from error


def _check_signature(path: Path) -> None:
    """Refuse a missing, unreadable or foreign file, each with its own message."""
    try:
        with open_regular(path) as file:
            signature = file.read(len(SIGNATURE))
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        if absent and not path.is_symlink():
            raise missing(path) from None
        raise StoreError(
            f"cannot read {path}: {reason(error, path)}; expected a readable HDF5 file: fix its "
            f"permissions, or move what is there elsewhere and run `{maker(path)}` again"
        ) from error
    if signature != SIGNATURE:
        raise damaged(path, "is not an HDF5 file")


def _check_format(path: Path, file: h5py.File, file_format: str) -> None:
    if "format" not in file.attrs:
        raise damaged(path, f"is damaged or foreign: expected format {quoted(file_format)}")
    found = _read_attribute(file, "format")
    if found != file_format:
        raise damaged(path, f"has format {quoted(found)}, expected {quoted(file_format)}")
    version = _read_attribute(file, "format-version")
    if isinstance(version, int) and version > VERSION:
        raise StoreError(
            f"{path} has format-version {version}, this clipnlc reads up to {VERSION}: "
            "update clipnlc"
        )
    if not isinstance(version, int) or version < 1:
        expected = f"expected 1 to {VERSION}"
        raise damaged(path, f"has format-version {quoted(version)}, {expected}")
    if "complete" not in file.attrs or _read_attribute(file, "complete") != 1:
        raise damaged(path, "was never completed")


def _header(path: Path, file: h5py.File) -> Header:
    root = {name: _read_attribute(file, name) for name in file.attrs}
    digest = root["digest"]
    if digest != content_digest({n: v for n, v in root.items() if n not in UNSEALED}):
        raise ValueError("the checksum of the root attributes does not match")
    contents = json.loads(str(root["contents"]))
    entries = {name: _entry(e) for name, e in as_mapping(contents["arrays"]).items()}
    attributes = {"": root}
    for group, checksum in as_mapping(contents["groups"]).items():
        node = _member(file, group)
        attributes[group] = {name: _read_attribute(node, name) for name in node.attrs}
        if checksum != content_digest(attributes[group]):
            raise ValueError(f"the checksum of the attributes of {quoted(group)} does not match")
    check_place(path, attributes)
    return Header(path, attributes, entries, str(digest))


def _entry(listed: Mapping[str, Any]) -> Entry:
    """Take one entry of the list of contents."""
    shape = tuple(map(int, listed["shape"]))
    block_rows = int(listed["block_rows"]) if "block_rows" in listed else None
    if block_rows is not None and (block_rows < 1 or not shape):
        raise ValueError(f"blocks of {block_rows} rows of an array of shape {shape}")
    return Entry(str(listed["dtype"]), shape, str(listed["blake2b"]), block_rows)


def _read_attribute(node: h5py.Group, name: str) -> Attribute:
    """Read a scalar attribute; strings of variable length and arrays are refused unread."""
    attribute = h5py.h5a.open(node.id, name.encode())
    dtype = attribute.dtype
    plain = dtype.kind in "ifS" and dtype.itemsize <= LONGEST_ATTRIBUTE
    if not plain or attribute.shape != ():
        raise ValueError(f"attribute {quoted(name)} is not one plain value")
    value = np.empty((), dtype)
    attribute.read(value)
    if dtype.kind == "S":
        return bytes(value.item()).decode()
    return int(value) if dtype.kind == "i" else float(value)


def _check_tree(file: h5py.File, header: Header) -> None:
    """Check that the file holds what its contents list and nothing else."""
    with_blocks = [name for name, entry in header.entries.items() if entry.block_rows is not None]
    arrays = {*header.entries, *map(digests_of, with_blocks)}
    listed = {*arrays, *header.attributes}
    groups = {"/".join(name.split("/")[:n]) for name in listed for n in range(name.count("/") + 1)}

    def walk(node: h5py.Group, prefix: str) -> Iterator[str]:
        for member in node:
            name = f"{prefix}{member}"
            if name not in listed | groups:
                raise ValueError(f"it holds {quoted(name)}, which its contents do not list")
            if name in arrays:
                yield name
            else:
                yield from walk(_member(node, member), f"{name}/")

    absent = arrays - set(walk(file, ""))
    if absent:
        raise ValueError(f"{min(absent)!r} is missing")


def _member(node: h5py.Group, name: str) -> Any:  # noqa: ANN401  (h5py is untyped)
    """Return an object below `node` by hard links alone, so that nothing leads elsewhere."""
    for part in name.split("/"):
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{quoted(name)} is a link")  # noqa: TRY004  (the file's fault)
        node = node[part]
    return node


def _checked_dataset(file: h5py.File, name: str, entry: Entry) -> h5py.Dataset:
    """Return a data set that lies plainly in this file and is what its contents list."""
    dataset = _member(file, name)
    properties = dataset.id.get_create_plist()
    contiguous = properties.get_layout() == h5py.h5d.CONTIGUOUS
    if not contiguous or properties.get_external_count() or properties.get_nfilters():
        raise ValueError(f"{quoted(name)} is not stored contiguously in this file")
    if dataset.dtype.kind not in PLAIN:
        raise ValueError(f"{quoted(name)} is of type {dataset.dtype}")
    if (dataset.dtype.str, dataset.shape) != (entry.dtype, entry.shape):
        raise ValueError(f"{quoted(name)} has another type or shape than its contents list")
    if math.prod(entry.shape) * dataset.dtype.itemsize > dataset.file.id.get_filesize():
        raise ValueError(f"{quoted(name)} is longer than the file")
    return dataset


def _read_dataset(file: h5py.File, name: str, entry: Entry) -> np.ndarray:
    dataset = _checked_dataset(file, name, entry)
    array = np.empty(entry.shape, dataset.dtype)
    if array.size:
        dataset.read_direct(array)
    if blocks.blake2b(array).hex() != entry.blake2b:
        raise ValueError(f"the checksum of {quoted(name)} does not match")
    return array
