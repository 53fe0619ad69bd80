"""What a sealed file holds: its list of contents, its attributes, and errors about them."""

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from clipnlc.digests import read_exactly
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores._h5.blocks import DIGEST_BYTES
from clipnlc.stores.key import Key, check_fields
from clipnlc.stores.layout import locate, maker, maker_of_test, without_import
from clipnlc.wording import quoted

Attribute = str | int | float

WRITTEN = 2  # by default; a file that this version cannot say has `VERSION`
VERSION = 3  # the newest; every version from 1 on is read
LONGEST_ATTRIBUTE = 64_000  # bytes; HDF5 keeps an object's attribute within 64 KiB
PLAIN = "fiuS"  # NumPy kinds that may be stored: no objects, hence nothing to unpickle
DIGESTS = "blocks"  # the group of the digests of blocks, each array under its array's name

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
    """What `contents` says of one array.

    Attributes:
        dtype: NumPy's type string.
        shape: of the whole array.
        blake2b: of the array's bytes or, with `block_rows`, of its blocks' digests.
        block_rows: rows per block, where the digests of its blocks are stored; else None.
    """

    dtype: str
    shape: tuple[int, ...]
    blake2b: str
    block_rows: int | None = None

    @property
    def digests(self) -> "Entry":
        """The entry of the array of its blocks' digests, which follows from this one."""
        assert self.block_rows is not None, "the digests of its blocks are stored"
        blocks = -(-self.shape[0] // self.block_rows)
        return Entry("|u1", (blocks, DIGEST_BYTES), self.blake2b)


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
            value = read_exactly(self.attribute(name, str, group))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise damaged(self.path, f"has no JSON object in attribute {group}@{name}")
        return value

    def key(self, group: str = "") -> Key:
        """Return the key of `group`.

        Raises:
            StoreError: it is not there or no key.
        """
        fields = self.mapping("key", group)
        try:
            check_fields(fields)
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, f"has no key in attribute {group}@key: {error}") from None
        return Key.of(fields)

    def shape(self, name: str, dimensions: int, *dtypes: str) -> tuple[int, ...]:
        """Return the shape of the array `name`, which has one of `dtypes` where some are given.

        Raises:
            StoreError: it is missing, or has another number of dimensions or another type.
        """
        entry = self.entries.get(name)
        wrong = entry is None or len(entry.shape) != dimensions
        if entry is None or wrong or (dtypes and entry.dtype not in dtypes):
            of_type = f" of type {' or '.join(dtypes)}" if dtypes else ""
            raise damaged(
                self.path, f"has no {dimensions}-dimensional array {quoted(name)}{of_type}"
            )
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
            StoreError: it is missing.
        """
        array = self.arrays.get(name)
        if array is None or array.dtype.str not in dtypes or array.ndim != dimensions:
            expected = (
                f"{dimensions}-dimensional array {quoted(name)} of type {' or '.join(dtypes)}"
            )
            raise damaged(self.header.path, f"has no {expected}")
        return array

    def strings(self, name: str) -> tuple[str, ...]:
        """Return the one-dimensional array of strings `name`.

        Raises:
            StoreError: it is missing, or is not UTF-8.
        """
        array = self.arrays.get(name)
        if array is None or array.dtype.kind != "S" or array.ndim != 1:
            raise damaged(self.header.path, f"has no list of strings {quoted(name)}")
        try:
            return tuple(text.decode() for text in array.tolist())
        except UnicodeDecodeError:
            raise damaged(self.header.path, f"holds {quoted(name)} that is not UTF-8") from None


def damaged(path: Path, problem: str) -> StoreError:
    """Make the error for a file that cannot be trusted: what, where, and how to fix it."""
    return StoreError(f"{path} {problem}; delete the file and run `{maker(path)}` again")


def missing(path: Path) -> MissingStageError:
    """Make the error for a file that its stage has not made yet."""
    location = locate(path)
    what = f"no {location}" if location else "no such store"
    cure = f"run `{maker(path)}` first"
    if location and location.is_imported:
        split = f"the rows of {location.split}" if location.split else "its logits"
        cure = f"import {split} too, {without_import(location)}"
    elif location and location.kind == "features" and location.split == "test":
        others = path.parent.parent.glob(f"*/{glob.escape(path.name)}")
        if any(others):  # all there is was extracted, or only some splits
            test = maker_of_test(location.store, location.dataset, location.backbone or "")
            cure = f"run {test}"
    return MissingStageError(f"{what}: {path} is not there; {cure}")


def digests_of(name: str) -> str:
    """Return where the digests of the blocks of the array `name` are stored."""
    return f"{DIGESTS}/{name}"


def as_mapping(value: object) -> dict[str, Any]:
    """Return a JSON object as it is.

    Raises:
        ValueError: it is another kind of JSON.
    """
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004  (the file's fault)
    return value


def _is_in(name: str, group: str) -> bool:
    return name.startswith(f"{group}/")
