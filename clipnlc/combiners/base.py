"""What every combiner is: `fit`, `combine`, and learnt values that travel as plain arrays."""

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.explanation import (
    Contributions,
    Explanation,
    class_means,
    margin_shares,
)
from clipnlc.ensemble import Canonical, Ensemble
from clipnlc.labels import canonical_rows
from clipnlc.learner import Learner

Scores = Float[np.ndarray, "samples classes"]
Weights = Float[np.ndarray, "samples backbones"]

_Combiner = TypeVar("_Combiner", bound="Combiner")


def weigh(
    logits: Float[np.ndarray, "backbones samples classes"],
    weights: Float[np.ndarray, "samples backbones"],
) -> Float[np.ndarray, "samples classes"]:
    """Sum the backbones' logits with each sample's own weights, in float64.

    Backbones are added one after the other, so a row's result has the same bits in any batch.

    >>> weigh(np.array([[[2.0, 0.0]], [[0.0, 4.0]]]), np.array([[0.5, 0.25]])).tolist()
    [[1.0, 1.0]]
    """
    scores = np.zeros(logits.shape[1:], dtype=np.float64)
    for one, weight in zip(logits, weights.T, strict=True):
        scores += one.astype(np.float64) * weight[:, None].astype(np.float64)
    return scores


def weigh_alike(
    logits: Float[np.ndarray, "backbones samples classes"],
    weight: Float[np.ndarray, " backbones"],
) -> Float[np.ndarray, "samples classes"]:
    """Sum the backbones' logits with the same weights for every sample; see `weigh`."""
    return weigh(logits, np.tile(weight, (logits.shape[1], 1)))


class Combiner(Learner):
    """The contract of the family.

    `fit` learns and forgets what was learnt before; a parameter-free combiner may be used without.
    Neither the order of the rows, nor of named backbones, nor of named classes changes what is
    learnt: hooks (`_learn`, `_combine`) see backbones and classes sorted by name, the same in both,
    and no names. Arrays without names come in the order that they were given in.

    Attributes:
        needs_labels: `fit` learns from labels, and cannot without.
        takes_labels: `fit` learns from labels where there are any, and can without.
        reads_pool: `fit` learns from unlabelled rows of train too, its pool.
        needs_features: `fit` and `combine` need an ensemble opened with features.
        needs_costs: `fit` needs an ensemble that says what its backbones cost.
        reads_logits: what it learnt is applied to logits; else its weights depend on features and
            what was learnt alone.
        row_wise: a row's scores depend on that row alone, so rows may be combined in any batches.
        reads_test: it learns from the very rows that it predicts, all together, so it is comparable
            with nothing that sees one row at a time; tables set it apart. Then it is not row-wise.
        per_class: it learns something for each class by itself, so it can only score all the
            classes that it was fitted on.
        probabilistic: `softmax` of the scores may be printed as a probability.
        selected_on: what its default settings were chosen on; `nothing` where they were fixed
            beforehand, as published.
    """

    needs_labels: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    reads_pool: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    needs_costs: ClassVar[bool] = False
    reads_logits: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True
    reads_test: ClassVar[bool] = False
    per_class: ClassVar[bool] = False
    probabilistic: ClassVar[bool] = False
    selected_on: ClassVar[str] = "nothing"

    def fit(  # noqa: PYI019  (see Learner)
        self: _Combiner,
        ensemble: Ensemble,
        labels: Int[np.ndarray, " samples"],
        pool: Ensemble | None = None,
    ) -> _Combiner:
        """Learn from labelled rows; a parameter-free combiner only checks the shapes.

        Args:
            ensemble: the labelled rows; there may be none where no labels are needed.
            labels: one class number per row.
            pool: unlabelled rows of the same backbones and classes, for a combiner that reads
                them; the labelled ones may be among them. By default the labelled ones alone.

        Raises:
            ValueError: the labels are not one class number per row; there are no rows to learn
                from; the pool has other backbones or classes.
        """
        _, samples, classes = ensemble.logits.shape
        if len(labels) != samples or (samples == 0 and (self.needs_labels or not self.reads_pool)):
            raise ValueError(f"{len(labels)} labels for {samples} rows; one per row, at least one")
        if samples and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(
                f"labels must lie in [0, {classes}), found {labels.min()} to {labels.max()}"
            )
        self.forget()
        if self.learnt:
            ordered, numbers = self._in_order(ensemble, labels)
            if self.reads_pool:
                unlabelled = ordered if pool is None else self._pool_in_order(ensemble, pool)
                if not unlabelled.sample_id:
                    raise ValueError(
                        f"{type(self).__name__} learns from unlabelled rows; give some"
                    )
                self._learn_with_pool(ordered, numbers, unlabelled)
            else:
                self._learn(ordered, numbers)
        return self

    def _in_order(
        self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]
    ) -> tuple[Ensemble, Int[np.ndarray, " samples"]]:
        canonical = self._canonical(ensemble)
        rows = canonical_rows(ensemble.sample_id)
        in_order = np.array_equal(rows, np.arange(len(rows)))
        ordered = canonical.ensemble if in_order else canonical.ensemble.rows(rows)
        return ordered, canonical.labels(labels)[rows]

    def _pool_in_order(self, ensemble: Ensemble, pool: Ensemble) -> Ensemble:
        if (pool.backbones, pool.class_names) != (ensemble.backbones, ensemble.class_names) or (
            pool.logits.shape[::2] != ensemble.logits.shape[::2]
        ):
            raise ValueError("the pool has other backbones or classes than the labelled rows")
        return self._in_order(pool, np.zeros(len(pool.sample_id), dtype=np.int64))[0]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        """Set every array named in `learnt`; rows, backbones and classes come in canonical order."""
        raise NotImplementedError

    def _learn_with_pool(
        self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"], pool: Ensemble
    ) -> None:
        """Do as `_learn` where the combiner reads a pool; its rows are in canonical order too."""
        raise NotImplementedError

    @classmethod
    def learns_from_labels(cls) -> bool:
        """Return whether labels change what is learnt, needed or not."""
        return cls.needs_labels or cls.takes_labels

    def combine(self, ensemble: Ensemble) -> Scores:
        """Return float64 scores; the highest is the prediction.

        Raises:
            ValueError: not fitted, or fitted on another number of backbones.
        """
        canonical = self._canonical(ensemble)
        found = self._combine(canonical.ensemble)
        scores = np.empty_like(found)
        scores[:, canonical.classes] = found
        return scores

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the scores of an ensemble in canonical order."""
        raise NotImplementedError

    def explain(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> Explanation:
        """Say how it decides on some rows: each backbone's share, and its weights.

        Args:
            ensemble: any rows; the more they are like those to be predicted, the better.
            labels: their true classes, which weights of classes are means over.

        Raises:
            ValueError: there are no rows, or not one label for each; not fitted, or fitted on
                another number of backbones.
            NotImplementedError: it does not say what its scores are made of.
        """
        samples = len(ensemble.sample_id)
        if not samples or len(labels) != samples:
            raise ValueError(f"{len(labels)} labels for {samples} rows; one per row, at least one")
        canonical = self._canonical(ensemble)
        found, others = margin_shares(self._contributions(canonical.ensemble))
        share, weight = np.empty_like(found), self._mean_weight()
        share[canonical.backbones] = found
        if weight is not None:
            ordered = weight.astype(np.float64)
            weight = np.empty_like(ordered)
            weight[canonical.backbones] = ordered
        return Explanation(share, others, weight)

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the parts of the scores of an ensemble in canonical order."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it decides by")

    def _mean_weight(self) -> Float[np.ndarray, " backbones"] | None:
        """Return the weights of the logits in canonical order, where all rows have the same."""
        return None

    def _canonical(self, ensemble: Ensemble) -> Canonical:
        """Sort by name, unless a subclass replaced the method that would sort when combining."""
        cls = type(self)
        if cls.combine is Combiner.combine and getattr(cls, "weights", None) in _SORTING:
            return ensemble.canonical()
        members, _, classes = ensemble.logits.shape
        nameless = replace(ensemble, backbones=(), class_names=())
        return Canonical(nameless, np.arange(members), np.arange(classes))


class Weigher(Combiner):
    """A combiner whose scores are a weighted sum of the backbones' logits."""

    def weights(self, ensemble: Ensemble) -> Weights:
        """Return each backbone's float32 weight for each row; scores are sum_b w_b z_b.

        Raises:
            ValueError: not fitted, or fitted on another number of backbones.
        """
        canonical = self._canonical(ensemble)
        found = self._weights(canonical.ensemble)
        weights = np.empty_like(found)
        weights[:, canonical.backbones] = found
        return weights

    def _weights(self, ensemble: Ensemble) -> Weights:
        """Return the weights for an ensemble in canonical order."""
        raise NotImplementedError

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the weighted sum of the logits; see `weigh`."""
        return weigh(ensemble.logits, self.weights(ensemble))

    def explain(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> Explanation:
        """Say how it decides on some rows, as every combiner does; see `Combiner.explain`."""
        found = super().explain(ensemble, labels)
        weights = self.weights(ensemble).astype(np.float64)
        by_class = class_means(weights, labels, ensemble.logits.shape[2])
        return Explanation(found.share, found.others, weights.mean(axis=0), by_class)

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return each backbone's weighted logits."""
        weights = self.weights(ensemble).astype(np.float64)
        return Contributions(ensemble.logits * weights.T[:, :, None], {})


_SORTING = (None, Weigher.weights)


class ConstantWeigher(Weigher):
    """A weigher with the same weights for every sample."""

    reads_logits: ClassVar[bool] = False

    @abstractmethod
    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:
        """Return one weight per backbone that the combiner was fitted on."""

    def _weights(self, ensemble: Ensemble) -> Weights:
        """Return the constant weights, once per row."""
        self.require_fitted()
        backbones, samples, _ = ensemble.logits.shape
        constant = self._constant(backbones).astype(np.float32)
        require_backbones(len(constant), ensemble)
        return np.tile(constant, (samples, 1))

    def explain(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> Explanation:
        """Say how it decides on some rows; every class has the same weights."""
        return replace(super().explain(ensemble, labels), by_class=None)


def require_backbones(fitted: int, ensemble: Ensemble) -> None:
    """Check that the ensemble has as many backbones as a combiner was fitted on.

    Raises:
        ValueError: it has not.
    """
    given = len(ensemble.logits)
    if given != fitted:
        raise ValueError(f"fitted on {fitted} backbones, asked to combine {given}")
