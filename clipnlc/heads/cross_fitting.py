"""Logits of labelled rows, each by a head that was fitted without that row.

A combiner that is fitted on logits of rows that the heads were fitted on learns how well heads
know their own rows. Stacking (Wolpert 1992) and the super learner (van der Laan 2007) therefore use
cross-fitted ones. Which folds: not published for few labels; our reading.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.heads.base import Head
from clipnlc.heads.labelled_rows import LabelledRows
from clipnlc.heads.zero_shot import ZeroShotHead
from clipnlc.labels import dealt_folds

FOLDS: Final = 5


def cross_fitted_logits(
    make: Callable[[], Head], rows: LabelledRows, *, seed: int
) -> Float[np.ndarray, "samples classes"]:
    """Return float32 logits of every row, by a head that has not seen it.

    Args:
        make: makes an unfitted head; all have the same settings.
        rows: what a head of all rows is fitted on. A single row is left to the zero-shot head or,
            without texts, has the same logit for every class.
        seed: of the folds.
    """
    classes = rows.classes if rows.texts is None else len(rows.texts)
    assert classes is not None, "without texts, it has to be told how many classes there are"
    logits = np.zeros((len(rows.labels), classes), dtype=np.float32)
    fold = folds_of(rows.labels, rows.sample_id, single=type(make()).most_folds, seed=seed)
    for number in np.unique(fold):
        held, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if not len(kept) and rows.texts is None:
            continue
        head = make() if len(kept) else ZeroShotHead()
        logits[held] = rows.take(kept).fit(head).logits(rows.features[held])
    return logits


def folds_of(
    labels: Int[np.ndarray, " samples"],
    sample_id: Sequence[str],
    *,
    single: int = FOLDS,
    number: int = 0,
    seed: int = 0,
) -> Int[np.ndarray, " samples"]:
    """Return each row's fold, from 0; neither the order of rows nor that of classes changes it.

    The rows are dealt out class by class. With k of every class and k up to 5 there are k folds,
    with one row of each class in each: a head of the others has as many rows of a row's own class
    as of any other. With one of every class there are at most `single` folds, and else 5. A
    `number` that is given is that of the folds.

    >>> folds_of(np.array([0, 0, 1, 1]), ["a", "b", "c", "d"]).tolist()
    [1, 0, 1, 0]
    """
    sizes = set(np.bincount(labels)[np.unique(labels)].tolist())
    size = sizes.pop() if len(sizes) == 1 else 0
    usual = single if size == 1 else size if 1 < size < FOLDS else FOLDS
    return dealt_folds(labels, sample_id, number or usual, draw=f"folds:{seed}")
