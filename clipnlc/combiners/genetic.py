"""GAC: one constant weight per backbone, found by a genetic search on accuracy."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import ConstantWeigher
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import fit_temperatures

LOG_SCALE_LIMIT = 3.0
"""How far, in log scale, `gac` may go from C-LOG-AVG."""

_MEMBERS_PER_BACKBONE = 7
_SCORES_AT_ONCE = 2**22
"""Scores of all members together that are in memory at a time: 16 MB."""


def fitness(
    logits: Float[np.ndarray, "backbones samples classes"], labels: Int[np.ndarray, " samples"]
) -> Callable[[Float[np.ndarray, "backbones members"]], Float[np.ndarray, " members"]]:
    """Make the function that a search minimises: wrong answers, ties broken by cross-entropy.

    It takes one column of weights per member and returns `wrong + h / (1 + h)`, where h is the mean
    cross-entropy: the second term is below 1, so it never outweighs an answer.
    """
    backbones, samples, classes = logits.shape
    size = max(1, _SCORES_AT_ONCE // (_MEMBERS_PER_BACKBONE * backbones * classes))
    cuts = [slice(start, start + size) for start in range(0, samples, size)]

    def relative(rows: slice) -> Float[np.ndarray, "backbones cells"]:
        # Relative to the label's own logit: right where no other class is above 0, and the
        # cross-entropy is log sum exp. Classes come first, so that reductions run over whole rows.
        own = np.take_along_axis(logits[:, rows], labels[None, rows, None], axis=2)
        found = (logits[:, rows] - own).transpose(0, 2, 1)
        return np.ascontiguousarray(found, dtype=np.float32).reshape(backbones, -1)

    # A few labels are prepared once; many are prepared anew each time, for lack of room.
    whole = relative(cuts[0]) if len(cuts) == 1 else None

    def energy(weights: Float[np.ndarray, "backbones members"]) -> Float[np.ndarray, " members"]:
        members = weights.T.astype(np.float32)
        wrong = np.zeros(len(members), dtype=np.int64)
        surprise = np.empty((len(members), samples), dtype=np.float32)
        for rows in cuts:
            scores = members @ (relative(rows) if whole is None else whole)
            scores = scores.reshape(len(members), classes, -1)
            highest = scores.max(axis=1)  # at least 0: the label's own
            scores -= highest[:, None]
            np.exp(scores, out=scores)
            surprise[:, rows] = highest + np.log(scores.sum(axis=1))
            wrong += (highest > 0).sum(axis=1)
        mean = surprise.mean(axis=1, dtype=np.float64)
        result: np.ndarray = wrong + mean / (1 + mean)
        return result

    return energy


class GeneticCalibration(ConstantWeigher):
    """GAC: a constant weight per backbone that a genetic search finds around C-LOG-AVG.

    The name is the NLC paper's; how it works is not published: our reading. Genes are log scales
    a_b in [-3, 3], the weights exp(a_b) / (B T_b), the fitness is the accuracy on the labels with
    the cross-entropy as tie-break. The search is scipy's differential evolution, which keeps its
    best member, and C-LOG-AVG is one of the first: the result is never worse on the labels.
    `softmax` of the scores is not calibrated: accuracy does not fix the scale.

    Attributes:
        weight_: float64 `[backbones]`, each > 0.
    """

    needs_labels = True
    learnt = ("weight_",)
    weight_: Float[np.ndarray, " backbones"]

    def __init__(self, *, generations: int = 200, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.generations = generations

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        from scipy.optimize import differential_evolution  # noqa: PLC0415  (prediction spares it)

        logits = ensemble.logits
        start = 1 / (len(logits) * fit_temperatures(logits, labels))
        energy = fitness(logits, labels)
        found = differential_evolution(
            lambda genes: energy(start[:, None] * np.exp(genes)),
            bounds=[(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)] * len(logits),
            x0=np.zeros(len(logits)),
            maxiter=self.generations,
            popsize=_MEMBERS_PER_BACKBONE,
            tol=0,
            polish=False,
            updating="deferred",
            vectorized=True,
            seed=np.random.default_rng(self.seed),
        )
        self.weight_ = start * np.exp(found.x)

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:  # noqa: ARG002  (learnt)
        return self.weight_
