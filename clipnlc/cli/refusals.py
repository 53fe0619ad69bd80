"""How an error becomes one line and an exit code."""

import errno
import re
from collections.abc import Sequence
from typing import Final

import typer

from clipnlc.errors import ClipnlcError
from clipnlc.plugins import culprit
from clipnlc.wording import printable

_OF_THE_MACHINE: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EIO", "ENAMETOOLONG", "ELOOP"),
        *("ENOTDIR", "EISDIR", "EMFILE", "ENFILE", "ENOMEM", "ENXIO", "ESTALE", "EBUSY"),
    )
    if hasattr(errno, name)
)
"""What a disk, a path or a limit refuses; a file that is not there is for the stages to say."""

_LONG: Final = 200
_SHOWN: Final = 60


def refusal(problem: BaseException, words: Sequence[str]) -> tuple[str, int]:
    """Return the line and the exit code of an error.

    Args:
        problem: what was raised.
        words: of the command; a long one is cut where the line repeats it.
    """
    message, code = _message(problem)
    return f"error: {printable(' '.join(_cut(message, words).split()))}", code


def _message(problem: BaseException) -> tuple[str, int]:
    if isinstance(problem, ClipnlcError):
        return str(problem), 2
    if isinstance(problem, typer.TyperException):
        context = getattr(problem, "ctx", None)
        command = context.command_path if context else "clipnlc"
        message = problem.format_message().rstrip().rstrip(".")
        return f"{message[:1].lower()}{message[1:]}; see `{command} --help`", 2
    if isinstance(problem, OSError) and problem.errno in _OF_THE_MACHINE:
        place = f"{problem.filename}: " if problem.filename else ""
        return f"{place}{problem.strerror}; free or choose another place, and run it again", 2
    if isinstance(problem, MemoryError):
        return "out of memory; give the command less at a time, or a machine with more", 2
    foreign = culprit(problem)
    if foreign is not None:
        return (
            f"{foreign} failed: {type(problem).__name__}: {problem}; report it to the authors of "
            f"{foreign.package} with the output of the same command under CLIPNLC_DEBUG=1"
        ), 1
    return (
        f"internal error: {type(problem).__name__}: {problem}; please report it with the output of "
        "the same command under CLIPNLC_DEBUG=1"
    ), 1


def _cut(message: str, words: Sequence[str]) -> str:
    """Cut what repeats an over-long word, or an over-long part of one."""
    for word in words:
        for part in {word, *re.split("[,=:/@]", word)}:
            if len(part) > _LONG:
                message = message.replace(part, f"{part[:_SHOWN]}… ({len(part)} characters)")
    return message
