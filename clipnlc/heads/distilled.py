"""A head on one backbone that learns an ensemble's probabilities: prediction costs one forward."""

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import log_softmax, product_by_blocks
from clipnlc.heads.base import AffineHead, Examples
from clipnlc.labels import ranks
from clipnlc.logistic import fit_primal

SIGMAS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Strengths that are tried, from the weakest change of the backbone to the strongest."""

_BIAS: Final = 10.0
"""The constant input whose weight is c: c then has a hundredth of the penalty of V."""

_HELD: Final = 5
"""One row in so many is held out to choose the strength by."""

_EXACT_CELLS: Final = 2**22
"""Rows times classes that are fitted in float64; the search of more takes float32."""

_ENOUGH: Final = 1e-8
"""Nats per row that the objective may be above its minimum."""


class DistilledHead(AffineHead):
    """Logits `z + f V + c`: the zero-shot ones z, changed to give a teacher's probabilities.

    V and c minimise the cross-entropy with the teacher's probabilities, summed over unlabelled rows,
    plus |V|^2 / (2 sigma^2). Of `SIGMAS`, sigma is the one with the lowest cross-entropy with the
    teacher on a fifth of the rows that is held out; then all rows are fitted. Distillation: Hinton
    et al., arXiv 1503.02531, at temperature 1. The form of the student is ours.

    Attributes:
        sigma_: float64 `[]`.
        agreement_: float64 `[]`, the share of held-out rows where the student predicts the
            teacher's class; 0 where there are too few rows to hold out any.
    """

    needs_labels = False
    needs_teacher = True
    per_draw = True
    learnt: ClassVar[tuple[str, ...]] = (*AffineHead.learnt, "sigma_", "agreement_")
    sigma_: Float[np.ndarray, ""]
    agreement_: Float[np.ndarray, ""]

    def __init__(self, *, sigma: float = 0.0, seed: int = 0) -> None:
        """Store the settings.

        Args:
            sigma: how far V may go from 0; 0 for the best of `SIGMAS`.
            seed: of nothing: the fit has no random part.
        """
        super().__init__(seed=seed)
        self.sigma = sigma

    def _learn(
        self,
        examples: Examples,
        *,
        texts: Float[np.ndarray, "texts dim"],
        logit_scale: float,
        logit_bias: float,
    ) -> None:
        assert examples.targets is not None
        cells = examples.targets.size
        dtype = np.float64 if cells <= _EXACT_CELLS else np.float32
        rows = _Rows(
            inputs=with_constant(examples.unit).astype(dtype),
            offset=logit_scale * product_by_blocks(examples.unit, texts.T) + np.float32(logit_bias),
            targets=examples.targets,
        )
        sigma, agreement = self._strength(rows, examples.sample_id)
        change = rows.fit(np.arange(len(rows.inputs)), sigma)
        self.weight_ = texts + (change[:-1].T / logit_scale).astype(np.float32)
        self.bias_ = (logit_bias + _BIAS * change[-1]).astype(np.float32)
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)
        self.sigma_ = np.array(sigma, dtype=np.float64)
        self.agreement_ = np.array(agreement, dtype=np.float64)

    def _strength(self, rows: "_Rows", sample_id: tuple[str, ...]) -> tuple[float, float]:
        """Return sigma, and the agreement with the teacher on the held-out rows.

        Sigmas are tried in ascending order, until one is worse than the one before.
        """
        place = ranks(sample_id, draw="held-out")
        held, kept = np.flatnonzero(place % _HELD == 0), np.flatnonzero(place % _HELD)
        if len(sample_id) < _HELD:  # too few to hold out any
            return self.sigma or SIGMAS[0], 0.0
        best = (np.inf, 0.0, 0.0)
        for sigma in (self.sigma,) if self.sigma else SIGMAS:
            scores = rows.scores(held, rows.fit(kept, sigma))
            teacher = rows.targets[held]
            surprise = -float((teacher * log_softmax(scores)).sum(axis=1).mean())
            if surprise >= best[0]:
                break
            same = scores.argmax(axis=1) == teacher.argmax(axis=1)
            best = (surprise, sigma, float(same.mean()))
        return best[1], best[2]

    def facts(self) -> dict[str, int | float | str]:
        """Return the strength and the agreement with the teacher on held-out rows."""
        self.require_fitted()
        return {"sigma": float(self.sigma_), "agreement": float(self.agreement_)}


@dataclass(frozen=True)
class _Rows:
    """The rows of a fit: inputs, the fixed zero-shot logits, and the teacher's probabilities."""

    inputs: Float[np.ndarray, "rows inputs"]
    offset: Float[np.ndarray, "rows classes"]
    targets: Float[np.ndarray, "rows classes"]

    def fit(
        self, rows: Int[np.ndarray, " rows"], sigma: float
    ) -> Float[np.ndarray, "inputs classes"]:
        """Return V, and below it c divided by the constant input."""
        return fit_primal(
            self.inputs[rows], self.offset[rows], self.targets[rows], sigma=sigma, enough=_ENOUGH
        )

    def scores(
        self, rows: Int[np.ndarray, " rows"], change: Float[np.ndarray, "inputs classes"]
    ) -> Float[np.ndarray, "rows classes"]:
        """Return the student's logits."""
        found: np.ndarray = self.offset[rows] + self.inputs[rows] @ change
        return found


def with_constant(unit: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows inputs"]:
    """Append the constant input whose weight is the bias."""
    constant = np.full((len(unit), 1), _BIAS, dtype=unit.dtype)
    return np.concatenate([unit, constant], axis=1)
