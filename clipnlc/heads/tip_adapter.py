"""Tip-Adapter: class texts, and a cache of the labelled images that an image is like."""

from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import (
    Adam,
    cosine_schedule,
    cross_entropy,
    cross_entropy_gradient,
    product_by_blocks,
)
from clipnlc.heads.base import AffineHead, Examples, unit_rows
from clipnlc.heads.cross_fitting import folds_of
from clipnlc.heads.searching import first_of_lowest, has_another

ALPHAS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
BETAS: Final = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0)
"""Where alpha and beta are searched: the published grids reach 3 to 12 and 7 to 12."""

DEFAULT: Final = (1.0, 5.5)
"""The paper's own alpha and beta, where no labelled row has another one of its class."""

_BLOCK: Final = 512
_EPSILON: Final = 1e-4


class TipAdapter(AffineHead):
    """Logits `s f t_c + b + alpha sum over labelled images i of class c of exp(-beta (1 - f k_i))`.

    Zhang et al., ECCV 2022 (arXiv 2111.03930); a key k_i is the normalised mean over augmented
    crops of image i, or the image's own feature where there are no crops. The paper searches alpha
    and beta on a validation split, which few labels do not have. Ours, not published: the pair of
    `ALPHAS` and `BETAS` with the lowest cross-entropy of the labelled rows, each without the keys
    of its own fold (`cross_fitting.folds_of`), over rows whose class has another key.

    Attributes:
        keys_: float32 `[keys, dim]`.
        values_: the class of each key, int64 `[keys]`.
        alpha_, beta_: float64 `[]`.
    """

    needs_labels = True
    per_draw = True
    takes_views = True
    keeps_features = True
    most_folds = 100
    learnt: ClassVar[tuple[str, ...]] = (*AffineHead.learnt, "keys_", "values_", "alpha_", "beta_")
    keys_: Float[np.ndarray, "keys dim"]
    values_: Int[np.ndarray, " keys"]
    alpha_: Float[np.ndarray, ""]
    beta_: Float[np.ndarray, ""]

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        self.weight_ = texts
        self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)
        self.keys_, self.values_ = examples.views.copy(), examples.labels.astype(np.int64)
        fold = folds_of(examples.labels, examples.sample_id, seed=self.seed)
        alpha, beta = _searched(self._of_texts(examples.unit), examples, fold)
        self.alpha_ = np.array(alpha, dtype=np.float64)
        self.beta_ = np.array(beta, dtype=np.float64)

    def facts(self) -> dict[str, int | float | str]:
        """Return alpha and beta."""
        self.require_fitted()
        return {"alpha": float(self.alpha_), "beta": float(self.beta_)}

    def logits(
        self, features: Float[np.ndarray, "samples dim"]
    ) -> Float[np.ndarray, "samples classes"]:
        """Return the logits of the texts plus those of the cache, in float32."""
        logits = super().logits(features)
        values = _one_hot(self.values_, len(self.weight_))
        for begin in range(0, len(logits), _BLOCK):  # all affinities at once may not fit
            unit = unit_rows(features[begin : begin + _BLOCK])
            near = _nearness(product_by_blocks(unit, self.keys_.T), float(self.beta_))
            cache = product_by_blocks(near, values)
            cache *= float(self.alpha_)
            logits[begin : begin + _BLOCK] += cache
        return logits

    def _of_texts(self, unit: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows classes"]:
        logits: np.ndarray = unit @ self.weight_.T
        logits *= float(self.logit_scale_)
        logits += self.bias_
        return logits


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are then trained, with its alpha and beta.

    The paper's training: AdamW at 1e-3 with epsilon 1e-4, a cosine schedule, 20 epochs of batches
    of 256. The published code keeps the epoch that is best on test; here it is the last one. It
    trains on a new crop of each image in each epoch; here on the image's own feature: our reading.
    """

    most_folds = 5

    def __init__(
        self,
        *,
        epochs: int = 20,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        weight_decay: float = 0.01,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            epochs: passes over the rows.
            learning_rate: AdamW's first; it falls to 0 along a cosine.
            batch_size: rows per step.
            weight_decay: AdamW's; the published code leaves it at PyTorch's default.
            seed: of the minibatches and of the folds that alpha and beta are searched by.
        """
        super().__init__(seed=seed)
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        super()._learn(examples, texts=texts, logit_scale=logit_scale, logit_bias=logit_bias)
        adam = Adam(
            [self.keys_],
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epsilon=_EPSILON,
        )
        random = np.random.default_rng(self.seed)
        rows = len(examples.labels)
        starts = range(0, rows, self.batch_size)
        step, steps = 0, self.epochs * len(starts)
        values = _one_hot(self.values_, len(texts))
        for _ in range(self.epochs):
            order = random.permutation(rows)
            for begin in starts:
                batch = order[begin : begin + self.batch_size]
                adam.learning_rate = cosine_schedule(self.learning_rate, step, steps)
                adam.step([self._gradient(examples.unit[batch], examples.labels[batch], values)])
                step += 1

    def _gradient(
        self,
        unit: Float[np.ndarray, "rows dim"],
        labels: Int[np.ndarray, " rows"],
        values: Float[np.ndarray, "keys classes"],
    ) -> Float[np.ndarray, "keys dim"]:
        """Return the derivative of the cross-entropy with respect to the keys."""
        alpha, beta = float(self.alpha_), float(self.beta_)
        near = _nearness(unit @ self.keys_.T, beta)
        by_logits = cross_entropy_gradient(self._of_texts(unit) + alpha * (near @ values), labels)
        near *= by_logits[:, self.values_]
        near *= alpha * beta
        gradient: np.ndarray = near.T @ unit
        return gradient


def _nearness(
    cosines: Float[np.ndarray, "rows keys"], beta: float
) -> Float[np.ndarray, "rows keys"]:
    """Turn cosines into exp(-beta (1 - cosine)), in place."""
    cosines -= 1
    cosines *= beta
    np.exp(cosines, out=cosines)
    return cosines


def _one_hot(labels: Int[np.ndarray, " keys"], classes: int) -> Float[np.ndarray, "keys classes"]:
    values = np.zeros((len(labels), classes), dtype=np.float32)
    values[np.arange(len(labels)), labels] = 1
    return values


def _searched(
    of_texts: Float[np.ndarray, "rows classes"],
    examples: Examples,
    fold: Int[np.ndarray, " rows"],
) -> tuple[float, float]:
    """Return the alpha and beta of the grid with the lowest cross-entropy across folds."""
    labels = examples.labels
    judged = has_another(labels, fold)
    if not judged.any():
        return DEFAULT
    values = _one_hot(labels, examples.classes)
    losses = {
        (alpha, beta): cross_entropy((of_texts + alpha * cache)[judged], labels[judged])
        for beta in BETAS
        for cache in [_crossed(examples, values, fold, beta)]
        for alpha in ALPHAS
    }
    return first_of_lowest(losses)


def _crossed(
    examples: Examples,
    values: Float[np.ndarray, "keys classes"],
    fold: Int[np.ndarray, " rows"],
    beta: float,
) -> Float[np.ndarray, "rows classes"]:
    """Return what the cache says of every row without the keys of its fold, before alpha."""
    cache = np.empty_like(values)
    for begin in range(0, len(values), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        near = _nearness(examples.unit[rows] @ examples.views.T, beta)
        near[fold[rows, None] == fold] = 0
        cache[rows] = near @ values
    return cache
