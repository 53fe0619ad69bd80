"""How sure the rows are: intervals of a row, and paired differences between two.

On one data set over its images and the draws of labels, see `clipnlc.metrics.intervals`; over
several data sets over these, see `clipnlc.metrics.comparisons`.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from clipnlc.metrics import ACCURACY, METRICS
from clipnlc.metrics.comparisons import cluster_interval
from clipnlc.metrics.intervals import (
    Interval,
    accuracy_interval,
    bootstrap_interval,
    draw_spread,
    mean_spread,
)
from clipnlc.reports.record import IntervalKind
from clipnlc.stages.evaluate.measured import Measured, Setting

SHARED_LIMIT: Final = 0.5
"""Share of labels that two draws have in common from which on their variance says too little."""

ONE_DRAW: Final = ("none", "all")
"""Labels of which there is one draw: a fit on them varies with the images that it is measured on."""


def is_mean(name: str) -> bool:
    """Return whether a measure is a mean over images, so that a mean over resampled ones is one."""
    measure = METRICS.get(name)
    return not measure.total and not measure.pooled


class Bounds(NamedTuple):
    """Of an interval, and what it is over."""

    low: float | None = None
    high: float | None = None
    kind: IntervalKind | None = None


def common_seeds(over: Sequence[Measured], *settings: Setting) -> tuple[int, ...]:
    """Return the seeds that every data set has of all settings; what has no labels has any seed."""
    drawn = [s for s in settings if s.drawn.kind != "none"] or list(settings)
    return tuple(sorted(set.intersection(*(set(one.outcomes[s]) for one in over for s in drawn))))


def estimable(setting: Setting, seeds: Sequence[int], over: Sequence[Measured]) -> bool:
    """Return whether the draws of labels are several, and differ enough to show their variance.

    Of all labels there is one draw, which has none: what is said holds of fits on these labels.
    """
    if setting.drawn.kind in ONE_DRAW:
        return True
    shared = [one.shared(setting.drawn) for one in over]
    return len(seeds) > 1 and all(s is not None and s < SHARED_LIMIT for s in shared)


def accuracy_bounds(
    setting: Setting, seeds: Sequence[int], over: Sequence[Measured], accuracy: float
) -> Bounds:
    """Return the interval of an accuracy, or of the mean over these very data sets."""
    one_fit = setting.drawn.kind == "none" or (setting.drawn.kind == "all" and len(seeds) == 1)
    if one_fit and len(over) == 1:
        return _wilson(accuracy, over[0])
    if not estimable(setting, seeds, over):
        return Bounds(kind="not-estimable")
    resampled = np.mean([one.resampled(setting, seeds, ACCURACY) for one in over], axis=0)
    # Without labels there is one draw, which has no spread.
    spread = mean_spread([draw_spread(one.each_seed(setting, seeds, ACCURACY)) for one in over])
    _, low, high = bootstrap_interval(accuracy, resampled, spread)
    if low == high and len(over) == 1:  # every image is right, or none
        return _wilson(accuracy, over[0])
    kind: IntervalKind = "images" if setting.drawn.kind in ONE_DRAW else "images-and-draws"
    return Bounds(max(low, 0.0), min(high, 1.0), kind)


def _wilson(accuracy: float, one: Measured) -> Bounds:
    return Bounds(*accuracy_interval(accuracy, len(one.labels))[1:], "samples")


def paired_on_one(one: Measured, setting: Setting, other: Setting, measure: str) -> Interval:
    """Return the mean of a setting minus that of another on one data set, with its interval.

    Images and draws are the same for both. Of draws that share most of their labels it holds what
    they show.
    """
    seeds = common_seeds([one], setting, other)
    difference = one.each_seed(setting, seeds, measure) - one.each_seed(other, seeds, measure)
    resampled = one.resampled(setting, seeds, measure) - one.resampled(other, seeds, measure)
    return bootstrap_interval(float(difference.mean()), resampled, draw_spread(difference))


def paired_over_sets(differences: Float[np.ndarray, " sets"], over: Sequence[Measured]) -> Interval:
    """Return the mean difference over data sets, with its interval over their clusters."""
    return cluster_interval(differences, [one.cluster for one in over])


def includes_zero(interval: Interval) -> bool:
    """Return whether a difference may be none; never without an interval."""
    return interval.low <= 0 <= interval.high


def defined_bounds(interval: Interval) -> tuple[float | None, float | None]:
    """Return the bounds, None for nan."""
    return (None, None) if math.isnan(interval.low) else (interval.low, interval.high)
