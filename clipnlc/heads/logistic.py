"""Logistic regression on the features alone: the head of a backbone that embeds no texts."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from clipnlc.heads.base import AffineHead, Examples
from clipnlc.heads.linear_cv import STRENGTHS
from clipnlc.regression import (
    JUDGED_ROWS,
    draw_landmarks,
    fit_regression,
    held_out_strength,
)


class LogisticHead(AffineHead):
    """Logits `f v_c` of the features f of length 1; no text is read, and there is no intercept.

    V minimises `strength sum CE + |V|^2 / 2` (by L-BFGS to its only minimum): the linear probe of
    CLIP's paper (Radford et al. 2021, arXiv 2103.00020), its strength by cross-validation as for
    `linear-cv`. Where no class has two labels nothing can be held out, and the strength is 1: the
    few-shot recipe of Tian et al. (ECCV 2020, arXiv 2003.11539), scikit-learn's default on features
    of length 1. Its logits are then small, and say little in an average of logits.

    A class without a label has the mean of the other classes' weights: nothing is known of it, and
    a row of it is not told that it is none of this class. Ours, not published.

    Attributes:
        strength_: float64 `[]`.
    """

    needs_labels = True
    needs_texts = False
    per_draw = True
    learnt: ClassVar[tuple[str, ...]] = (*AffineHead.learnt, "strength_")
    strength_: Float[np.ndarray, ""]

    def __init__(self, *, strength: float = 0.0, seed: int = 0) -> None:
        """Store the settings.

        Args:
            strength: as scikit-learn's `C`; 0 chooses one of 0.01 to 10,000 by cross-validation.
            seed: of the folds.
        """
        super().__init__(seed=seed)
        self.strength = strength

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],  # noqa: ARG002  (this head needs none)
        logit_scale: float,  # noqa: ARG002
        logit_bias: float,  # noqa: ARG002
    ) -> None:
        strength = self.strength or held_out_logistic_strength(examples, seed=self.seed)
        self.weight_ = logistic_weights(examples, strength)
        self.bias_ = np.zeros(examples.classes, dtype=np.float32)
        self.logit_scale_ = np.array(1.0, dtype=np.float64)
        self.strength_ = np.array(strength, dtype=np.float64)

    def facts(self) -> dict[str, int | float | str]:
        """Return the strength."""
        self.require_fitted()
        return {"strength": float(self.strength_)}


def logistic_weights(examples: Examples, strength: float) -> Float[np.ndarray, "classes dim"]:
    """Return what the classes with a label learn, and their mean for the others."""
    present = np.unique(examples.labels)
    zero = np.zeros((len(examples.labels), examples.classes), dtype=np.float32)
    found: np.ndarray = fit_regression(
        examples.unit, examples.labels, lambda _: zero, strength=strength, classes=present
    ).T
    weights = np.empty(found.shape, dtype=np.float32)
    weights[:] = found[present].mean(axis=0)
    weights[present] = found[present]
    return weights


def held_out_logistic_strength(examples: Examples, *, seed: int) -> float:
    """Return the strength with the lowest cross-entropy of held-out labels; 1 if no label can be held out."""
    drawn: Int[np.ndarray, " drawn"] = draw_landmarks(examples.labels, JUDGED_ROWS, seed=seed)
    zero = np.zeros((len(drawn), examples.classes), dtype=np.float32)
    return held_out_strength(
        examples.unit[drawn],
        examples.labels[drawn],
        tuple(examples.sample_id[row] for row in drawn),
        lambda _: zero,
        every_class=False,
        strengths=STRENGTHS,
        seed=seed,
    )
