"""Averages of logits and probabilities, and the one backbone that does best on the labels."""

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Combiner, ConstantWeigher, Scores
from clipnlc.combiners.explanation import Contributions
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, fit_temperatures, log_softmax, softmax


def mixed_log_probabilities(
    logits: Float[np.ndarray, "backbones samples classes"],
    log_weights: Float[np.ndarray, "samples backbones"],
) -> Scores:
    """Return log sum_b w_b p_b, without rounding small probabilities to 0.

    >>> logits = np.log([[[0.5, 0.5]], [[0.1, 0.9]]])
    >>> np.exp(mixed_log_probabilities(logits, np.log([[0.5, 0.5]]))).round(3).tolist()
    [[0.3, 0.7]]
    """
    total: np.ndarray = np.full(logits.shape[1:], -np.inf)
    for one, log_weight in zip(logits, log_weights.T, strict=True):
        its = log_softmax(one.astype(np.float64))
        its += log_weight[:, None]
        np.logaddexp(total, its, out=total)
    return total


class LogitAverage(ConstantWeigher):
    """LOG-AVG: the mean of the backbones' logits (NLC paper, arXiv 2405.17139).

    `softmax` of the scores is the normalised geometric mean of the backbones' probabilities.
    """

    probabilistic = True

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:
        return np.full(backbones, 1 / backbones)


class ProbabilityAverage(Combiner):
    """PROB-AVG: the mean of the backbones' probabilities; scores are its logarithm.

    How regularised linear adapters are put together (ProLIP, arXiv 2410.05270, and others); unlike
    in LOG-AVG, one backbone cannot veto a class. `softmax` of the scores is the mean probability.
    """

    probabilistic = True

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return log mean_b p_b, without rounding small probabilities to 0."""
        members, samples, classes = ensemble.logits.shape
        total: np.ndarray = np.full((samples, classes), -np.inf)
        for one in ensemble.logits:
            np.logaddexp(total, log_softmax(one.astype(np.float64)), out=total)
        total -= np.log(members)
        return total

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the probabilities, whose mean increases with the scores."""
        return Contributions(softmax(ensemble.logits.astype(np.float64)), {})


class CalibratedLogitAverage(ConstantWeigher):
    """C-LOG-AVG: the mean of the logits, each backbone's divided by its own temperature.

    The temperatures minimise each backbone's own cross-entropy on the labels (Guo et al. 2017);
    how the NLC paper fits them is not published: our reading. `softmax` of the scores is the
    normalised geometric mean of the calibrated probabilities.

    Attributes:
        temperature_: float64 `[backbones]`, each > 0; above 1 where a backbone is overconfident.
    """

    needs_labels = True
    probabilistic = True
    learnt = ("temperature_",)
    temperature_: Float[np.ndarray, " backbones"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        self.temperature_ = fit_temperatures(ensemble.logits, labels)

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:
        return 1 / (backbones * self.temperature_)


class BestSingleValidation(ConstantWeigher):
    """The backbone with the highest accuracy on the labels; ties go to the lowest cross-entropy.

    The NLC paper's "best single" is chosen on the test set; this is the choice one can make.
    `softmax` of the scores is that backbone's own probability.

    Attributes:
        chosen_: float64 `[backbones]`, 1 for the chosen backbone and 0 for the others.
    """

    needs_labels = True
    probabilistic = True
    learnt = ("chosen_",)
    chosen_: Float[np.ndarray, " backbones"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        right = (ensemble.logits.argmax(axis=2) == labels).sum(axis=1)
        surprise = [cross_entropy(one, labels) for one in ensemble.logits]
        best = min(range(len(right)), key=lambda b: (-right[b], surprise[b]))
        self.chosen_ = np.eye(len(right))[best]

    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:  # noqa: ARG002  (learnt)
        return self.chosen_
