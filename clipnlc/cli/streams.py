"""Standard input, output and error: open, able to show every character, with errors by name."""

import codecs
import errno
import io
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Final, TextIO

from clipnlc.errors import ClipnlcError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CLOSED: Final = 141
"""Exit code where the reader of standard output is gone: what a shell gives tools in C, 128 + SIGPIPE."""

_SIMILAR: Final = {
    "×": "x", "–": "-", "—": "-", "…": "...", "±": "+-", "→": "->", "≥": ">=", "≤": "<=",
}  # fmt: skip


class OutputError(ClipnlcError):
    """Standard output cannot be written.

    Attributes:
        closed: its reader is gone, as of `clipnlc … | head`.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"cannot write standard output: {error.strerror}; what is in the store stays: send "
            "the output to another place"
        )
        self.closed = error.errno == errno.EPIPE


class _Output(io.FileIO):
    """Standard output: a failure is an `OutputError`, which no other file's can be taken for."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from error


class _Errors(io.FileIO):
    """Standard error: nobody can be told of a failure, and no work should end by one."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def open_all() -> None:
    """Open the standard streams anew; one that is closed is the null device.

    Else the next file that is opened, of the store perhaps, would take its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    codecs.register_error("similar", _similar)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr)


def _text(raw: io.FileIO, before: TextIO | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="similar",
        line_buffering=isinstance(raw, _Errors) or raw.isatty(),
        write_through=getattr(before, "write_through", False),
    )


def _similar(error: UnicodeError) -> tuple[str, int]:
    """Spell characters that an encoding lacks: similar ones, or as JSON escapes them."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return "".join(_SIMILAR.get(one) or _escaped(one) for one in found), error.end


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def json_for(text: str, encoding: str) -> str:
    r"""Return a JSON text that an encoding can show.

    >>> json_for('["café"]', "ascii"), json_for('["café"]', "latin-1")
    ('["caf\\u00e9"]', '["café"]')
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]+", lambda match: _escaped(match[0]), text)
    return text
