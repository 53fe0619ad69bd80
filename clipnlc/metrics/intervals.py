"""How sure an accuracy, or a paired difference, is: over the images, and over the draws of labels.

Images are resampled with replacement. Three draws are too few to be resampled so: their share of
the uncertainty is Student's t with the variance that they show beyond that of the images.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

LEVEL: Final = 0.95

RESAMPLES: Final = 2000
"""Of a bootstrap: a bound moves by a thirtieth of the interval from one seed to another."""

_TOGETHER: Final = 2**22
"""Numbers of a block of resamples that are in memory at a time."""

_LAST_BITS: Final = 1e-12
"""A variance below is rounding."""

_ORDER: Final = 1
"""Seed of the order in which quantiles of the draws meet resamples of the images."""


class Interval(NamedTuple):
    """A central value and its 95 % interval; nan bounds where there is no interval."""

    centre: float
    low: float
    high: float


class DrawSpread(NamedTuple):
    """What draws add to the uncertainty of their mean, beyond that of the images.

    Attributes:
        variance: of the mean over the draws.
        freedom: degrees of freedom of that variance; none where it is zero.
    """

    variance: float = 0.0
    freedom: float = math.inf


def accuracy_interval(accuracy: float, samples: int) -> Interval:
    """Return an accuracy on `samples` rows and its 95 % interval (Wilson 1927), within [0, 1].

    >>> [round(v, 3) for v in accuracy_interval(0.5, 100)]
    [0.5, 0.404, 0.596]
    """
    from scipy.special import ndtri  # noqa: PLC0415  (keeps the import of metrics quick)

    z = float(ndtri((1 + LEVEL) / 2))
    spread = z * math.sqrt(accuracy * (1 - accuracy) / samples + z**2 / (4 * samples**2))
    centre = accuracy + z**2 / (2 * samples)
    scale = 1 + z**2 / samples
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return Interval(accuracy, max(low, 0.0), min(high, 1.0))


def others_interval(accuracy: float, samples: int, others: int | None) -> Interval:
    """Return a cross-fitted accuracy on a random sample, and the 95 % interval of that on all others.

    The mean of a sample of n, drawn without replacement, differs from the mean of the m images that
    were not drawn with variance `S^2 (1/n + 1/m)`, where S^2 is the variance in all n + m (Cochran,
    Sampling Techniques, 1977, section 2.8, applied to the rest in place of the whole). So the sample
    is worth `1 / (1/n + 1/m)` images: the fewer the others are, the more they differ from the
    expected accuracy by chance, too.

    The interval is Clopper and Pearson's (1934) of so many images. It is conservative for independent
    outcomes, by a tenth of its width at 30: cross-fitted ones depend on each other a little, and the
    fit that is judged is one of those that n labels could have given, which costs about as much
    (`docs/own-labels.md`). Ours.

    Args:
        accuracy: of the sample, in [0, 1].
        samples: n.
        others: m; None of images without end, as of photos yet to be taken.

    >>> [round(v, 3) for v in others_interval(0.5, 100, None)]
    [0.5, 0.398, 0.602]
    >>> [round(v, 3) for v in others_interval(0.5, 200, 200)]
    [0.5, 0.398, 0.602]
    """
    from scipy.special import betaincinv  # noqa: PLC0415  (keeps the import of metrics quick)

    worth = float(samples) if not others else samples * others / (samples + others)
    right, wrong = accuracy * worth, (1 - accuracy) * worth
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(right, wrong + 1, tail)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong > 0 else 1.0
    return Interval(accuracy, low, high)


def resampled_means(
    values: Float[np.ndarray, "images columns"], *, seed: int = 0, resamples: int = RESAMPLES
) -> Float[np.ndarray, "resamples columns"]:
    """Return the mean of every column over images drawn anew, with replacement.

    A resample draws the same images for all columns, and for every array of as many images with
    the same seed: what is subtracted from one another is paired.
    """
    images = len(values)
    block = max(1, _TOGETHER // images)
    found = np.empty((resamples, values.shape[1]))
    random = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        found[start : start + count] = _counts(random, count, images) @ values / images
    return found


def _counts(
    random: np.random.Generator, resamples: int, images: int
) -> Float[np.ndarray, "resamples images"]:
    """Return how often each image is in each resample."""
    drawn: Int[np.ndarray, "resamples images"] = random.integers(images, size=(resamples, images))
    drawn += images * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * images)
    return counts.reshape(resamples, images).astype(np.float64)


def draw_spread(values: Float[np.ndarray, "draws images"]) -> DrawSpread:
    """Estimate what the draws add to the variance of the mean of all values.

    Images and draws are crossed random effects without replication: the variance of the draws'
    means, less what the residuals alone give it, as in an analysis of variance; not below zero.
    One draw shows nothing of it.

    >>> draw_spread(np.array([[0.0, 0.0], [1.0, 1.0]]))
    DrawSpread(variance=0.25, freedom=1.0)
    """
    draws, images = values.shape
    if draws == 1:
        return DrawSpread()
    means = values.mean(axis=1)
    residuals = values - means[:, None] - values.mean(axis=0) + values.mean()
    free = max(1, (images - 1) * (draws - 1))
    between = float(means.var(ddof=1) - np.square(residuals).sum() / free / images)
    return DrawSpread(between / draws, draws - 1.0) if between > _LAST_BITS else DrawSpread()


def mean_spread(spreads: Sequence[DrawSpread]) -> DrawSpread:
    """Return the spread of the mean over data sets, whose draws are independent of each other.

    Degrees of freedom by Satterthwaite 1946.

    >>> mean_spread([DrawSpread(1.0, 2.0), DrawSpread(1.0, 2.0)])
    DrawSpread(variance=0.5, freedom=4.0)
    """
    total = sum(one.variance for one in spreads)
    if total <= 0:
        return DrawSpread()
    freedom = total**2 / sum(one.variance**2 / one.freedom for one in spreads)
    return DrawSpread(total / len(spreads) ** 2, freedom)


def bootstrap_interval(
    centre: float, resampled: Float[np.ndarray, " resamples"], draws: DrawSpread
) -> Interval:
    """Return a mean and its 95 % interval, the percentiles of the resamples with the draws added.

    To every resample of the images comes one of Student's t with the variance of the draws. Without
    variance of the draws it is the percentile bootstrap; without variance of the images the t
    interval of the draws' means. Where three draws vary as much as the images it holds in 92 % of
    simulations, where only the images vary in 95 %.

    >>> [round(v, 1) for v in bootstrap_interval(2.0, np.full(2000, 2.0), DrawSpread(1 / 3, 2.0))]
    [2.0, -0.5, 4.5]
    """
    from scipy.special import stdtrit  # noqa: PLC0415  (keeps the import of metrics quick)

    found = resampled
    if draws.variance > 0:
        count = len(resampled)
        # One quantile for each resample, not a random number: tails as of infinitely many.
        quantiles = stdtrit(draws.freedom, (np.arange(count) + 0.5) / count)
        order = np.random.default_rng(_ORDER).permutation(count)
        found = resampled + math.sqrt(draws.variance) * quantiles[order]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(centre, float(low), float(high))
