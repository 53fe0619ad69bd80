"""How often a prediction is right, and how that compares with the backbones behind it."""

import math

import numpy as np
from jaxtyping import Float, Int

from clipnlc.measures import Block, Values


def accuracy(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the share of rows whose highest logit is the label's, in [0, 1]; higher is better.

    >>> accuracy(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([0, 1]))
    0.5
    """
    return float((logits.argmax(axis=1) == labels).mean())


def hits(block: Block) -> Values:
    """Return 1 for each row whose highest score is the label's, else 0."""
    return block.right[:, None].astype(np.float64)


def mean_over_classes(hits: Values, labels: Int[np.ndarray, " samples"]) -> float:
    """Return the mean over classes of the accuracy within the class, in [0, 1]; higher is better.

    Classes without rows are left out.

    >>> mean_over_classes(np.array([[1.0], [1.0], [0.0]]), np.array([0, 0, 1]))
    0.5
    """
    rows = np.bincount(labels)
    right = np.bincount(labels, weights=hits[:, 0])
    return float((right[rows > 0] / rows[rows > 0]).mean())


def backbone_accuracies(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, " backbones"]:
    """Return each backbone's accuracy, in [0, 1].

    >>> backbone_accuracies(np.array([[0, 0], [0, 1]]), np.array([0, 1])).tolist()
    [0.5, 1.0]
    """
    shares: np.ndarray = (predictions == labels).mean(axis=1, dtype=np.float64)
    return shares


def best_single_accuracy(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the accuracy of the best backbone on these very rows, in [0, 1].

    As in the NLC paper, the backbone is chosen with the labels it is measured on: optimistic.
    """
    return float(backbone_accuracies(predictions, labels).max())


def oracle_accuracy(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the share of rows that at least one backbone gets right, in [0, 1].

    ORACLE of the NLC paper (arXiv 2405.17139): a bound for whoever picks one backbone per row. A
    weighted sum of logits may elect a class that no backbone elects, and exceed it.

    >>> oracle_accuracy(np.array([[0, 0, 0], [1, 1, 0]]), np.array([0, 1, 1])) == 2 / 3
    True
    """
    return float((predictions == labels).any(axis=0).mean())


def oracle_gain(
    predictions: Int[np.ndarray, "backbones samples"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the oracle's accuracy minus the best backbone's, in [0, 1]."""
    return oracle_accuracy(predictions, labels) - best_single_accuracy(predictions, labels)


def share_of_gap_closed(*, accuracy: float, best_single: float, oracle: float) -> float:
    """Return the share of the gap between the best backbone and the oracle that was closed.

    1 at the oracle, 0 at the best backbone, negative below it; nan where the two are equal. A
    method that reads features may do better than the oracle, which only picks a backbone: above 1.

    >>> share_of_gap_closed(accuracy=0.75, best_single=0.5, oracle=1.0)
    0.5
    """
    gap = oracle - best_single
    return (accuracy - best_single) / gap if gap > 0 else math.nan
