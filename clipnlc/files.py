"""Files read only where they are regular, and written so that they are complete or absent."""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Final

PARTIAL: Final = ".partial"
"""The end of the name of a file that is being written."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path | str) -> BufferedReader:
    """Open a regular file, or a link to one, for reading bytes; it never waits.

    Raises:
        OSError: it cannot be opened, or is a folder, a named pipe, a socket or a device; `strerror`
            says which, without the file's name.
    """
    return open(_open(path), "rb")


def read_regular(path: Path | str, *, at_most: int) -> bytes:
    """Read a regular file, or a link to one, into memory; it never waits.

    Args:
        path: the file.
        at_most: bytes; a larger file is refused before it is read.

    Raises:
        OSError: it cannot be read, is too large, or is a folder, a named pipe, a socket or a
            device; `strerror` says which, without the file's name.
    """
    descriptor = _open(path)
    try:
        size = os.fstat(descriptor).st_size
        if size > at_most:
            problem = f"too large: {size:,} bytes, where at most {at_most:,} are read"
            raise OSError(errno.EFBIG, problem, str(path))
        data = os.read(
            descriptor, size
        )  # a third faster than a file object, and there are millions
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data
    finally:
        os.close(descriptor)


def reason(error: OSError, path: Path) -> str:
    """Say why a file cannot be read or written; a link to nowhere is one, whatever is lacking."""
    lost = isinstance(error, FileNotFoundError) and path.is_symlink()
    return "a link to nowhere" if lost else error.strerror or "unknown error"


def _open(path: Path | str) -> int:
    """Open a regular file without waiting for the other end of a named pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Looked at before it is opened: that alone makes some devices act.
        _check_regular(os.stat(path), path)  # noqa: PTH116  (half the time of Path's)
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL, or what the file system's encoding lacks
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    try:
        _check_regular(os.fstat(descriptor), path)  # it may have been replaced meanwhile
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(facts: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(facts.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write under; the file there becomes `path` at the end.

    It is `<name>.<pid>.partial`, so that two processes never share one. It is synced, renamed, and
    the folder synced; after any failure it is removed and `path` is what it was. What writers of
    `path` that were killed have left is removed first.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.iterdir():
        if left.name.startswith(f"{path.name}.") and left.suffix == PARTIAL:
            remove_left(left)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    held = _held(partial)
    try:
        yield partial
        _sync(partial, os.O_RDWR)
        partial.replace(path)
        _sync(path.parent, os.O_RDONLY)
    finally:
        with suppress(OSError):  # usually it is gone: it has become `path`
            partial.unlink()
        os.close(held)


def remove_left(partial: Path) -> bool:
    """Remove a `.partial` file if the process that wrote it has ended; return whether it was.

    A writer holds a lock on its file, which the operating system lets go of when it dies.
    """
    with suppress(OSError):
        descriptor = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
                return True
        finally:
            os.close(descriptor)
    return False


def _held(partial: Path) -> int:
    """Make a new file and lock it; return its descriptor."""
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # not every file system has locks: then none is ever removed
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            if partial.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # removed between the two lines, as one that was left


def write_whole(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, to `path`: all of it or, after a failure, nothing.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as partial:
        partial.write_bytes(data)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path` to write into; it becomes `path` at the end.

    Files in it are to be written by `write_whole`. A folder that was at `path` is removed, with all
    that is in it, once the new one is in its place; after any failure `path` is what it was.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path = path.absolute()  # `.` has no name to put another beside
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    before = path.with_name(f".{path.name}.{os.getpid()}.replaced")
    partial.mkdir()
    try:
        yield partial
        there = path.exists()
        if there:
            path.rename(before)
        try:
            partial.rename(path)
        except OSError:
            if there:
                before.rename(path)
            raise
        _sync(path.parent, os.O_RDONLY)
        if there:
            shutil.rmtree(before)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # usually it is gone: it has become `path`


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
