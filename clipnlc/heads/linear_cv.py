"""A linear head that is fitted to its optimum, as regular as held-out labels ask for."""

from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float

from clipnlc.fitting import product_by_blocks
from clipnlc.heads.base import AffineHead, Examples
from clipnlc.regression import (
    JUDGED_ROWS,
    draw_landmarks,
    fit_regression,
    held_out_strength,
)

STRENGTHS: Final = tuple(10 ** (half / 2) for half in range(-4, 9))
"""0.01 to 10,000, in steps of the root of 10: what the strength is chosen among."""


class CrossValidatedLinearHead(AffineHead):
    """Logits `s f t_c + b + f v_c`: logistic regression whose weights are pulled to the texts.

    V minimises `strength sum CE + |V|^2 / 2` (by L-BFGS, to its only minimum). The strength,
    scikit-learn's `C`, has the lowest cross-entropy of held-out labels in up to five stratified
    folds; the search starts at 1 and goes up, or else down, as long as that falls. What CLIP's own
    paper does for its linear probes (Radford et al. 2021, arXiv 2103.00020: L-BFGS, strength by
    validation), but that weights start at, and are pulled to, the texts and not 0: ours. There is
    no intercept to learn, which would count how many labels each class happens to have.

    Attributes:
        strength_: float64 `[]`.
    """

    needs_labels = True
    learnt: ClassVar[tuple[str, ...]] = (*AffineHead.learnt, "strength_")
    strength_: Float[np.ndarray, ""]

    def __init__(self, *, strength: float = 0.0, seed: int = 0) -> None:
        """Store the settings.

        Args:
            strength: as scikit-learn's `C`; 0 chooses one of `STRENGTHS` by cross-validation.
            seed: of the folds.
        """
        super().__init__(seed=seed)
        self.strength = strength

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        unit, labels = examples.unit, examples.labels
        zero_shot = product_by_blocks(unit, texts.T) * np.float32(logit_scale)
        strength = self.strength or self._searched(examples, zero_shot)
        change = fit_regression(
            unit,
            labels,
            lambda _: zero_shot,
            strength=strength,
            classes=np.arange(examples.classes),
        )
        # The logit scale is part of the weights: the change is not multiplied by it.
        self.weight_ = (logit_scale * texts + change.T).astype(np.float32)
        self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(1.0, dtype=np.float64)
        self.strength_ = np.array(strength, dtype=np.float64)

    def _searched(
        self, examples: Examples, zero_shot: Float[np.ndarray, "samples classes"]
    ) -> float:
        """Return the strength with the lowest cross-entropy across folds."""
        drawn = draw_landmarks(examples.labels, JUDGED_ROWS, seed=self.seed)
        return held_out_strength(
            examples.unit[drawn],
            examples.labels[drawn],
            tuple(examples.sample_id[row] for row in drawn),
            lambda _: zero_shot[drawn],
            every_class=True,
            strengths=STRENGTHS,
            seed=self.seed,
        )

    def facts(self) -> dict[str, int | float | str]:
        """Return the strength."""
        self.require_fitted()
        return {"strength": float(self.strength_)}


class CrossValidatedLinearHeadOfFewLabels(CrossValidatedLinearHead):
    """The same head, fitted on the labels of each draw, with cross-fitted logits for the combiners."""

    per_draw = True
