"""The regularised linear adapter: one matrix between the features of a backbone and its texts."""

from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import (
    Adam,
    cosine_schedule,
    cross_entropy_gradient,
    product_by_blocks,
)
from clipnlc.heads.base import Examples, Head, unit_rows

_EPSILON: Final = 1e-4


class RegularisedLinearAdapter(Head):
    """Logits `s * normalise(W f) t_c + b`; W starts at the identity and is pulled back to it.

    RLA of ProLIP, version 4 (arXiv 2410.05270): the cross-entropy plus the sum of (W - I)^2 divided
    by the labels per class; Adam with epsilon 1e-4, a cosine schedule, full batches. For draws that
    are not k of every class, labels per class are the rows divided by the classes: our reading.

    Attributes:
        adapter_: W, float32 `[dim, dim]`.
        texts_: float32 `[classes, dim]`, of length 1.
        logit_scale_: s, float64 `[]`.
        logit_bias_: b, float64 `[]`.
    """

    needs_labels = True
    per_draw = True
    learnt: ClassVar[tuple[str, ...]] = ("adapter_", "texts_", "logit_scale_", "logit_bias_")
    adapter_: Float[np.ndarray, "dim dim"]
    texts_: Float[np.ndarray, "classes dim"]
    logit_scale_: Float[np.ndarray, ""]
    logit_bias_: Float[np.ndarray, ""]

    def __init__(self, *, steps: int = 300, learning_rate: float = 1e-3, seed: int = 0) -> None:
        """Store the settings.

        Args:
            steps: of full batches.
            learning_rate: Adam's first; it falls to 0 along a cosine.
            seed: of nothing: the fit has no random part.
        """
        super().__init__(seed=seed)
        self.steps = steps
        self.learning_rate = learning_rate

    @property
    def dim(self) -> int:
        """The width of the adapter."""
        self.require_fitted()
        return int(self.adapter_.shape[1])

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        unit, labels = examples.unit, examples.labels
        pull = examples.classes / len(labels)
        adapter = np.eye(unit.shape[1], dtype=np.float32)
        adam = Adam([adapter], learning_rate=self.learning_rate, epsilon=_EPSILON)
        for step in range(self.steps):
            adam.learning_rate = cosine_schedule(self.learning_rate, step, self.steps)
            gradient = _gradient(adapter, unit, labels, texts=texts, scale=logit_scale, pull=pull)
            adam.step([gradient])
        self.adapter_ = adapter
        self.texts_ = texts
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)
        self.logit_bias_ = np.array(logit_bias, dtype=np.float64)

    def logits(
        self, features: Float[np.ndarray, "samples dim"]
    ) -> Float[np.ndarray, "samples classes"]:
        """Return `s * normalise(W f) t_c + b`, in float32."""
        self.require_fitted()
        adapted = unit_rows(product_by_blocks(unit_rows(features), self.adapter_.T))
        logits = product_by_blocks(adapted, self.texts_.T)
        logits *= float(self.logit_scale_)
        logits += np.float32(self.logit_bias_)
        return logits


def _gradient(
    adapter: Float[np.ndarray, "dim dim"],
    unit: Float[np.ndarray, "rows dim"],
    labels: Int[np.ndarray, " rows"],
    *,
    texts: Float[np.ndarray, "classes dim"],
    scale: float,
    pull: float,
) -> Float[np.ndarray, "dim dim"]:
    """Return the derivative of the loss; with u = h / |h| and h = W f, du/dh = (I - u u^T) / |h|."""
    moved = unit @ adapter.T
    length = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    moved /= length
    by_moved = (cross_entropy_gradient(scale * (moved @ texts.T), labels) * scale) @ texts
    by_moved -= (by_moved * moved).sum(axis=1, keepdims=True) * moved
    by_moved /= length
    gradient: np.ndarray = by_moved.T @ unit
    gradient += (2 * pull) * adapter
    gradient[np.diag_indices(len(gradient))] -= 2 * pull
    return gradient
