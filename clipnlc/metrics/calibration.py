"""How far probabilities can be trusted. `logits` become probabilities by softmax."""

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.fitting import cross_entropy, softmax

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


def expected_calibration_error(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the expected calibration error with 15 bins, in [0, 1]; lower is better.

    See `binned_calibration_error`.
    """
    probs = softmax(logits.astype(np.float64))
    return binned_calibration_error(probs.max(axis=1), probs.argmax(axis=1) == labels)


def negative_log_likelihood(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the mean negative log probability of the labels, in nats, >= 0; lower is better."""
    return cross_entropy(logits, labels)


def brier_score(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the mean squared distance of the probabilities from the one-hot label, in [0, 2].

    Brier 1950, summed over the classes; lower is better.

    >>> brier_score(np.zeros((1, 2)), np.array([0]))
    0.5
    """
    distance = softmax(logits.astype(np.float64))
    distance[np.arange(len(labels)), labels] -= 1
    return float((distance**2).sum(axis=1).mean())
