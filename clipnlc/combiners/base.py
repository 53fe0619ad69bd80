"""What every combiner is: `fit`, `combine`, and learnt values that travel as plain arrays."""

from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Float, Int

from clipnlc.ensemble import Ensemble
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


class Combiner(Learner, ABC):
    """The contract of the family.

    `fit` learns and forgets what was learnt before; a parameter-free combiner may be used without.
    Neither the order of the rows, nor of the backbones, nor of the classes changes what is learnt.

    Attributes:
        needs_labels: `fit` learns from labels.
        needs_features: `fit` and `combine` need an ensemble opened with features.
        row_wise: a row's scores depend on that row alone, so rows may be combined in any batches.
    """

    needs_labels: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    row_wise: ClassVar[bool] = True

    def fit(self: _Combiner, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> _Combiner:  # noqa: PYI019  (see Learner)
        """Learn from labelled rows; a parameter-free combiner only checks the shapes.

        Raises:
            ValueError: the labels are not one class number per row, or there are no rows.
        """
        _, samples, classes = ensemble.logits.shape
        if len(labels) != samples or samples == 0:
            raise ValueError(f"{len(labels)} labels for {samples} rows; one per row, at least one")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"labels must lie in [0, {classes}), found {labels.min()} to {labels.max()}"
            )
        self.forget()
        if self.learnt:
            self._learn(*_in_canonical_order(ensemble, labels))
        return self

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        """Set every array named in `learnt`; the rows and classes come in a canonical order."""
        raise NotImplementedError

    @abstractmethod
    def combine(self, ensemble: Ensemble) -> Scores:
        """Return float64 scores; the highest is the prediction.

        Raises:
            ValueError: not fitted, or fitted on another number of backbones.
        """


class Weigher(Combiner):
    """A combiner whose scores are a weighted sum of the backbones' logits."""

    @abstractmethod
    def weights(self, ensemble: Ensemble) -> Weights:
        """Return each backbone's float32 weight for each row; scores are sum_b w_b z_b.

        Raises:
            ValueError: not fitted, or fitted on another number of backbones.
        """

    def combine(self, ensemble: Ensemble) -> Scores:
        """Return the weighted sum of the logits; see `weigh`."""
        return weigh(ensemble.logits, self.weights(ensemble))


class ConstantWeigher(Weigher):
    """A weigher with the same weights for every sample."""

    @abstractmethod
    def _constant(self, backbones: int) -> Float[np.ndarray, " fitted"]:
        """Return one weight per backbone that the combiner was fitted on."""

    def weights(self, ensemble: Ensemble) -> Weights:
        """Return the constant weights, once per row."""
        self.require_fitted()
        backbones, samples, _ = ensemble.logits.shape
        constant = self._constant(backbones).astype(np.float32)
        require_backbones(len(constant), ensemble)
        return np.tile(constant, (samples, 1))


def require_backbones(fitted: int, ensemble: Ensemble) -> None:
    """Check that the ensemble has as many backbones as a combiner was fitted on.

    Raises:
        ValueError: it has not.
    """
    given = len(ensemble.logits)
    if given != fitted:
        raise ValueError(f"fitted on {fitted} backbones, asked to combine {given}")


def backbone_order(ensemble: Ensemble) -> Int[np.ndarray, " backbones"]:
    """Order the backbones by what they say on these rows, whatever order they came in.

    Fits that are not exactly symmetric in the backbones (random starts, sums of floats) go through
    them in this order. The key does not depend on the order of the classes.
    """

    def key(backbone: int) -> tuple[bytes, bytes]:
        features = ensemble.features[backbone].tobytes() if ensemble.features else b""
        return np.sort(ensemble.logits[backbone], axis=1).tobytes(), features

    return np.array(sorted(range(len(ensemble.logits)), key=key), dtype=np.int64)


def _in_canonical_order(
    ensemble: Ensemble, labels: Int[np.ndarray, " samples"]
) -> tuple[Ensemble, Int[np.ndarray, " samples"]]:
    """Sort rows by `sample_id`, and classes by their logits, whatever order they came in."""
    rows = canonical_rows(ensemble.sample_id)
    ensemble, labels = ensemble.rows(rows), labels[rows]
    columns = np.sort(ensemble.logits, axis=0)  # the key does not depend on the backbones' order
    classes = sorted(range(columns.shape[2]), key=lambda c: columns[:, :, c].tobytes())
    ordered = Ensemble(
        logits=np.ascontiguousarray(ensemble.logits[:, :, classes]),
        features=ensemble.features,
        sample_id=ensemble.sample_id,
    )
    return ordered, np.argsort(classes)[labels]
