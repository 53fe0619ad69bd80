"""Votes: each backbone names its best classes, the class named most often wins."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from clipnlc.combiners.base import Combiner, Scores
from clipnlc.combiners.explanation import Contributions
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import softmax

_SMALLEST = 1e-300  # keeps log finite where every backbone's probability underflows


def count_votes(
    logits: Float[np.ndarray, "backbones samples classes"], *, ballots: int
) -> Float[np.ndarray, "samples classes"]:
    """Count how many backbones have a class among their `ballots` best.

    >>> count_votes(np.array([[[3.0, 2.0, 1.0]], [[2.0, 3.0, 1.0]]]), ballots=2).tolist()
    [[2.0, 2.0, 0.0]]
    """
    votes = np.zeros(logits.shape[1:], dtype=np.float64)
    rows = np.arange(len(votes))[:, None]
    for one in logits:
        votes[rows, np.argsort(-one, axis=1, kind="stable")[:, :ballots]] += 1
    return votes


class _Vote(Combiner):
    """A vote with a fixed number of ballots per backbone."""

    ballots: ClassVar[int]

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the log of the smoothed vote share.

        The backbones' mean probability counts as one more vote. It adds up to 1 over the classes,
        so it decides between classes with equal votes and never against one with more.
        """
        backbones, _, classes = ensemble.logits.shape
        ballots = max(1, min(self.ballots, classes - 1))
        share = count_votes(ensemble.logits, ballots=ballots)
        for one in ensemble.logits:
            share += softmax(one.astype(np.float64)) / backbones
        scores: np.ndarray = np.log(np.maximum(share / (backbones * ballots + 1), _SMALLEST))
        return scores

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return each backbone's votes and its part of the last one, whose sum increases with the scores."""
        ballots = max(1, min(self.ballots, ensemble.logits.shape[2] - 1))
        own = [
            count_votes(one[None], ballots=ballots)
            + softmax(one.astype(np.float64)) / len(ensemble.logits)
            for one in ensemble.logits
        ]
        return Contributions(np.stack(own), {})


class Vote1(_Vote):
    """VOTE-1: the plurality of the backbones' predictions; ties go to the higher mean probability.

    The tie rule is not published; our reading. `softmax` of the scores is the share of the votes,
    the mean probability counting as one more vote.
    """

    ballots = 1


class Vote3(_Vote):
    """VOTE-3: each backbone gives one vote to each of its three best classes; ties as in VOTE-1.

    Not published in detail (weights, ties); our reading. With C classes there are min(3, C - 1)
    votes, so that two or three classes do not tie always. `softmax` of the scores is the share of
    the votes.
    """

    ballots = 3
