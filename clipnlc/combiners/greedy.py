"""Greedy ensemble selection: backbones are added, with replacement, while their mean gets better."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.averages import mixed_log_probabilities
from clipnlc.combiners.base import Combiner, Scores, require_backbones
from clipnlc.combiners.explanation import Contributions
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import log_softmax, row_blocks, softmax

_SMALLEST = np.finfo(np.float64).tiny  # keeps log finite where every probability underflows


def own_probabilities(
    logits: Float[np.ndarray, "backbones samples classes"], labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, "samples backbones"]:
    """Return the probability that each backbone gives the true class of each row, in float64."""
    backbones, samples, classes = logits.shape
    found = np.empty((samples, backbones))
    for rows in row_blocks(samples, classes):
        own = labels[rows]
        for number, one in enumerate(logits):
            log_p = log_softmax(one[rows].astype(np.float64))
            found[rows, number] = np.exp(log_p[np.arange(len(own)), own])
    return found


def select_greedily(
    own: Float[np.ndarray, "samples backbones"], *, steps: int
) -> Float[np.ndarray, " backbones"]:
    """Select backbones as Caruana et al. (2004) do, by the cross-entropy of their mean probability.

    Sorted start: the backbones are ordered by their own cross-entropy, and the N first are taken
    with the N whose mean is best. Then, `steps` times, the backbone whose addition gives the best
    mean joins, however often it has before. Of all those nested ensembles the best is returned; the
    first of equals.

    Args:
        own: the probability that each backbone gives the true class of each row.
        steps: additions after the start.

    Returns:
        How often each was taken, by the number of all, with sum 1.
    """

    def loss(sums: np.ndarray, taken: np.ndarray | int) -> np.ndarray:
        # Of several ensembles: sums of their members' probabilities, a column for each.
        found: np.ndarray = -np.log(np.maximum(sums / taken, _SMALLEST)).mean(axis=0)
        return found

    backbones = own.shape[1]
    order = np.argsort(loss(own, 1), kind="stable")
    starts = loss(np.cumsum(own[:, order], axis=1), np.arange(1, backbones + 1))
    size = int(starts.argmin()) + 1
    counts = np.zeros(backbones)
    counts[order[:size]] = 1
    lowest, best = float(starts[size - 1]), counts.copy()
    sums = own[:, order[:size]].sum(axis=1)
    for taken in range(size + 1, size + 1 + steps):
        losses = loss(sums[:, None] + own, taken)
        chosen = int(losses.argmin())
        counts[chosen] += 1
        sums += own[:, chosen]
        if losses[chosen] < lowest:
            lowest, best = float(losses[chosen]), counts.copy()
    best /= best.sum()
    return best


class GreedySelection(Combiner):
    """GREEDY: a mean of probabilities of backbones selected greedily on the labels, bagged.

    Ensemble selection (Caruana et al., ICML 2004) with its three published remedies for overfitting:
    selection with replacement, a sorted start, and the mean of 20 selections, each from a random half
    of the backbones. See `select_greedily`. It can select for any measure; here it is the
    cross-entropy, one of the paper's own, as accuracy ties too often on few labels. Not published:
    the number of steps; 50 is that of auto-sklearn. Scores are the logarithm of the mean, and
    `softmax` of them is the mean probability.

    Attributes:
        weight_: float64 `[backbones]`, of their probabilities, at least 0 with sum 1.
    """

    needs_labels: ClassVar[bool] = True
    probabilistic: ClassVar[bool] = True
    learnt: ClassVar[tuple[str, ...]] = ("weight_",)
    weight_: Float[np.ndarray, " backbones"]

    def __init__(
        self, *, steps: int = 50, bags: int = 20, share: float = 0.5, seed: int = 0
    ) -> None:
        """Store the settings.

        Args:
            steps: backbones that are added after the sorted start.
            bags: selections that are averaged; 0 for a single one from all backbones.
            share: of the backbones in one bag, rounded up.
            seed: of the bags.
        """
        super().__init__(seed=seed)
        self.steps = steps
        self.bags = bags
        self.share = share

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        own = own_probabilities(ensemble.logits, labels)
        backbones = own.shape[1]
        random = np.random.default_rng(self.seed)
        size = max(1, int(np.ceil(self.share * backbones)))
        bags = [np.sort(random.permutation(backbones)[:size]) for _ in range(self.bags)]
        weight = np.zeros(backbones)
        for bag in bags or [np.arange(backbones)]:
            weight[bag] += select_greedily(own[:, bag], steps=self.steps)
        self.weight_ = weight / weight.sum()

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return log sum_b w_b p_b."""
        self.require_fitted()
        require_backbones(len(self.weight_), ensemble)
        with np.errstate(divide="ignore"):  # a backbone that was never taken has no part
            log_weight = np.log(self.weight_)
        return mixed_log_probabilities(
            ensemble.logits, np.tile(log_weight, (ensemble.logits.shape[1], 1))
        )

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the weighted probabilities, whose sum increases with the scores."""
        self.require_fitted()
        require_backbones(len(self.weight_), ensemble)
        parts = softmax(ensemble.logits.astype(np.float64))
        parts *= self.weight_[:, None, None]
        return Contributions(parts, {})
