"""What every store refuses, when it is written and again when it is read.

Each check takes `refuse`, which turns a problem into the error with the right place and what to do.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from clipnlc.errors import StoreError
from clipnlc.wording import quoted

Refuse = Callable[[str], StoreError]
Numbers = Int[np.ndarray, " rows"] | range

BLOCK = 4096  # rows looked at together, which bounds the memory a check takes


def check_lengths(lengths: Mapping[str, int], refuse: Refuse) -> None:
    """Check that all columns have one entry per row.

    Raises:
        StoreError: by `refuse`; two columns differ in length.
    """
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise refuse(f"its columns differ in length ({found})")


def check_finite(
    name: str,
    rows: Float[np.ndarray, "samples _"],
    samples: Sequence[str] | Numbers,
    refuse: Refuse,
) -> None:
    """Check that no row holds NaN or an infinity.

    `samples` has each row's sample_id or, of some rows of a file, their numbers in it.

    Raises:
        StoreError: by `refuse`; names the first such row.
    """
    _check_rows(
        rows,
        lambda b: np.isfinite(b).all(axis=1),
        f"{name} hold NaN or infinity",
        samples,
        refuse,
    )


def check_not_zero(
    name: str,
    rows: Float[np.ndarray, "samples _"],
    samples: Sequence[str] | Numbers,
    refuse: Refuse,
) -> None:
    """Check that no row is zero throughout, which is what a row never written reads as.

    `samples` is as for `check_finite`. Rows of width 0 are not: nothing was to be written.

    Raises:
        StoreError: by `refuse`; names the first such row.
    """
    if rows.shape[1]:
        _check_rows(rows, lambda b: (b != 0).any(axis=1), f"{name} are all zero", samples, refuse)


def check_labels(
    labels: Int[np.ndarray, " samples"],
    sample_id: Sequence[str],
    classes: int,
    refuse: Refuse,
) -> None:
    """Check that every label is the number of a class, in `[0, classes)`.

    Raises:
        StoreError: by `refuse`; names the first row that is out of range.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        row = int(wrong[0])
        raise refuse(
            f"its row {row} ({quoted(sample_id[row])}) has label {labels[row]}, "
            f"but there are {classes} classes, 0 to {classes - 1}"
        )


def check_names(name: str, texts: Sequence[str], refuse: Refuse) -> None:
    """Check that strings are unique and can be stored as UTF-8.

    Raises:
        StoreError: by `refuse`; names the first string that is not.
    """
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        if first.setdefault(text, row) != row:
            raise refuse(f"its {name} {quoted(text)} is repeated, in rows {first[text]} and {row}")
    check_text(name, texts, refuse)


def check_text(name: str, texts: Sequence[str], refuse: Refuse) -> None:
    """Check that strings can be stored as UTF-8.

    Raises:
        StoreError: by `refuse`; names the first string that cannot.
    """
    for row, text in enumerate(texts):
        if "\0" in text or not (text.isascii() or _is_utf8(text)):
            raise refuse(f"its {name} {quoted(text)} in row {row} is not text in UTF-8 without NUL")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _check_rows(
    rows: Float[np.ndarray, "samples _"],
    good: Callable[[np.ndarray], np.ndarray],
    problem: str,
    samples: Sequence[str] | Numbers,
    refuse: Refuse,
) -> None:
    for start in range(0, len(rows), BLOCK):
        wrong = np.flatnonzero(~good(rows[start : start + BLOCK]))
        if wrong.size:
            row = start + int(wrong[0])
            found = samples[row]
            where = f"{row} ({quoted(found)})" if isinstance(found, str) else f"{found}"
            raise refuse(f"its {problem} in row {where}")
