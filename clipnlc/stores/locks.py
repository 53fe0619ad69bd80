"""Two writers of one file are kept apart; a writer that died holds nothing."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from clipnlc.errors import StoreError
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.layout import shards_of

LOCKS = ".locks"  # one hidden directory beside the files it guards

_PATIENCE: Final = 0.5
"""Seconds to wait for a lock: a writer of some rows holds the whole file's for a moment."""


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
        start, stop = map(int, lock.stem.removeprefix(f"{path.name}.").split("-"))
        if rows is None or (start < rows[1] and rows[0] < stop):
            with _held(path, lock.stem):
                pass


@contextmanager
def _held(path: Path, name: str) -> Iterator[None]:
    directory = path.parent / LOCKS
    lock, holder = directory / f"{name}.lock", directory / f"{name}.pid"
    with disk_errors(path):
        directory.mkdir(parents=True, exist_ok=True)
        guard = FileLock(lock)
        try:
            guard.acquire(timeout=_PATIENCE)
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


def remove_leftovers(path: Path) -> None:
    """Remove the `.partial` files that killed writers of `path` and its shards left behind."""
    for directory, pattern in ((path.parent, f"{path.name}.*.partial"), (shards_of(path), "*")):
        for leftover in directory.glob(pattern):
            if leftover.suffix == ".partial":
                leftover.unlink(missing_ok=True)


def _read(holder: Path) -> str:
    try:
        return holder.read_text() or "unknown"
    except OSError:  # the holder is between its lock and its first line
        return "unknown"
