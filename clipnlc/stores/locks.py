"""Two writers of one file are kept apart; a writer that died holds nothing."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from clipnlc.errors import StoreError
from clipnlc.files import PARTIAL, read_regular, remove_left
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.layout import shards_of

LOCKS = ".locks"  # one hidden directory beside the files it guards

_PATIENCE: Final = 0.5
"""Seconds to wait for a lock: a writer of some rows holds the whole file's for a moment."""

_LONGEST_PID: Final = 20
_SPAN: Final = re.compile(r"(\d+)-(\d+)")


class InUseError(StoreError):
    """Another process is writing the file, or rows of it."""


@contextmanager
def writing(path: Path, rows: tuple[int, int] | None = None) -> Iterator[None]:
    """Hold the right to write `path` and its shards; readers need no lock.

    The operating system lets go of the lock when its process dies. The empty lock file stays,
    since removing it would let two processes lock two files of one name; what a killed writer
    left half-written is removed.

    Args:
        path: the file.
        rows: hold only the right to write the shards of this range, beside writers of others.

    Raises:
        InUseError: another process (or another place in this one) is writing `path`, or some of
            these rows.
        StoreError: the disk is full or cannot be written.
    """
    if rows is None:
        with _held(path, path.name):
            _refuse_beside(path, None)
            with disk_errors(path):
                remove_leftovers(path)
            yield
        return
    with ExitStack() as stack:
        with _held(path, path.name):  # no range is taken while ranges are compared
            _refuse_beside(path, rows)
            stack.enter_context(_held(path, f"{path.name}.{rows[0]}-{rows[1]}"))
        yield


def _refuse_beside(path: Path, rows: tuple[int, int] | None) -> None:
    """Check that no other process writes any of these rows: shards that overlap could not be merged."""
    for lock in (path.parent / LOCKS).glob(f"{path.name}.*-*.lock"):
        span = _SPAN.fullmatch(lock.stem.removeprefix(f"{path.name}."))
        if span is None:  # another file's, or none of ours
            continue
        start, stop = map(int, span.groups())
        if rows is None or (start < rows[1] and rows[0] < stop):
            with _held(path, lock.stem):
                pass


@contextmanager
def _held(path: Path, name: str) -> Iterator[None]:
    directory = path.parent / LOCKS
    lock, holder = directory / f"{name}.lock", directory / f"{name}.pid"
    with disk_errors(path):
        directory.mkdir(parents=True, exist_ok=True)
        for file in (lock, holder):
            _refuse_odd(file)
        guard = FileLock(lock)
        try:
            guard.acquire(timeout=_PATIENCE)
        except NotImplementedError:
            raise StoreError(
                f"cannot write {path}: its disk does not support locks (flock); choose another "
                "--store"
            ) from None
        except Timeout:
            pid = _read(holder)
            raise InUseError(
                f"another clipnlc is writing {path}; wait for it or stop it (pid {pid})"
            ) from None
    try:
        with disk_errors(path):
            holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        guard.release()


def _refuse_odd(file: Path) -> None:
    """Check that nothing but a regular file has the name of a lock; a link is not followed."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(file.lstat().st_mode):
            raise StoreError(
                f"{file} is a link, a folder, a named pipe or a device, expected a lock of "
                "clipnlc's, which is a small file: delete it"
            )


def remove_leftovers(path: Path) -> None:
    """Remove the `.partial` files that killed writers of `path` and its shards left behind."""
    for directory, pattern in ((path.parent, f"{path.name}.*.partial"), (shards_of(path), "*")):
        for leftover in directory.glob(pattern):
            if leftover.suffix == PARTIAL:
                remove_left(leftover)


def _read(holder: Path) -> str:
    with suppress(OSError):  # the holder is between its lock and its first line
        pid = read_regular(holder, at_most=_LONGEST_PID)
        if pid.isdigit():
            return pid.decode()
    return "unknown"
