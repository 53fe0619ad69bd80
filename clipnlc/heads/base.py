"""What every head is: `fit`, `logits`, and learnt values that travel as plain arrays."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Float, Int

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
    """

    unit: Float[np.ndarray, "samples dim"]
    labels: Int[np.ndarray, " samples"]
    sample_id: tuple[str, ...]


def normalise(vectors: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    """Divide every row by its length; a row of zeros stays as it is.

    >>> normalise(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


class Head(Learner, ABC):
    """The contract of the family.

    `fit` learns and forgets what was learnt before; the order of the rows changes nothing.

    Attributes:
        needs_labels: `fit` learns from labelled rows; otherwise it takes the texts alone.
    """

    needs_labels: ClassVar[bool]

    def fit(  # noqa: PYI019  (see Learner)
        self: _Head,
        *,
        features: Float[np.ndarray, "samples dim"],
        labels: Int[np.ndarray, " samples"],
        sample_id: Sequence[str],
        texts: Float[np.ndarray, "classes dim"],
        logit_scale: float,
        logit_bias: float = 0.0,
    ) -> _Head:
        """Learn from labelled rows, starting at the class texts.

        Args:
            features: as the backbone gave them; they are normalised here.
            labels: class numbers.
            sample_id: one identifier per row.
            texts: one embedding per class.
            logit_scale: the backbone's own factor on cosines (100 for OpenAI's).
            logit_bias: the backbone's own shift of the logits, where it has one.
        """
        self.forget()
        rows = canonical_rows(sample_id)
        self._learn(
            Examples(
                unit=normalise(features[rows].astype(np.float32)),
                labels=labels[rows],
                sample_id=tuple(sample_id[row] for row in rows),
            ),
            texts=normalise(texts.astype(np.float32)),
            logit_scale=logit_scale,
            logit_bias=logit_bias,
        )
        return self

    @abstractmethod
    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "classes dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        """Set every array named in `learnt`; rows come in a canonical order, texts normalised."""

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
        unit = normalise(features.astype(np.float32, copy=False))
        return affine(unit, self.weight_, self.bias_, float(self.logit_scale_))


def affine(
    unit: Float[np.ndarray, "samples dim"],
    weight: Float[np.ndarray, "classes dim"],
    bias: Float[np.ndarray, " classes"],
    scale: float,
) -> Float[np.ndarray, "samples classes"]:
    """Return `scale * unit W^T + b`, in the dtype of the arrays."""
    logits: np.ndarray = unit @ weight.T
    logits *= scale
    logits += bias
    return logits
