"""Choosing a head's strengths by its few labels alone, where papers search a validation split."""

from collections.abc import Mapping
from typing import Final, TypeVar

import numpy as np
from jaxtyping import Bool, Int

_Setting = TypeVar("_Setting", float, tuple[float, float])

_LEVEL: Final = 1e-6  # nats


def first_of_lowest(losses: Mapping[_Setting, float]) -> _Setting:
    """Return the smallest setting whose loss is the lowest, or above it by no more than rounding.

    >>> first_of_lowest({1.0: 0.5, 4.0: 0.2, 2.0: 0.2 + 1e-9})
    2.0
    """
    lowest = min(losses.values())
    return min(setting for setting, loss in losses.items() if loss <= lowest + _LEVEL)


def has_another(
    labels: Int[np.ndarray, " rows"], fold: Int[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Return which rows have one of their class in another fold; only they can be judged.

    >>> has_another(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 0, 3, 3])).tolist()
    [True, True, False, False, False]
    """
    pairs = np.unique(np.stack((labels, fold)), axis=1)
    result: np.ndarray = np.bincount(pairs[0])[labels] > 1
    return result
