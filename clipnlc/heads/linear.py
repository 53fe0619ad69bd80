"""A linear classifier on the features of one backbone, trained from the class texts on."""

import math

import numpy as np
from jaxtyping import Float, Int

from clipnlc.errors import DataError
from clipnlc.heads.base import AffineHead, Examples
from clipnlc.heads.training import DEVICES, Affine, NumpyTrainer, TorchTrainer, Trainer
from clipnlc.labels import stratified_split


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
        device: str = "",
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
            device: `cpu` or `cuda` train in torch, with the same minibatches; empty in numpy.
            seed: of the minibatches and of the rows kept out.

        Raises:
            DataError: the stopping share is out of range; the device is not known.
        """
        super().__init__(seed=seed)
        if not 0 <= stopping_share < 1:
            raise DataError(
                f"--early-stopping is {stopping_share}; give a share of at least 0 and below 1"
            )
        if device not in DEVICES:
            raise DataError(f"--device is {device!r}; give cpu or cuda, or leave it out for numpy")
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.stopping_share = stopping_share
        self.patience = patience
        self.device = device

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        bias = np.full(len(texts), logit_bias, dtype=np.float32)
        start = Affine(texts, bias, logit_scale)
        if self.stopping_share > 0:
            kept, held = stratified_split(
                examples.labels, examples.sample_id, share=self.stopping_share, seed=self.seed
            )
        else:
            kept, held = np.arange(len(examples.labels)), np.empty(0, dtype=np.int64)
        epochs, model = self._train(self._trainer(start, examples), kept, held)
        self.epochs_ = np.array(epochs, dtype=np.int64)
        self.weight_, self.bias_ = model.weight, model.bias
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)

    def facts(self) -> dict[str, int | float | str]:
        """Return the passes over the rows that made the weights."""
        self.require_fitted()
        return {"epochs": int(self.epochs_)}

    def _trainer(self, start: Affine, examples: Examples) -> Trainer:
        unit, labels, rate = examples.unit, examples.labels, self.learning_rate
        if self.device:
            return TorchTrainer(start, unit, labels, learning_rate=rate, device=self.device)
        return NumpyTrainer(start, unit, labels, learning_rate=rate)

    def _train(
        self, trainer: Trainer, kept: Int[np.ndarray, " kept"], held: Int[np.ndarray, " held"]
    ) -> tuple[int, Affine]:
        """Train on the kept rows, stop by the held ones; return the epochs and the weights."""
        random = np.random.default_rng(self.seed)
        stops = len(held) > 0
        lowest = trainer.loss(held) if stops else math.inf
        best_epoch, best = 0, trainer.model()
        for epoch in range(1, self.epochs + 1):
            order = random.permutation(kept)
            for begin in range(0, len(order), self.batch_size):
                trainer.step(order[begin : begin + self.batch_size])
            if not stops:
                continue
            loss = trainer.loss(held)
            if loss < lowest:
                lowest, best_epoch, best = loss, epoch, trainer.model()
            elif epoch - best_epoch >= self.patience:
                break
        return (best_epoch, best) if stops else (self.epochs, trainer.model())


class LinearHeadOfFewLabels(LinearHead):
    """The same head, fitted on the labels of each draw, with cross-fitted logits for the combiners.

    Training and settings are those of `linear`; that they suit few labels is not published.
    """

    per_draw = True
