"""How good a fit on a few labels is, measured on these labels: each image by a fit without its label.

The labelled images are dealt into folds. For each fold the combiner is fitted on the labels of the
others, by the same road as the fit that is used, and answers for the fold's images. What it learns
from without labels, its pool, is every image, as for the fit that is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clipnlc.combiners import COMBINERS
from clipnlc.labels import dealt_folds, ranks
from clipnlc.metrics.intervals import Interval, others_interval
from clipnlc.runs.fitted import apply, fit

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

    from clipnlc.ensemble import Ensemble
    from clipnlc.labels import Labels

FOLDS: Final = 10
"""A fit of nine tenths of the labels stands for one of all of them; more folds take longer."""

FEWER: Final = (0.25, 0.5)
"""Shares of the labels for which the accuracy is estimated too: what labels bought so far."""

LABEL_FREE: Final = "log-avg"
"""The ensemble that needs no label: what `predict --classes` answers with."""


@dataclass(frozen=True)
class CrossFitted:
    """The accuracy of a fit on labelled images, estimated on the same images.

    Attributes:
        accuracy: share of the labelled images that a fit without their labels has right, in [0, 1].
        low, high: 95 % interval of the accuracy, on all other images, of the fit on all the labels.
        count: labelled images.
        folds: fits.
        others: images of the same source without a label, for which the interval is; 0 where all are
            labelled: then it is for images yet to come, of the same kind.
        drawn: whether the labelled images are a random draw. Where they were chosen, the accuracy is
            that of photos like the chosen ones, and the interval holds for no others.
        fewer: (labels, accuracy) of fits on a part of the labels, ascending; the first, of no label,
            is that of `log-avg`.
    """

    accuracy: float
    low: float
    high: float
    count: int
    folds: int
    others: int
    drawn: bool
    fewer: tuple[tuple[int, float], ...] = ()

    def with_labels(self, count: int) -> Interval:
        """Return the interval that so many labels would give if the accuracy stayed as it is.

        It gets narrower with the root of their number. More labels also raise the accuracy, by how
        much nobody knows before; `fewer` shows what they did so far.
        """
        left = self.count + self.others - count
        return others_interval(self.accuracy, count, left if left > 0 else None)


def cross_fit(
    name: str,
    ensemble: Ensemble,
    labels: Int[np.ndarray, " labelled"],
    *,
    pool: Ensemble,
    which: Labels,
    settings: Mapping[str, Any] | None = None,
    others: int,
    drawn: bool,
    folds: int = FOLDS,
    fewer: Sequence[float] = FEWER,
) -> CrossFitted:
    """Estimate the accuracy of a combiner that is fitted on these labels.

    Args:
        name: the combiner's.
        ensemble: the labelled rows, with the features that the combiner needs.
        labels: one class number per row; two rows or more.
        pool: every image of the source, labelled or not.
        which: which labels they are; its seed is that of the fits and of the folds.
        settings: those that differ from the defaults.
        others: images of the source that have no label.
        drawn: whether the labelled rows are a random draw.
        folds: at most as many as there are rows.
        fewer: shares of the labels that the accuracy is estimated of as well.

    Raises:
        UnknownNameError: no combiner has this name.
        ValueError: there is a single row, or labels do not fit the rows.
    """
    count = len(labels)
    if count < 2:  # noqa: PLR2004  (one to fit on and one to judge)
        raise ValueError("cross-fitting takes two labelled rows or more")
    ids = ensemble.sample_id
    number = min(folds, count)
    fold = dealt_folds(labels, ids, number, draw=f"cross-fit:{which.seed}")
    order = ranks(ids, draw=f"fewer:{which.seed}")
    reads_pool = COMBINERS.get(name).reads_pool

    def right(share: float) -> Bool[np.ndarray, " labelled"]:
        found = np.zeros(count, dtype=bool)
        for one in range(number):
            held, kept = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
            kept = np.sort(kept[np.argsort(order[kept])][: max(1, round(share * len(kept)))])
            fitted = fit(
                name,
                ensemble.rows(kept),
                labels[kept],
                which=which,
                settings=settings,
                pool=pool if reads_pool else None,
            )
            block = ensemble.rows(held)
            found[held] = apply(fitted, block).combined(block).argmax(axis=1) == labels[held]
        return found

    accuracy = float(right(1.0).mean())
    interval = others_interval(accuracy, count, others)
    free = fit(LABEL_FREE, ensemble.rows([]), labels[:0], which=which)
    alone = apply(free, ensemble).combined(ensemble).argmax(axis=1) == labels
    parts = [(0, float(alone.mean()))]
    for share in sorted(fewer):
        labelled = round(share * count)
        if parts[-1][0] < labelled < count:
            parts.append((labelled, float(right(share).mean())))
    return CrossFitted(
        accuracy=accuracy,
        low=interval.low,
        high=interval.high,
        count=count,
        folds=number,
        others=others,
        drawn=drawn,
        fewer=tuple(parts),
    )
