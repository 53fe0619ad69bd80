"""The balanced ensemble, corrected by what labelled rows say: labels and unlabelled images together."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Int

from clipnlc.combiners.balanced import balance, checked_balance, class_offsets, declared_shares
from clipnlc.combiners.base import Combiner, Scores, require_backbones, weigh_alike
from clipnlc.combiners.explanation import KERNEL, OFFSET, Contributions, weighted
from clipnlc.combiners.kernel import (
    Residual,
    centred_rows,
    fit_residual,
    unit_mean,
    widths_of,
)
from clipnlc.combiners.shared import pool_kernel, rows_within, shares_kernel
from clipnlc.combiners.static import fit_static
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import label_shift

_SCORED_ROWS = 2048  # whose centred features are in memory at a time


class BalancedGaussianProcess(Combiner):
    """`balanced` plus the kernel residual of `gp`, and balanced once more; without labels `balanced`.

    Scores are `sum_b w_b z_b(x) + a + k(x, X) A`. Offsets a and weights start as those of
    `balanced`; labels move the weights as in `static`, and A is fitted as in `gp`, its kernel
    centred on the pool's mean. Then offsets that balance the fitted scores of the pool, at the same
    strength, are added. Ours. `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float64 `[backbones]`, each > 0.
        offset_: float64 `[classes]`.
        mean_: float64 `[width]`, of the pool's unit-length features.
        rows_: float32 `[rows, width]`, the labelled rows' centred features, or the landmarks'.
        coefficients_: float64 or float32 `[rows, classes]`.
    """

    takes_labels: ClassVar[bool] = True
    reads_pool: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    probabilistic: ClassVar[bool] = True
    keeps_features: ClassVar[bool] = True
    selected_on: ClassVar[str] = "nano training pools"
    learnt: ClassVar[tuple[str, ...]] = ("weight_", "offset_", "mean_", "rows_", "coefficients_")
    weight_: Float[np.ndarray, " backbones"]
    offset_: Float[np.ndarray, " classes"]
    mean_: Float[np.ndarray, " width"]
    rows_: Float32[np.ndarray, "rows width"]
    coefficients_: Float[np.ndarray, "rows classes"]

    def __init__(
        self,
        *,
        strength: float | None = None,
        proportions: Sequence[float] | Literal["uniform", "labels"] | None = None,
        spread: float = 2.0,
        power: float = 2.0,
        sigma: float = 4.0,
        beta: float = 2.0,
        per_backbone: bool = True,
        pull: float = 1.0,
        smoothing: float = 0.25,
        exact_rows: int = 20_000,
        landmarks: int = 8192,
        seed: int = 0,
    ) -> None:
        """Store the settings.

        Args:
            strength: as in `balanced`.
            proportions: as in `balanced`; `labels` takes those of the labels, with one of each class
                on top, which is for labels that were drawn at random.
            spread: as in `balanced`.
            power: as in `balanced`.
            sigma: as in `gp`; chosen apart from it.
            beta: as in `gp`.
            per_backbone: as in `gp`.
            pull: of the weights to those of `balanced`.
            smoothing: as in `gp`.
            exact_rows: as in `gp`.
            landmarks: as in `gp`.
            seed: of the landmarks.

        Raises:
            DataError: the strength is out of range, or a proportion is not positive.
        """
        super().__init__(seed=seed)
        self.strength, self.proportions = checked_balance(strength, proportions)
        self.spread = spread
        self.power = power
        self.sigma = sigma
        self.beta = beta
        self.per_backbone = per_backbone
        self.pull = pull
        self.smoothing = smoothing
        self.exact_rows = exact_rows
        self.landmarks = landmarks

    def _learn_with_pool(
        self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"], pool: Ensemble
    ) -> None:
        shares = declared_shares(self.proportions, pool.logits.shape[2], labels)
        weight, offset = balance(
            pool.logits, shares, strength=self.strength, spread=self.spread, power=self.power
        )
        self.mean_ = unit_mean(pool.features)
        if not len(labels):
            self.weight_, self.offset_ = weight, offset
            # One row without weight: a store holds no empty arrays.
            self.rows_ = np.zeros((1, len(self.mean_)), dtype=np.float32)
            self.coefficients_ = np.zeros((1, len(shares)))
            return
        shifted = offset + label_shift(labels, shares, smoothing=self.smoothing)
        self.weight_ = fit_static(
            ensemble.logits, labels, pull=self.pull, start=weight, offset=shifted
        )
        places = self._places(ensemble, pool)
        widths, kernel, gram = self._widths(ensemble), None, None
        if places is not None:
            kernel = pool_kernel(pool, self.mean_, beta=self.beta, widths=widths)
            gram = kernel[np.ix_(places, places)]
        residual = fit_residual(
            centred_rows(ensemble.features, self.mean_),
            weigh_alike(ensemble.logits, self.weight_) + shifted,
            labels,
            sigma=self.sigma,
            beta=self.beta,
            widths=widths,
            exact_rows=self.exact_rows,
            landmarks=self.landmarks,
            seed=self.seed,
            gram=gram,
        )
        self.rows_, self.coefficients_ = residual.rows, residual.coefficients
        self.offset_ = offset
        if kernel is None or places is None:
            # Means over the pool are wanted: float32 moves them by less than 1e-6, in half the time.
            scores = self._scores(pool, self.coefficients_.astype(np.float32))
        else:
            scores = weigh_alike(pool.logits, self.weight_) + offset
            for start in range(0, len(scores), _SCORED_ROWS):
                part = slice(start, start + _SCORED_ROWS)
                scores[part] += kernel[part][:, places] @ self.coefficients_
        again = class_offsets(scores, shares, spread=self.spread)
        self.offset_ = offset + self.strength * again

    def _places(self, ensemble: Ensemble, pool: Ensemble) -> Int[np.ndarray, " rows"] | None:
        """Return the pool's rows that are labelled, if their kernel is that of the whole pool."""
        rows = len(ensemble.sample_id)
        if rows > self.exact_rows or not shares_kernel(rows, len(pool.sample_id)):
            return None
        return rows_within(ensemble, pool)

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the weighted logits plus offsets and residual."""
        self.require_fitted()
        require_backbones(len(self.weight_), ensemble)
        return self._scores(ensemble, self.coefficients_)

    def _scores(
        self, ensemble: Ensemble, coefficients: Float[np.ndarray, "rows classes"]
    ) -> Scores:
        """Return them with coefficients of any precision, which is that of the arithmetic."""
        residual = Residual(self.rows_, coefficients, self.offset_)
        scores = weigh_alike(ensemble.logits, self.weight_)
        widths = self._widths(ensemble)
        for start in range(0, max(len(scores), 1), _SCORED_ROWS):
            part = slice(start, start + _SCORED_ROWS)
            rows = centred_rows([block[part] for block in ensemble.features], self.mean_)
            scores[part] += residual.scores(rows, beta=self.beta, widths=widths)
        return scores

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the weighted logits, the residual, and the offsets."""
        scores = self._combine(ensemble)
        own = weighted(ensemble.logits, self.weight_)
        offset = np.tile(self.offset_, (len(scores), 1))
        return Contributions(own, {KERNEL: scores - own.sum(axis=0) - offset, OFFSET: offset})

    def _mean_weight(self) -> Float[np.ndarray, " backbones"]:
        return self.weight_

    def _widths(self, ensemble: Ensemble) -> list[int]:
        return widths_of(ensemble.features) if self.per_backbone else []
