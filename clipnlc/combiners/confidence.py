"""For each sample, the one backbone that is surest of its own answer."""

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Weigher, Weights, require_backbones
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import fit_temperatures


def surest(logits: Float[np.ndarray, "backbones samples classes"]) -> Weights:
    """Mark, for each sample, the backbone with the highest maximal probability with 1.

    >>> surest(np.array([[[2.0, 0.0]], [[0.0, 3.0]]])).tolist()
    [[0.0, 1.0]]
    """
    # max p = 1 / sum exp(z - max z). Without the maximum's own term, 1, the sum stays exact where
    # several probabilities would round to 1.
    doubt = np.empty(logits.shape[:2])
    for backbone, one in enumerate(logits):
        below = one.astype(np.float64)
        below -= below.max(axis=1, keepdims=True)
        below[np.arange(len(below)), below.argmax(axis=1)] = -np.inf
        doubt[backbone] = np.exp(below).sum(axis=1)
    weights: np.ndarray = np.eye(len(logits), dtype=np.float32)[doubt.argmin(axis=0)]
    return weights


class Confidence(Weigher):
    """CONF: the prediction of the backbone with the highest maximal probability.

    The name is the NLC paper's; the definition is not published there: our reading. `softmax` of
    the scores is the chosen backbone's own probability.
    """

    probabilistic = True

    def _weights(self, ensemble: Ensemble) -> Weights:
        """Return 1 for each sample's surest backbone, 0 for the others."""
        return surest(ensemble.logits)


class CalibratedConfidence(Weigher):
    """C-CONF: as CONF, after each backbone's logits are divided by its own temperature.

    The temperatures are those of C-LOG-AVG. Not published in detail; our reading. `softmax` of the
    scores is the chosen backbone's calibrated probability.

    Attributes:
        temperature_: float64 `[backbones]`, each > 0.
    """

    needs_labels = True
    probabilistic = True
    learnt = ("temperature_",)
    temperature_: Float[np.ndarray, " backbones"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        self.temperature_ = fit_temperatures(ensemble.logits, labels)

    def _weights(self, ensemble: Ensemble) -> Weights:
        """Return 1/T for each sample's surest backbone, 0 for the others."""
        self.require_fitted()
        require_backbones(len(self.temperature_), ensemble)
        calibrated = ensemble.logits / self.temperature_[:, None, None]
        weights: np.ndarray = surest(calibrated) / self.temperature_
        return weights.astype(np.float32)
