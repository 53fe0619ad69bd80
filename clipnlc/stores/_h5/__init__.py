"""The only package that imports h5py: sealed writing, strict reading, checksums.

A file is a tree of plain arrays, of strings at fixed length in UTF-8, and of scalar attributes.
Its root attribute `contents` lists every array with type, shape and checksum and every group's
attributes with a checksum; `digest` names all root attributes together. So a header is checked
by reading the root alone, and each array is checked when it is read. A large matrix is checked in
blocks of rows: their digests are stored as `blocks/<array>`, and the matrix' checksum is that of
its digests. So a few rows are read, and checked, without the rest.

Arrays are contiguous and unfiltered, which is the fastest layout and leaves no way to a virtual
data set, an external file or a plug-in. Nothing in a file depends on when, in which order or in
how many pieces it was written: same content, same bytes.
"""

from clipnlc.stores._h5.contents import (
    VERSION,
    WRITTEN,
    Attribute,
    Content,
    Dataset,
    Entry,
    Header,
    Rows,
    damaged,
    missing,
)
from clipnlc.stores._h5.reading import SealedFile, opened, read, read_header
from clipnlc.stores._h5.writing import write_sealed

__all__ = [
    "VERSION",
    "WRITTEN",
    "Attribute",
    "Content",
    "Dataset",
    "Entry",
    "Header",
    "Rows",
    "SealedFile",
    "damaged",
    "missing",
    "opened",
    "read",
    "read_header",
    "write_sealed",
]
