"""One weight per backbone, the same for every sample, fitted by cross-entropy."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import ConstantWeigher
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, cross_entropy_gradient, row_blocks

_FARTHEST = 8.0
"""Bound of the log-weights of `static`, far outside of where its pull lets them go: a search that
tries too long a step stays finite."""

_GAP = 1e-7
"""Nats that `super-learner` may be above its minimum, by the bound of its convexity."""

_EXCHANGES = 1000  # steps after which the search for the last fraction of a nat is given up

Loss = Callable[[Float[np.ndarray, " backbones"]], tuple[float, Float[np.ndarray, " backbones"]]]


def constant_weights_loss(
    logits: Float[np.ndarray, "backbones samples classes"],
    labels: Int[np.ndarray, " samples"],
    offset: Float[np.ndarray, " classes"] | float = 0.0,
) -> Loss:
    """Make the function that gives the cross-entropy of `sum_b w_b z_b` and its derivative by w.

    An offset is added to the sum. It is convex in w. The logits are turned into float64 block by block.
    """
    blocks = row_blocks(len(labels), len(logits) * logits.shape[2])
    whole = logits.astype(np.float64) if len(blocks) == 1 else None

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        total, by_weight = 0.0, np.zeros(len(w))
        for rows in blocks:
            exact = logits[:, rows].astype(np.float64) if whole is None else whole
            scores = np.tensordot(w, exact, axes=1) + offset
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


def fit_static(
    logits: Float[np.ndarray, "backbones samples classes"],
    labels: Int[np.ndarray, " samples"],
    *,
    pull: float = 1.0,
    start: Float[np.ndarray, " backbones"] | None = None,
    offset: Float[np.ndarray, " classes"] | float = 0.0,
) -> Float[np.ndarray, " backbones"]:
    """Find the constant weights w0_b exp(o_b) that labels and a pull to w0 make most probable.

    Minimises `sum_i CE(sum_b w_b z_b + offset, y) + pull / 2 sum_b o_b^2` from o = 0: the mode under
    a normal prior on the log-weights, whose standard deviation at the default pull is 1, a factor
    of e.

    Args:
        logits: of the labelled rows.
        labels: class numbers.
        pull: strength of the penalty.
        start: the weights w0; by default those of LOG-AVG.
        offset: fixed, added to the weighted sum.

    Returns:
        The weights, each > 0.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  (prediction spares it)

    backbones, samples, _ = logits.shape
    origin = np.full(backbones, 1 / backbones) if start is None else start
    loss = constant_weights_loss(logits, labels, offset)

    def objective(o: np.ndarray) -> tuple[float, np.ndarray]:
        w = origin * np.exp(o)
        value, by_weight = loss(w)
        return value + pull / samples * (o @ o) / 2, w * by_weight + pull / samples * o

    found = minimize(
        objective,
        np.zeros(backbones),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_FARTHEST, _FARTHEST)] * backbones,
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-8},
    )
    weights: np.ndarray = origin * np.exp(found.x)
    return weights


class StaticWeights(ConstantWeigher):
    """A constant positive weight per backbone, pulled to LOG-AVG: the control for NLC.

    What of NLC's gain comes from the labels alone, without looking at the image, this has too. See
    `fit_static`. Ours, not the paper's. `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float64 `[backbones]`, each > 0.
    """

    needs_labels = True
    probabilistic = True
    learnt = ("weight_",)
    weight_: Float[np.ndarray, " backbones"]

    def __init__(self, *, pull: float = 1.0, seed: int = 0) -> None:
        """Store the settings.

        Args:
            pull: strength of the penalty on the log-weights; with 0, one label may set them freely.
            seed: of nothing.
        """
        super().__init__(seed=seed)
        self.pull = pull

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        self.weight_ = fit_static(ensemble.logits, labels, pull=self.pull)

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
