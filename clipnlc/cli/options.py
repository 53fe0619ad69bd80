"""Options that several commands share, and how their texts are read."""

from pathlib import Path
from typing import Annotated

import typer

from clipnlc.errors import DataError, MissingStageError, StoreError


def _folder(store: Path) -> Path:
    """Refuse what cannot be a folder before a stage trips over it."""
    nearest = next(path for path in (store, *store.parents) if path.exists())
    if not nearest.is_dir():
        raise StoreError(
            f"--store is {store}, but {nearest} is a file; expected a folder, there or not yet: "
            "choose another --store"
        )
    return store


Store = Annotated[
    Path,
    typer.Option("--store", envvar="CLIPNLC_STORE", help="Folder of the store.", callback=_folder),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value, and nothing else.")]
DatasetsInStore = Annotated[
    str,
    typer.Option(
        "--dataset", "-d", help="Data sets: keys, groups or paths, comma-separated; all if empty."
    ),
]
BackbonesInStore = Annotated[
    str, typer.Option("--backbones", "-b", help="Names or groups; all in the store if empty.")
]
DEFAULT_STORE = Path("clipnlc-store")


def listed(text: str) -> tuple[str, ...]:
    """Split a comma-separated option."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def shots_of(text: str) -> tuple[int, ...]:
    """Read `--shots`."""
    parts = listed(text)
    if not parts or not all(part.isdecimal() and int(part) for part in parts):
        raise DataError(
            f"--shots is {text!r}; give whole numbers of at least 1, as in --shots 1,4,16"
        )
    return tuple(int(part) for part in parts)


def head_of(name: str) -> str:
    """Check `--head`."""
    from clipnlc.heads import HEADS
    from clipnlc.registry import unknown_name

    if name not in HEADS:
        raise unknown_name("head", name, HEADS)
    return name


def keys_of(names: str) -> tuple[str, ...]:
    """Read `--dataset` of a command that reads the store: what its data sets are called there."""
    from clipnlc.datasets import store_keys

    return store_keys(names) if names.strip() else ()


def backbones_of(names: str) -> tuple[str, ...]:
    """Read `--backbones` of a command that reads the store."""
    from clipnlc.backbones import resolve

    return tuple(b.name for b in resolve(names)) if names.strip() else ()


def existing(store: Path) -> Path:
    """Refuse a store that is not there."""
    if not store.is_dir():
        raise MissingStageError(
            f"there is no store at {store}; make one with `clipnlc extract`, or name one with "
            "--store"
        )
    return store
