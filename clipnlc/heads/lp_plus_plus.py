"""LP++: a linear probe beside the texts, with a learnt factor of every class's text."""

from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import class_sums, cross_entropy_gradient, momentum_step
from clipnlc.heads.base import AffineHead, Examples

_START: Final = 250.0
"""Alpha starts at this times the mean cosine between images and the text of their class."""

_EVERY: Final = 10
"""Epochs from one step of alpha to the next."""


class LinearProbePlusPlus(AffineHead):
    """Logits `f w_c + alpha_c f t_c + b`, both learnt; the backbone's own scale is not used.

    LP++ (Huang et al., CVPR 2024, arXiv 2404.02285): the cross-entropy by gradient descent on whole
    batches, in blocks, with step sizes that follow from Lipschitz constants: `4 n / lambda_max(F^T
    F)` for w, with momentum 0.9, and every tenth epoch `n / (4 max_c sum_i (f_i t_c)^2)` for alpha.
    w_c starts at the sum of the class's images, every alpha_c at 250 times the mean over classes of
    the mean cosine between images and their text.

    The published code keeps the epoch that is best on validation images; here it is the last one.
    It adds a bias per class, started at random, which the paper's formula lacks, and never sets
    alpha's gradient back to 0 between steps; both are left out. A class without a label starts at
    w_c = 0: ours.

    Attributes:
        alpha_: of every class, float32 `[classes]`; a part of the weights.
    """

    needs_labels = True
    per_draw = True
    learnt: ClassVar[tuple[str, ...]] = (*AffineHead.learnt, "alpha_")
    alpha_: Float[np.ndarray, " classes"]

    def __init__(self, *, epochs: int = 300, seed: int = 0) -> None:
        """Store the settings.

        Args:
            epochs: steps of w, each on all rows.
            seed: of nothing: the fit has no random part.
        """
        super().__init__(seed=seed)
        self.epochs = epochs

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,  # noqa: ARG002
        logit_bias: float,
    ) -> None:
        unit, labels = examples.unit, examples.labels
        cosines = unit @ texts.T
        rate, rate_alpha = step_sizes(unit, cosines)
        weight = class_sums(unit, labels, len(texts)).astype(np.float32)
        velocity = np.zeros_like(weight)
        alpha = np.full(len(texts), _START * _mean_cosine(cosines, labels), dtype=np.float32)
        for epoch in range(1, self.epochs + 1):
            logits = unit @ weight.T
            logits += alpha * cosines
            by_logits = cross_entropy_gradient(logits, labels)
            momentum_step(weight, velocity, by_logits.T @ unit, learning_rate=rate)
            if epoch % _EVERY == 0:
                alpha -= np.float32(rate_alpha) * np.einsum("nc,nc->c", by_logits, cosines)
        self.weight_ = weight + alpha[:, None] * texts
        self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(1.0, dtype=np.float64)
        self.alpha_ = alpha


def step_sizes(
    unit: Float[np.ndarray, "rows dim"], cosines: Float[np.ndarray, "rows classes"]
) -> tuple[float, float]:
    """Return the step sizes of w and of alpha; rows that are all 0 have no gradient to step along.

    >>> step_sizes(np.eye(2), np.array([[0.5, 0.25], [0.5, 0.0]]))
    (8.0, 1.0)
    """
    rows, dim = unit.shape
    wide = unit.astype(np.float64)
    products = wide.T @ wide if dim < rows else wide @ wide.T  # the same largest eigenvalue
    largest = max(float(np.linalg.eigvalsh(products)[-1]), 1e-12)
    steepest = max(float(np.square(cosines, dtype=np.float64).sum(axis=0).max()), 1e-12)
    return 4 * rows / largest, rows / (4 * steepest)


def _mean_cosine(
    cosines: Float[np.ndarray, "rows classes"], labels: Int[np.ndarray, " rows"]
) -> float:
    """Return the mean over classes with rows of the mean cosine between rows and their text."""
    own = cosines[np.arange(len(labels)), labels]
    counts = np.bincount(labels)
    present = counts > 0
    return float((np.bincount(labels, weights=own)[present] / counts[present]).mean())
