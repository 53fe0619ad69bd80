"""Files and folders that are complete or absent: written under another name, synced, renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write under; the file there becomes `path` at the end.

    It is `<name>.<pid>.partial`, so that two processes never share one. It is synced, renamed, and
    the folder synced; after any failure it is removed and `path` is what it was.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _sync(partial, os.O_RDWR)
        partial.replace(path)
        _sync(path.parent, os.O_RDONLY)
    finally:
        with suppress(OSError):  # usually it is gone: it has become `path`
            partial.unlink()


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
