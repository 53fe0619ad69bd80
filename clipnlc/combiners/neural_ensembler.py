"""A neural ensembler: a network reads the backbones' probabilities and weighs them, image by image."""

import itertools
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.combiners.averages import mixed_log_probabilities
from clipnlc.combiners.base import Combiner, Scores, require_backbones
from clipnlc.combiners.explanation import Contributions
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import Adam, log_softmax, product_by_blocks, softmax

_PREDICTED_CELLS = 2**21
"""Hidden values of a layer that are in memory at a time when predicting."""

NAMES = ("first", "second", "third", "last")

Parameters = list[np.ndarray]
"""Weight and bias of each layer: two see one class at a time, one their mean, then the outputs."""

Array = np.ndarray
"""Types inside the training are not checked: that would take the tests longer than the training."""


class Trace(NamedTuple):
    """What the layers gave: `[rows * classes, hidden]` twice, `[rows, hidden]` twice, the outputs."""

    one: Array
    two: Array
    mean: Array
    three: Array
    outputs: Array


def forward(
    parameters: Parameters,
    given: Array,
    product: Callable[[Array, Array], Array] = np.matmul,
) -> Trace:
    """Return what every layer gives.

    Args:
        parameters: of the network.
        given: `[rows, classes, backbones]`.
        product: of two matrices.
    """
    first, first_bias, second, second_bias, third, third_bias, last, last_bias = parameters
    rows, classes, backbones = given.shape
    # Rows and classes are one axis of every product: one large one, not one for each row.
    one = product(given.reshape(-1, backbones), first)
    one += first_bias
    np.maximum(one, 0, out=one)
    two = product(one, second)
    two += second_bias
    np.maximum(two, 0, out=two)
    mean = two.reshape(rows, classes, len(second)).mean(axis=1)
    three = np.maximum(product(mean, third) + third_bias, 0)
    return Trace(one, two, mean, three, product(three, last) + last_bias)


def gradients(
    parameters: Parameters,
    given: Array,
    own: Array,
    kept: Array,
) -> Parameters:
    """Return the derivatives of the mean of -log sum_b w_b p_b(y): back-propagation, written out.

    Args:
        parameters: of the network.
        given: its input, `[rows, classes, backbones]`.
        own: the log probabilities of the labels, log p_b(y), `[rows, backbones]`.
        kept: the backbones that w is a softmax over; the others have weight 0.
    """
    _, _, second, _, third, _, last, _ = parameters
    rows, classes, backbones = given.shape
    trace = forward(parameters, given)
    outputs = np.where(kept, trace.outputs, -np.inf)
    # By the outputs: a weight minus the share that its backbone has in the probability.
    by_outputs = _shares(outputs) - _shares(outputs + own)
    by_outputs = (by_outputs / rows).astype(given.dtype)
    by_three = (by_outputs @ last.T) * (trace.three > 0)
    by_mean = (by_three @ third.T) / classes
    by_two = np.repeat(by_mean, classes, axis=0)
    by_two *= trace.two > 0
    by_one = by_two @ second.T
    by_one *= trace.one > 0
    return [
        given.reshape(-1, backbones).T @ by_one,
        by_one.sum(axis=0),
        trace.one.T @ by_two,
        by_two.sum(axis=0),
        trace.mean.T @ by_three,
        by_three.sum(axis=0),
        trace.three.T @ by_outputs,
        by_outputs.sum(axis=0),
    ]


def _shares(outputs: Array) -> Array:
    """Return softmax over the backbones, whose types are not checked."""
    powers: Array = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


class NeuralEnsembler(Combiner):
    """NEURAL-ENSEMBLER: image-dependent weights of probabilities, from the probabilities alone.

    Regularized Neural Ensemblers (Arango et al., AutoML 2025, arXiv 2410.04520), model averaging: a
    network of three hidden layers that classes share weighs the backbones, `p = sum_b w_b p_b`. While
    it is trained, backbones are dropped at random from its input and its output. The paper has a
    stacking mode too, whose network gives the scores themselves. This is the mode of its argument for
    dropping backbones and of its code's default, and with few labels it cannot leave what the
    backbones say.

    Settings are those of the example of the authors' package (dropping 0.2, 32 hidden units, Adam
    1e-3, batches of 512 rows, 1000 epochs); the paper's experiments, with many more models, drop up to 0.75 of
    them. Not published, our reading: 1000 steps, however many rows there are; where all backbones
    would be dropped, others are drawn. `softmax` of the scores is a fitted probability.

    Attributes:
        first_, second_, third_, last_: float32 weights, `[inputs, outputs]`.
        first_bias_, second_bias_, third_bias_, last_bias_: float32.
    """

    needs_labels: ClassVar[bool] = True
    probabilistic: ClassVar[bool] = True
    learnt: ClassVar[tuple[str, ...]] = tuple(
        f"{name}{part}_" for name in NAMES for part in ("", "_bias")
    )

    def __init__(
        self,
        *,
        steps: int = 1000,
        learning_rate: float = 1e-3,
        batch_rows: int = 512,
        hidden: int = 32,
        dropped: float = 0.2,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            steps: of Adam.
            learning_rate: Adam's.
            batch_rows: rows of a step; all of them where there are fewer.
            hidden: width of each hidden layer.
            dropped: share of the backbones that a step does without, on average; below 1.
            seed: of the start, the batches and what is dropped.
        """
        super().__init__(seed=seed)
        self.steps = steps
        self.learning_rate = learning_rate
        self.batch_rows = batch_rows
        self.hidden = hidden
        self.dropped = dropped

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        random = np.random.default_rng(self.seed)
        backbones, samples, _ = ensemble.logits.shape
        widths = [backbones, self.hidden, self.hidden, self.hidden, backbones]
        start: Parameters = []
        for inputs, outputs in itertools.pairwise(widths):
            bound = 1 / math.sqrt(inputs)  # the usual start of a linear layer
            for shape in ((inputs, outputs), (outputs,)):
                start.append(random.uniform(-bound, bound, shape).astype(np.float32))
        # They are views of one vector: Adam moves them all at once.
        moved = np.concatenate([one.ravel() for one in start])
        cuts = np.split(moved, np.cumsum([one.size for one in start])[:-1])
        parameters = [cut.reshape(one.shape) for cut, one in zip(cuts, start, strict=True)]
        adam = Adam([moved], learning_rate=self.learning_rate)
        every = np.arange(samples)
        few = samples <= self.batch_rows
        given, own = _read(ensemble, labels, every) if few else (None, None)
        order = every[:0]
        for _ in range(self.steps):
            if given is None or own is None or not few:
                if not len(order):
                    order = random.permutation(samples)
                rows, order = np.sort(order[: self.batch_rows]), order[self.batch_rows :]
                given, own = _read(ensemble, labels, rows)
            kept = self._kept(random, backbones)
            factor = (kept / (1 - self.dropped)).astype(np.float32)
            found = gradients(parameters, given * factor, own, kept)
            adam.step([np.concatenate([one.ravel() for one in found])])
        for name, value in zip(self.learnt, parameters, strict=True):
            setattr(self, name, value)

    def _kept(self, random: np.random.Generator, backbones: int) -> Bool[np.ndarray, " backbones"]:
        """Draw the backbones of a step, at least one."""
        while True:
            kept: np.ndarray = random.uniform(size=backbones) >= self.dropped
            if kept.any():
                return kept

    def _log_weights(self, ensemble: Ensemble) -> Float[np.ndarray, "samples backbones"]:
        """Return the logarithm of each backbone's weight for each row, in float64."""
        self.require_fitted()
        parameters = [getattr(self, name).astype(np.float64) for name in self.learnt]
        require_backbones(len(parameters[-1]), ensemble)
        backbones, samples, classes = ensemble.logits.shape
        found = np.empty((samples, backbones))
        size = max(1, _PREDICTED_CELLS // (classes * len(parameters[1])))
        for start in range(0, samples, size):
            given = _probabilities(ensemble.logits[:, start : start + size])
            found[start : start + size] = log_softmax(
                forward(parameters, given, product_by_blocks).outputs
            )
        return found

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return log sum_b w_b p_b."""
        return mixed_log_probabilities(ensemble.logits, self._log_weights(ensemble))

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the weighted probabilities, whose sum increases with the scores."""
        parts = softmax(ensemble.logits.astype(np.float64))
        parts *= np.exp(self._log_weights(ensemble)).T[:, :, None]
        return Contributions(parts, {})


def _probabilities(
    logits: Float[np.ndarray, "backbones rows classes"],
) -> Float[np.ndarray, "rows classes backbones"]:
    """Return the probabilities with the backbones behind, as the network reads them."""
    backbones, rows, classes = logits.shape
    found = np.empty((rows, classes, backbones))
    for number, one in enumerate(logits):
        found[:, :, number] = softmax(one.astype(np.float64))
    return found


def _read(
    ensemble: Ensemble, labels: Int[np.ndarray, " samples"], rows: Int[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, "rows classes backbones"], Float[np.ndarray, "rows backbones"]]:
    """Return probabilities of some rows, float32, and log probabilities of their labels."""
    logits = ensemble.logits[:, rows]
    own = [
        log_softmax(one.astype(np.float64))[np.arange(len(rows)), labels[rows]] for one in logits
    ]
    return _probabilities(logits).astype(np.float32), np.stack(own, axis=1)
