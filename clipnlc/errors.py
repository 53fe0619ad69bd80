"""What the user can mend, as exceptions.

A message says what was found, where (file, path in the file, row), what was expected, and the
command that mends it, in one line. `clipnlc.cli` turns every `ClipnlcError` into `error: …` and
exit code 2; any other exception is a failure of ours and exit code 1.
"""


class ClipnlcError(Exception):
    """Something the user can mend. The message is one line and names the cure."""


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
