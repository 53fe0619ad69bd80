"""Two writers of one file are kept apart; a writer that died holds nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clipnlc.errors import StoreError
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.layout import shards_of

LOCKS = ".locks"  # one hidden directory beside the files it guards


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the right to write `path` and its shards; readers need no lock.

    The operating system lets go of the lock when its process dies. The empty lock file stays,
    since removing it would let two processes lock two files of one name; what a killed writer
    left half-written is removed.

    Raises:
        StoreError: another process (or another place in this one) is writing `path`.
    """
    directory = path.parent / LOCKS
    lock, holder = directory / f"{path.name}.lock", directory / f"{path.name}.pid"
    with disk_errors(path):
        directory.mkdir(parents=True, exist_ok=True)
        guard = FileLock(lock)
        try:
            guard.acquire(timeout=0)
        except Timeout:
            pid = _read(holder)
            raise StoreError(
                f"another clipnlc is writing {path}; wait for it or stop it (pid {pid})"
            ) from None
    try:
        with disk_errors(path):
            holder.write_text(str(os.getpid()))
            remove_leftovers(path)
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
