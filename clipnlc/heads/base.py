"""What every head is: `fit`, `logits`, and learnt values that travel as plain arrays."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import product_by_blocks
from clipnlc.labels import canonical_rows
from clipnlc.learner import Learner

_Head = TypeVar("_Head", bound="Head")


@dataclass(frozen=True)
class Examples:
    """Labelled rows of one backbone.

    Attributes:
        unit: the features, each row of length 1.
        labels: class numbers.
        sample_id: one identifier per row.
        classes: how many there are; some may have no row.
        views: of each row, the mean over augmented crops, of length 1; without crops, `unit`.
        targets: of each row, a teacher's probabilities of the classes; None without a teacher.
    """

    unit: Float[np.ndarray, "samples dim"]
    labels: Int[np.ndarray, " samples"]
    sample_id: tuple[str, ...]
    classes: int
    views: Float[np.ndarray, "samples dim"]
    targets: Float[np.ndarray, "samples classes"] | None = None


def normalise(vectors: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    """Divide every row by its length; a row of zeros stays as it is.

    >>> normalise(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


class Head(Learner, ABC):
    """The contract of the family.

    `fit` learns and forgets what was learnt before; the order of the rows changes nothing. A row's
    logits have the same bits in any block of rows, on the same machine. Whoever fits heads reads
    here what one needs and refuses, by name, a head that needs what it cannot give.

    Attributes:
        needs_labels: `fit` learns from labelled rows; otherwise `fit_to_texts` is enough.
        needs_texts: `fit` reads the class texts and the logit scale; otherwise it ignores them.
        texts_suffice: with class texts and the logit scale it learns from them alone, as a
            zero-shot head; without, from labelled rows. `needs_texts` is false, and `needs_labels`
            true: it does where there are no texts.
        takes_views: where there are features of augmented crops of the images, it learns from their
            mean, too.
        needs_validation: it learns from labelled rows that are kept from it to choose by, too.
        needs_teacher: it learns from a teacher's probabilities of the classes of each row, and reads
            no label.
        per_draw: it is fitted on the few labels that the combiners are fitted on, once for each
            draw of them; they see cross-fitted logits (`clipnlc.heads.cross_fitting`).
        most_folds: folds of the cross-fitting where every class has a single row; as many as rows
            leave each row out by itself, which pays where fitting is cheap.
    """

    needs_labels: ClassVar[bool]
    needs_texts: ClassVar[bool] = True
    texts_suffice: ClassVar[bool] = False
    takes_views: ClassVar[bool] = False
    needs_validation: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    per_draw: ClassVar[bool] = False
    most_folds: ClassVar[int] = 5

    def fit(  # noqa: PYI019  (see Learner)
        self: _Head,
        *,
        features: Float[np.ndarray, "samples dim"],
        labels: Int[np.ndarray, " samples"],
        sample_id: Sequence[str],
        texts: Float[np.ndarray, "classes dim"] | None = None,
        logit_scale: float | None = None,
        logit_bias: float = 0.0,
        classes: int | None = None,
        views: Float[np.ndarray, "samples dim"] | None = None,
        targets: Float[np.ndarray, "samples classes"] | None = None,
    ) -> _Head:
        """Learn from labelled rows, and from the class texts if the head needs them.

        Args:
            features: as the backbone gave them; they are normalised here.
            labels: class numbers.
            sample_id: one identifier per row.
            texts: one embedding per class.
            logit_scale: the backbone's own factor on cosines (100 for OpenAI's).
            logit_bias: the backbone's own shift of the logits, where it has one.
            classes: how many there are; needed only without texts.
            views: of each row, the mean of the features of augmented crops; the features
                themselves by default.
            targets: of each row, a teacher's probabilities of the classes, for a head that needs
                them.

        Raises:
            ValueError: rows, labels and sample ids do not fit together; a label names no class;
                the head needs texts, rows or a teacher's probabilities, which were not given.
        """
        name = type(self).__name__
        if self.needs_texts and (texts is None or logit_scale is None):
            raise ValueError(f"{name} learns from texts; give texts and logit_scale")
        count = classes if texts is None else len(texts)
        if count is None:
            raise ValueError(f"without texts, {name} has to be told how many classes there are")
        _check_rows(features, labels, sample_id, count)
        crops = views if self.takes_views and views is not None else features
        if crops.shape != features.shape:
            raise ValueError(f"views are {crops.shape}, expected {features.shape} as the features")
        reads_texts = self.needs_texts or (self.texts_suffice and logit_scale is not None)
        by_texts = self.texts_suffice and reads_texts and texts is not None
        if self.needs_labels and not by_texts and not len(labels):
            raise ValueError(f"{name} learns from labelled rows, and none was given")
        if self.needs_teacher:
            _check_targets(name, targets, (len(features), count))
        self.forget()
        rows = canonical_rows(sample_id)
        given = texts if reads_texts and texts is not None else features[:0]
        unit = normalise(features[rows].astype(np.float32))
        self._learn(
            Examples(
                unit=unit,
                views=unit if crops is features else normalise(crops[rows].astype(np.float32)),
                labels=labels[rows],
                sample_id=tuple(sample_id[row] for row in rows),
                classes=count,
                targets=targets[rows] if self.needs_teacher and targets is not None else None,
            ),
            texts=normalise(given.astype(np.float32)),
            logit_scale=1.0 if logit_scale is None else logit_scale,
            logit_bias=logit_bias,
        )
        return self

    def fit_to_texts(  # noqa: PYI019  (see Learner)
        self: _Head,
        *,
        texts: Float[np.ndarray, "classes dim"],
        logit_scale: float,
        logit_bias: float = 0.0,
    ) -> _Head:
        """Learn from the class texts alone; arguments as in `fit`.

        Raises:
            ValueError: the head needs labels.
        """
        return self.fit(
            features=np.empty((0, texts.shape[1]), dtype=np.float32),
            labels=np.empty(0, dtype=np.int64),
            sample_id=(),
            texts=texts,
            logit_scale=logit_scale,
            logit_bias=logit_bias,
        )

    @abstractmethod
    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        """Set every array named in `learnt`.

        Rows come in a canonical order. Texts come normalised; a head that needs none gets `[0, dim]`.
        """

    @property
    @abstractmethod
    def dim(self) -> int:
        """The width of the features that it was fitted on.

        Raises:
            ValueError: not fitted.
        """

    @abstractmethod
    def logits(
        self, features: Float[np.ndarray, "samples dim"]
    ) -> Float[np.ndarray, "samples classes"]:
        """Return float32 logits, already multiplied by the logit scale.

        Raises:
            ValueError: not fitted.
        """

    def facts(self) -> dict[str, int | float | str]:
        """Return what is worth knowing of the fit besides its accuracy, by name; often nothing."""
        return {}


class AffineHead(Head):
    """A head whose logits are `scale * f W^T + b` for the L2-normalised features f.

    Attributes:
        weight_: float32 `[classes, dim]`, before the scale.
        bias_: float32 `[classes]`.
        logit_scale_: float64 `[]`.
    """

    learnt: ClassVar[tuple[str, ...]] = ("weight_", "bias_", "logit_scale_")
    weight_: Float[np.ndarray, "classes dim"]
    bias_: Float[np.ndarray, " classes"]
    logit_scale_: Float[np.ndarray, ""]

    @property
    def dim(self) -> int:
        """The width of the weights."""
        self.require_fitted()
        return int(self.weight_.shape[1])

    def logits(
        self, features: Float[np.ndarray, "samples dim"]
    ) -> Float[np.ndarray, "samples classes"]:
        """Return `scale * f W^T + b`, in float32."""
        self.require_fitted()
        logits = product_by_blocks(unit_rows(features), self.weight_.T)
        logits *= float(self.logit_scale_)
        logits += self.bias_
        return logits


def unit_rows(features: Float[np.ndarray, "samples dim"]) -> Float[np.ndarray, "samples dim"]:
    """Normalise rows in float32, each with the same bits whatever rows stand beside it."""
    # In another memory layout, the order of a row's sum depends on how many rows there are.
    return normalise(np.ascontiguousarray(features, dtype=np.float32))


def _check_rows(
    features: Float[np.ndarray, "samples dim"],
    labels: Int[np.ndarray, " labels"],
    sample_id: Sequence[str],
    classes: int,
) -> None:
    if not len(features) == len(labels) == len(sample_id):
        raise ValueError(
            f"{len(features)} rows, {len(labels)} labels and {len(sample_id)} sample ids; expected "
            "one of each per sample"
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels must lie in [0, {classes}), found {labels.min()} to {labels.max()}"
        )


def _check_targets(
    name: str, targets: Float[np.ndarray, "samples classes"] | None, shape: tuple[int, int]
) -> None:
    if targets is None or not len(targets):
        raise ValueError(f"{name} learns from a teacher's probabilities, and none were given")
    if targets.shape != shape:
        raise ValueError(f"a teacher's probabilities are {targets.shape}, expected {shape}")
    if not (targets >= 0).all() or not np.allclose(targets.sum(axis=1), 1, atol=1e-3):
        raise ValueError("a teacher's probabilities must not be negative, and each row's sum is 1")
