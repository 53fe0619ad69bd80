"""Selective classification: errors among the most confident answers."""

import numpy as np
from jaxtyping import Int

from clipnlc.measures import Values


def risk_under_coverage(
    confidence_and_hits: Values,
    labels: Int[np.ndarray, " samples"],  # noqa: ARG001  (the hits say it all)
) -> float:
    """Return the area under the risk-coverage curve, in [0, 1]; lower is better.

    Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017: the mean, over
    every number of most confident rows, of the share of wrong answers among them. Rows of equal
    confidence count as equally wrong, so their order does not matter.

    >>> right_first = np.array([[0.9, 1.0], [0.5, 0.0]])
    >>> risk_under_coverage(right_first, np.array([0, 0])), risk_under_coverage(
    ...     right_first[:, ::1] * [-1, 1], np.array([0, 0])
    ... )
    (0.25, 0.75)
    """
    confidence, hits = confidence_and_hits.T
    _, place, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(place, weights=1 - hits) / count  # most confident first
    risk = np.cumsum(np.repeat(wrong, count)) / np.arange(1, len(hits) + 1)
    return float(risk.mean())
