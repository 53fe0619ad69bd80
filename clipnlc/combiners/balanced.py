"""Backbones balanced on unlabelled images: no class is favoured, and agreement counts.

CLIP's zero-shot logits favour some classes whatever the image. On unlabelled images whose class
proportions are known, or close to equal, that shows as a marginal that is too high, and an offset
per class takes it away. No label is read.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Combiner, Scores, require_backbones, weigh_alike
from clipnlc.combiners.explanation import OFFSET, Contributions, weighted
from clipnlc.combiners.shared import once
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError
from clipnlc.fitting import softmax

ROUNDS = 10
"""Of weights by agreement. They change by less than 1e-3 after five."""

HALF = 0.5
FULL = 1.0


def class_offsets(
    logits: Float[np.ndarray, "samples classes"],
    proportions: Float[np.ndarray, " classes"],
    *,
    spread: float,
) -> Float[np.ndarray, " classes"]:
    """Find what added to the logits makes the mean probabilities equal to `proportions`.

    The minimum of the convex `mean logsumexp(z + a) - proportions a + |a|^2 / (2 samples spread^2)`.
    Without its last term the slope is zero where the mean of softmax(z + a) is `proportions`
    (marginal debiasing, as the scaling of optimal transport); with it, few images move little.
    The last term is ours.

    Args:
        logits: of unlabelled rows, at least one.
        proportions: of the classes, positive, with sum 1.
        spread: standard deviation that is expected of an offset, in units of the logits.

    Returns:
        The offsets, float64, with mean 0.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  (prediction spares it)

    exact = logits.astype(np.float64)
    # Powers once, so that a step is two products of a matrix and a vector. A class that is 700 nats
    # behind is as good as absent.
    powers = np.exp(np.maximum(exact - exact.max(axis=1, keepdims=True), -700))
    samples = len(powers)
    ridge = 1 / (samples * spread**2)

    def objective(a: np.ndarray) -> tuple[float, np.ndarray]:
        factors = np.exp(a - a.max())
        sums = powers @ factors
        marginal = factors * (powers.T @ (1 / sums)) / samples
        value = np.log(sums).mean() + a.max() - proportions @ a + ridge / 2 * (a @ a)
        return float(value), marginal - proportions + ridge * a

    found = minimize(
        objective,
        np.zeros(len(proportions)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-8},
    ).x
    offsets: np.ndarray = found - found.mean()
    return offsets


def agreement_weights(
    logits: Float[np.ndarray, "backbones samples classes"], *, power: float
) -> Float[np.ndarray, " backbones"]:
    """Weigh backbones by how probable each finds the ensemble's own answers.

    Rounds of: the answer is the most probable class of the weighted sum; a backbone's agreement is
    its mean probability of it; weights are agreement to `power`, with sum 1. Not published in this
    form; the iteration is that of Conf-OT's and SOTA's self-adaptive weights (arXiv 2506.13723).

    Returns:
        The weights, float64, each positive, with sum 1.
    """
    weights: np.ndarray = np.full(len(logits), 1 / len(logits))
    if power == 0:
        return weights
    probable = np.stack([softmax(one.astype(np.float64)) for one in logits])
    samples = np.arange(logits.shape[1])
    for _ in range(ROUNDS):
        answer = weigh_alike(logits, weights).argmax(axis=1)
        agreement = probable[:, samples, answer].mean(axis=1)
        weights = agreement**power
        weights /= weights.sum()
    return weights


Proportions = Sequence[float] | Literal["uniform", "labels"] | None


def checked_balance(strength: float | None, proportions: Proportions) -> tuple[float, Proportions]:
    """Check and complete the settings of `Balanced`, whose docstring says what they mean.

    Raises:
        DataError: the strength is out of range, or a proportion is not positive.
    """
    if strength is None:
        strength = HALF if proportions is None else FULL
    if not 0 <= strength <= 1:
        raise DataError(f"the strength of offsets is {strength:g}; give 0 to 1")
    if proportions is None or isinstance(proportions, str):
        return strength, proportions
    found = [float(share) for share in proportions]
    if not all(share > 0 for share in found):
        raise DataError("class proportions must be positive; give every class a share")
    return strength, found


def declared_shares(
    proportions: Proportions, classes: int, labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, " classes"]:
    """Return the share of each class, with sum 1; equal ones unless others are declared.

    Raises:
        DataError: there is not one for each class.
    """
    if proportions is None or proportions == "uniform":
        return np.full(classes, 1 / classes)
    declared: np.ndarray = (
        np.bincount(labels, minlength=classes) + 1.0
        if proportions == "labels"
        else np.array(proportions, dtype=np.float64)
    )
    if len(declared) != classes:
        raise DataError(f"{len(declared)} proportions for {classes} classes; give one for each")
    declared /= declared.sum()
    return declared


def balance(
    logits: Float[np.ndarray, "backbones samples classes"],
    shares: Float[np.ndarray, " classes"],
    *,
    strength: float,
    spread: float,
    power: float,
) -> tuple[Float[np.ndarray, " backbones"], Float[np.ndarray, " classes"]]:
    """Return the weights of the backbones and the offsets of their weighted sum.

    Fits on one pool that follow each other compute it once.
    """

    def compute() -> tuple[Float[np.ndarray, " backbones"], Float[np.ndarray, " classes"]]:
        offsets = np.stack([class_offsets(one, shares, spread=spread) for one in logits])
        offsets *= strength
        weights = agreement_weights(logits + offsets[:, None].astype(np.float32), power=power)
        return weights, weights @ offsets

    weights, offsets = once("balance", compute, (logits, shares), (strength, spread, power))
    return weights.copy(), offsets.copy()


class Balanced(Combiner):
    """LOG-AVG with class offsets and agreement weights from unlabelled images; no label is read.

    Scores are `sum_b w_b (z_b + strength a_b)`: see `class_offsets` and `agreement_weights`. At
    full strength the proportions of the classes must be known; at half, the default, LOG-AVG is
    seldom worse where they are far from equal. Ours, after published marginal debiasing. `softmax`
    of the scores is a probability as LOG-AVG's is.

    Attributes:
        weight_: float64 `[backbones]`, with sum 1.
        offset_: float64 `[classes]`, added to the weighted sum.
    """

    reads_pool: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    probabilistic: ClassVar[bool] = True
    learnt: ClassVar[tuple[str, ...]] = ("weight_", "offset_")
    selected_on: ClassVar[str] = "nano training pools"
    weight_: Float[np.ndarray, " backbones"]
    offset_: Float[np.ndarray, " classes"]

    def __init__(
        self,
        *,
        strength: float | None = None,
        proportions: Sequence[float] | Literal["uniform"] | None = None,
        spread: float = 2.0,
        power: float = 2.0,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            strength: of the offsets, from 0 to 1; by default 1 where proportions are declared, else
                one half.
            proportions: of the classes, where they are known: `uniform`, or one number for each, in
                the order of the classes' names. Unknown, they are taken to be equal.
            spread: see `class_offsets`.
            power: see `agreement_weights`; 0 weighs all alike.
            seed: nothing is random here.

        Raises:
            DataError: the strength is out of range, or a proportion is not positive.
        """
        super().__init__(seed=seed)
        self.strength, self.proportions = checked_balance(strength, proportions)
        self.spread = spread
        self.power = power

    def _learn_with_pool(
        self,
        ensemble: Ensemble,  # noqa: ARG002  (no label is read)
        labels: Int[np.ndarray, " samples"],
        pool: Ensemble,
    ) -> None:
        shares = declared_shares(self.proportions, pool.logits.shape[2], labels[:0])
        self.weight_, self.offset_ = balance(
            pool.logits, shares, strength=self.strength, spread=self.spread, power=self.power
        )

    def _combine(self, ensemble: Ensemble) -> Scores:
        self.require_fitted()
        require_backbones(len(self.weight_), ensemble)
        scores = weigh_alike(ensemble.logits, self.weight_)
        scores += self.offset_
        return scores

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        self.require_fitted()
        require_backbones(len(self.weight_), ensemble)
        offset = np.tile(self.offset_, (ensemble.logits.shape[1], 1))
        return Contributions(weighted(ensemble.logits, self.weight_), {OFFSET: offset})

    def _mean_weight(self) -> Float[np.ndarray, " backbones"]:
        return self.weight_
