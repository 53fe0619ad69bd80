"""How a fitted combiner decides: what each backbone has in the margin of its answers.

A margin is the score of the predicted class minus that of the runner-up. Scores are sums of parts,
one for each backbone (its weighted logits, say) and sometimes others (a kernel's, a class offset's),
so a margin is a sum of the same parts. Nothing like it is published for these combiners; our reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

KERNEL: Final = "kernel"
"""What labelled images say by their likeness, through all backbones' features."""

OFFSET: Final = "class offset"
"""What is added to a class whatever the image."""

UNLABELLED: Final = "unlabelled classes"
"""What a regression gives to classes that it has no label of."""


class Contributions(NamedTuple):
    """Parts that add up to the scores, or to what increases with them within a row.

    Attributes:
        backbones: one for each.
        others: by name, none of one backbone.
    """

    backbones: Float[np.ndarray, "backbones samples classes"]
    others: Mapping[str, Float[np.ndarray, "samples classes"]]


@dataclass(frozen=True)
class Explanation:
    """How a fitted combiner decides on some rows.

    Attributes:
        share: each backbone's part of the margin, summed over the rows, by the sum of all margins.
            Below 0 where it speaks against the answers.
        others: the same of what belongs to no backbone, by name. With them the shares sum to 1.
        weight: each backbone's factor, the mean over the rows; None of what does not weigh logits.
        by_class: the same over the rows of each true class, nan where a class has none; None where
            the weights are the same for every row.
    """

    share: Float[np.ndarray, " backbones"]
    others: Mapping[str, float]
    weight: Float[np.ndarray, " backbones"] | None = None
    by_class: Float[np.ndarray, "classes backbones"] | None = None


def margin_shares(
    parts: Contributions,
) -> tuple[Float[np.ndarray, " backbones"], dict[str, float]]:
    """Return each part's share in the margins: the backbones', and the others' by name.

    All margins count by their size, so a row with a tiny margin cannot have a share without
    bound. Where there is no margin at all, every backbone has the same share.

    >>> votes = np.array([[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 1.0]]])
    >>> margin_shares(Contributions(votes, {}))[0].tolist()
    [0.5, 1.0, -0.5]
    """
    scores = parts.backbones.sum(axis=0) + sum(parts.others.values())
    samples, classes = scores.shape
    nothing = np.full(len(parts.backbones), 1 / len(parts.backbones))
    if not samples or classes == 1:
        return nothing, dict.fromkeys(parts.others, 0.0)
    rows = np.arange(samples)
    best = scores.argmax(axis=1)
    below = scores.copy()
    below[rows, best] = -np.inf
    second = below.argmax(axis=1)

    def margin(part: Float[np.ndarray, "samples classes"]) -> float:
        return float((part[rows, best] - part[rows, second]).sum())

    own = np.array([margin(part) for part in parts.backbones])
    others = {name: margin(part) for name, part in parts.others.items()}
    total = own.sum() + sum(others.values())
    if not total > 0:
        return nothing, dict.fromkeys(others, 0.0)
    return own / total, {name: value / total for name, value in others.items()}


def class_means(
    weights: Float[np.ndarray, "samples backbones"],
    labels: Int[np.ndarray, " samples"],
    classes: int,
) -> Float[np.ndarray, "classes backbones"]:
    """Return the mean over the rows of each class, in float64; nan where a class has none.

    >>> class_means(np.array([[1.0], [2.0]]), np.array([0, 0]), 2).tolist()
    [[1.5], [nan]]
    """
    sums = np.zeros((classes, weights.shape[1]))
    np.add.at(sums, labels, weights)
    counts = np.bincount(labels, minlength=classes)[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def weighted(
    logits: Float[np.ndarray, "backbones samples classes"], weight: Float[np.ndarray, " backbones"]
) -> Float[np.ndarray, "backbones samples classes"]:
    """Return every backbone's logits times its weight, in float64."""
    parts: np.ndarray = logits.astype(np.float64)
    parts *= weight[:, None, None]
    return parts
