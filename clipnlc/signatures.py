"""What a file is that is not what was asked for, told by its first bytes, not by its name."""

from typing import Final

_SIGNATURES: Final = (
    (b"version https://git-lfs", "a Git-LFS pointer: fetch the file it stands for (git lfs pull)"),
    (b"PK\x03\x04", "a zip archive (as of .xlsx, .docx, .npz)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"Rar!", "a rar archive: unpack it"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "an RTF document: save it as plain text"),
    (b"PAR1", "a parquet file"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Office document (.xls, .doc)"),
    (b"\xff\xfe\x00\x00", "UTF-32 text: save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text: save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text (as from Windows): save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text (as from Windows): save it as UTF-8"),
)
_PAGES: Final = (
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<body",
    b"<!doctype",
    b"<?xml",
    b"<script",
)
_TAR: Final = slice(257, 262)

HEAD: Final = 512
"""Bytes that `signature` looks at."""


def signature(head: bytes) -> str | None:
    """Name what begins with these bytes; None where nothing is known of it.

    >>> signature(b"<!DOCTYPE html><title>404</title>")
    'an HTML page: the download failed or needs a login'
    >>> signature(b"a photo of a {c}.")
    """
    found = next((what for begin, what in _SIGNATURES if head.startswith(begin)), None)
    if found is not None:
        return found
    if head[_TAR] == b"ustar":
        return "a tar archive: unpack it"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<?xml") and b"<html" not in start:
        return "an XML file"
    if start.startswith(_PAGES):
        return "an HTML page: the download failed or needs a login"
    return None
