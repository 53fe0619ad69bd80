"""A linear classifier on the features of one backbone, trained from the class texts on."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from clipnlc.errors import DataError
from clipnlc.fitting import Adam, cross_entropy, cross_entropy_gradient
from clipnlc.heads.base import AffineHead, Examples
from clipnlc.labels import stratified_split


@dataclass(frozen=True)
class _Affine:
    """`scale * f W^T + b` while it is trained."""

    weight: Float[np.ndarray, "classes dim"]
    bias: Float[np.ndarray, " classes"]
    scale: float

    def copy(self) -> "_Affine":
        return _Affine(self.weight.copy(), self.bias.copy(), self.scale)

    def logits(self, unit: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows classes"]:
        logits: np.ndarray = unit @ self.weight.T
        logits *= self.scale
        logits += self.bias
        return logits

    def loss(self, unit: Float[np.ndarray, "rows dim"], labels: Int[np.ndarray, " rows"]) -> float:
        return cross_entropy(self.logits(unit), labels)

    def gradients(
        self, unit: Float[np.ndarray, "rows dim"], labels: Int[np.ndarray, " rows"]
    ) -> tuple[Float[np.ndarray, "classes dim"], Float[np.ndarray, " classes"]]:
        by_logits = cross_entropy_gradient(self.logits(unit), labels)
        return self.scale * (by_logits.T @ unit), by_logits.sum(axis=0)


class LinearHead(AffineHead):
    """Logits `scale * f W^T + b`; W starts at the unit-length texts, b at the backbone's bias.

    The NLC paper (arXiv 2405.17139) trains linear heads on L2-normalised features from the text
    weights on; "Adam, 2e-5, 300 epochs" is its text, though the scope of that sentence is open. The
    factor, the backbone's logit scale, is kept and not learnt: our reading.

    Attributes:
        epochs_: int64 `[]`, passes over the rows that made the weights; fewer than `epochs` where
            training stopped early, 0 where the texts were never improved on.
    """

    needs_labels = True
    learnt = (*AffineHead.learnt, "epochs_")
    epochs_: Int[np.ndarray, ""]

    def __init__(
        self,
        *,
        epochs: int = 300,
        learning_rate: float = 2e-5,
        batch_size: int = 256,
        stopping_share: float = 0.0,
        patience: int = 20,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            epochs: passes over the rows, at most.
            learning_rate: Adam's.
            batch_size: rows per step.
            stopping_share: share of each class's rows, in [0, 1), kept out of the steps to decide
                when to stop; 0 trains on all rows to the end.
            patience: epochs without a lower cross-entropy on those rows before training stops. The
                weights are those of the best epoch.
            seed: of the minibatches and of the rows kept out.

        Raises:
            DataError: the stopping share is out of range.
        """
        super().__init__(seed=seed)
        if not 0 <= stopping_share < 1:
            raise DataError(
                f"--early-stopping is {stopping_share}; give a share of at least 0 and below 1"
            )
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.stopping_share = stopping_share
        self.patience = patience

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        bias = np.full(len(texts), logit_bias, dtype=np.float32)
        model = _Affine(texts.copy(), bias, logit_scale)
        if self.stopping_share > 0:
            kept, held = stratified_split(
                examples.labels, examples.sample_id, share=self.stopping_share, seed=self.seed
            )
        else:
            kept, held = np.arange(len(examples.labels)), np.empty(0, dtype=np.int64)
        self.epochs_ = np.array(self._train(model, examples, kept, held), dtype=np.int64)
        self.weight_, self.bias_ = model.weight, model.bias
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)

    def facts(self) -> dict[str, int | float | str]:
        """Return the passes over the rows that made the weights."""
        self.require_fitted()
        return {"epochs": int(self.epochs_)}

    def _train(
        self,
        model: _Affine,
        examples: Examples,
        kept: Int[np.ndarray, " kept"],
        held: Int[np.ndarray, " held"],
    ) -> int:
        """Train `model` in place on the kept rows, stop by the held ones; return the epochs."""
        unit, labels = examples.unit, examples.labels
        adam = Adam([model.weight, model.bias], learning_rate=self.learning_rate)
        random = np.random.default_rng(self.seed)
        stops = len(held) > 0
        lowest = model.loss(unit[held], labels[held]) if stops else math.inf
        best_epoch, best = 0, model.copy()
        for epoch in range(1, self.epochs + 1):
            order = random.permutation(kept)
            for begin in range(0, len(order), self.batch_size):
                batch = order[begin : begin + self.batch_size]
                adam.step(model.gradients(unit[batch], labels[batch]))
            if not stops:
                continue
            loss = model.loss(unit[held], labels[held])
            if loss < lowest:
                lowest, best_epoch, best = loss, epoch, model.copy()
            elif epoch - best_epoch >= self.patience:
                break
        if not stops:
            return self.epochs
        model.weight[:], model.bias[:] = best.weight, best.bias
        return best_epoch


class LinearHeadOfFewLabels(LinearHead):
    """The same head, fitted on the labels of each draw, with cross-fitted logits for the combiners.

    Training and settings are those of `linear`; that they suit few labels is not published.
    """

    per_draw = True
