"""How far probabilities can be trusted. Scores become probabilities by softmax."""

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.measures import Block, Values

BINS = 15


def binned_calibration_error(
    confidence: Float[np.ndarray, " samples"],
    right: Bool[np.ndarray, " samples"],
    *,
    bins: int = BINS,
) -> float:
    """Return the expected calibration error, in [0, 1]; lower is better.

    Guo et al. 2017: rows are put into `bins` equal-width bins of confidence, [0, 1/bins), ..., the
    last one closed; the error is the mean over rows of |mean confidence - accuracy| of their bin.
    All rows are pooled: rows of several data sets may be given together.

    Args:
        confidence: probability of the predicted class, in [0, 1].
        right: whether the predicted class is the label.
        bins: number of bins.

    >>> binned_calibration_error(np.array([0.9, 0.9, 0.2]), np.array([True, False, False]))
    0.3333333333333333
    """
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    surplus = np.bincount(index, weights=confidence - right, minlength=bins)
    return float(np.abs(surplus).sum() / len(confidence))


def confidence(block: Block) -> Values:
    """Return each row's probability of the predicted class, and whether that class is right."""
    rows = np.arange(len(block.labels))
    return np.stack([block.probs[rows, block.predicted], block.right], axis=1)


def calibration_error(
    values: Values,
    labels: Int[np.ndarray, " samples"],  # noqa: ARG001  (the family's signature)
) -> float:
    """Return the expected calibration error of `confidence`; see `binned_calibration_error`."""
    return binned_calibration_error(values[:, 0], values[:, 1] > 0)


def surprise(block: Block) -> Values:
    """Return the negative log probability of each row's label, in nats, >= 0; lower is better."""
    rows = np.arange(len(block.labels))
    # Not `-`: that would make a certain label's surprise minus zero.
    found: np.ndarray = 0 - block.log_probs[rows, block.labels][:, None]
    return found


def squared_distance(block: Block) -> Values:
    """Return the squared distance of each row's probabilities from the one-hot label, in [0, 2].

    Brier 1950, summed over the classes; lower is better.

    >>> squared_distance(Block(np.zeros((1, 2)), np.array([0]))).tolist()
    [[0.5]]
    """
    distance = block.probs.copy()
    distance[np.arange(len(block.labels)), block.labels] -= 1
    found: np.ndarray = np.square(distance, out=distance).sum(axis=1)[:, None]
    return found
