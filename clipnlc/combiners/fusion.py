"""Fusion of the zero-shot logits with a head on features, more where the logits are unsure."""

import math
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Combiner, Scores, require_backbones, weigh_alike
from clipnlc.combiners.explanation import Contributions, weighted
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import (
    Adam,
    cosine_schedule,
    cross_entropy_gradient,
    product_by_blocks,
    row_blocks,
    softmax,
)

KURTOSIS = 250.0
"""What the kurtosis is divided by; published."""

MOST_BATCHES = 64
"""Batches of an epoch; with more rows they grow. Ours: thousands of small ones would take an hour."""

_LEAST = 1e-12  # of a standard deviation

Array = np.ndarray
"""Types inside the training are not checked: that would take the tests longer than the training."""


def unsureness(
    logits: Float[np.ndarray, "samples classes"], *, power: float
) -> Float[np.ndarray, " samples"]:
    """Return (kurtosis of the probabilities / 250)^-power: large where no class stands out.

    The kurtosis is the mean of the fourth powers of probabilities that are standardised over the
    classes, by an unbiased deviation. Where all are equal it is taken as the least that it can be.
    """
    classes = logits.shape[1]
    found = np.ones(len(logits))
    if classes > 1:
        for rows in row_blocks(*logits.shape):
            standard = _standardised(softmax(logits[rows].astype(np.float64))).value
            found[rows] = (standard**4).mean(axis=1)
    least = (1 - 1 / max(classes, 2)) ** 2
    factor: np.ndarray = (np.maximum(found, least) / KURTOSIS) ** -power
    return factor


class _Standard(NamedTuple):
    value: Array
    deviation: Array


def _standardised(rows: Array) -> _Standard:
    """Return rows with mean 0 and an unbiased standard deviation of 1, and what they were divided by."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    spread = (centred**2).sum(axis=1, keepdims=True) / max(1, rows.shape[1] - 1)
    deviation = np.maximum(np.sqrt(spread), _LEAST).astype(rows.dtype)
    return _Standard(centred / deviation, deviation)


class Amu(Combiner):
    """AMU: LOG-AVG, plus a head on all features that counts more where LOG-AVG is unsure.

    AMU-Tuning (Tang et al., CVPR 2024, arXiv 2404.08958): `z + alpha kappa(x) a(x)`, where a is a
    linear head on auxiliary features, standardised over the classes, that starts at the class means,
    and kappa falls with the kurtosis of z's probabilities (`unsureness`). The loss is lambda times the
    cross-entropy of the sum, plus 1 - lambda times that of a alone. Published: alpha 0.5, lambda
    0.35, AdamW 1e-3 with decay 0.01 and epsilon 1e-4, cosine, 50 epochs in batches of 8. There z is one
    CLIP and the features are another backbone's; LOG-AVG and all backbones' unit features side by
    side are our reading, as are no augmented copies of the images, larger batches from 512 labels on
    (`MOST_BATCHES`), and the last epoch: the published code keeps the one that is best on test.
    `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float32 `[width, classes]`.
        widths_: int64 `[backbones]`, of the features.
    """

    needs_labels: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    probabilistic: ClassVar[bool] = True
    learnt: ClassVar[tuple[str, ...]] = ("weight_", "widths_")
    weight_: Float[np.ndarray, "width classes"]
    widths_: Int[np.ndarray, " backbones"]

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        power: float = 0.4,
        balance: float = 0.35,
        epochs: int = 50,
        batch_rows: int = 8,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            alpha: strength of the head.
            power: of kappa, rho.
            balance: share of the fused loss, lambda.
            epochs: passes over the rows.
            batch_rows: rows of a step.
            learning_rate: AdamW's, at the start.
            weight_decay: decoupled.
            seed: of the order of the rows.
        """
        super().__init__(seed=seed)
        self.alpha = alpha
        self.power = power
        self.balance = balance
        self.epochs = epochs
        self.batch_rows = batch_rows
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        inputs = _inputs(ensemble)
        samples, classes = len(labels), ensemble.logits.shape[2]
        main = _log_average(ensemble)
        factor = self.alpha * unsureness(main, power=self.power)[:, None]
        main, factor = main.astype(np.float32), factor.astype(np.float32)
        weight = np.zeros((inputs.shape[1], classes), dtype=np.float32)
        np.add.at(weight.T, labels, inputs)
        weight *= np.float32(classes / samples)
        random = np.random.default_rng(self.seed)
        adam = Adam(
            [weight],
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epsilon=1e-4,
        )
        size = max(self.batch_rows, math.ceil(samples / MOST_BATCHES))
        batches = math.ceil(samples / size)
        for step in range(self.epochs * batches):
            place = step % batches
            if not place:
                order = random.permutation(samples)
            rows = np.sort(order[place * size : (place + 1) * size])
            adam.learning_rate = cosine_schedule(self.learning_rate, step, self.epochs * batches)
            adam.step(
                [self._gradient(weight, inputs[rows], main[rows], factor[rows], labels[rows])]
            )
        self.weight_ = weight
        self.widths_ = np.array([block.shape[1] for block in ensemble.features])

    def _gradient(
        self, weight: Array, inputs: Array, main: Array, factor: Array, labels: Array
    ) -> Array:
        """Return the loss's derivative by the head's weights."""
        head = _standardised(inputs @ weight)
        by_head = self.balance * factor * cross_entropy_gradient(main + factor * head.value, labels)
        by_head += (1 - self.balance) * cross_entropy_gradient(head.value, labels)
        # Back through the standardisation: neither a shift nor a factor of a row changes it.
        along = (by_head * head.value).sum(axis=1, keepdims=True)
        along /= max(1, weight.shape[1] - 1)
        by_head -= by_head.mean(axis=1, keepdims=True) + head.value * along
        by_head /= head.deviation
        found: np.ndarray = inputs.T @ by_head.astype(np.float32)
        return found

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return LOG-AVG's logits plus the weighted head."""
        inputs = self._checked(ensemble)
        scores = _log_average(ensemble)
        factor = self.alpha * unsureness(scores, power=self.power)[:, None]
        products = product_by_blocks(inputs, self.weight_)
        for rows in row_blocks(*scores.shape):
            head = _standardised(products[rows].astype(np.float64)).value
            scores[rows] += factor[rows] * head
        return scores

    def _checked(self, ensemble: Ensemble) -> Float[np.ndarray, "samples width"]:
        """Return the head's input, of the backbones and widths that it was fitted on."""
        self.require_fitted()
        require_backbones(len(self.widths_), ensemble)
        inputs = _inputs(ensemble)
        if [block.shape[1] for block in ensemble.features] != self.widths_.tolist():
            raise ValueError(f"fitted on features {self.widths_.sum()} wide, not {inputs.shape[1]}")
        return inputs

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return each backbone's logits and what its features add, up to a shift of a row."""
        inputs = self._checked(ensemble)
        main = _log_average(ensemble)
        head = _standardised((inputs @ self.weight_).astype(np.float64))
        factor = self.alpha * unsureness(main, power=self.power)[:, None] / head.deviation
        backbones = len(self.widths_)
        own = weighted(ensemble.logits, np.full(backbones, 1 / backbones))
        ends = np.cumsum(self.widths_)[:-1]
        parts = zip(np.split(inputs, ends, axis=1), np.split(self.weight_, ends), strict=True)
        for number, (block, weight) in enumerate(parts):
            own[number] += factor * (block.astype(np.float64) @ weight)
        return Contributions(own, {})


def _log_average(ensemble: Ensemble) -> Float[np.ndarray, "samples classes"]:
    backbones = len(ensemble.logits)
    return weigh_alike(ensemble.logits, np.full(backbones, 1 / backbones))


def _inputs(ensemble: Ensemble) -> Float[np.ndarray, "samples width"]:
    """Return all backbones' unit features side by side, of length 1 together."""
    inputs = ensemble.concatenated()
    blocks = sum(block.shape[1] > 0 for block in ensemble.features)  # not those of logits alone
    inputs /= np.float32(math.sqrt(blocks))
    return inputs
