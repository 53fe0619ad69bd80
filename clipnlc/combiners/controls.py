"""Controls of NLC: the same network and training, with an input that says nothing of the image.

A gain over static weights that a control shows too is not adaptivity to the input.
"""

import numpy as np

from clipnlc.combiners.nlc import NeuralLogitController, Reader
from clipnlc.ensemble import Ensemble
from clipnlc.labels import ranks


class ShuffledInput(NeuralLogitController):
    """NLC with each sample given another sample's features, when fitting and when combining.

    In a pseudo-random circle of the samples, drawn by the seed, each reads its neighbour's
    features; a lone sample reads its own. Ours, not the paper's. `softmax` of the scores as in NLC.
    """

    row_wise = False

    def _reader(self, ensemble: Ensemble) -> Reader:
        """Return the features of each row's neighbour."""
        circle = np.argsort(ranks(ensemble.sample_id, draw=f"shuffle:{self.seed}"))
        neighbour = np.empty_like(circle)
        neighbour[circle] = np.roll(circle, -1)
        return lambda rows: ensemble.concatenated(neighbour[rows])


class ConstantInput(NeuralLogitController):
    """NLC with the same input for every sample: static weights, learnt as NLC learns.

    In place of each backbone's unit-length features stands the number 1. Ours, not the paper's.
    `softmax` of the scores as in NLC.
    """

    needs_features = False

    def _reader(self, ensemble: Ensemble) -> Reader:
        """Return ones."""
        return lambda rows: np.ones((len(rows), len(ensemble.logits)), dtype=np.float32)
