"""One weight per backbone, the same for every sample, fitted by cross-entropy."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import ConstantWeigher, backbone_order
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, cross_entropy_gradient, fit_temperatures, softmax

LOG_SCALE_LIMIT = 3.0
"""How far, in log scale, `static` and `gac` may go from C-LOG-AVG. Keeps separable fits finite."""

_SIMPLEX_LIMIT = 10.0  # smallest share of the simplex is about exp(-20)


def fit_constant(
    logits: Float[np.ndarray, "backbones samples classes"],
    labels: Int[np.ndarray, " samples"],
    weights: Callable[[Float[np.ndarray, " backbones"]], Float[np.ndarray, " backbones"]],
    pull_back: Callable[
        [Float[np.ndarray, " backbones"], Float[np.ndarray, " backbones"]],
        Float[np.ndarray, " backbones"],
    ],
    *,
    limit: float,
) -> Float[np.ndarray, " backbones"]:
    """Minimise the cross-entropy of `sum_b weights(a)_b z_b` over `a` in [-limit, limit] from 0.

    Args:
        logits: float, every backbone's.
        labels: class numbers.
        weights: maps `a` to the weights.
        pull_back: maps (weights, derivative by the weights) to the derivative by `a`.
        limit: the bound on each entry of `a`.

    Returns:
        The weights at the minimum.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  (0.3 s that prediction can spare)

    exact = logits.astype(np.float64)

    def loss(a: np.ndarray) -> tuple[float, np.ndarray]:
        w = weights(a)
        scores = np.tensordot(w, exact, axes=1)
        by_weight = np.tensordot(exact, cross_entropy_gradient(scores, labels), axes=2)
        return cross_entropy(scores, labels), pull_back(w, by_weight)

    start = np.zeros(len(logits))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(-limit, limit)] * len(start)
    )
    return weights(found.x)


class StaticWeights(ConstantWeigher):
    """A constant positive weight per backbone, fitted by gradient: the control for NLC.

    What of NLC's gain comes from the labels alone, without looking at the image, this has too.
    Weights are exp(a_b) / (B T_b) with |a_b| <= `LOG_SCALE_LIMIT`; the start, a = 0, is C-LOG-AVG.
    Ours, not the paper's. `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float64 `[backbones]`, each > 0.
    """

    needs_labels = True
    learnt = ("weight_",)
    weight_: Float[np.ndarray, " backbones"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        order = backbone_order(ensemble)
        logits = ensemble.logits[order]
        start = 1 / (len(order) * fit_temperatures(logits, labels))
        self.weight_ = np.empty(len(order))
        self.weight_[order] = fit_constant(
            logits,
            labels,
            weights=lambda a: start * np.exp(a),
            pull_back=lambda w, by_weight: w * by_weight,
            limit=LOG_SCALE_LIMIT,
        )

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:  # noqa: ARG002  (learnt)
        return self.weight_


class SuperLearner(ConstantWeigher):
    """SL: non-negative weights that sum to 1, fitted by cross-entropy on labelled rows.

    Super Learner (van der Laan et al. 2007) is in the NLC paper's comparison; its form there is not
    published: our reading. The start is LOG-AVG. `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float64 `[backbones]`, on the simplex.
    """

    needs_labels = True
    learnt = ("weight_",)
    weight_: Float[np.ndarray, " backbones"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        order = backbone_order(ensemble)
        self.weight_ = np.empty(len(order))
        self.weight_[order] = fit_constant(
            ensemble.logits[order],
            labels,
            weights=softmax,
            pull_back=lambda w, by_weight: w * (by_weight - w @ by_weight),
            limit=_SIMPLEX_LIMIT,
        )

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:  # noqa: ARG002  (learnt)
        return self.weight_
