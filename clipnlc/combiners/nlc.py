"""NLC, the Neural Logit Controller: a small network weighs the backbones, image by image."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Weigher, Weights, require_backbones
from clipnlc.combiners.scales import PARAMETRISATIONS
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import Adam, cross_entropy_gradient, fit_temperatures
from clipnlc.registry import unknown_name

STARTS = ("log-avg", "c-log-avg")
BLOCK_ROWS = 4096
"""Rows that a step works on at a time; more are cut into equal blocks, whose gradients add up."""

PREPARED_CELLS = 2**27
"""Numbers, half a gigabyte, up to which what the network reads is prepared once and not in every
step: a second copy of more may not fit."""

Reader = Callable[[Int[np.ndarray, " rows"]], Float[np.ndarray, "rows width"]]
"""Gives the network's input for some rows of an ensemble, before the factor on it."""

_PREDICTED_ROWS = 256
"""Rows that go through the network together, filled up with zeros: products of matrices of one
shape give a row the same bits wherever it stands."""


class NeuralLogitController(Weigher):
    """NLC: scales s(x) from the features, prediction sum_b s_b(x) z_b / B (arXiv 2405.17139).

    The network reads every backbone's L2-normalised features side by side, has one hidden layer of
    ReLUs and one output per backbone, and is trained by the cross-entropy of the combined logits
    with Adam, learning rate 2e-4 and weight decay 0.01, as published. Not published, our reading:
    the activation, the map from outputs to scales, the decay being decoupled, the length of the
    training, the zero last layer (training starts exactly at LOG-AVG) and the factor on the input.

    `softmax` of the scores is a fitted probability.

    Attributes:
        hidden_weight_: float32 `[width, hidden]`, the backbones' features one below the other.
        hidden_bias_: float32 `[hidden]`.
        output_weight_: float32 `[hidden, backbones]`.
        output_bias_: float32 `[backbones]`.
        temperature_: float64 `[backbones]`, what the logits are divided by before they are scaled.
    """

    needs_labels = True
    needs_features = True
    reads_logits = False
    probabilistic = True
    selected_on = "nano training pools"
    learnt = (
        "hidden_weight_",
        "hidden_bias_",
        "output_weight_",
        "output_bias_",
        "temperature_",
    )
    hidden_weight_: Float[np.ndarray, "width hidden"]
    hidden_bias_: Float[np.ndarray, " hidden"]
    output_weight_: Float[np.ndarray, "hidden backbones"]
    output_bias_: Float[np.ndarray, " backbones"]
    temperature_: Float[np.ndarray, " backbones"]

    def __init__(
        self,
        *,
        parametrisation: str = "softplus",
        start: str = "log-avg",
        steps: int = 300,
        learning_rate: float = 2e-4,
        weight_decay: float = 0.01,
        pull: float = 0.0,
        hidden: int = 128,
        input_scale: float = 8.0,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            parametrisation: how outputs become scales, a key of `PARAMETRISATIONS`.
            start: what training starts at and `pull` holds on to: `log-avg` or `c-log-avg`.
            steps: of the full batch, however many rows there are. How far Adam goes from LOG-AVG
                is decided by the number of its steps and by how steady the gradient is, and that
                distance is what holds NLC back where there are few labels. So neither may change
                at some number of rows: minibatches of 400 out of 401 rows already end at two
                thirds of the distance. The time grows with the rows. Not published; our reading.
            learning_rate: Adam's.
            weight_decay: decoupled.
            pull: strength of the penalty `pull * mean (s - 1)^2` towards the start.
            hidden: width of the hidden layer.
            input_scale: factor on the unit-length features.
            seed: of the first layer's start.

        Raises:
            UnknownNameError: no such parametrisation or start.
        """
        super().__init__(seed=seed)
        if parametrisation not in PARAMETRISATIONS:
            raise unknown_name("parametrisation", parametrisation, PARAMETRISATIONS)
        if start not in STARTS:
            raise unknown_name("start", start, STARTS)
        self.parametrisation = parametrisation
        self.start = start
        self.steps = steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.pull = pull
        self.hidden = hidden
        self.input_scale = input_scale

    def _reader(self, ensemble: Ensemble) -> Reader:
        """Return what the network reads: the features of the rows themselves."""
        return ensemble.concatenated

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        temperature = np.ones(len(ensemble.logits))
        if self.start == "c-log-avg":
            temperature = fit_temperatures(ensemble.logits, labels)
        (
            self.hidden_weight_,
            self.hidden_bias_,
            self.output_weight_,
            self.output_bias_,
        ) = self._train(
            _Rows(self._reader(ensemble), ensemble, temperature, self.input_scale), labels
        )
        self.temperature_ = temperature

    def _train(
        self, data: "_Rows", labels: Int[np.ndarray, " samples"]
    ) -> list[Float[np.ndarray, "..."]]:
        """Return first weight, first bias, last weight and last bias."""
        random = np.random.default_rng(self.seed)
        backbones, samples, _ = data.ensemble.logits.shape
        every = np.arange(samples)
        width = data.inputs(every[:1]).shape[1]
        bound = 1 / math.sqrt(width)
        parameters = [
            random.uniform(-bound, bound, (width, self.hidden)).astype(np.float32),
            random.uniform(-bound, bound, self.hidden).astype(np.float32),
            np.zeros((self.hidden, backbones), dtype=np.float32),
            np.zeros(backbones, dtype=np.float32),
        ]
        adam = Adam(parameters, learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        blocks = np.array_split(every, math.ceil(samples / BLOCK_ROWS))
        cells = samples * (width + data.ensemble.logits[:, 0].size)
        prepared = [data.batch(rows) for rows in blocks] if cells <= PREPARED_CELLS else []
        for _ in range(self.steps):
            total: list[np.ndarray] = []
            for number, rows in enumerate(blocks):
                inputs, logits = prepared[number] if prepared else data.batch(rows)
                found = self._gradients(parameters, inputs, logits, labels[rows])
                if len(blocks) > 1:
                    found = [np.multiply(one, len(rows) / samples, out=one) for one in found]
                pairs = zip(total, found, strict=True) if total else ()
                total = [np.add(one, two, out=one) for one, two in pairs] or found
            adam.step(total)
        return parameters

    def _gradients(
        self,
        parameters: list[Float[np.ndarray, "..."]],
        inputs: Float[np.ndarray, "samples width"],
        logits: Float[np.ndarray, "samples backbones classes"],
        labels: Int[np.ndarray, " samples"],
    ) -> list[Float[np.ndarray, "..."]]:
        """Return the loss's derivative by each parameter: back-propagation, written out."""
        first, first_bias, last, last_bias = parameters
        samples, backbones, _ = logits.shape
        scale_map = PARAMETRISATIONS[self.parametrisation]

        hidden = np.maximum(inputs @ first + first_bias, 0)
        scales = scale_map.scale(hidden @ last + last_bias)
        scores = np.einsum("nb,nbc->nc", scales, logits) / backbones

        by_scores = cross_entropy_gradient(scores, labels)
        by_scales = np.einsum("nc,nbc->nb", by_scores, logits) / backbones
        by_scales += (2 * self.pull / (samples * backbones)) * (scales - 1)
        by_output = scale_map.pull_back(scales, by_scales)
        by_hidden = (by_output @ last.T) * (hidden > 0)
        return [
            inputs.T @ by_hidden,
            by_hidden.sum(axis=0),
            hidden.T @ by_output,
            by_output.sum(axis=0),
        ]

    def scales(self, ensemble: Ensemble) -> Weights:
        """Return s_b(x), each backbone's scale for each row, in float64; 1 is no change.

        Backbones in canonical order: those of `weights` divided by the constant part.

        Raises:
            ValueError: not fitted, fitted on another number of backbones, or no features.
        """
        self.require_fitted()
        require_backbones(len(self.output_bias_), ensemble)
        scale_map = PARAMETRISATIONS[self.parametrisation]
        # float64, so that what is left of how a product is blocked does not show in float32.
        first, last = self.hidden_weight_.astype(np.float64), self.output_weight_.astype(np.float64)
        read = self._reader(ensemble)
        samples = len(ensemble.sample_id)
        scales = np.empty((samples, len(self.output_bias_)))
        block = np.zeros((_PREDICTED_ROWS, len(first)))
        for begin in range(0, max(samples, 1), _PREDICTED_ROWS):
            rows = np.arange(begin, min(begin + _PREDICTED_ROWS, samples))
            block[: len(rows)] = read(rows)
            block[len(rows) :] = 0
            hidden = np.maximum((block * self.input_scale) @ first + self.hidden_bias_, 0)
            scales[rows] = scale_map.scale(hidden @ last + self.output_bias_)[: len(rows)]
        return scales

    def _weights(self, ensemble: Ensemble) -> Weights:
        """Return s_b(x) / (B T_b)."""
        scales = self.scales(ensemble)
        weights: np.ndarray = scales / (scales.shape[1] * self.temperature_)
        return weights.astype(np.float32)


@dataclass(frozen=True)
class _Rows:
    """What training reads of some rows: scaled inputs, and logits with the rows in front."""

    read: Reader
    ensemble: Ensemble
    temperature: Float[np.ndarray, " backbones"]
    input_scale: float

    def batch(
        self, rows: Int[np.ndarray, " rows"]
    ) -> tuple[Float[np.ndarray, "rows width"], Float[np.ndarray, "rows backbones classes"]]:
        """Return both."""
        return self.inputs(rows), self.logits(rows)

    def inputs(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
        scaled: np.ndarray = self.read(rows) * np.float32(self.input_scale)
        return scaled

    def logits(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows backbones classes"]:
        # The cross-entropy does not see a shift of a sample's logits; small numbers round less.
        backbones, _, classes = self.ensemble.logits.shape
        found = np.empty((len(rows), backbones, classes), dtype=np.float32)
        for number, one in enumerate(self.ensemble.logits):
            exact = one[rows] / self.temperature[number : number + 1]  # in float64, one at a time
            exact -= exact.mean(axis=1, keepdims=True)
            found[:, number] = exact
        return found
