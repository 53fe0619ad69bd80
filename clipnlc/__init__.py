"""clipnlc: the most accuracy out of the CLIP models that already exist.

The Python interface is what is listed in `__all__`; `docs/python.md` shows it. `load` opens an
exported ensemble that predicts images; `ensemble_of`, `fit` and `compare` take own arrays.

The folders are the field's vocabulary; `clipnlc.stages` holds one plain function per subcommand.
Nothing heavy is imported here, so that `clipnlc --help` answers at once.
"""

from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipnlc.api import LoadedEnsemble
    from clipnlc.ensemble import Ensemble
    from clipnlc.errors import ClipnlcError
    from clipnlc.in_memory import (
        Compared,
        Comparison,
        FittedCombiner,
        compare,
        ensemble_of,
        fit,
    )

__all__ = [
    "ClipnlcError",
    "Compared",
    "Comparison",
    "Ensemble",
    "FittedCombiner",
    "LoadedEnsemble",
    "compare",
    "ensemble_of",
    "fit",
    "load",
]

_HOMES = {
    "ClipnlcError": "errors",
    "Ensemble": "ensemble",
    "LoadedEnsemble": "api",
    **dict.fromkeys(
        ("Compared", "Comparison", "FittedCombiner", "compare", "ensemble_of", "fit"), "in_memory"
    ),
}
"""The module of each public name, imported when it is first used."""


def __getattr__(name: str) -> object:
    """Return a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names too."""
    return sorted({*globals(), *__all__})


def load(folder: "str | PathLike[str]") -> "LoadedEnsemble":
    """Load an ensemble from a folder that `clipnlc export` made.

    Raises:
        MissingStageError: there is no such folder.
        StoreError: it is no export, is damaged or altered, or needs another clipnlc.

    >>> from clipnlc.errors import StoreError
    >>> try:
    ...     load("no-such-folder")
    ... except StoreError as error:
    ...     print(str(error).split(";")[0])
    no-such-folder does not exist
    """
    from pathlib import Path

    from clipnlc.api import LoadedEnsemble
    from clipnlc.runs.exported import open_exported

    return LoadedEnsemble(open_exported(Path(folder)))
