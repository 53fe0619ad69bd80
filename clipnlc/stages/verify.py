"""verify: every file of a store, read and checked, or named as one that cannot be."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from clipnlc.backbones.identity import verify_memory
from clipnlc.commands import command
from clipnlc.datasets.fingerprints import verify_cache
from clipnlc.errors import ClipnlcError, MissingStageError
from clipnlc.runs.records import is_record, verify_record
from clipnlc.stores.layout import Layout, locate
from clipnlc.stores.locks import LOCKS
from clipnlc.stores.verify import verify_file

Check = Callable[[Path], str | None]

CACHES: dict[str, Check] = {
    "backbones.json": verify_memory,
    "file-hashes.sqlite": verify_cache,
}


class Damage(NamedTuple):
    """One file that cannot be trusted.

    Attributes:
        path: the file.
        problem: what is wrong and how to fix it, in one line.
    """

    path: Path
    problem: str


class Unverified(NamedTuple):
    """One file that cannot be verified.

    Attributes:
        path: the file.
        why: in a few words.
    """

    path: Path
    why: str


class Verification(NamedTuple):
    """What was found in a store.

    Attributes:
        files: how many were read and checked, damaged ones included.
        damage: the damaged files, by path.
        unverified: the files that carry nothing to be checked by, by path.
    """

    files: int
    damage: list[Damage]
    unverified: list[Unverified]


def verify(*, store: Path, on_file: Callable[[Path, int, int], None] | None = None) -> Verification:
    """Read every file of a store whole; list the damaged ones and those that cannot be checked.

    Goes on after a damaged file. Locks, which are empty, are passed over.

    Args:
        store: its root.
        on_file: called before each file with its path, its number from 1, and how many there are.

    Raises:
        MissingStageError: there is no store at `store`.
    """
    if not store.is_dir():
        raise MissingStageError(
            f"no store at {store}; make one with `{command('extract --dataset …', store=store)}`, or name one "
            "with --store"
        )
    files = sorted(p for p in _below(store) if p.parent.name != LOCKS and _is_file(store, p))
    damage, unverified = [], []
    for number, path in enumerate(files, start=1):
        if on_file is not None:
            on_file(path, number, len(files))
        try:
            why = _verify_file(store, path)
        except ClipnlcError as error:
            damage.append(Damage(path, str(error)))
        except OSError as error:
            problem = f"cannot read {path}: {error.strerror}; fix the disk or its permissions"
            damage.append(Damage(path, problem))
        else:
            if why is not None:
                unverified.append(Unverified(path, why))
    return Verification(len(files) - len(unverified), damage, unverified)


def _below(store: Path) -> Iterator[Path]:
    """Yield all that lies below; what another process removes meanwhile is passed over."""
    for folder, folders, files in os.walk(store):
        yield from (Path(folder, name) for name in (*folders, *files))


def _is_file(store: Path, path: Path) -> bool:
    """Return whether it is a file, or a link or a folder in the place of one."""
    return path.is_symlink() or not path.is_dir() or _check_of(store, path) is not None


def _verify_file(store: Path, path: Path) -> str | None:
    """Check one file; return why it cannot be done, None where it was.

    Raises:
        ClipnlcError: the file is damaged or does not belong there.
        OSError: it cannot be read.
    """
    check = _check_of(store, path)
    if check is not None:
        return check(path)
    if path.is_symlink() and not path.is_file():
        return "a link that is not followed" if path.exists() else "a link to nowhere"
    if path.suffix == ".partial":
        return "half a file: it is being written, or its writer was killed and it may be deleted"
    return "a picture" if path.suffix == ".png" else "no file of clipnlc's"


def _check_of(store: Path, path: Path) -> Check | None:
    if path.suffix == ".h5" and (path.is_file() or locate(path) is not None):
        return _verify_sealed
    if path.parent == store and path.name in CACHES:
        return CACHES[path.name]
    among_records = path.parent.name == "records" and path.parent.parent.parent == store
    if is_record(path) and (path.parent == store or among_records):
        return partial(verify_record, Layout(store))
    return None


def _verify_sealed(path: Path) -> None:
    verify_file(path)
