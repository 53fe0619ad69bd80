"""Data sets: the embedded nano sets, and anything on disk.

`open_dataset` turns what a user types into a `Dataset`: a key, a folder and templates. Its splits
are opened by `clipnlc.datasets.source`, one code path for image folders, parquet, folders saved by
`datasets` and webdataset tars.

To add an embedded data set, add its folder and its key in `clipnlc/datasets/nano`. To add another
family of keys (a hub registry), give it a module with `KEYS` and `dataset_root(key) -> Path`, where
the root is a folder as above, and add that module's name to `_FAMILIES`: a key is known when a
family has it, and the family's name is a group.
"""

import importlib
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from clipnlc.datasets.prompts import templates_of
from clipnlc.errors import DataError
from clipnlc.registry import unknown_name

_FAMILIES = {"nano": "clipnlc.datasets.nano"}


@dataclass(frozen=True)
class Dataset:
    """A data set that was found.

    Attributes:
        key: its name in the store.
        root: the folder or file to give to `clipnlc.datasets.source.open_split`.
        templates: its own prompt templates, or the default.
    """

    key: str
    root: Path
    templates: tuple[str, ...]


def keys() -> tuple[str, ...]:
    """Return the keys of all families, in their order."""
    return tuple(key for family in _FAMILIES for key in _family(family).KEYS)


def is_path(name: str) -> bool:
    """Tell whether `name` means a place on disk rather than a key.

    A name with a path separator is a path (`./fashion`). Otherwise a known key is a key, even
    where a folder of that name lies in the working directory, and what exists on disk is a path.
    """
    separators = {os.sep, os.altsep or os.sep, "/"}
    if any(s in name for s in separators) or name.startswith("~"):
        return True
    return name not in keys() and name not in (*_FAMILIES, "all") and Path(name).exists()


def resolve(names: str) -> tuple[str, ...]:
    """Spell out comma-separated keys, groups (`nano`, `all`) and paths; no name twice.

    A path that holds a comma is recognised when it is the only name.

    Raises:
        UnknownNameError: a name is neither a key, a group nor a path.
    """
    if Path(names).expanduser().exists() and is_path(names):
        return (names,)
    spelled: dict[str, None] = {}
    for name in (part.strip() for part in names.split(",")):
        if is_path(name):
            spelled[name] = None
        elif name in _FAMILIES:
            spelled.update(dict.fromkeys(_family(name).KEYS))
        elif name == "all":
            spelled.update(dict.fromkeys(keys()))
        elif name in keys():
            spelled[name] = None
        else:
            raise unknown_name("dataset", name, [*keys(), *_FAMILIES, "a path"])
    return tuple(spelled)


def open_dataset(name: str, *, key: str | None = None) -> Dataset:
    """Find one data set by its key or path.

    Args:
        name: a key, or a path (see `is_path`).
        key: what to call a path in the store (`--name`); by default the folder's own name.

    Raises:
        UnknownNameError: there is no such key, and no such path.
        DataError: the key is that of an embedded data set, or cannot name a folder.
    """
    if is_path(name):
        root = Path(name).expanduser()
        if not root.exists():
            raise DataError(f"{root} does not exist; give an existing path in --dataset")
        return Dataset(path_key(root, key), root, templates_of(root))
    for family in _FAMILIES:
        if name in _family(family).KEYS:
            root = _family(family).dataset_root(name)
            return Dataset(name, root, templates_of(root))
    raise unknown_name("dataset", name, [*keys(), "a path"])


def store_keys(names: str) -> tuple[str, ...]:
    """Return what the data sets of `--dataset` are called in a store.

    Groups are spelled out and paths become their keys; any other name is taken as it is, since
    `--name` lets a user choose it.

    Raises:
        DataError: a path cannot name a folder in the store.
    """
    spelled: dict[str, None] = {}
    for name in (part.strip() for part in names.split(",")):
        if name in _FAMILIES:
            spelled.update(dict.fromkeys(_family(name).KEYS))
        elif name == "all":
            spelled.update(dict.fromkeys(keys()))
        else:
            spelled[path_key(Path(name).expanduser()) if is_path(name) else name] = None
    return tuple(spelled)


def path_key(root: Path, key: str | None = None) -> str:
    """Return the store's name for a path: `key`, or the folder's name with safe characters.

    Two folders of one name share a key; the fingerprints in the store tell them apart.

    Raises:
        DataError: nothing is left of the name, or an embedded data set has it.
    """
    resolved = root.resolve()
    found = key or (resolved.stem if resolved.is_file() else resolved.name)
    safe = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", found)).strip("-.")
    if not safe:
        raise DataError(f"{root} gives the data set no usable name; name it with --name")
    if safe in keys():
        raise DataError(
            f"{root} would be called {safe!r} in the store, which is an embedded data set; name it with --name"
        )
    return safe


def _family(name: str) -> ModuleType:
    return importlib.import_module(_FAMILIES[name])
