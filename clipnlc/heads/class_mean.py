"""The nearest class mean: the plainest classifier that learns from a few labels."""

import numpy as np
from jaxtyping import Float

from clipnlc.heads.base import AffineHead, Examples, normalise


class ClassMeanHead(AffineHead):
    """Logits `scale * cos(image, mean of the class's images) + b`, with the backbone's own scale.

    Nearest class mean (Mensink et al. 2013; prototypes of Snell et al. 2017) on features of length
    1. A class without a labelled image keeps its text. The scale is the one that was trained for
    texts: our choice; cosines between images are larger and closer together.
    """

    needs_labels = True

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        sums = np.zeros(texts.shape, dtype=np.float64)
        np.add.at(sums, examples.labels, examples.unit)
        present = np.bincount(examples.labels, minlength=len(texts)) > 0
        self.weight_ = texts.copy()
        self.weight_[present] = normalise(sums[present]).astype(np.float32)
        self.bias_ = np.full(len(texts), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)


class ClassMeanHeadOfFewLabels(ClassMeanHead):
    """The same head, fitted on the labels of each draw, with cross-fitted logits for the combiners.

    With one label per class, each row in turn is left out, and its class keeps its text.
    """

    per_draw = True
    most_folds = 100
