"""CLAP: a linear probe whose weights are pulled to the texts, class by class as those deserve."""

from typing import Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import cosine_schedule, cross_entropy_gradient, momentum_step, softmax
from clipnlc.heads.base import AffineHead, Examples, normalise

_WARM_UP: Final = 1e-5
"""The learning rate of the first epoch."""


class ClassAdaptiveProbe(AffineHead):
    """Logits `s cos(f, w_c) + b`; w_c starts at the text t_c and is pulled back to it.

    CLAP (Silva-Rodriguez et al., CVPR 2024, arXiv 2312.12730) in the form of its published code:
    the mean cross-entropy of a batch plus the mean over classes of `alpha_c |w_c - t_c|^2`, where
    alpha_c is the mean zero-shot probability of the class on its labelled images and stays as it is.
    Gradient descent with momentum 0.9, a first epoch at 1e-5, then a cosine schedule; the last
    epoch's weights are kept.

    The length of t_c matters to both the pull and the steps. The published code takes the texts
    before normalisation; a store has them at length 1, so `text_length` gives them one. Ours too:
    a row is the mean over crops of its image (the published code draws from 20 crops of each), or
    the image without crops; the last batch of an epoch may be smaller; a class without a label has
    the mean alpha of the others, as in the authors' later code.
    """

    needs_labels = True
    per_draw = True
    takes_views = True

    def __init__(
        self,
        *,
        epochs: int = 300,
        learning_rate: float = 0.1,
        batch_size: int = 256,
        text_length: float = 10.0,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            epochs: passes over the rows, the first one included.
            learning_rate: of the second epoch; it falls to 0 along a cosine.
            batch_size: rows per step.
            text_length: of every t_c; not published. 10 is about what the text towers give: those
                of the nano backbones give 10 to 15.
            seed: of the minibatches.
        """
        super().__init__(seed=seed)
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.text_length = text_length

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        unit, labels = examples.views, examples.labels
        start = np.float32(self.text_length) * texts
        pull = class_trust(logit_scale * (unit @ texts.T), labels)[:, None] * (2 / len(texts))
        weight, velocity = start.copy(), np.zeros_like(start)
        random = np.random.default_rng(self.seed)
        for epoch in range(self.epochs):
            rate = self._rate(epoch)
            order = random.permutation(len(labels))
            for begin in range(0, len(labels), self.batch_size):
                batch = order[begin : begin + self.batch_size]
                gradient = _gradient(weight, unit[batch], labels[batch], scale=logit_scale)
                gradient += pull * (weight - start)
                momentum_step(weight, velocity, gradient, learning_rate=rate)
        self.weight_ = normalise(weight)
        self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)

    def _rate(self, epoch: int) -> float:
        if epoch == 0:
            return _WARM_UP
        return cosine_schedule(self.learning_rate, epoch - 1, self.epochs)


def class_trust(
    logits: Float[np.ndarray, "rows classes"], labels: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, " classes"]:
    """Return the mean probability of every class on its own rows, in [0, 1].

    A class without a row has the mean of the others.

    >>> logits = np.log([[3.0, 1.0, 4.0], [1.0, 1.0, 2.0]])
    >>> class_trust(logits, np.array([0, 1])).round(6).tolist()
    [0.375, 0.25, 0.3125]
    """
    classes = logits.shape[1]
    right = softmax(logits)[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    trust = np.bincount(labels, weights=right, minlength=classes) / np.maximum(counts, 1)
    trust[counts == 0] = trust[counts > 0].mean()
    return trust.astype(logits.dtype)


def _gradient(
    weight: Float[np.ndarray, "classes dim"],
    unit: Float[np.ndarray, "rows dim"],
    labels: Int[np.ndarray, " rows"],
    *,
    scale: float,
) -> Float[np.ndarray, "classes dim"]:
    """Return the derivative of the cross-entropy; with v = w / |w|, dv/dw = (I - v v^T) / |w|."""
    length = np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-12)
    direction = weight / length
    by_logits = cross_entropy_gradient(scale * (unit @ direction.T), labels)
    gradient: np.ndarray = (scale * by_logits.T) @ unit
    gradient -= np.einsum("cd,cd->c", gradient, direction)[:, None] * direction
    gradient /= length
    return gradient
