"""What many fits give on one target, in blocks of rows, with what the measures need of each sample."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int

from clipnlc.metrics import METRICS, sample_values
from clipnlc.runs.fitted import Fitted, Given, apply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clipnlc.ensemble import Ensemble
    from clipnlc.runs.targets import Target

Name = TypeVar("Name", bound=Hashable)

BLOCK_ROWS = 512
"""Rows of all backbones' logits and features that are in memory at a time."""


@dataclass(frozen=True)
class Measurable:
    """What a fit gives on all rows of a target.

    Attributes:
        values: by measure, what it needs of each sample.
        predicted: the class with the highest score.
        weights: of the backbones, where the combiner weighs.
        scores: where they were asked for, and the combiner does not weigh.
    """

    values: Mapping[str, Float64[np.ndarray, "samples _"]]
    predicted: Int[np.ndarray, " samples"]
    weights: Float32[np.ndarray, "samples backbones"] | None = None
    scores: Float32[np.ndarray, "samples classes"] | None = None


def give(
    fits: Mapping[Name, Fitted],
    target: Target,
    *,
    keep_scores: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[dict[Name, Measurable], dict[str, Measurable]]:
    """Apply fits to a target, and measure its backbones alone; each block is read once.

    Only a fit that is not row-wise needs the features of all rows at a time (and their logits, if
    it reads them).

    Args:
        fits: by any name.
        target: the rows.
        keep_scores: return the scores of those that do not weigh, too.
        on_progress: called with (rows done, rows).

    Returns:
        What the fits give, by name; and what each backbone's own logits give.

    Raises:
        MissingStageError: a combiner needs features that have not been made.
        StoreError: a fit is of other backbones or classes; a file is damaged.
    """
    whole = _whole({name: fit for name, fit in fits.items() if not fit.combiner.row_wise}, target)
    found = {name: _Parts(keep_scores=keep_scores) for name in fits}
    alone = {name: _Parts(keep_scores=False) for name in target.backbones}
    features = any(f.combiner.needs_features for name, f in fits.items() if name not in whole)
    samples = len(target.sample_id)
    for start in range(0, samples, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, samples))
        block = target.read(rows, features)
        for name, fit in fits.items():
            given = (
                _some(whole[name], rows) if name in whole else apply(fit, block, among=target.among)
            )
            found[name].add(given, block, target, rows)
        for number, backbone in enumerate(target.backbones):
            logits = block.logits[number]
            scores = logits if target.among is None else logits[:, target.among]
            alone[backbone].add(Given(None, scores.astype(np.float64)), block, target, rows)
        on_progress(len(rows) + start, samples)
    return (
        {name: parts.joined() for name, parts in found.items()},
        {name: parts.joined() for name, parts in alone.items()},
    )


def _whole(fits: Mapping[Name, Fitted], target: Target) -> dict[Name, Given]:
    """Apply fits that are not row-wise to all rows at once; features are read once for all."""
    found: dict[Name, Given] = {}
    blind: Ensemble | None = None
    for name, fit in fits.items():
        if fit.combiner.reads_logits:
            every = target.read(np.arange(len(target.sample_id)), fit.combiner.needs_features)
        else:
            every = blind = blind or target.blind(fit.class_names)
        found[name] = apply(fit, every, among=target.among)
    return found


def _some(given: Given, rows: np.ndarray) -> Given:
    return Given(
        None if given.weights is None else given.weights[rows],
        None if given.scores is None else given.scores[rows],
    )


class _Parts:
    """Collects what one fit gives, block by block."""

    def __init__(self, *, keep_scores: bool) -> None:
        self._keep_scores = keep_scores
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
        self._predicted: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    def add(self, given: Given, block: Ensemble, target: Target, rows: np.ndarray) -> None:
        # Scores are stored in float32, so they are measured in it.
        scores = given.combined(block, among=target.among)
        if given.weights is not None:
            self._weights.append(given.weights)
        else:
            scores = scores.astype(np.float32)
            if self._keep_scores:
                self._scores.append(scores)
        self._predicted.append(scores.argmax(axis=1))
        for name, values in sample_values(scores.astype(np.float64), target.labels[rows]).items():
            self._values[name].append(values)

    def joined(self) -> Measurable:
        return Measurable(
            values={name: np.concatenate(parts) for name, parts in self._values.items()},
            predicted=np.concatenate(self._predicted),
            weights=_joined(self._weights),
            scores=_joined(self._scores),
        )


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray | None:
    several = list(parts)
    return np.concatenate(several) if several else None
