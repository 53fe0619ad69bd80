"""Zero-shot where a backbone embeds texts, logistic regression where it does not."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from clipnlc.heads.base import AffineHead, Examples
from clipnlc.heads.logistic import held_out_logistic_strength, logistic_weights


class AutoHead(AffineHead):
    """The head `zero-shot` on class texts, and the head `logistic-few` for a backbone without texts.

    So backbones with texts and without answer in one ensemble, on the same labels. Which of the two
    a fitted one is follows from `strength_`.

    Attributes:
        strength_: of the logistic regression, float64 `[]`; 0 for a zero-shot head.
    """

    needs_labels = True
    needs_texts = False
    texts_suffice = True
    per_draw = True
    learnt: ClassVar[tuple[str, ...]] = (*AffineHead.learnt, "strength_")
    strength_: Float[np.ndarray, ""]

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        if len(texts):
            self.weight_, self.strength_ = texts, np.array(0.0, dtype=np.float64)
            self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
            self.logit_scale_ = np.array(logit_scale, dtype=np.float64)
            return
        strength = held_out_logistic_strength(examples, seed=self.seed)
        self.weight_, self.strength_ = logistic_weights(examples, strength), np.array(strength)
        self.bias_ = np.zeros(examples.classes, dtype=np.float32)
        self.logit_scale_ = np.array(1.0, dtype=np.float64)

    def facts(self) -> dict[str, int | float | str]:
        """Return the strength of a logistic regression."""
        self.require_fitted()
        return {"strength": float(self.strength_)} if self.strength_ > 0 else {}
