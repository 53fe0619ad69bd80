"""Data sets: the embedded nano sets, the published ones of the hub, and anything on disk.

`open_dataset` turns what a user types into a `Dataset`: a key, templates, and splits that open on
demand. Everything on disk goes through one code path, `clipnlc.datasets.source`, for image
folders, parquet, folders saved by `datasets` and webdataset tars; what is on the hub is put on
disk first.

Packages of other people add data sets, too (`clipnlc.datasets.foreign`, `docs/plugins.md`).

To add an embedded data set, add its folder and its key in `clipnlc/datasets/nano`. To add a
published one, add a file to `clipnlc/datasets/hub/registry`.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from clipnlc.datasets import hub, nano
from clipnlc.datasets.dataset import Dataset, LocalDataset
from clipnlc.datasets.division import divided
from clipnlc.datasets.foreign import FOREIGN, open_foreign
from clipnlc.datasets.hub.dataset import PublishedDataset
from clipnlc.datasets.nano.dataset import NanoDataset
from clipnlc.datasets.prompts import templates_of
from clipnlc.errors import DataError
from clipnlc.plugins import GROUP as PLUGINS
from clipnlc.registry import unknown_name

__all__ = (
    "GROUPS",
    "PROMPTS",
    "Dataset",
    "foreign_function",
    "foreign_keys",
    "group",
    "is_path",
    "keys",
    "open_dataset",
    "path_key",
    "resolve",
    "store_keys",
)

GROUPS: Final = ("nano", "all", "ood")
"""The embedded sets, the paper's 21, the shifted ImageNets."""

PROMPTS: Final = ("openai", "clip-benchmark", "simple")
"""Prompt sets of the published data sets; `simple` is the first of OpenAI's, for trial runs."""


def keys() -> tuple[str, ...]:
    """Return every key: nano, the paper's, the shifted ImageNets."""
    return tuple(key for name in GROUPS for key in group(name))


def foreign_keys() -> tuple[str, ...]:
    """Return the keys that other packages add; those that cannot be used are left out with a warning."""
    return tuple(FOREIGN.members(_taken()))


def foreign_function(name: str) -> Callable[[], str | Path]:
    """Return the function of another package that says where a data set lies; it is not called.

    Raises:
        PluginError: it cannot be used.
    """
    found: Callable[[], str | Path] = FOREIGN.load(name, _taken())
    return found


def _taken() -> tuple[str, ...]:
    return (*keys(), *GROUPS, PLUGINS)


def _is_foreign(name: str) -> bool:
    """Return whether another package declares a data set of this name, usable or not."""
    return name not in keys() and name in FOREIGN.declared()


def group(name: str) -> tuple[str, ...]:
    """Return the keys of one of `GROUPS`."""
    return nano.KEYS if name == "nano" else hub.keys(name)


def is_path(name: str) -> bool:
    """Return whether `name` means a place on disk rather than a key.

    A name with a path separator is a path (`./fashion`). Otherwise a known key is a key, even
    where a folder of that name lies in the working directory, and what exists on disk is a path.
    """
    separators = {os.sep, os.altsep or os.sep, "/"}
    if any(s in name for s in separators) or name.startswith("~"):
        return True
    if name in keys() or name in GROUPS or not Path(name).exists():
        return False
    return not _is_foreign(name)


def resolve(names: str) -> tuple[str, ...]:
    """Spell out comma-separated keys, groups (`nano`, `all`, `ood`, `plugins`) and paths, each once.

    A path that holds a comma is recognised when it is the only name.

    Raises:
        UnknownNameError: a name is neither a key, a group nor a path.
        DataError: a name is empty.
    """
    if names.strip() and Path(names).expanduser().exists() and is_path(names):
        return (names,)
    spelled: dict[str, None] = {}
    for name in _listed(names):
        if name in GROUPS:
            spelled.update(dict.fromkeys(group(name)))
        elif name == PLUGINS and FOREIGN.declared():
            spelled.update(dict.fromkeys(foreign_keys()))
        elif name in keys() or is_path(name) or _is_foreign(name):
            spelled[name] = None
        else:
            raise unknown_name(
                "dataset", name, ["a path that exists", *GROUPS, *keys(), *foreign_keys()]
            )
    return tuple(spelled)


def _listed(names: str) -> list[str]:
    """Split a list of names at its commas.

    Raises:
        DataError: a name is empty: it would be the path of the current folder.
    """
    listed = [part.strip() for part in names.split(",")]
    if "" in listed:
        raise DataError(
            f"a name of a data set is empty in {names!r}; give keys, groups or paths (. for the current folder)"
        )
    return listed


def open_dataset(
    name: str,
    *,
    key: str | None = None,
    sources: Mapping[str, Path] | Path | None = None,
    accept_different_data: bool = False,
    prompts: str = "openai",
    test_share: float | None = None,
    labels: Path | None = None,
    classes: tuple[str, ...] = (),
) -> Dataset:
    """Find one data set by its key or path. Nothing is read or downloaded yet.

    Args:
        name: a key, or a path (see `is_path`).
        key: what to call a path in the store (`--name`); by default the folder's own name.
        sources: copies on disk of published data sets, by key; or one folder that holds such
            copies in subfolders named by their keys, where what is not there is got from the hub.
        accept_different_data: let a published data set pass whose rows or classes are not as many
            as they should be.
        prompts: one of `PROMPTS`; only published data sets have more than one.
        test_share: divide a data set without a test split, with so large a share of test.
        labels: of a folder of images, a table of their labels.
        classes: with `labels`, the class names.

    Raises:
        UnknownNameError: there is no such key, and no such path, or no such prompt set.
        DataError: a path does not exist, or cannot name a folder in the store; the share is out of range.
        PluginError: it is of another package, and cannot be used.
    """
    found = _find(name, key, sources, prompts, accept_different_data=accept_different_data)
    if labels is not None or classes:
        found = _labelled(found, labels, classes)
    return divided(found, test_share)


def _labelled(found: Dataset, labels: Path | None, classes: tuple[str, ...]) -> Dataset:
    """Return a folder of images with its labels from a table.

    Raises:
        DataError: it is no folder of images, or there is no table.
    """
    if labels is None:
        raise DataError("--classes goes with --labels FILE; other labels bring their names")
    if not isinstance(found, LocalDataset) or found.path is None or not found.path.is_dir():
        raise DataError(f"--labels is for a folder of images, and {found.key} is none")
    return replace(found, labels=labels.expanduser(), classes=classes)


def _find(
    name: str,
    key: str | None,
    sources: Mapping[str, Path] | Path | None,
    prompts: str,
    *,
    accept_different_data: bool,
) -> Dataset:
    if prompts not in PROMPTS:
        raise unknown_name("prompt set", prompts, PROMPTS)
    copies = _copies(sources)
    if not name.strip():
        _listed(name)
    if is_path(name):
        root = Path(name).expanduser()
        if not root.exists():
            raise DataError(f"{root} does not exist; give an existing path in --dataset")
        return LocalDataset(path_key(root, key), templates_of(root), root)
    if name in nano.KEYS:
        root = nano.dataset_root(name)
        return NanoDataset(name, templates_of(root), root)
    if name not in hub.entries() and _is_foreign(name):
        return open_foreign(name, _taken())
    if name not in hub.entries():
        raise unknown_name("dataset", name, ["a path that exists", *keys(), *foreign_keys()])
    entry = hub.entries()[name]
    return PublishedDataset(
        name, entry.prompts(prompts), entry, copies.get(name), accept_different_data
    )


def _copies(sources: Mapping[str, Path] | Path | None) -> dict[str, Path]:
    """Return the copies on disk by key.

    Raises:
        UnknownNameError: a key is not that of a published data set.
        DataError: a copy does not exist, or a folder holds no copy.
    """
    if isinstance(sources, Path):
        root = sources.expanduser()
        found = {key: root / key for key in hub.entries() if (root / key).exists()}
        if not found:
            raise DataError(
                f"{root} holds no subfolder named like a data set ({', '.join(list(hub.entries())[:3])}, ...); name the folders so, or give one copy with --source KEY=PATH"
            )
        return found
    copies = {key: path.expanduser() for key, path in (sources or {}).items()}
    for key, path in copies.items():
        if key not in hub.entries():
            raise unknown_name("dataset in --source", key, hub.entries())
        if not path.exists():
            raise DataError(f"{path} does not exist; give an existing path in --source {key}=PATH")
    return copies


def store_keys(names: str) -> tuple[str, ...]:
    """Return what the data sets of `--dataset` are called in a store.

    Groups are spelled out and paths become their keys; any other name is taken as it is, since
    `--name` lets a user choose it.

    Raises:
        DataError: a path cannot name a folder in the store, or a name is empty.
    """
    spelled: dict[str, None] = {}
    for name in _listed(names):
        if name in GROUPS:
            spelled.update(dict.fromkeys(group(name)))
        elif name == PLUGINS and FOREIGN.declared():
            spelled.update(dict.fromkeys(foreign_keys()))
        else:
            spelled[path_key(Path(name).expanduser()) if is_path(name) else name] = None
    return tuple(spelled)


def path_key(root: Path, key: str | None = None) -> str:
    """Return the store's name for a path: `key`, or the folder's name with safe characters.

    Two folders of one name share a key; the fingerprints in the store tell them apart.

    Raises:
        DataError: nothing is left of the name, or another data set has it.
    """
    safe = _safe(key or _stem(root))
    if not safe:
        raise DataError(f"{root} gives the data set no usable name; name it with --name")
    if safe in keys() or _is_foreign(safe):
        raise DataError(
            f"{root} would be called {safe!r} in the store, which is another data set's key; name it with --name"
        )
    return safe


def own_key(root: Path) -> str:
    """Return the store's name for a path whatever it is called: `own-cars` for a folder `cars`.

    Raises:
        DataError: nothing is left of the name.
    """
    safe = _safe(_stem(root))
    return path_key(root, f"own-{safe}" if safe in keys() else None)


def _stem(root: Path) -> str:
    resolved = root.resolve()
    return resolved.stem if resolved.is_file() else resolved.name


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name)).strip("-.")
