"""One weight per backbone, the same for every sample, fitted by cross-entropy."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import ConstantWeigher
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, cross_entropy_gradient, fit_temperatures, row_blocks

LOG_SCALE_LIMIT = 3.0
"""How far, in log scale, `static` and `gac` may go from C-LOG-AVG. Keeps separable fits finite."""

_GAP = 1e-7
"""Nats that `super-learner` may be above its minimum, by the bound of its convexity."""

_EXCHANGES = 1000  # steps after which the search for the last fraction of a nat is given up

Loss = Callable[[Float[np.ndarray, " backbones"]], tuple[float, Float[np.ndarray, " backbones"]]]


def constant_weights_loss(
    logits: Float[np.ndarray, "backbones samples classes"], labels: Int[np.ndarray, " samples"]
) -> Loss:
    """Make the function that gives the cross-entropy of `sum_b w_b z_b` and its derivative by w.

    It is convex in w. The logits are turned into float64 block by block.
    """
    blocks = row_blocks(len(labels), len(logits) * logits.shape[2])
    whole = logits.astype(np.float64) if len(blocks) == 1 else None

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        total, by_weight = 0.0, np.zeros(len(w))
        for rows in blocks:
            exact = logits[:, rows].astype(np.float64) if whole is None else whole
            scores = np.tensordot(w, exact, axes=1)
            share = len(scores) / len(labels)
            total += share * cross_entropy(scores, labels[rows])
            slope = cross_entropy_gradient(scores, labels[rows])
            by_weight += share * np.tensordot(exact, slope, axes=2)
        return total, by_weight

    return loss


def minimise_on_simplex(loss: Loss, size: int) -> Float[np.ndarray, " size"]:
    """Find the minimum of a convex function over non-negative weights that sum to 1.

    Sequential quadratic programming from equal weights; then, until the weights are within 1e-7 of
    the minimum by the bound `g w - min g` on what is missing (Frank and Wolfe 1956), weight moves
    from the backbone with the steepest to the one with the lowest slope.

    Returns:
        The weights, each at least 0, with sum 1.
    """
    from scipy.optimize import minimize, minimize_scalar  # noqa: PLC0415  (prediction spares it)

    found = minimize(
        loss,
        np.full(size, 1 / size),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-13, "maxiter": 500},
    ).x
    w: np.ndarray = np.clip(found, 0, 1)
    w /= w.sum()
    for _ in range(_EXCHANGES):
        slope = loss(w)[1]
        if slope @ w - slope.min() <= _GAP:
            break
        least, most = slope.argmin(), np.where(w > 0, slope, -np.inf).argmax()
        way = np.zeros(size)
        way[least], way[most] = 1, -1
        step = minimize_scalar(
            lambda t, w=w, way=way: loss(w + t * way)[0],
            bounds=(0, w[most]),
            method="bounded",
            options={"xatol": 1e-12},
        ).x
        # A bounded search stays off its bounds; all of the weight may have to go.
        step = w[most] if loss(w + w[most] * way)[0] <= loss(w + step * way)[0] else step
        w = np.maximum(w + step * way, 0)
    return w


class StaticWeights(ConstantWeigher):
    """A constant positive weight per backbone, fitted by gradient: the control for NLC.

    What of NLC's gain comes from the labels alone, without looking at the image, this has too.
    Weights are exp(a_b) / (B T_b) with |a_b| <= `LOG_SCALE_LIMIT`; the start, a = 0, is C-LOG-AVG.
    Ours, not the paper's. `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float64 `[backbones]`, each > 0.
    """

    needs_labels = True
    probabilistic = True
    learnt = ("weight_",)
    weight_: Float[np.ndarray, " backbones"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        from scipy.optimize import minimize  # noqa: PLC0415  (prediction spares it)

        start = 1 / (len(ensemble.logits) * fit_temperatures(ensemble.logits, labels))
        loss = constant_weights_loss(ensemble.logits, labels)

        def by_log_scale(a: np.ndarray) -> tuple[float, np.ndarray]:
            w = start * np.exp(a)
            value, by_weight = loss(w)
            return value, w * by_weight

        found = minimize(
            by_log_scale,
            np.zeros(len(start)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)] * len(start),
        )
        self.weight_ = start * np.exp(found.x)

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:  # noqa: ARG002  (learnt)
        return self.weight_


class SuperLearner(ConstantWeigher):
    """SL: non-negative weights that sum to 1, fitted by cross-entropy on labelled rows.

    Super Learner (van der Laan et al. 2007) is in the NLC paper's comparison; its form there is not
    published: our reading. The loss is convex, and its minimum is reached to 1e-7 nats. `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float64 `[backbones]`, on the simplex.
    """

    needs_labels = True
    probabilistic = True
    learnt = ("weight_",)
    weight_: Float[np.ndarray, " backbones"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        loss = constant_weights_loss(ensemble.logits, labels)
        self.weight_ = minimise_on_simplex(loss, len(ensemble.logits))

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:  # noqa: ARG002  (learnt)
        return self.weight_
