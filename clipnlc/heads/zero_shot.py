"""The head that needs no labels: CLIP's own classifier from the class texts."""

import numpy as np
from jaxtyping import Float

from clipnlc.heads.base import AffineHead, Examples


class ZeroShotHead(AffineHead):
    """Logits `logit_scale * cos(image, text) + logit_bias` (Radford et al. 2021).

    `weight_` are the texts, each of length 1; no row is looked at.

    >>> image, texts = np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32) * 3
    >>> ZeroShotHead().fit_to_texts(texts=texts, logit_scale=100.0).logits(image).tolist()
    [[100.0, 0.0]]
    """

    needs_labels = False

    def _learn(
        self,
        examples: Examples,  # noqa: ARG002  (this head needs none)
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        self.weight_ = texts
        self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)
