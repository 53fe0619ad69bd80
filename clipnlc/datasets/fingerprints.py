"""Digests of files, with a cache so that unchanged files are hashed once.

The cache is one SQLite file. A row is keyed by the data set's root and the path below it, and is
valid while size, modification time and change time are what they were. The times and the root
never enter a digest: a copy of a data set elsewhere has the same fingerprint.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from clipnlc.errors import DataError

_COMMIT_EVERY = 1000


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; restore the file or remove it"
        ) from error


def hash_files(root: Path, names: Sequence[str], cache: Path | None = None) -> tuple[str, ...]:
    """Hash files below `root`, reading only those that changed since `cache` saw them.

    Args:
        root: the data set's root.
        names: paths relative to it.
        cache: an SQLite file, made when missing; None hashes every file.

    Returns:
        One SHA-256 per name, in order.

    Raises:
        DataError: a file cannot be read, or the cache is not ours.
    """
    if cache is None:
        return tuple(hash_file(root / name) for name in names)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(cache, timeout=60.0)) as connection:
            return _hash_with_cache(connection, root, names)
    except (sqlite3.Error, OSError) as error:
        raise DataError(
            f"cannot use the cache of file hashes {cache}: {error}; free space on its disk, or delete it"
        ) from error


def _hash_with_cache(
    connection: sqlite3.Connection, root: Path, names: Sequence[str]
) -> tuple[str, ...]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS hashes (root TEXT, name TEXT, size INTEGER, mtime_ns INTEGER,"
        " ctime_ns INTEGER, sha256 TEXT, PRIMARY KEY (root, name)) WITHOUT ROWID"
    )
    place = str(root.resolve())
    known = {
        name: (stamp, sha256)
        for name, *stamp, sha256 in connection.execute(
            "SELECT name, size, mtime_ns, ctime_ns, sha256 FROM hashes WHERE root = ?", (place,)
        )
    }
    digests = []
    for count, name in enumerate(names):
        stamp = _stamp(root / name)
        if name in known and known[name][0] == stamp:
            digests.append(known[name][1])
            continue
        digests.append(hash_file(root / name))
        connection.execute(
            "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)",
            (place, name, *stamp, digests[-1]),
        )
        if count % _COMMIT_EVERY == 0:  # an interrupted run keeps what it hashed
            connection.commit()
    connection.commit()
    return tuple(digests)


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; restore the file or remove it"
        ) from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def digest_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of a list of texts, unambiguous about where each ends."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def digest_labels(labels: Int64[np.ndarray, " samples"]) -> str:
    """Return the SHA-256 of labels, the same on machines of either byte order."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
