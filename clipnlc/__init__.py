"""clipnlc: the most accuracy out of the CLIP models that already exist.

The folders are the field's vocabulary; `clipnlc.stages` holds one plain function per subcommand.
Nothing heavy is imported here, so that `clipnlc --help` answers at once.
"""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipnlc.api import LoadedEnsemble


def load(folder: "str | PathLike[str]") -> "LoadedEnsemble":
    """Load an ensemble from a folder that `clipnlc export` made.

    Raises:
        MissingStageError: there is no such folder.
        StoreError: it is no export, is damaged or altered, or needs another clipnlc.
    """
    from pathlib import Path

    from clipnlc.api import LoadedEnsemble
    from clipnlc.runs.exported import open_exported

    return LoadedEnsemble(open_exported(Path(folder)))
