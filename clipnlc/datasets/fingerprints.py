"""Digests of files, with a cache so that unchanged files are hashed once.

The cache is one SQLite file. A row is keyed by the data set's root and the path below it, and is
valid while size, modification time and change time are what they were. The times and the root
never enter a digest: a copy of a data set elsewhere has the same fingerprint. Each row carries a
digest over itself; one that was altered is hashed again.
"""

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jaxtyping import Int64, UInt8

from clipnlc.errors import DataError
from clipnlc.files import open_regular, reason

_COMMIT_EVERY = 1000
_IMAGE_BYTES = 16
_PART = 2**16
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TABLES = (
    ("table", "file_hashes"),
    ("table", "cells"),
    ("table", "hashes"),
    ("index", "sqlite_autoindex_hashes_1"),
)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        digest = hashlib.sha256()
        with open_regular(path) as file:
            while part := file.read(_PART):  # `file_digest` is slower with small files
                digest.update(part)
        return digest.hexdigest()
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
    with _telling(cache):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with _connected(cache) as connection:
            return _hash_with_cache(connection, root, names)


@contextmanager
def _connected(cache: Path) -> Iterator[sqlite3.Connection]:
    """Open a cache that has our tables, if any, and nothing that runs by itself.

    Raises:
        DataError: it is no regular file, or somebody else's database.
        sqlite3.Error: it is no database, or a damaged one.
    """
    for end in ("", "-journal", "-wal", "-shm"):  # which SQLite opens by itself
        file = cache.with_name(f"{cache.name}{end}")
        try:
            open_regular(file).close()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not file.is_symlink():
                continue
            raise DataError(
                f"cannot read the cache of file hashes {file}: {reason(error, file)}; delete it: it "
                "is made anew"
            ) from error
    with closing(_open(cache)) as connection:
        for kind, name in connection.execute("SELECT type, name FROM sqlite_master"):
            if (kind, name) not in _TABLES:
                raise DataError(
                    f"{cache} is no cache of file hashes: it has the {kind} {name!r}; delete it: it "
                    "is made anew"
                )
        yield connection


def _open(cache: Path) -> sqlite3.Connection:
    """Open a cache; one that may not be written as a copy, whose new hashes are not kept."""
    needed = [cache.parent, cache] if cache.exists() else [cache.parent]  # a journal beside it
    if all(os.access(path, os.W_OK) for path in needed):
        return sqlite3.connect(cache, timeout=60.0)
    copy = sqlite3.connect(":memory:")
    if cache.exists():
        place = f"file:{quote(str(cache))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(place, uri=True)) as kept:
            kept.backup(copy)
    return copy


def _hash_with_cache(
    connection: sqlite3.Connection, root: Path, names: Sequence[str]
) -> tuple[str, ...]:
    connection.execute("DROP TABLE IF EXISTS hashes")  # of before its rows had digests
    connection.execute(
        "CREATE TABLE IF NOT EXISTS file_hashes (root TEXT, name TEXT, size INTEGER,"
        " mtime_ns INTEGER, ctime_ns INTEGER, sha256 TEXT, digest TEXT, PRIMARY KEY (root, name))"
        " WITHOUT ROWID"
    )
    place = str(root.resolve())
    known = {
        row[1]: (row, digest)
        for *row, digest in connection.execute(
            "SELECT root, name, size, mtime_ns, ctime_ns, sha256, digest FROM file_hashes"
            " WHERE root = ?",
            (place,),
        )
    }
    digests = []
    for count, name in enumerate(names):
        stamp = _stamp(f"{place}/{name}")
        if name in known:
            row, digest = known[name]
            if row[2:5] == stamp and _is_sound(row, digest):
                digests.append(row[5])
                continue
        digests.append(hash_file(root / name))
        row = [place, name, *stamp, digests[-1]]
        connection.execute(
            "INSERT OR REPLACE INTO file_hashes VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*row, _row_digest(row)),
        )
        if count % _COMMIT_EVERY == 0:  # an interrupted run keeps what it hashed
            connection.commit()
    connection.commit()
    return tuple(digests)


def cached_cells(cache: Path, contents: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return what the cache knows of how images look (`near_duplicates`), by digest of their bytes.

    Raises:
        DataError: the cache is not ours, or damaged.
    """
    if not cache.exists():
        return {}
    wanted = set(contents)
    with _telling(cache), _connected(cache) as connection:
        if not _has_cells(connection):
            return {}
        rows = connection.execute("SELECT content, cells, digest FROM cells")
        return {c: cells for c, cells, d in rows if c in wanted and _cell_digest(c, cells) == d}


def keep_cells(cache: Path, made: Mapping[bytes, bytes]) -> None:
    """Remember how images look.

    Raises:
        DataError: the cache is not ours, damaged, or cannot be written.
    """
    with _telling(cache):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with _connected(cache) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS cells (content BLOB PRIMARY KEY, cells BLOB, digest TEXT)"
                " WITHOUT ROWID"
            )
            connection.executemany(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?)",
                ((content, cells, _cell_digest(content, cells)) for content, cells in made.items()),
            )
            connection.commit()


def _has_cells(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'cells'")
    return found.fetchone() is not None


def _cell_digest(content: object, cells: object) -> str:
    return hashlib.blake2b(f"{content!r} {cells!r}".encode(), digest_size=8).hexdigest()


@contextmanager
def _telling(cache: Path) -> Iterator[None]:
    """Turn what SQLite or the disk refuses into one line."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise DataError(
            f"cannot use the cache of file hashes {cache}: {error}; free space on its disk, or delete it"
        ) from error


def verify_cache(cache: Path) -> str | None:
    """Check every row; return why it cannot be done, None where it was.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with _connected(cache) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            current = "file_hashes" in tables
            if found == "ok" and current:
                rows = connection.execute(
                    "SELECT root, name, size, mtime_ns, ctime_ns, sha256, digest FROM file_hashes"
                )
                bad = next((row[1] for *row, digest in rows if not _is_sound(row, digest)), None)
                found = "ok" if bad is None else f"the row of {bad!r} does not match its digest"
            if found == "ok" and _has_cells(connection):
                rows = connection.execute("SELECT content, cells, digest FROM cells")
                if any(_cell_digest(content, cells) != digest for content, cells, digest in rows):
                    found = "a row of how an image looks does not match its digest"
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise DataError(
            f"{cache} is damaged: {' '.join(found.split())}; delete it: it is made anew"
        )
    return None if current else "its rows carry no digest; it is made anew when needed"


def _is_sound(row: Sequence[object], digest: object) -> bool:
    """Return whether a row says what was written, and has the types of what is written."""
    typed = [type(value) for value in row] == [str, str, int, int, int, str]
    return typed and digest == _row_digest(row) and bool(_SHA256.fullmatch(str(row[5])))


def _row_digest(row: Sequence[object]) -> str:
    """Name root, name, stamp and hash together, in 16 hexadecimal digits."""
    text = "\0".join(map(str, row))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def _stamp(path: str) -> list[int]:
    try:
        stat = os.stat(path)  # half the time of Path's, and there are millions  # noqa: PTH116
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; restore the file or remove it"
        ) from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def digest_image(data: bytes) -> bytes:
    """Return the digest of an encoded image: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(data).digest()[:_IMAGE_BYTES]


def image_digests(hashes: Sequence[str]) -> UInt8[np.ndarray, "files 16"]:
    """Take the digests of image files (`digest_image`) from what `hash_files` gave."""
    short = bytes.fromhex("".join(each[: 2 * _IMAGE_BYTES] for each in hashes))
    return np.frombuffer(short, np.uint8).reshape(len(hashes), _IMAGE_BYTES)


def digest_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of a list of texts, unambiguous about where each ends."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def digest_labels(labels: Int64[np.ndarray, " samples"]) -> str:
    """Return the SHA-256 of labels, the same on machines of either byte order."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
