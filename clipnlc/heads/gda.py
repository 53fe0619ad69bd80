"""Gaussian discriminant analysis beside the texts: one covariance for all classes, closed form."""

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import class_sums, cross_entropy
from clipnlc.heads.base import AffineHead, Examples
from clipnlc.heads.cross_fitting import FOLDS, folds_of
from clipnlc.heads.searching import first_of_lowest, has_another

ALPHAS: Final = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Where alpha is searched: the published grid."""

DEFAULT: Final = 0.1
"""Alpha where no labelled row has another one of its class: what the published search starts at."""

_NO_SPREAD: Final = 1e-10  # mean squared distance from the class mean that is only rounding


class GaussianDiscriminant(AffineHead):
    """Logits `s f t_c + b + alpha (f W_c + b_c)` of Gaussian classes with one covariance.

    Wang et al., ICLR 2024, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation" (arXiv
    2402.04087): W_c = S^-1 mu_c and b_c = log(1 / classes) - mu_c S^-1 mu_c / 2, with S^-1 = d ((n -
    1) S + tr(S) I)^+, where S is the covariance of n rows around their class means mu_c.

    The paper searches alpha on a validation split. Ours, not published: the alpha of its grid with
    the lowest cross-entropy of the labelled rows, each by the Gaussians of the other of 5 folds
    (`cross_fitting.folds_of`), over rows whose class has a row in another fold. A row is the mean
    over crops of its image (published: ten crops, each a row of its own), or the image without
    crops. With one label per class there is no spread, S^-1 is 0, and all classes have the same
    logit more than zero-shot. A class without a label has the mean of the other classes' means.

    Attributes:
        alpha_: float64 `[]`.
    """

    needs_labels = True
    per_draw = True
    takes_views = True
    learnt: ClassVar[tuple[str, ...]] = (*AffineHead.learnt, "alpha_")
    alpha_: Float[np.ndarray, ""]

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        alpha = _searched(logit_scale * (examples.unit @ texts.T), examples, seed=self.seed)
        found = gaussians(examples.views, examples.labels, len(texts))
        # The logit scale is part of the weights: alpha's part is not multiplied by it.
        self.weight_ = (logit_scale * texts + alpha * found.weight).astype(np.float32)
        self.bias_ = (logit_bias + alpha * found.bias).astype(np.float32)
        self.logit_scale_ = np.array(1.0, dtype=np.float64)
        self.alpha_ = np.array(alpha, dtype=np.float64)

    def facts(self) -> dict[str, int | float | str]:
        """Return alpha."""
        self.require_fitted()
        return {"alpha": float(self.alpha_)}


@dataclass(frozen=True)
class Gaussians:
    """Classes as Gaussians with one covariance; the logits of f are `f weight^T + bias`."""

    weight: Float[np.ndarray, "classes dim"]
    bias: Float[np.ndarray, " classes"]


def gaussians(
    unit: Float[np.ndarray, "rows dim"], labels: Int[np.ndarray, " rows"], classes: int
) -> Gaussians:
    """Fit Gaussians to labelled rows, in float64; see `GaussianDiscriminant`."""
    rows, dim = unit.shape
    counts = np.bincount(labels, minlength=classes)
    means = class_sums(unit, labels, classes) / np.maximum(counts, 1)[:, None]
    centred = unit - means[labels]
    scatter = centred.T @ centred
    total = float(np.trace(scatter))
    bias = np.full(classes, -np.log(classes))
    if total <= _NO_SPREAD * rows:
        return Gaussians(np.zeros((classes, dim)), bias)
    means[counts == 0] = means[counts > 0].mean(axis=0)
    scatter[np.diag_indices(dim)] += total / (rows - 1)
    weight = dim * np.linalg.solve(scatter, means.T).T
    return Gaussians(weight, bias - np.einsum("cd,cd->c", weight, means) / 2)


def _searched(
    of_texts: Float[np.ndarray, "rows classes"], examples: Examples, *, seed: int
) -> float:
    """Return the alpha of the grid with the lowest cross-entropy across folds."""
    labels, classes = examples.labels, examples.classes
    # As many folds as labels per class, two, would leave one label per class: no spread.
    fold = folds_of(labels, examples.sample_id, number=FOLDS, seed=seed)
    judged = has_another(labels, fold)
    if not judged.any():
        return DEFAULT
    crossed = np.empty((len(labels), classes), dtype=np.float64)
    for number in np.unique(fold):
        kept, held = fold != number, fold == number
        found = gaussians(examples.views[kept], labels[kept], classes)
        crossed[held] = examples.unit[held] @ found.weight.T + found.bias
    of_texts, crossed, truth = of_texts[judged], crossed[judged], labels[judged]
    losses = {alpha: cross_entropy(of_texts + alpha * crossed, truth) for alpha in ALPHAS}
    return first_of_lowest(losses)
