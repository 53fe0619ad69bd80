"""L2-regularised logistic regression on top of given logits, its strength by cross-validation."""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import cross_entropy
from clipnlc.labels import ranks
from clipnlc.logistic import DOUBLE_ROWS, fit_kernel, fit_primal

STRENGTHS: Final = tuple(10 ** (half / 2) for half in range(-4, 5))
"""0.01 to 100: what a strength is chosen among, as scikit-learn's `C`."""

WITHOUT_FOLDS: Final = 1.0
"""The strength where no class has two labels, so that none can be held out; scikit-learn's default
`C`. Our reading."""

JUDGED_ROWS: Final = 8192
"""Rows that the strength is chosen on at most, drawn from the classes in turn."""

_EXACT_ROWS: Final = 20_000
"""Rows up to which the dual form is solved, whose cost does not depend on the width."""

_ENOUGH: Final = 1e-6
"""Nats per row that a fit by which a strength is judged may be above its minimum."""

Offset = Callable[[Int[np.ndarray, " kept"]], Float[np.ndarray, "samples classes"]]
"""Given the rows that may be learnt from, the fixed logits of all rows."""


def fit_regression(
    inputs: Float[np.ndarray, "samples width"],
    labels: Int[np.ndarray, " samples"],
    offset: Offset,
    *,
    strength: float,
    classes: Int[np.ndarray, " chosen"],
) -> Float[np.ndarray, "width classes"]:
    """Minimise `strength sum CE(offset + inputs W, labels) + |W|^2 / 2`; return W in float32.

    Args:
        inputs: one row per labelled sample.
        labels: class numbers.
        offset: the fixed logits.
        strength: scikit-learn's `C`: the smaller, the more regular.
        classes: the classes that take part; the others' columns are 0.
    """
    rows = np.arange(len(labels))
    fixed = offset(rows)
    weights = np.zeros((inputs.shape[1], fixed.shape[1]), dtype=np.float32)
    place = np.searchsorted(classes, labels)
    sigma = math.sqrt(strength)
    if len(labels) <= _EXACT_ROWS:
        gram = _gram(inputs, np.float64 if len(labels) <= DOUBLE_ROWS else np.float32)
        found, copied = None, len(labels) <= JUDGED_ROWS  # more may not fit a second time
        for smaller in (s for s in (1.0, 10.0, 100.0, 1000.0) if s < strength and copied):
            # From a solution that is found fast: far from one, the search takes twice the steps.
            found = fit_kernel(
                gram.copy(),
                fixed[:, classes],
                place,
                sigma=math.sqrt(smaller),
                start=found,
                enough=_ENOUGH,
            )
        found = fit_kernel(gram, fixed[:, classes], place, sigma=sigma, start=found)
        weights[:, classes] = inputs.T.astype(found.dtype) @ found
    else:
        weights[:, classes] = fit_primal(inputs, fixed[:, classes], place, sigma=sigma)
    return weights


def choose_strength(
    inputs: Float[np.ndarray, "samples width"],
    labels: Int[np.ndarray, " samples"],
    offset: Offset,
    *,
    fold: Int[np.ndarray, " samples"],
    every_class: bool,
    strengths: Sequence[float],
) -> float:
    """Choose among strengths by the cross-entropy of held-out labels.

    The search starts at 1 and goes up, or else down, as long as the cross-entropy falls; over the
    strength it has one minimum, but for noise. One matrix of products serves all fits.

    Args:
        inputs: one row per labelled sample.
        labels: class numbers.
        offset: the fixed logits; what they learn is learnt anew for each fold.
        fold: the fold that a row is held out in, -1 where it never is; see `folds`.
        every_class: every class takes part; else those with a row that is learnt from.
        strengths: ascending; 1 is one of them.
    """
    gram = _gram(inputs, np.float32)
    parts = []
    for number in range(fold.max() + 1):
        kept, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        fixed = offset(kept)
        classes = np.arange(fixed.shape[1]) if every_class else np.unique(labels[kept])
        fixed, place = fixed[:, classes], np.searchsorted(classes, labels)
        parts.append((kept, held, fixed, place))

    starts: list[np.ndarray | None] = [None] * len(parts)

    def judged(strength: float) -> float:
        total = 0.0
        for number, (kept, held, fixed, place) in enumerate(parts):
            found = starts[number] = fit_kernel(
                gram[np.ix_(kept, kept)],
                fixed[kept],
                place[kept],
                sigma=math.sqrt(strength),
                start=starts[number],
                enough=_ENOUGH,
            )
            scores = fixed[held] + gram[np.ix_(held, kept)] @ found
            total += cross_entropy(scores, place[held]) * len(held)
        return total

    at = strengths.index(1)
    best = judged(strengths[at])
    for way in (1, -1):
        before = at
        while 0 <= at + way < len(strengths) and (value := judged(strengths[at + way])) < best:
            at, best = at + way, value
        if at != before:
            break
    return strengths[at]


def held_out_strength(
    inputs: Float[np.ndarray, "samples width"],
    labels: Int[np.ndarray, " samples"],
    sample_id: tuple[str, ...],
    offset: Offset,
    *,
    every_class: bool,
    strengths: Sequence[float],
    seed: int,
) -> float:
    """Choose a strength by held-out labels, or `WITHOUT_FOLDS` where none can be held out.

    Args:
        inputs: one row per labelled sample.
        labels: class numbers.
        sample_id: one identifier per row.
        offset: the fixed logits; see `choose_strength`.
        every_class: likewise.
        strengths: likewise.
        seed: of the folds.
    """
    # Of many rows, a fold more changes little and takes long.
    fold = folds(labels, sample_id, most=5 if len(labels) <= DOUBLE_ROWS else 3, seed=seed)
    if fold.max() < 0:
        return WITHOUT_FOLDS
    return choose_strength(
        inputs, labels, offset, fold=fold, every_class=every_class, strengths=strengths
    )


def folds(
    labels: Int[np.ndarray, " samples"], sample_id: tuple[str, ...], *, most: int, seed: int
) -> Int[np.ndarray, " samples"]:
    """Deal each class's rows to stratified folds; a class's only row is never held out (-1).

    There are as many folds as the largest class has rows, at most `most`. A row's place depends on
    its identifier and the seed.

    >>> folds(np.array([0, 0, 1]), ("a", "b", "c"), most=5, seed=0).tolist()[2]
    -1
    """
    found = np.full(len(labels), -1, dtype=np.int64)
    order = np.argsort(ranks(sample_id, draw=f"probe:{seed}"))
    count = min(most, int(np.bincount(labels).max()))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        if len(rows) > 1:
            found[rows] = np.arange(len(rows)) % count
    return found


def _gram(
    inputs: Float[np.ndarray, "samples width"], dtype: type[np.floating]
) -> Float[np.ndarray, "samples samples"]:
    exact = inputs.astype(dtype, copy=False)
    gram: np.ndarray = exact @ exact.T
    return gram


def draw_landmarks(
    labels: Int[np.ndarray, " rows"], count: int, *, seed: int
) -> Int[np.ndarray, " count"]:
    """Draw rows that stand for all, the classes in turn; their numbers, ascending."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn[by_class] = np.arange(len(labels)) - np.repeat(starts, sizes)
    chosen: np.ndarray = np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")[:count]])
    return chosen
