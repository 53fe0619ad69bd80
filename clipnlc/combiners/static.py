"""One weight per backbone, the same for every sample, fitted by cross-entropy."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import ConstantWeigher
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, cross_entropy_gradient, row_blocks

_NEAR = 1e-7
"""Change of a log-weight at which the search of `static` ends; the next would be its square."""

_NEWTON_STEPS = 100  # 5 to 10 are enough; the search never goes on without bound
_ROUNDING = 1e-13  # of a mean cross-entropy

_CELLS = 2**17
"""Logits in float64 that are worked on together: they stay in a processor's cache."""

_GAP = 1e-7
"""Nats that `super-learner` may be above its minimum, by the bound of its convexity."""

_EXCHANGES = 1000  # steps after which the search for the last fraction of a nat is given up

Expansion = Callable[
    [Float[np.ndarray, " backbones"]],
    tuple[float, Float[np.ndarray, " backbones"], Float[np.ndarray, "backbones backbones"]],
]
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


def weights_expansion(
    logits: Float[np.ndarray, "backbones samples classes"],
    labels: Int[np.ndarray, " samples"],
    offset: Float[np.ndarray, " classes"] | float = 0.0,
) -> Expansion:
    """Make the function that gives the cross-entropy of `sum_b w_b z_b` to the second order in w.

    An offset is added to the sum.

    It returns the value, the gradient and the Hessian `mean_i Z_i (diag p_i - p_i p_i') Z_i'`.
    """
    backbones, samples, classes = logits.shape
    size = max(1, _CELLS // (backbones * classes))

    def expansion(w: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        total, by_weight, bent = 0.0, np.zeros(backbones), np.zeros((backbones, backbones))
        for start in range(0, samples, size):
            rows = np.arange(min(size, samples - start))
            part, own = logits[:, start : start + size], labels[start : start + size]
            exact = part.astype(np.float64).reshape(backbones, -1)
            scores = (w @ exact).reshape(len(rows), classes) + offset
            scores -= scores.max(axis=1, keepdims=True)
            chosen = scores[rows, own]
            np.exp(scores, out=scores)
            summed = scores.sum(axis=1, keepdims=True)
            total += float((np.log(summed[:, 0]) - chosen).sum())
            scores /= summed
            exact *= np.sqrt(scores).ravel()
            bent += exact @ exact.T
            exact *= np.sqrt(scores).ravel()
            mean = exact.reshape(backbones, len(rows), classes).sum(axis=2)
            bent -= mean @ mean.T
            by_weight += (mean - part[:, rows, own]).sum(axis=1)
        return total / samples, by_weight / samples, bent / samples

    return expansion


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

    Newton's method on o, to 1e-7.

    Returns:
        The weights, each > 0.

    Raises:
        ValueError: `pull` is not above 0.
    """
    if not pull > 0:
        raise ValueError(f"pull is {pull}; it must be above 0, or one label moves weights freely")
    backbones, samples, _ = logits.shape
    ridge = pull / samples
    origin = np.full(backbones, 1 / backbones) if start is None else start
    o, at = np.zeros(backbones), weights_expansion(logits, labels, offset)
    w: np.ndarray = origin * np.exp(o)
    value, by_weight, bent = at(w)
    for _ in range(_NEWTON_STEPS):
        slope = w * by_weight + ridge * o
        # In o the loss need not be convex away from the mode: a direction that bends down is taken
        # for one that bends up as much, so that the step leads downhill.
        bends, ways = np.linalg.eigh(w[:, None] * bent * w + np.diag(w * by_weight + ridge))
        step = -ways @ ((ways.T @ slope) / np.maximum(np.abs(bends), 0.01 * ridge))
        step *= min(1, 1 / np.abs(step).max(initial=_NEAR))  # a factor of e at most
        before = value + ridge * (o @ o) / 2
        while True:
            w = origin * np.exp(o + step)
            value, by_weight, bent = at(w)
            now = value + ridge * ((o + step) @ (o + step)) / 2
            if now <= before + 1e-4 * slope @ step + _ROUNDING or np.abs(step).max() < _NEAR:
                break
            step /= 2
        o += step
        if np.abs(step).max() < _NEAR:
            break
    return w


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
            pull: strength of the penalty on the log-weights, above 0.
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
