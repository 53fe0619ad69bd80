"""The only module that imports h5py: sealed writing, strict reading, checksums.

A file is a tree of plain arrays, of strings at fixed length in UTF-8, and of scalar attributes.
Its root attribute `contents` lists every array with type, shape and checksum and every group's
attributes with a checksum; `digest` names all root attributes together. So a header is checked
by reading the root alone, and each array is checked when it is read.

Arrays are contiguous and unfiltered, which is the fastest layout and leaves no way to a virtual
data set, an external file or a plug-in. Nothing in a file depends on when, in which order or in
how many pieces it was written: same content, same bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from clipnlc.digests import canonical_json, content_digest
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.files import replacing
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.key import Key
from clipnlc.stores.layout import locate

Attribute = str | int | float

VERSION = 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
LONGEST_ATTRIBUTE = 64_000  # bytes; HDF5 keeps an object's attribute within 64 KiB
PLAIN = "fiuS"  # NumPy kinds that may be stored: no objects, hence nothing to unpickle
UNSEALED = ("digest", "complete")  # the two attributes that `digest` does not cover
MAKERS = {
    "clipnlc-features": "clipnlc extract",
    "clipnlc-features-shard": "clipnlc extract",
    "clipnlc-texts": "clipnlc extract",
    "clipnlc-logits": "clipnlc train-heads",
    "clipnlc-combined": "clipnlc train-nlc",
}
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

Scalar = TypeVar("Scalar", str, int, float)


@dataclass(frozen=True)
class Rows:
    """An array that is written block by block and never whole in memory.

    Attributes:
        shape: of the whole array.
        dtype: of the whole array and of each block.
        blocks: consecutive rows, in order; together they fill `shape`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[np.ndarray]


Dataset = np.ndarray | tuple[str, ...] | Rows


@dataclass(frozen=True)
class Entry:
    """What `contents` says of one array: NumPy type string, shape, blake2b of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    blake2b: str


@dataclass(frozen=True)
class Header:
    """A file's checked attributes and list of contents; no array has been read.

    Attributes:
        path: the file.
        attributes: by group; the root is `""`.
        entries: by path in the file.
        digest: names the whole content of the file.
    """

    path: Path
    attributes: Mapping[str, Mapping[str, Attribute]]
    entries: Mapping[str, Entry]
    digest: str

    def attribute(self, name: str, kind: type[Scalar], group: str = "") -> Scalar:
        """Return the attribute `name` of `group`.

        Raises:
            StoreError: it is not there or of another type.
        """
        value = self.attributes.get(group, {}).get(name)
        if not isinstance(value, kind):
            raise damaged(self.path, f"has no attribute {group}@{name} of type {kind.__name__}")
        return value

    def mapping(self, name: str, group: str = "") -> dict[str, Any]:
        """Return the JSON object in the attribute `name` of `group`.

        Raises:
            StoreError: it is not there or no JSON object.
        """
        try:
            value = json.loads(self.attribute(name, str, group))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise damaged(self.path, f"has no JSON object in attribute {group}@{name}")
        return value

    def key(self, group: str = "") -> Key:
        """Return the key of `group`.

        Raises:
            StoreError: it is not there or no key.
        """
        try:
            key = Key.of(self.mapping("key", group))
            digests = _as_mapping(key.fields.get("inputs", {})).values()
        except ValueError:
            raise damaged(self.path, f"has no key in attribute {group}@key") from None
        if not all(isinstance(digest, str) for digest in digests):
            raise damaged(self.path, f"names no digest for an input in attribute {group}@key")
        return key

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Return the shape of the array `name`.

        Raises:
            StoreError: there is none, or it has another number of dimensions.
        """
        entry = self.entries.get(name)
        if entry is None or len(entry.shape) != dimensions:
            raise damaged(self.path, f"has no {dimensions}-dimensional array {name!r}")
        return entry.shape

    def members(self, group: str) -> tuple[str, ...]:
        """Return the names right below `group`, sorted."""
        names = [*self.entries, *self.attributes]
        below = {n.removeprefix(f"{group}/").split("/")[0] for n in names if _is_in(n, group)}
        return tuple(sorted(below))


@dataclass(frozen=True)
class Content:
    """A file's checked header and the arrays that were asked for."""

    header: Header
    arrays: Mapping[str, np.ndarray]

    def array(self, name: str, *dtypes: str, dimensions: int) -> np.ndarray:
        """Return the array `name`, which has one of `dtypes` and this many dimensions.

        Raises:
            StoreError: there is none.
        """
        array = self.arrays.get(name)
        if array is None or array.dtype.str not in dtypes or array.ndim != dimensions:
            expected = f"{dimensions}-dimensional array {name!r} of type {' or '.join(dtypes)}"
            raise damaged(self.header.path, f"has no {expected}")
        return array

    def strings(self, name: str) -> tuple[str, ...]:
        """Return the one-dimensional array of strings `name`.

        Raises:
            StoreError: there is none, or it is not UTF-8.
        """
        array = self.arrays.get(name)
        if array is None or array.dtype.kind != "S" or array.ndim != 1:
            raise damaged(self.header.path, f"has no list of strings {name!r}")
        try:
            return tuple(text.decode() for text in array.tolist())
        except UnicodeDecodeError:
            raise damaged(self.header.path, f"holds {name!r} that is not UTF-8") from None


def damaged(path: Path, problem: str, file_format: str | None = None) -> StoreError:
    """Make the error for a file that cannot be trusted: what, where, and the cure."""
    location = locate(path)
    command = location.command if location else MAKERS.get(file_format or "", "its stage")
    return StoreError(f"{path} {problem}; delete the file and run `{command}` again")


def missing(path: Path, file_format: str) -> MissingStageError:
    """Make the error for a file that its stage has not made yet."""
    location = locate(path)
    command = location.command if location else MAKERS[file_format]
    what = f"no {location}" if location else "no such store"
    return MissingStageError(f"{what}: {path} is not there; run `{command}` first")


# Writing ---------------------------------------------------------------------------------------


def write_sealed(
    path: Path,
    file_format: str,
    *,
    attributes: Mapping[str, Attribute],
    datasets: Mapping[str, Dataset],
    groups: Mapping[str, Mapping[str, Attribute]] | None = None,
) -> str:
    """Write a file under another name, seal it, sync it and move it to `path`.

    A process that dies on the way leaves `path` as it was. Returns the content's digest.

    Raises:
        StoreError: the disk is full or cannot be written.
        ValueError: an attribute is too long, or an array's type has no place in the format.
    """
    root = {**attributes, "format": file_format, "format-version": VERSION}
    with disk_errors(path), replacing(path) as partial, partial.open("wb+", buffering=0) as raw:
        sink = _Sink(raw)
        with h5py.File(sink, "w") as file:
            root["contents"] = _write_tree(file, sink, datasets, groups or {})
            digest = content_digest(root)
            for name in sorted(root):
                _write_attribute(file, name, root[name])
            _write_attribute(file, "digest", digest)
            _write_attribute(file, "complete", 1)
        sink.check()
    return digest


class _Sink:
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
    sink: _Sink,
    datasets: Mapping[str, Dataset],
    groups: Mapping[str, Mapping[str, Attribute]],
) -> str:
    """Write arrays and groups in sorted order; return the text of `contents`."""
    entries = {}
    for name in sorted(datasets):
        dtype, shape, digest = _write_dataset(file, sink, name, datasets[name])
        entries[name] = {"dtype": dtype, "shape": shape, "blake2b": digest}
    for group in sorted(groups):
        node = file.require_group(group)
        for name in sorted(groups[group]):
            _write_attribute(node, name, groups[group][name])
    digests = {group: content_digest(groups[group]) for group in groups}
    return canonical_json({"arrays": entries, "groups": digests})


def _write_dataset(
    file: h5py.File, sink: _Sink, name: str, data: Dataset
) -> tuple[str, tuple[int, ...], str]:
    if isinstance(data, tuple):
        data = _encoded(data)
    shape = data.shape
    dtype = data.dtype.newbyteorder("<")
    if dtype.kind not in PLAIN:
        raise ValueError(f"{name!r} is of type {dtype}; expected numbers or strings")
    stored = h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype
    target = file.create_dataset(name, shape, dtype=stored, track_times=False)
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(data, Rows):
        start = 0
        for block in data.blocks:
            plain = np.ascontiguousarray(block, dtype)
            target[start : start + len(plain)] = plain
            digest.update(_bytes(plain))
            sink.check()
            start += len(plain)
        assert start == shape[0], "the blocks fill the array"
    else:
        plain = np.asarray(data, stored, order="C")
        target[...] = plain
        digest.update(_bytes(plain))
    return dtype.str, shape, digest.hexdigest()


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


def _bytes(array: np.ndarray) -> memoryview:
    """View a contiguous array as its bytes."""
    return array.reshape(-1).view(np.uint8).data


# Reading ---------------------------------------------------------------------------------------


def read_header(path: Path, file_format: str) -> Header:
    """Read and check the attributes and the list of contents; no array is read.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, unfinished, of another format or of a newer version.
    """
    with _opened(path, file_format) as file:
        return _header(path, file)


def read(
    path: Path, file_format: str, wanted: Callable[[str], bool] = lambda _name: True
) -> Content:
    """Read and check the header and the arrays whose name is `wanted`, all by default.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, unfinished, of another format or of a newer version.
    """
    with _opened(path, file_format) as file:
        header = _header(path, file)
        _check_tree(file, header)
        arrays = {
            name: _read_dataset(file, name, entry)
            for name, entry in header.entries.items()
            if wanted(name)
        }
    return Content(header, arrays)


def read_blocks(path: Path, file_format: str, name: str, rows: int) -> Iterator[np.ndarray]:
    """Read the array `name` at most `rows` rows at a time.

    Its checksum is known to match only when the last block has been followed by the iterator's
    end: what is made of the blocks must not be kept before.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, unfinished, of another format or of a newer version.
    """
    with _opened(path, file_format) as file:
        header = _header(path, file)
        _check_tree(file, header)
        dataset = _checked_dataset(file, name, header.entries[name])
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(dataset), rows):
            block = dataset[start : start + rows]
            digest.update(_bytes(block))
            yield block
        if digest.hexdigest() != header.entries[name].blake2b:
            raise ValueError(f"the checksum of {name!r} does not match")


@contextmanager
def _opened(path: Path, file_format: str) -> Iterator[h5py.File]:
    """Open a complete file of this format; whatever h5py raises on damage is a StoreError."""
    _check_signature(path, file_format)
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_format(path, file, file_format)
            yield file
    except DAMAGE as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise damaged(path, f"is damaged ({detail[:160]})", file_format) from error


def _check_signature(path: Path, file_format: str) -> None:
    """Tell a missing, unreadable or foreign file from a damaged one."""
    try:
        with path.open("rb") as file:
            signature = file.read(len(SIGNATURE))
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path, file_format) from None
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror}; expected a readable file: mend its permissions"
        ) from error
    if signature != SIGNATURE:
        raise damaged(path, "is not an HDF5 file", file_format)


def _check_format(path: Path, file: h5py.File, file_format: str) -> None:
    if "format" not in file.attrs:
        raise damaged(path, f"is damaged or foreign: expected format {file_format!r}", file_format)
    found = _read_attribute(file, "format")
    if found != file_format:
        raise damaged(path, f"has format {found!r}, expected {file_format!r}", file_format)
    version = _read_attribute(file, "format-version")
    if isinstance(version, int) and version > VERSION:
        raise StoreError(
            f"{path} has format-version {version}, this clipnlc reads up to {VERSION}: "
            "update clipnlc"
        )
    if version != VERSION:
        raise damaged(path, f"has format-version {version!r}, expected {VERSION}", file_format)
    if "complete" not in file.attrs or _read_attribute(file, "complete") != 1:
        raise damaged(path, "was never completed", file_format)


def _header(path: Path, file: h5py.File) -> Header:
    root = {name: _read_attribute(file, name) for name in file.attrs}
    digest = root["digest"]
    if digest != content_digest({n: v for n, v in root.items() if n not in UNSEALED}):
        raise ValueError("the checksum of the root attributes does not match")
    contents = json.loads(str(root["contents"]))
    entries = {
        name: Entry(str(e["dtype"]), tuple(map(int, e["shape"])), str(e["blake2b"]))
        for name, e in _as_mapping(contents["arrays"]).items()
    }
    attributes = {"": root}
    for group, checksum in _as_mapping(contents["groups"]).items():
        node = _member(file, group)
        attributes[group] = {name: _read_attribute(node, name) for name in node.attrs}
        if checksum != content_digest(attributes[group]):
            raise ValueError(f"the checksum of the attributes of {group!r} does not match")
    return Header(path, attributes, entries, str(digest))


def _read_attribute(node: h5py.Group, name: str) -> Attribute:
    """Read a scalar attribute; strings of variable length and arrays are refused unread."""
    attribute = h5py.h5a.open(node.id, name.encode())
    dtype = attribute.dtype
    plain = dtype.kind in "ifS" and dtype.itemsize <= LONGEST_ATTRIBUTE
    if not plain or attribute.shape != ():
        raise ValueError(f"attribute {name!r} is not one plain value")
    value = np.empty((), dtype)
    attribute.read(value)
    if dtype.kind == "S":
        return bytes(value.item()).decode()
    return int(value) if dtype.kind == "i" else float(value)


def _check_tree(file: h5py.File, header: Header) -> None:
    """Check that the file holds what its contents list and nothing else."""
    listed = {*header.entries, *header.attributes}
    groups = {"/".join(name.split("/")[:n]) for name in listed for n in range(name.count("/") + 1)}

    def walk(node: h5py.Group, prefix: str) -> Iterator[str]:
        for member in node:
            name = f"{prefix}{member}"
            if name not in listed | groups:
                raise ValueError(f"it holds {name!r}, which its contents do not list")
            if name in header.entries:
                yield name
            else:
                yield from walk(_member(node, member), f"{name}/")

    absent = header.entries.keys() - set(walk(file, ""))
    if absent:
        raise ValueError(f"{min(absent)!r} is missing")


def _member(node: h5py.Group, name: str) -> Any:  # noqa: ANN401  (h5py is untyped)
    """Return an object below `node` by hard links alone, so that nothing leads elsewhere."""
    for part in name.split("/"):
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link")  # noqa: TRY004  (the file's fault)
        node = node[part]
    return node


def _checked_dataset(file: h5py.File, name: str, entry: Entry) -> h5py.Dataset:
    """Return a data set that lies plainly in this file and is what its contents list."""
    dataset = _member(file, name)
    properties = dataset.id.get_create_plist()
    contiguous = properties.get_layout() == h5py.h5d.CONTIGUOUS
    if not contiguous or properties.get_external_count() or properties.get_nfilters():
        raise ValueError(f"{name!r} is not stored contiguously in this file")
    if dataset.dtype.kind not in PLAIN:
        raise ValueError(f"{name!r} is of type {dataset.dtype}")
    if (dataset.dtype.str, dataset.shape) != (entry.dtype, entry.shape):
        raise ValueError(f"{name!r} has another type or shape than its contents list")
    if math.prod(entry.shape) * dataset.dtype.itemsize > dataset.file.id.get_filesize():
        raise ValueError(f"{name!r} is longer than the file")
    return dataset


def _read_dataset(file: h5py.File, name: str, entry: Entry) -> np.ndarray:
    dataset = _checked_dataset(file, name, entry)
    array = np.empty(entry.shape, dataset.dtype)
    if array.size:
        dataset.read_direct(array)
    if hashlib.blake2b(_bytes(array), digest_size=16).hexdigest() != entry.blake2b:
        raise ValueError(f"the checksum of {name!r} does not match")
    return array


def _as_mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004  (the file's fault)
    return value


def _is_in(name: str, group: str) -> bool:
    return name.startswith(f"{group}/")
