"""Errors that the user can fix.

A message says what was found, where (file, path in the file, row), what was expected, and the
command that fixes it, in one line. `clipnlc.cli` turns every `ClipnlcError` into `error: …` and
exit code 2; any other exception is an internal error and exit code 1. What a message repeats of a
file's content, it repeats by `shown`.
"""

_LONGEST = 80


class ClipnlcError(Exception):
    """An error that the user can fix. The message is one line and says how."""


class UnknownNameError(ClipnlcError):
    """A name that no registry, group or path knows."""


class DataError(ClipnlcError):
    """Images, labels or class names that cannot be used as they are."""


class BackboneError(ClipnlcError):
    """Weights or an architecture that cannot be loaded."""


class StoreError(ClipnlcError):
    """A store file that is missing, damaged, foreign, of another version, or does not fit."""


class MissingStageError(StoreError):
    """A stage's input has not been made yet; the message names the command that makes it."""


def printable(text: str) -> str:
    r"""Escape control characters, and bytes that are no Unicode.

    >>> printable(f"a{chr(27)}b") == r"a\x1bb"
    True
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    r"""Spell what was found on one short line, escaped: it may be of any length and content.

    >>> shown("cat"), shown(7), shown("x" * 1000)[-17:], shown("a" + chr(10) + "b") == r"a\nb"
    ('cat', '7', 'x... (1000 chars)', True)
    """
    text = str(value)
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} chars)"
    return printable(cut)
