"""How differently backbones see the same rows.

Pairwise measures return a symmetric `[backbones, backbones]` matrix with nan where the measure is
undefined. Those of errors follow Kuncheva & Whitaker 2003: for a pair, n11 counts the rows that
both get right, n00 those both get wrong, n10 and n01 those only one gets right.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Square = Float[np.ndarray, "backbones backbones"]


class _Counts(NamedTuple):
    """Shares of the rows, `[backbones, backbones]`: both right, only one right, both wrong."""

    n11: Square
    n10: Square
    n01: Square
    n00: Square


def _counts(right: Bool[np.ndarray, "backbones samples"]) -> _Counts:
    hit, miss = right.astype(np.float64), (~right).astype(np.float64)
    n10 = hit @ miss.T
    return _Counts(hit @ hit.T, n10, n10.T, miss @ miss.T)


def _divide(above: Square, below: Square) -> Square:
    """Divide; nan where there is nothing to divide by."""
    quotient = np.full_like(above, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def disagreement(
    predictions: Int[np.ndarray, "backbones samples"],
    labels: Int[np.ndarray, " samples"],  # noqa: ARG001  (the family's signature)
) -> Square:
    """Share of rows for which two backbones predict different classes, in [0, 1]; 0 with itself.

    >>> disagreement(np.array([[0, 1], [0, 2]]), np.array([0, 0])).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    return np.stack([(predictions != one).mean(axis=1, dtype=np.float64) for one in predictions])


def double_fault(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> Square:
    """Share of rows that both get wrong, in [0, 1]; with itself, its error rate. Low is diverse.

    >>> double_fault(np.array([[0, 0], [1, 0]]), np.array([0, 1])).tolist()
    [[0.5, 0.5], [0.5, 1.0]]
    """
    return _counts(predictions == labels).n00 / len(labels)


def error_correlation(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> Square:
    """Pearson correlation (phi) of being right, in [-1, 1]; 1 with itself. Low is diverse.

    nan where one of the two is always right or always wrong.

    >>> error_correlation(np.array([[0, 0], [1, 1]]), np.array([0, 1])).round(6).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    n11, n10, n01, n00 = _counts(predictions == labels)
    spread = np.diagonal(n11) * np.diagonal(n00)
    return _divide(n11 * n00 - n10 * n01, np.sqrt(np.outer(spread, spread)))


def q_statistic(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> Square:
    """Yule's Q, (n11 n00 - n10 n01) / (n11 n00 + n10 n01), in [-1, 1]; low is diverse.

    0 for independent errors, 1 with itself; nan where the divisor is 0.

    >>> q_statistic(np.array([[0, 0], [1, 1]]), np.array([0, 1])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    n11, n10, n01, n00 = _counts(predictions == labels)
    return _divide(n11 * n00 - n10 * n01, n11 * n00 + n10 * n01)


def cohen_kappa(
    predictions: Int[np.ndarray, "backbones samples"],
    labels: Int[np.ndarray, " samples"],  # noqa: ARG001  (the family's signature)
) -> Square:
    """Cohen's kappa of two backbones' predictions, in [-1, 1]; low is diverse.

    Agreement beyond chance (Cohen 1960): 0 at chance, 1 with itself; nan where both always predict
    one and the same class.

    >>> cohen_kappa(np.array([[0, 0, 1, 1], [0, 1, 0, 1]]), np.array([0, 0, 0, 0])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    samples = predictions.shape[1]
    agree = np.stack([(predictions == one).mean(axis=1) for one in predictions])
    length = predictions.max() + 1
    share = np.stack([np.bincount(one, minlength=length) for one in predictions]) / samples
    chance = share @ share.T
    # Both constant and equal is the only case without room above chance; 1 - 1 may round.
    room = np.where(np.isclose(chance, 1, rtol=0, atol=1e-12), 0, 1 - chance)
    return _divide(agree - chance, room)


def error_jaccard(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> Square:
    """Jaccard similarity of two backbones' sets of errors, in [0, 1]; low is diverse.

    Rows both get wrong over rows at least one gets wrong; nan where neither ever errs.

    >>> error_jaccard(np.array([[1, 1], [0, 1]]), np.array([0, 0])).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    _, n10, n01, n00 = _counts(predictions == labels)
    return _divide(n00, n00 + n10 + n01)


def share_right_for_some(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Share of rows that at least one backbone, but not every one, gets right, in [0, 1].

    >>> share_right_for_some(np.array([[0, 0, 0], [0, 1, 0]]), np.array([0, 1, 1])) == 1 / 3
    True
    """
    right = predictions == labels
    return float((right.any(axis=0) & ~right.all(axis=0)).mean())


def linear_cka(features: tuple[Float[np.ndarray, "samples _"], ...]) -> Square:
    """Linear centred kernel alignment of two backbones' features, in [0, 1]; 1 with itself.

    Kornblith et al. 2019: ||Y^T X||^2 / (||X^T X|| ||Y^T Y||), Frobenius norms, columns centred. It
    does not see rotations and scale. Only `[dim, dim]` products are formed. nan where the features
    of one of the two are the same for every row.

    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> linear_cka((x, 3 * x[:, ::-1])).round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    centred = [f - f.mean(axis=0, dtype=np.float64) for f in features]
    # One length for all: squares of squares stay within range, and CKA does not see scale.
    unit = [f / max(float(np.linalg.norm(f)), 1e-300) for f in centred]
    count = len(unit)
    shared = np.empty((count, count))
    for i in range(count):
        for j in range(i + 1):
            shared[i, j] = shared[j, i] = float(np.sum((unit[i].T @ unit[j]) ** 2))
    own = np.sqrt(np.diagonal(shared))
    return _divide(shared, np.outer(own, own))
