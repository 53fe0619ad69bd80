"""Combiners that read the images to be predicted together: transport of their logits to the classes.

They need no labels and learn nothing beforehand, but they are given all test images at once and
assume that the classes are equally common among them. So no method that sees one image at a time
is comparable with them. Nothing else is read of the images, and no label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Combiner, Scores, weigh_alike
from clipnlc.combiners.explanation import OFFSET, Contributions, weighted
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import log_softmax, row_blocks, softmax

_SMALLEST = np.finfo(np.float64).tiny
_LEAST_VARIANCE = 1e-12  # of a dimension in which all features are the same
_LEAST_LENGTH = 1e-12


def sinkhorn_offsets(
    logits: Float[np.ndarray, "backbones samples classes"], *, passes: int
) -> Float[np.ndarray, " classes"]:
    """Return what Sinkhorn passes over exp(LOG-AVG) add to the logits of each class.

    A pass scales the classes to equal sums, then the rows to sums of 1. After it the plan is
    softmax(z + a) with one offset per class, so only these are kept, and rows are read in blocks.
    """
    backbones, samples, classes = logits.shape
    equal = np.full(backbones, 1 / backbones)
    blocks = row_blocks(samples, classes)
    offsets = np.zeros(classes)
    for number in range(passes):
        column: np.ndarray = np.full(classes, -np.inf)  # the log of each class's sum
        for rows in blocks:
            scores = weigh_alike(logits[:, rows], equal) + offsets
            if number:  # the first pass finds rows as they are
                scores = log_softmax(scores)
            highest = np.maximum(column, scores.max(axis=0))
            sums = np.exp(column - highest) + np.exp(scores - highest).sum(axis=0)
            column = highest + np.log(sums)
        offsets -= column
    offsets -= offsets.mean()
    return offsets


class ConfOt(Combiner):
    """CONF-OT: LOG-AVG's test logits transported to classes that are equally common among them.

    Conf-OT (Silva-Rodríguez et al., CVPR 2025) without its conformal sets: the plan of three
    Sinkhorn passes from exp(z). There it is of one backbone; that z is LOG-AVG is our reading. It
    reads all test images at once. `softmax` of the scores is the row of the plan.
    """

    row_wise: ClassVar[bool] = False
    reads_test: ClassVar[bool] = True
    probabilistic: ClassVar[bool] = True

    def __init__(self, *, passes: int = 3, seed: int = 0) -> None:
        """Store the settings.

        Args:
            passes: of Sinkhorn's scaling.
            seed: of nothing.
        """
        super().__init__(seed=seed)
        self.passes = passes

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return LOG-AVG's logits plus the offsets."""
        backbones, samples, classes = ensemble.logits.shape
        if not samples:
            return np.zeros((0, classes))
        scores = weigh_alike(ensemble.logits, np.full(backbones, 1 / backbones))
        scores += sinkhorn_offsets(ensemble.logits, passes=self.passes)
        return scores

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        backbones, samples, _ = ensemble.logits.shape
        offsets = sinkhorn_offsets(ensemble.logits, passes=self.passes)
        own = weighted(ensemble.logits, np.full(backbones, 1 / backbones))
        return Contributions(own, {OFFSET: np.tile(offsets, (samples, 1))})


def scale_to_marginals(
    plan: Float[np.ndarray, "samples classes"], *, passes: int
) -> Float[np.ndarray, " classes"]:
    """Scale positive numbers in place: rows sum to 1, and classes about to equal shares.

    Sinkhorn's algorithm; each pass scales the classes, then the rows.

    Returns:
        By what each class was multiplied.
    """
    samples, classes = plan.shape
    of_row, of_class = np.ones(samples), np.ones(classes)
    for _ in range(passes):
        of_class = samples / classes / (plan.T @ of_row)
        of_row = 1 / (plan @ of_class)
    plan *= of_class
    plan *= of_row[:, None]
    return of_class


@dataclass(frozen=True)
class _Gaussians:
    """One Gaussian per class over unit features, with the same variances for all classes."""

    mean: Float[np.ndarray, "classes width"]
    variance: Float[np.ndarray, " width"]

    @classmethod
    def around(
        cls,
        highest: Int[np.ndarray, "first classes"],
        plan: Float[np.ndarray, "samples classes"],
        features: Float[np.ndarray, "samples width"],
    ) -> "_Gaussians":
        """Start at the means of the rows that are the highest in each class, weighted by the plan."""
        width = features.shape[1]
        weight = np.take_along_axis(plan, highest, axis=0)
        mean = np.zeros((plan.shape[1], width))
        for rows, its in zip(highest, weight, strict=True):
            mean += its[:, None] * _unit(features[rows])
        return cls(_unit(mean), np.full(width, 1 / max(1, width)))

    @classmethod
    def under(
        cls,
        plan: Float[np.ndarray, "samples classes"],
        features: Float[np.ndarray, "samples width"],
    ) -> "_Gaussians":
        """Return the normalised means and the variances under a plan."""
        sums = np.zeros((plan.shape[1], features.shape[1]))
        squares = np.zeros(features.shape[1])
        for rows in row_blocks(*plan.shape):
            inputs = _unit(features[rows])
            sums += plan[rows].T @ inputs
            squares += plan[rows].sum(axis=1) @ inputs**2
        mean, of_class = _unit(sums), plan.sum(axis=0)
        deviation = squares - 2 * (mean * sums).sum(axis=0) + of_class @ mean**2
        return cls(mean, np.maximum(deviation / of_class.sum(), _LEAST_VARIANCE))

    def probabilities(
        self, features: Float[np.ndarray, "samples width"], temperature: float
    ) -> Float[np.ndarray, "samples classes"]:
        """Return softmax of the log densities divided by a temperature."""
        # Without the features' own squares, which are the same for all classes.
        scaled = self.mean / self.variance
        logits = _unit(features) @ scaled.T
        logits -= (scaled * self.mean).sum(axis=1) / 2
        logits /= temperature
        return softmax(logits)


@dataclass(frozen=True)
class _Last:
    """What the last round's plan was made of."""

    gaussians: Sequence[_Gaussians]
    by_features: Float[np.ndarray, " backbones"]
    by_logits: Float[np.ndarray, " backbones"]
    of_class: Float[np.ndarray, " classes"]


def _unit(rows: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "rows width"]:
    exact = rows.astype(np.float64)
    exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), _LEAST_LENGTH)
    return exact


def _highest(
    plan: Float[np.ndarray, "samples classes"], first: int
) -> Int[np.ndarray, "first classes"]:
    """Return the rows that are the highest in each class; the earlier of equals."""
    every = [np.argsort(-column, kind="stable")[:first] for column in plan.T]
    return np.stack(every, axis=1)


def _shares(
    agreed: Float[np.ndarray, " backbones"], equal: Float[np.ndarray, " backbones"]
) -> Float[np.ndarray, " backbones"]:
    """Return each one's share; equal ones where none agreed at all."""
    if not agreed.any():
        return equal
    shares: np.ndarray = agreed / agreed.sum()
    return shares


class SotaTransport(Combiner):
    """SOTA: self-adaptive transport of the test images of all backbones, features and logits.

    Self-adaptive optimal transport (arXiv 2506.13723), from its formulas. Each backbone has a
    Gaussian per class on its unit features, with one variance per dimension. Rounds of: the mean of
    the Gaussians' and the zero-shot probabilities, weighted, is transported to equally common classes;
    weights are the shares of answers that agree with the plan's; means and variances are those under
    the plan. It reads all test images at once. Not published in what was read: the order of scalings
    (classes, then rows); our reading. Scores are the logarithm of the plan, whose rows sum to 1; it
    is too sharp for probabilities.
    """

    needs_features: ClassVar[bool] = True
    row_wise: ClassVar[bool] = False
    reads_test: ClassVar[bool] = True

    def __init__(
        self,
        *,
        rounds: int = 10,
        passes: int = 15,
        sharpness: float = 100.0,
        temperature: float = 50.0,
        first: int = 8,
        seed: int = 0,
    ) -> None:
        """Store the settings; the defaults are published.

        Args:
            rounds: of the whole.
            passes: of Sinkhorn's scaling in a round.
            sharpness: 1 / epsilon, what the mean is multiplied by before it is transported.
            temperature: what the log densities are divided by.
            first: images of each class that its first means are of.
            seed: of nothing.
        """
        super().__init__(seed=seed)
        self.rounds = rounds
        self.passes = passes
        self.sharpness = sharpness
        self.temperature = temperature
        self.first = first

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the logarithm of the last plan."""
        plan = self._plan(ensemble)[0]
        np.maximum(plan, _SMALLEST, out=plan)
        np.log(plan, out=plan)
        return plan

    def _plan(self, ensemble: Ensemble) -> tuple[Float[np.ndarray, "samples classes"], "_Last"]:
        """Return the last plan, and what its last round was made of."""
        backbones, samples, classes = ensemble.logits.shape
        ensemble.concatenated(np.arange(0))  # says so where there are no features
        plan = np.zeros((samples, classes))
        equal = np.full(backbones, 1 / backbones)
        # A backbone that gives logits alone has no Gaussians: they have no share.
        absent = np.array([not of.shape[1] for of in ensemble.features])
        equal_features = ~absent / max(1, int((~absent).sum()))
        by_features, by_logits, of_class = equal_features, equal, np.ones(classes)
        for rows in row_blocks(samples, classes):
            for one in ensemble.logits:
                plan[rows] += softmax(one[rows].astype(np.float64)) / backbones
        highest = _highest(plan, self.first)
        gaussians = [_Gaussians.around(highest, plan, of) for of in ensemble.features]
        agreed = np.zeros((2, backbones))
        for number in range(self.rounds if samples else 0):
            if number:
                gaussians = [_Gaussians.under(plan, of) for of in ensemble.features]
                by_features = _shares(agreed[0], equal_features)
                by_logits = _shares(agreed[1], equal)
            answers = np.empty((2, backbones, samples), dtype=np.int64)
            for rows in row_blocks(samples, classes):
                part = np.zeros((len(plan[rows]), classes))
                for b, one in enumerate(ensemble.logits):
                    likely = gaussians[b].probabilities(
                        ensemble.features[b][rows], self.temperature
                    )
                    known = softmax(one[rows].astype(np.float64))
                    answers[:, b, rows] = likely.argmax(axis=1), known.argmax(axis=1)
                    part += by_features[b] * likely + by_logits[b] * known
                plan[rows] = np.exp(part * self.sharpness)
            of_class = scale_to_marginals(plan, passes=self.passes)
            agreed = (answers == plan.argmax(axis=1)).sum(axis=2).astype(np.float64)
            agreed[0, absent] = 0
        return plan, _Last(gaussians, by_features, by_logits, of_class)

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return both parts of each backbone before the transport, and the scaling of the classes."""
        last = self._plan(ensemble)[1]
        own = softmax(ensemble.logits.astype(np.float64)) * last.by_logits[:, None, None]
        for b, of in enumerate(ensemble.features):
            likely = last.gaussians[b].probabilities(of, self.temperature)
            own[b] += last.by_features[b] * likely
        own *= self.sharpness
        offset = np.tile(np.log(last.of_class), (len(ensemble.sample_id), 1))
        return Contributions(own, {OFFSET: offset})
