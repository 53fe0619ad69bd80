"""MoE: a mixture of linear experts, one per backbone, and a gate that weighs them image by image."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Combiner, Scores, require_backbones
from clipnlc.combiners.explanation import Contributions
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import Adam, log_softmax, product_by_blocks, row_blocks


class MixtureOfExperts(Combiner):
    """MoE: a linear expert per backbone and a gate on all features, trained jointly.

    The probability of a class is `sum_b g_b(x) softmax(e_b(x))`, where the gate g is the softmax of
    a linear layer on all backbones' L2-normalised features side by side, and `e_b(x) = z_b + 100
    f_b V_b + c_b` is a linear head on the features f_b of one backbone that starts at the head which
    gave the logits z_b: V, c and the gate start at zero, so training starts at PROB-AVG. Adam at
    2e-5 for 300 epochs on the cross-entropy of the mixture, as the NLC paper (arXiv 2405.17139) says
    of its nine experts; what the gate reads, the factor 100, the batch size and the start are not
    published: our reading (adaptive mixtures: Jacobs et al. 1991).

    `softmax` of the scores is the probability of the mixture.

    Attributes:
        expert_weight_: float32 `[width, classes]`, V of one backbone below the other.
        expert_bias_: float32 `[backbones, classes]`.
        gate_weight_: float32 `[width, backbones]`.
        gate_bias_: float32 `[backbones]`.
    """

    needs_labels = True
    needs_features = True
    per_class = True
    probabilistic = True
    learnt = ("expert_weight_", "expert_bias_", "gate_weight_", "gate_bias_")
    expert_weight_: Float[np.ndarray, "width classes"]
    expert_bias_: Float[np.ndarray, "backbones classes"]
    gate_weight_: Float[np.ndarray, "width backbones"]
    gate_bias_: Float[np.ndarray, " backbones"]

    def __init__(
        self,
        *,
        epochs: int = 300,
        learning_rate: float = 2e-5,
        batch_size: int = 256,
        expert_scale: float = 100.0,
        gate_scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            epochs: passes over the rows.
            learning_rate: Adam's.
            batch_size: rows per step.
            expert_scale: factor on the unit-length features that an expert reads; CLIP's on cosines.
            gate_scale: the same of the gate.
            seed: of the minibatches.
        """
        super().__init__(seed=seed)
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.expert_scale = expert_scale
        self.gate_scale = gate_scale

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        backbones, samples, classes = ensemble.logits.shape
        unit = ensemble.concatenated()
        width = unit.shape[1]
        parameters = _Parameters(
            np.zeros((width, classes), dtype=np.float32),
            np.zeros((backbones, classes), dtype=np.float32),
            np.zeros((width, backbones), dtype=np.float32),
            np.zeros(backbones, dtype=np.float32),
        )
        cuts = _cuts(ensemble)
        adam = Adam(parameters, learning_rate=self.learning_rate)
        random = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            order = random.permutation(samples)
            for begin in range(0, samples, self.batch_size):
                rows = order[begin : begin + self.batch_size]
                logits = ensemble.logits[:, rows]
                adam.step(self._gradients(parameters, unit[rows], logits, labels[rows], cuts))
        self.expert_weight_, self.expert_bias_, self.gate_weight_, self.gate_bias_ = parameters

    def _gradients(
        self,
        parameters: "_Parameters",
        unit: Float[np.ndarray, "rows width"],
        logits: Float[np.ndarray, "backbones rows classes"],
        labels: Int[np.ndarray, " rows"],
        cuts: list[slice],
    ) -> list[Float[np.ndarray, "..."]]:
        """Return the mean cross-entropy's derivative by each parameter, written out.

        With r_b, the share that expert b has in the probability of the label, the derivative by its
        scores is `r_b (p_b - y)`, and by the gate's `g_b - r_b`.
        """
        rows = np.arange(len(labels))
        read = unit * np.float32(self.expert_scale)
        probabilities, own = [], []
        for number, (cut, one) in enumerate(zip(cuts, logits, strict=True)):
            scores = read[:, cut] @ parameters.expert_weight[cut]
            scores += one
            scores += parameters.expert_bias[number]
            scores -= scores.max(axis=1, keepdims=True)
            of_label = scores[rows, labels]
            total = np.exp(scores, out=scores).sum(axis=1, keepdims=True)
            own.append(of_label - np.log(total[:, 0]))
            scores /= total
            probabilities.append(scores)
        gated = unit * np.float32(self.gate_scale)
        log_gate = log_softmax(gated @ parameters.gate_weight + parameters.gate_bias)
        share = np.exp(log_softmax(log_gate + np.stack(own, axis=1)))
        by_weight = np.empty_like(parameters.expert_weight)
        by_bias = np.empty_like(parameters.expert_bias)
        for number, (cut, excess) in enumerate(zip(cuts, probabilities, strict=True)):
            excess[rows, labels] -= 1
            slope = excess * (share[:, number, None] / np.float32(len(labels)))
            np.matmul(read[:, cut].T, slope, out=by_weight[cut])
            by_bias[number] = slope.sum(axis=0)
        by_gate = (np.exp(log_gate) - share) / np.float32(len(labels))
        return [by_weight, by_bias, gated.T @ by_gate, by_gate.sum(axis=0)]

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return log sum_b g_b p_b."""
        _, samples, classes = ensemble.logits.shape
        scores = np.empty((samples, classes))
        self._require(ensemble)
        for rows in row_blocks(samples, len(ensemble.logits) * classes):
            block = ensemble.rows(range(samples)[rows])
            total: np.ndarray = np.full(scores[rows].shape, -np.inf)
            for part in self._log_parts(block):
                np.logaddexp(total, part, out=total)
            scores[rows] = total
        return scores

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return what each expert adds to the probabilities, which increase with the scores."""
        self._require(ensemble)
        return Contributions(np.exp(np.stack(self._log_parts(ensemble))), {})

    def _log_parts(self, ensemble: Ensemble) -> list[Float[np.ndarray, "samples classes"]]:
        """Return log g_b p_b of every expert, in float64."""
        unit = ensemble.concatenated().astype(np.float64)
        gate = product_by_blocks(unit * self.gate_scale, self.gate_weight_.astype(np.float64))
        log_gate = log_softmax(gate + self.gate_bias_)
        parts = []
        for number, cut in enumerate(_cuts(ensemble)):
            weight = self.expert_weight_[cut].astype(np.float64)
            scores = product_by_blocks(unit[:, cut] * self.expert_scale, weight)
            scores += ensemble.logits[number]
            scores += self.expert_bias_[number]
            parts.append(log_softmax(scores) + log_gate[:, number, None])
        return parts

    def _require(self, ensemble: Ensemble) -> None:
        """Check that it is fitted, and on backbones and classes like those given."""
        self.require_fitted()
        require_backbones(len(self.gate_bias_), ensemble)
        fitted, given = self.expert_weight_.shape, (_width(ensemble), ensemble.logits.shape[2])
        if ensemble.features and fitted != given:
            raise ValueError(
                f"fitted on {fitted[0]} numbers and {fitted[1]} classes of an image, asked to "
                f"combine {given[0]} and {given[1]}"
            )


class _Parameters(NamedTuple):
    """What is learnt, under the same names."""

    expert_weight: Float[np.ndarray, "width classes"]
    expert_bias: Float[np.ndarray, "backbones classes"]
    gate_weight: Float[np.ndarray, "width backbones"]
    gate_bias: Float[np.ndarray, " backbones"]


def _width(ensemble: Ensemble) -> int:
    return sum(block.shape[1] for block in ensemble.features)


def _cuts(ensemble: Ensemble) -> list[slice]:
    """Return where each backbone's features stand among all of them."""
    ends = np.cumsum([0, *(block.shape[1] for block in ensemble.features)])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]
