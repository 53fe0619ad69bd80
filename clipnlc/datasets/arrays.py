"""A person's own arrays as rows of a data set: features, logits, labels, names, checked together.

Which array is what is told by its name (`USUAL`), or by the person (`Names`). Probabilities are
recognised and turned into logits; labels are numbered by class names.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Int64

from clipnlc.datasets.array_labels import Width, class_order, read_labels
from clipnlc.datasets.array_roles import NONE, Arrays, Names, kind_of, row_name
from clipnlc.errors import DataError
from clipnlc.wording import quoted, some

FLOOR: Final = float(np.finfo(np.float32).eps)
"""Probabilities below it are taken for it before their logarithm, as scikit-learn's `log_loss` does
in float32: a random forest gives zeros."""

_SUM_TOLERANCE: Final = 1e-3
_HALF_TOLERANCE: Final = 1e-2  # of a sum of float16


@dataclass(frozen=True)
class ArrayRows:
    """Rows of one split, as a person's file has them.

    Attributes:
        features: float32 or float16, as they are (not normalised); None without any.
        logits: never probabilities; None without any.
        texts: one unit vector per class; None without any.
        logit_scale: factor on the cosines of features and texts, or that the logits were
            multiplied by here; 1 where there is none.
        were_probabilities: whether the logits are logarithms of probabilities, with `FLOOR`.
        labels: class numbers in `[0, classes)`; None without any.
        sample_id: one identifier per row, unique; None without any.
        class_names: one per class, in the order of labels, logits and texts.
        read: what was read: for each role the array's name.
        digest: names the content of all files.
        notes: what was assumed or changed, for the user.
    """

    features: Float[np.ndarray, "samples dim"] | None
    logits: Float32[np.ndarray, "samples classes"] | None
    texts: Float32[np.ndarray, "classes dim"] | None
    logit_scale: float
    were_probabilities: bool
    labels: Int64[np.ndarray, " samples"] | None
    sample_id: tuple[str, ...] | None
    class_names: tuple[str, ...]
    read: Mapping[str, str]
    digest: str
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of rows."""
        found = self.features if self.features is not None else self.logits
        assert found is not None, "there are features or logits"
        return len(found)


def read_rows(
    path: Path,
    split: str,
    *,
    names: Names | None = None,
    logit_scale: float | None = None,
    known: Sequence[str] | None = None,
) -> ArrayRows:
    """Read and check the rows of one split.

    Args:
        path: a file or folder of arrays; see `array_files`.
        split: which one, of a saved `DatasetDict`.
        names: which array is what; by default each is found by its usual name.
        logit_scale: factor on cosines: of features with texts or, without texts, of the logits
            given; by default what the file says, else 1.
        known: the class names of the data set, where it is known; labels, logits and texts are
            put into their order.

    Raises:
        DataError: nothing to read; a row is unlabelled, repeated, not finite, or of no class;
            arrays differ in length; the order of the classes is not known.
    """
    files = Arrays.open(path, split, names or Names())
    notes: list[str] = []
    sample_id = _sample_id(files)
    features = _matrix(files, "features", sample_id)
    logits = _matrix(files, "logits", sample_id)
    texts = _matrix(files, "texts", None)
    if features is None and logits is None:
        raise DataError(
            f"{path} has neither features nor logits by their usual names; it has "
            f"{some(files.main.names, 12)}: name them with --features or --logits"
        )
    if texts is not None and logits is not None:
        raise DataError(
            f"{path} has logits and texts, which give logits too; leave out one with "
            f"--logits {NONE} or --texts {NONE}"
        )
    if texts is not None and (features is None or features.shape[1] != texts.shape[1]):
        beside = "no features" if features is None else f"features of width {features.shape[1]}"
        raise DataError(
            f"{path} has texts of width {texts.shape[1]} and {beside}; expected both of one model"
        )
    scale = _scale(files, logit_scale, logits, texts)
    probable = logits is not None and are_probabilities(logits)
    if logits is not None and probable:
        notes.append(
            f"{quoted(files.names['logits'])} holds probabilities; their logarithms are the logits"
        )
        logits = logits_of(logits)
    elif logits is not None and "prob" in files.names["logits"].casefold():
        raise _no_probabilities(files, logits, sample_id)
    elif logits is not None:
        if np.abs(logits).max(initial=0) <= 1 and logit_scale is None:
            notes.append(
                "every logit lies between -1 and 1, as cosines do; if they are cosines, give "
                "--logit-scale"
            )
        logits = logits.astype(np.float32) * np.float32(scale)
    width = None if logits is None else Width("logits", logits.shape[1])
    width = width if texts is None else Width("texts", len(texts))
    found = read_labels(files, sample_id=sample_id, width=width, known=known)
    labels, class_names = found.labels, found.class_names
    _check_lengths(files, {"features": features, "logits": logits, "labels": labels}, sample_id)
    order = class_order(path, class_names, known)
    if order is not None:
        labels = None if labels is None else np.argsort(order)[labels]
        logits = None if logits is None else np.ascontiguousarray(logits[:, order])
        texts = None if texts is None else texts[order]
    return ArrayRows(
        features=features,
        logits=logits,
        texts=None if texts is None else _unit(texts),
        logit_scale=1.0 if probable else scale,
        were_probabilities=probable,
        labels=labels,
        sample_id=sample_id,
        class_names=tuple(known or class_names),
        read=files.names,
        digest=files.digest,
        notes=(*notes, *found.notes),
    )


def are_probabilities(rows: Float[np.ndarray, "samples classes"]) -> bool:
    """Return whether no number is negative and every row has the sum 1.

    >>> are_probabilities(np.array([[0.25, 0.75], [0.0, 1.0]]))
    True
    >>> are_probabilities(np.array([[0.25, 0.75], [2.0, 1.0]]))
    False
    """
    return bool(len(rows)) and bool(_is_probable(rows).all())


def logits_of(
    probabilities: Float[np.ndarray, "samples classes"],
) -> Float32[np.ndarray, "samples classes"]:
    """Return the logarithms of probabilities, which are at least `FLOOR`; their softmax gives them back.

    >>> [round(float(x), 2) for x in logits_of(np.array([[0.0, 1.0]]))[0]]
    [-15.94, 0.0]
    """
    return np.log(np.maximum(probabilities.astype(np.float64), FLOOR)).astype(np.float32)


def _unit(texts: Float[np.ndarray, "classes dim"]) -> Float32[np.ndarray, "classes dim"]:
    lengths = np.linalg.norm(texts.astype(np.float64), axis=1, keepdims=True)
    unit: Float32[np.ndarray, "classes dim"] = (texts / lengths).astype(np.float32)
    return unit


def _is_probable(rows: np.ndarray) -> np.ndarray:
    tolerance = _HALF_TOLERANCE if rows.dtype == np.float16 else _SUM_TOLERANCE
    sums = rows.sum(axis=1, dtype=np.float64)
    found: np.ndarray = (rows >= 0).all(axis=1) & (np.abs(sums - 1) <= tolerance)
    return found


def _sample_id(files: Arrays) -> tuple[str, ...] | None:
    found = files.read("sample_id")
    if found is None:
        return None
    where = files.where("sample_id")
    if found.ndim != 1 or found.dtype.kind not in "iuO":
        raise DataError(f"{where} holds {kind_of(found)}; expected one text or integer a row")
    ids = tuple("" if cell is None else str(cell) for cell in found.tolist())
    if "" in ids:
        raise DataError(f"row {ids.index('')} of {where} is empty; name every sample")
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row:
            raise DataError(
                f"sample {quoted(name)} is repeated in {where}, in rows {first[name]} and {row}; "
                "keep one of them"
            )
    return ids


def _matrix(
    files: Arrays, role: str, sample_id: Sequence[str] | None
) -> Float[np.ndarray, "rows width"] | None:
    """Return a matrix of finite floats; 64 bits become 32."""
    found = files.read(role)
    if found is None:
        return None
    where, option = files.where(role), f"--{role}"
    if found.ndim != 2 or found.dtype.kind not in "fiu" or not found.size:  # noqa: PLR2004
        raise DataError(
            f"{where} holds {kind_of(found)}; expected numbers [rows, width]: choose another with "
            f"{option}, or leave it out with {option} {NONE}"
        )
    kept = found.dtype if found.dtype in (np.float16, np.float32) else np.dtype(np.float32)
    wide = found if role == "logits" and found.dtype.kind == "f" else found.astype(kept)
    wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{row_name(row, sample_id)} of {where} holds NaN or infinity; expected finite numbers"
        )
    if role != "logits":
        zero = np.flatnonzero((found == 0).all(axis=1))
        if zero.size:
            raise DataError(f"{row_name(int(zero[0]), sample_id)} of {where} is zero throughout")
    return wide


def _scale(
    files: Arrays,
    given: float | None,
    logits: np.ndarray | None,
    texts: np.ndarray | None,
) -> float:
    scale = given
    if scale is None:
        told = files.read("logit_scale")
        if told is None:
            if texts is not None:
                raise DataError(
                    f"{files.main.path} has texts and no logit scale; give --logit-scale, the "
                    "model's factor on cosines (CLIP: 100)"
                )
            return 1.0
        if told.size != 1 or told.dtype.kind not in "fiu":
            raise DataError(
                f"{files.where('logit_scale')} holds {kind_of(told)}; expected one number"
            )
        scale = float(told.ravel()[0])
        if logits is not None and scale != 1:
            raise DataError(
                f"{files.main.path} has logits and a logit scale of {scale:g}; say whether they "
                f"were multiplied by it: --logit-scale 1 if they were, --logit-scale {scale:g} if "
                "they are cosines"
            )
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"the logit scale is {scale:g}; give a positive number")
    return scale


def _no_probabilities(
    files: Arrays, rows: np.ndarray, sample_id: Sequence[str] | None
) -> DataError:
    row = int(np.flatnonzero(~_is_probable(rows))[0])
    total = float(rows[row].sum(dtype=np.float64))
    return DataError(
        f"{row_name(row, sample_id)} of {files.where('logits')} is no row of probabilities: its least "
        f"number is {rows[row].min():g} and its sum {total:g}; name an array of logits with "
        "--logits, or rename this one if it holds logits"
    )


def _check_lengths(
    files: Arrays, arrays: Mapping[str, np.ndarray | None], sample_id: Sequence[str] | None
) -> None:
    lengths = {role: len(array) for role, array in arrays.items() if array is not None}
    if sample_id is not None:
        lengths["sample_id"] = len(sample_id)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{number} of {files.names[role]}" for role, number in lengths.items())
        raise DataError(f"{files.main.path} is misaligned: it has {found}; expected one a row")
