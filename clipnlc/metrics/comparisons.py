"""Whether one method is better than another: on one data set, and over several.

P-values are two-sided. Data sets that share images count as one observation, a cluster.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from clipnlc.metrics.intervals import LEVEL, Interval


def cluster_interval(differences: Float[np.ndarray, " sets"], clusters: Sequence[str]) -> Interval:
    """Return the mean difference over data sets and its 95 % interval by Student's t.

    Its variance is that of clusters of data sets, which are independent of each other (Liang and
    Zeger 1986, with the factor n / (n - 1) for n clusters); where every data set is a cluster of its
    own, it is the paired t interval. Fewer than two clusters have nan bounds.

    Args:
        differences: one per data set.
        clusters: of each data set, by name.

    >>> found = cluster_interval(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"])
    >>> [round(v, 3) for v in found]
    [2.0, -0.484, 4.484]
    """
    from scipy.special import stdtrit  # noqa: PLC0415  (keeps the import of metrics quick)

    mean = float(differences.mean())
    sums = np.array(list(_by_cluster(differences - mean, clusters).values()))
    count = len(sums)
    if count == 1:
        return Interval(mean, math.nan, math.nan)
    variance = count / (count - 1) * float(np.square(sums).sum()) / len(differences) ** 2
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half)


def cluster_means(
    differences: Float[np.ndarray, " sets"], clusters: Sequence[str]
) -> Float[np.ndarray, " clusters"]:
    """Return the mean difference of each cluster, in order of first appearance.

    >>> cluster_means(np.array([1.0, 5.0, 2.0]), ["a", "b", "a"]).tolist()
    [1.5, 5.0]
    """
    sums = _by_cluster(differences, clusters)
    sizes = _by_cluster(np.ones(len(differences)), clusters)
    return np.array([sums[name] / sizes[name] for name in sums])


def _by_cluster(values: Float[np.ndarray, " sets"], clusters: Sequence[str]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for value, name in zip(values.tolist(), clusters, strict=True):
        sums[name] = sums.get(name, 0.0) + value
    return sums


def mcnemar(one: Bool[np.ndarray, " images"], other: Bool[np.ndarray, " images"]) -> float:
    """Return the exact p-value of two classifiers being right equally often on the same images.

    McNemar 1947: of the images that only one of the two gets right, either is as likely. It is a
    test of two fits as they are, and says nothing of other draws of labels.

    >>> mcnemar(np.array([True] * 5), np.array([False] * 5))
    0.0625
    """
    from scipy.special import bdtr  # noqa: PLC0415  (keeps the import of metrics quick)

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))


def signed_rank(differences: Float[np.ndarray, " clusters"]) -> float:
    """Return the exact p-value of Wilcoxon's signed-rank test (1945) that differences centre on 0.

    Differences of zero are left out; equal ones share the mean of their ranks. The null distribution
    is that of all signs of these ranks. Ties are differences that are equal to twelve digits.

    >>> signed_rank(np.array([1.0, 2.0, 3.0]))
    0.25
    """
    sizes = np.round(np.abs(differences), 12)
    present = sizes > 0
    _, group, counts = np.unique(sizes[present], return_inverse=True, return_counts=True)
    # Twice the mean rank of each group of equals is whole.
    ranks = (2 * np.cumsum(counts) - counts + 1)[group].astype(np.int64)
    total = int(ranks.sum())
    ways = np.zeros(total + 1)
    ways[0] = 1.0
    for rank in ranks.tolist():
        ways[rank:] = (ways[rank:] + ways[: total + 1 - rank]) / 2
        ways[:rank] /= 2
    positive = int(ranks[differences[present] > 0].sum())
    return min(1.0, 2 * float(ways[: min(positive, total - positive) + 1].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for being a family (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted
