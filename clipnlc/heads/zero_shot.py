"""The head that needs no labels: CLIP's own classifier from the class texts."""

import numpy as np
from jaxtyping import Float

from clipnlc.heads.base import AffineHead, Examples, affine, normalise


def zero_shot_logits(
    features: Float[np.ndarray, "samples dim"],
    texts: Float[np.ndarray, "classes dim"],
    *,
    logit_scale: float,
    logit_bias: float = 0.0,
) -> Float[np.ndarray, "samples classes"]:
    """Return `logit_scale * cos(image, text) + logit_bias`, float32 (Radford et al. 2021).

    >>> image, text = np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32) * 3
    >>> zero_shot_logits(image, text, logit_scale=100.0).tolist()
    [[100.0, 0.0]]
    """
    unit = normalise(features.astype(np.float32, copy=False))
    weight = normalise(texts.astype(np.float32, copy=False))
    return affine(unit, weight, np.full(len(texts), logit_bias, dtype=np.float32), logit_scale)


class ZeroShotHead(AffineHead):
    """Cosines with the class texts, times the backbone's logit scale, plus its bias.

    `weight_` are the texts, each of length 1; no row is looked at.
    """

    needs_labels = False

    def _learn(
        self,
        examples: Examples,  # noqa: ARG002  (this head needs none)
        *,
        texts: Float[np.ndarray, "classes dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        self.weight_ = texts
        self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)
