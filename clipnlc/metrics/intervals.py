"""How sure a mean over seeds, or an accuracy of one run, is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Interval(NamedTuple):
    """A central value and its 95 % interval; nan bounds where there is no interval."""

    centre: float
    low: float
    high: float


def seed_interval(values: Sequence[float]) -> Interval:
    """Return the mean over seeds and its 95 % interval by Student's t; one value has nan bounds.

    >>> [round(v, 3) for v in seed_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    from scipy.special import stdtrit  # noqa: PLC0415  (keeps the import of metrics quick)

    count = len(values)
    mean = float(np.mean(values))
    if count == 1:
        return Interval(mean, math.nan, math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error
    return Interval(mean, mean - half, mean + half)


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
