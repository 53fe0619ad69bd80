"""Turn write errors into messages that say what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipnlc.errors import StoreError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one line that says what to do.

    Raises:
        StoreError: the disk is full, or `path` cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(
                f"no space left on the disk of {path}; everything sealed so far stays: "
                "free some space and run the same command again"
            ) from error
        if error.errno is None:  # HDF5's refusal of what we asked, not the system's
            raise
        raise StoreError(
            f"cannot write {path}: {os.strerror(error.errno)}; "
            "expected a disk that is there and writable: fix it or choose another --store"
        ) from error
