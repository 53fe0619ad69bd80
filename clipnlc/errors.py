"""Errors that the user can fix.

A message says what was found, where (file, path in the file, row), what was expected, and the
command that fixes it, in one line. `clipnlc.cli` turns every `ClipnlcError` into `error: …` and
exit code 2; any other exception is an internal error and exit code 1. What a message repeats of a
file's content, it repeats by `clipnlc.wording.shown`.
"""


class ClipnlcError(Exception):
    """An error that the user can fix. The message is one line and says how.

    >>> import clipnlc
    >>> try:
    ...     clipnlc.ensemble_of({})
    ... except clipnlc.ClipnlcError as error:
    ...     print(error)
    an ensemble needs the logits or probabilities of at least one model
    """


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


class PluginError(ClipnlcError):
    """Something of another package that cannot be used, or is not installed; names the package."""


class PluginWarning(UserWarning):
    """Something of another package is left out, and the rest works; names the package."""
