"""Dynamic selection: for each image, the backbones that were right on labelled images like it."""

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.combiners.base import Combiner, Scores, require_backbones
from clipnlc.combiners.explanation import Contributions
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import product_by_blocks, row_blocks, softmax

_SMALLEST = 1e-300  # keeps log finite where every selected backbone's probability underflows

_BLOCK_ROWS = 512


def right_on_the_nearest(
    right: Bool[np.ndarray, "samples neighbours backbones"],
) -> Bool[np.ndarray, "samples backbones"]:
    """Select the backbones that are right on all neighbours, of as many of the nearest as one is.

    Where none is right on all neighbours, the farthest is left out, and so on; where none is right
    on the nearest either, every backbone is selected.

    >>> right = np.array([[[True, True], [True, False], [False, False]]])  # the nearest first
    >>> right_on_the_nearest(right).tolist()
    [[True, False]]
    """
    run = np.logical_and.accumulate(right, axis=1).sum(axis=1)
    selected: np.ndarray = run == run.max(axis=1, keepdims=True)
    return selected


class KnoraEliminate(Combiner):
    """KNORA-E: a vote of the backbones that are right on all of the nearest labelled images.

    Dynamic ensemble selection (Ko, Sabourin and Britto 2008) as DESlib has it: seven neighbours by
    Euclidean distance, here between all backbones' unit features side by side; see
    `right_on_the_nearest`. Each selected backbone has one vote. Ties go to the higher mean
    probability of the selected, which is not published: our reading, as in `vote-1`. `softmax` of the scores is the
    share of the votes, the mean probability counting as one more.

    Attributes:
        neighbour_: float32 `[labelled, width]`, unit features of the labelled rows, side by side.
        right_: uint8 `[labelled, backbones]`, whether a backbone's own answer is the label.
    """

    needs_labels: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True
    keeps_features: ClassVar[bool] = True
    learnt: ClassVar[tuple[str, ...]] = ("neighbour_", "right_")
    neighbour_: Float[np.ndarray, "labelled width"]
    right_: Int[np.ndarray, "labelled backbones"]

    def __init__(self, *, neighbours: int = 7, seed: int = 0) -> None:
        """Store the settings.

        Args:
            neighbours: of an image; all labelled ones where there are fewer.
            seed: of nothing.
        """
        super().__init__(seed=seed)
        self.neighbours = neighbours

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        self.neighbour_ = ensemble.concatenated()
        right = ensemble.logits.argmax(axis=2) == labels
        self.right_ = np.ascontiguousarray(right.T).astype(np.uint8)

    def _selected(self, ensemble: Ensemble) -> Bool[np.ndarray, "samples backbones"]:
        """Return which backbones vote for each row."""
        self.require_fitted()
        require_backbones(self.right_.shape[1], ensemble)
        samples, labelled = len(ensemble.sample_id), len(self.right_)
        nearest = min(self.neighbours, labelled)
        lengths = np.concatenate(
            [
                (self.neighbour_[rows].astype(np.float64) ** 2).sum(axis=1)
                for rows in row_blocks(*self.neighbour_.shape)
            ]
        )
        selected = np.ones((samples, self.right_.shape[1]), dtype=bool)
        for start in range(0, samples, _BLOCK_ROWS):
            rows = np.arange(start, min(start + _BLOCK_ROWS, samples))
            inputs = ensemble.concatenated(rows)
            if inputs.shape[1] != self.neighbour_.shape[1]:
                raise ValueError(
                    f"fitted on features {self.neighbour_.shape[1]} wide, not {inputs.shape[1]}"
                )
            # A squared distance without the row's own length, which orders nothing.
            distance = lengths - 2 * product_by_blocks(inputs, self.neighbour_.T)
            chosen = np.argsort(distance, axis=1, kind="stable")[:, :nearest]
            selected[rows] = right_on_the_nearest(self.right_[chosen] > 0)
        return selected

    def _votes(
        self, ensemble: Ensemble
    ) -> tuple[Float[np.ndarray, "backbones samples classes"], Float[np.ndarray, " samples"]]:
        """Return each backbone's vote with its part of the mean probability, and how many vote."""
        selected = self._selected(ensemble).T.astype(np.float64)
        voters = selected.sum(axis=0)
        every = np.arange(len(voters))
        votes = np.empty(ensemble.logits.shape)
        for one, its, out in zip(ensemble.logits, selected, votes, strict=True):
            out[:] = softmax(one.astype(np.float64)) * (its / voters)[:, None]
            out[every, one.argmax(axis=1)] += its
        return votes, voters

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the log of the share of votes."""
        votes, voters = self._votes(ensemble)
        total = votes.sum(axis=0)
        scores: np.ndarray = np.log(np.maximum(total / (voters + 1)[:, None], _SMALLEST))
        return scores

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the votes, whose sum increases with the scores."""
        return Contributions(self._votes(ensemble)[0], {})
