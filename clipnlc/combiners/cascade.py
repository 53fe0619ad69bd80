"""Cascades: the cheapest backbone first, and another one only for images that it is not sure of."""

from typing import ClassVar, Final

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.combiners.base import Weigher, Weights, require_backbones, weigh
from clipnlc.combiners.nlc import NeuralLogitController
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError
from clipnlc.fitting import row_blocks, softmax
from clipnlc.labels import dealt_folds

NEVER: Final = 2.0
"""A threshold that no probability reaches."""

NEAR: Final = 1e-3
"""Rounding never moves a confidence so far."""

_APART: Final = 1e-5
"""Confidences that are nearer to each other count as one: no decision turns on a last bit."""


class Cascade(Weigher):
    """CASCADE: the cheapest backbone first, the next where it is not sure; LOG-AVG of those seen.

    Backbones come in the order of what their image towers cost. After k of them their logits are
    averaged, and where the highest probability reaches the stage's threshold, that is the answer;
    else the next backbone is computed. The NLC paper (arXiv 2405.17139) has such a cascade and
    publishes no rule: ours follows Wang et al. (2022, arXiv 2012.01988). The thresholds are chosen
    on the labelled rows, from the cheapest stage on: the lowest with which, if all that goes on went
    to the end, as many rows are right as with all backbones. A stage that no labelled row reaches
    stops none. Not published; our reading.

    `softmax` of the scores is the probability at the stage where the image stopped.

    Attributes:
        order_: int64 `[backbones]`, their numbers, cheapest first.
        gflops_: float64 `[backbones]`, billions of operations for one image.
        threshold_: float64 `[stages]`, one less than backbones; the last stage has none.
    """

    needs_labels = True
    needs_costs = True
    probabilistic = True
    learnt: ClassVar[tuple[str, ...]] = ("order_", "gflops_", "threshold_")
    order_: Int[np.ndarray, " backbones"]
    gflops_: Float[np.ndarray, " backbones"]
    threshold_: Float[np.ndarray, " stages"]

    def __init__(
        self, *, thresholds: float | None = None, tolerance: float = 0.0, seed: int = 0
    ) -> None:
        """Store the settings.

        Args:
            thresholds: of all stages, instead of those chosen on labels: at 0 every image stops at
                the cheapest backbone, above 1 every image sees all of them.
            tolerance: share of the labelled rows by which it may be less accurate than all
                backbones.
            seed: of whatever is fitted.

        Raises:
            DataError: one of them is below 0.
        """
        super().__init__(seed=seed)
        for name, value in (("thresholds", thresholds), ("tolerance", tolerance)):
            if value is not None and not value >= 0:
                raise DataError(f"{name} of a cascade is {value}; give a number of at least 0")
        self.thresholds = thresholds
        self.tolerance = tolerance

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        if not ensemble.gflops:
            raise DataError(
                "a cascade starts with the cheapest backbone, and the ensemble does not say what "
                "its backbones cost; give it gflops, a number for each"
            )
        gflops = np.array(ensemble.gflops, dtype=np.float64)
        self.order_ = np.argsort(gflops, kind="stable")
        self._learn_stages(ensemble, labels)
        if self.thresholds is None:
            held_out = self._held_out_weights(ensemble, labels)
            self.threshold_ = self._choose(ensemble, labels, held_out)
        else:
            self.threshold_ = np.full(len(gflops) - 1, float(self.thresholds))
        self.gflops_ = gflops

    def _learn_stages(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        """Fit what combines the backbones of each stage; an average needs nothing."""

    def _stage_weights(self, stage: int, ensemble: Ensemble) -> Weights:
        """Return the weights at a stage, counted from 1; 0 for backbones not computed yet."""
        return _average(self._members(stage), ensemble)

    def _held_out_weights(
        self,
        ensemble: Ensemble,
        labels: Int[np.ndarray, " samples"],  # noqa: ARG002  (nothing was fitted on them)
    ) -> list[Weights]:
        """Return the weights of the labelled rows at each stage, fitted without the row."""
        return [self._stage_weights(stage, ensemble) for stage in self._stages(ensemble)]

    def _stages(self, ensemble: Ensemble) -> range:
        return range(1, len(ensemble.logits) + 1)

    def _members(self, stage: int) -> Int[np.ndarray, " members"]:
        """Return the numbers of the backbones seen at a stage, in their canonical order."""
        return np.sort(self.order_[:stage])

    def _choose(
        self,
        ensemble: Ensemble,
        labels: Int[np.ndarray, " samples"],
        weights: list[Weights],
    ) -> Float[np.ndarray, " stages"]:
        """Choose the thresholds on labelled rows, cheapest stage first."""
        waiting = np.arange(len(labels))
        right_at_last = self._verdicts(len(weights), ensemble, weights[-1])[1] == labels
        spare = int(self.tolerance * len(labels) + 1e-9)
        found = np.full(len(weights) - 1, NEVER)
        for stage in range(1, len(weights)):
            rows = ensemble.rows(waiting)
            sure, predicted = self._verdicts(stage, rows, weights[stage - 1][waiting])
            change = (predicted == labels[waiting]).astype(int) - right_at_last[waiting]
            found[stage - 1], lost = _lowest(sure, change, spare)
            spare -= lost
            waiting = waiting[sure < found[stage - 1]]
        return found

    def _verdicts(
        self, stage: int, ensemble: Ensemble, weights: Weights
    ) -> tuple[Float[np.ndarray, " samples"], Int[np.ndarray, " samples"]]:
        """Return each row's highest probability at a stage, and the class that has it."""
        members = self._members(stage)
        samples, classes = ensemble.logits.shape[1:]
        sure, predicted = np.empty(samples), np.empty(samples, dtype=np.int64)
        for rows in row_blocks(samples, classes):
            scores = weigh(ensemble.logits[members, rows], weights[rows][:, members])
            sure[rows] = softmax(scores).max(axis=1)
            predicted[rows] = scores.argmax(axis=1)
        return sure, predicted

    def _weights(self, ensemble: Ensemble) -> Weights:
        """Return the weights at the stage where each row stops."""
        self.require_fitted()
        require_backbones(len(self.gflops_), ensemble)
        found = np.zeros(ensemble.logits.shape[1::-1], dtype=np.float32)
        waiting = np.arange(len(found))
        for stage in self._stages(ensemble):
            rows = ensemble.rows(waiting)
            weights = self._stage_weights(stage, rows)
            stops: Bool[np.ndarray, " waiting"] = np.ones(len(waiting), dtype=bool)
            if stage < len(self.gflops_):
                stops = self._verdicts(stage, rows, weights)[0] >= self.threshold_[stage - 1]
            found[waiting[stops]] = weights[stops]
            waiting = waiting[~stops]
        return found

    def waits(self, stage: int, ensemble: Ensemble) -> Bool[np.ndarray, " samples"]:
        """Return which rows need another backbone after the `stage` cheapest ones.

        Of the other backbones nothing is read, so they need not be computed. A row that is sure by
        less than `NEAR` waits too: logits that were computed among other rows have other last bits.

        Args:
            stage: how many backbones are done, at least one less than all.
            ensemble: rows with the logits (and features, where they are needed) of those.

        Raises:
            ValueError: not fitted, or fitted on another number of backbones.
        """
        self.require_fitted()
        require_backbones(len(self.gflops_), ensemble)
        ensemble = self._canonical(ensemble).ensemble
        sure = self._verdicts(stage, ensemble, self._stage_weights(stage, ensemble))[0]
        found: np.ndarray = sure < self.threshold_[stage - 1] + NEAR * (
            self.threshold_[stage - 1] > 0
        )
        return found

    def spent(self, ensemble: Ensemble) -> Float[np.ndarray, " samples"]:
        """Return billions of operations of the image towers that each row takes.

        Raises:
            ValueError: as `weights`.
        """
        return self.spending(self._weights(self._canonical(ensemble).ensemble))

    def spending(
        self, weights: Float[np.ndarray, "samples backbones"]
    ) -> Float[np.ndarray, " samples"]:
        """Return the same from weights that it gave, backbones in canonical order.

        What was not computed, and nothing else, has the weight 0.
        """
        self.require_fitted()
        found: np.ndarray = (weights != 0) @ self.gflops_
        return found


class NeuralCascade(Cascade):
    """CASCADE with NLC: as `cascade`, with an NLC at each stage that weighs the backbones seen.

    Every prefix of two and more backbones has an NLC of its own, fitted on the labelled rows; the
    cheapest backbone answers for itself. Thresholds are chosen on what NLCs say that were fitted
    without the row. The NLC paper combines its cascade with NLC and says no more; our reading.

    `softmax` of the scores is the probability at the stage where the image stopped.

    Attributes:
        hidden_weight_: float32 `[widths, hidden]`: NLC's, one prefix below the other, and so below.
        hidden_bias_: float32 `[prefixes, hidden]`.
        output_weight_: float32 `[hidden, outputs]`.
        output_bias_: float32 `[outputs]`.
        temperature_: float64 `[outputs]`.
    """

    needs_features = True
    learnt = (*Cascade.learnt, *NeuralLogitController.learnt)
    hidden_weight_: Float[np.ndarray, "widths hidden"]
    hidden_bias_: Float[np.ndarray, "prefixes hidden"]
    output_weight_: Float[np.ndarray, "hidden outputs"]
    output_bias_: Float[np.ndarray, " outputs"]
    temperature_: Float[np.ndarray, " outputs"]

    def __init__(
        self,
        *,
        thresholds: float | None = None,
        tolerance: float = 0.0,
        folds: int = 3,
        steps: int = 300,
        seed: int = 0,
    ) -> None:
        """Store the settings; see `Cascade`.

        Args:
            thresholds: of all stages.
            tolerance: of the choice of thresholds.
            folds: of the labelled rows, for that choice.
            steps: of each NLC.
            seed: of NLC and of the folds.

        Raises:
            DataError: a number is too low.
        """
        super().__init__(thresholds=thresholds, tolerance=tolerance, seed=seed)
        if folds < 2:  # noqa: PLR2004  (fewer leave no row out)
            raise DataError(f"folds of a cascade are {folds}; give at least 2")
        self.folds = folds
        self.steps = steps

    def _learn_stages(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        if not ensemble.features:
            ensemble.concatenated()  # says what is missing
        states = [
            self._fit_prefix(stage, ensemble, labels).state()
            for stage in self._stages(ensemble)[1:]
        ]
        hidden = self._unfitted().hidden
        empty = {
            "hidden_weight_": np.zeros((0, hidden), np.float32),
            "hidden_bias_": np.zeros((0, hidden), np.float32),
            "output_weight_": np.zeros((hidden, 0), np.float32),
            "output_bias_": np.zeros(0, np.float32),
            "temperature_": np.zeros(0),
        }
        for name, nothing in empty.items():
            parts = [state[name] for state in states]
            parts = [part[None] for part in parts] if name == "hidden_bias_" else parts
            joined = np.concatenate([nothing, *parts], axis=int(name == "output_weight_"))
            setattr(self, name, joined)

    def _fit_prefix(
        self, stage: int, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]
    ) -> NeuralLogitController:
        prefix = ensemble.members(self._members(stage))
        return self._unfitted().fit(prefix, labels)

    def _unfitted(self) -> NeuralLogitController:
        return NeuralLogitController(steps=self.steps, seed=self.seed)

    def _controller(self, stage: int, ensemble: Ensemble) -> NeuralLogitController:
        """Build the NLC of a stage again."""
        widths = np.array([block.shape[1] for block in ensemble.features])
        ends = np.cumsum([0, *(widths[self.order_[:k]].sum() for k in self._stages(ensemble)[1:])])
        outputs = np.cumsum([0, *self._stages(ensemble)[1:]])
        at = stage - 2
        read, own = slice(*ends[at : at + 2]), slice(*outputs[at : at + 2])
        return self._unfitted().load_state(
            {
                "hidden_weight_": self.hidden_weight_[read],
                "hidden_bias_": self.hidden_bias_[at],
                "output_weight_": self.output_weight_[:, own],
                "output_bias_": self.output_bias_[own],
                "temperature_": self.temperature_[own],
            }
        )

    def _stage_weights(self, stage: int, ensemble: Ensemble) -> Weights:
        if stage == 1:
            return _average(self._members(1), ensemble)
        if not ensemble.features:
            ensemble.concatenated()  # says what is missing
        return self._spread(stage, ensemble, self._controller(stage, ensemble))

    def _spread(self, stage: int, ensemble: Ensemble, fitted: NeuralLogitController) -> Weights:
        """Return the weights of a prefix's NLC, with 0 for the backbones that it does not see."""
        members = self._members(stage)
        found = np.zeros(ensemble.logits.shape[1::-1], dtype=np.float32)
        weights = fitted.weights(ensemble.members(members))
        # What was computed never has the weight 0, as small as it may be: see `spending`.
        found[:, members] = np.where(weights == 0, np.finfo(np.float32).tiny, weights)
        return found

    def _held_out_weights(
        self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]
    ) -> list[Weights]:
        draw = f"cascade:{self.seed}"
        fold = dealt_folds(labels, ensemble.sample_id, self.folds, draw=draw)
        found = [_average(self._members(stage), ensemble) for stage in self._stages(ensemble)]
        for number in np.unique(fold):
            held, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if not len(kept):  # a single row: nothing to learn from without it
                continue
            rows, rest = ensemble.rows(held), ensemble.rows(kept)
            for stage in self._stages(ensemble)[1:]:
                fitted = self._fit_prefix(stage, rest, labels[kept])
                found[stage - 1][held] = self._spread(stage, rows, fitted)
        return found


def _average(members: Int[np.ndarray, " members"], ensemble: Ensemble) -> Weights:
    """Return the weights of LOG-AVG over some of the backbones, the same for every row."""
    found = np.zeros(ensemble.logits.shape[1::-1], dtype=np.float32)
    found[:, members] = 1 / len(members)
    return found


def _lowest(
    sure: Float[np.ndarray, " rows"], change: Int[np.ndarray, " rows"], spare: int
) -> tuple[float, int]:
    """Return the lowest threshold that loses at most `spare` right rows, and how many it loses.

    Args:
        sure: the highest probability of each row.
        change: 1 where stopping makes it right and going on does not, -1 where it is the other way
            round.
        spare: right rows that may be lost.

    >>> _lowest(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, -1, -1]), 0)[1]
    0
    """
    order = np.argsort(-sure, kind="stable")
    sums = change[order].cumsum()
    ordered = sure[order]
    ends = np.append(ordered[:-1] - ordered[1:] > _APART, [True])[: len(order)]
    allowed = np.flatnonzero(ends & (sums >= -spare))
    if not len(allowed):
        return NEVER, 0
    last = allowed[-1]
    # Just below the least sure row that stops: on surer images than any that was looked at.
    return float(max(ordered[last] - _APART / 2, 0.0)), -int(sums[last])
