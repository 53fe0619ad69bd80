"""Arrays that a person gives in memory, checked: logits, probabilities, features, labels, names.

What is wrong is said of the array by its name, so types are checked here and not by annotations.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from clipnlc.datasets.arrays import are_probabilities, logits_of
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError
from clipnlc.wording import quoted

_MATRIX: Final = 2


def checked_logits(name: str, array: np.ndarray, what: str) -> np.ndarray:
    """Return float32 logits `[samples, classes]` of logits or `probabilities`.

    Raises:
        DataError: they are not a matrix of finite numbers, or are not probabilities where those were promised.
    """
    if array.ndim != _MATRIX or array.dtype.kind not in "fiu" or not array.size:
        raise DataError(
            f"{what} of {name} are {array.dtype} {list(array.shape)}; expected numbers "
            "[samples, classes]"
        )
    wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if wrong.size:
        raise DataError(f"row {wrong[0]} of the {what} of {name} holds NaN or infinity")
    if what == "logits":
        return array.astype(np.float32)
    if not are_probabilities(array):
        raise DataError(
            f"{name} does not hold probabilities: some are negative, or a row has another sum than "
            "1; give logits as logits"
        )
    return logits_of(array)


def checked_features(name: str, features: Mapping[str, np.ndarray], samples: int) -> np.ndarray:
    """Return a model's float32 features, of width 0 where it has none.

    Raises:
        DataError: they are not finite, or not `[samples, width]`.
    """
    if name not in features:
        return np.empty((samples, 0), dtype=np.float32)
    array = np.asarray(features[name])
    if array.ndim != _MATRIX or array.dtype.kind != "f" or len(array) != samples:
        raise DataError(
            f"features of {name} are {array.dtype} {list(array.shape)}; expected floats "
            f"[{samples}, width]"
        )
    wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if wrong.size:
        raise DataError(f"row {wrong[0]} of the features of {name} holds NaN or infinity")
    return array.astype(np.float32)


def checked_names(what: str, given: Sequence[str] | None, number: int) -> tuple[str, ...]:
    """Return one unique text for each of so many; their numbers where none are given.

    Raises:
        DataError: there are others than so many, or one is repeated.
    """
    names = tuple(map(str, range(number) if given is None else given))
    if len(names) != number:
        misfit(what, len(names), number)
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if first.setdefault(name, row) != row:
            raise DataError(f"{what} {quoted(name)} is repeated, in rows {first[name]} and {row}")
    return names


def misfit(what: str, found: int, number: int) -> tuple[str, ...]:
    """Refuse names of another number than there are things to name."""
    raise DataError(f"{what} has {found} names for {number}; expected one each")


def checked_labels(labels: np.ndarray, ensemble: Ensemble) -> np.ndarray:
    """Return int64 class numbers, one per row of the ensemble.

    Raises:
        DataError: they are no integers, too many or few, or out of range.
    """
    found = np.asarray(labels)
    _, samples, classes = ensemble.logits.shape
    if found.ndim != 1 or found.dtype.kind not in "iu" or len(found) != samples:
        raise DataError(
            f"labels are {found.dtype} {list(found.shape)}; expected class numbers [{samples}]"
        )
    wrong = np.flatnonzero((found < 0) | (found >= classes))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"row {row} ({quoted(ensemble.sample_id[row])}) has label {found[row]}; expected class "
            f"numbers from 0 to {classes - 1}: leave unlabelled rows out"
        )
    return found.astype(np.int64)
