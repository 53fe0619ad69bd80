"""A Gaussian process whose prior mean is the ensemble: static weights plus a kernel residual."""

import numpy as np
from jaxtyping import Float, Float32, Int

from clipnlc.combiners.base import Combiner, Scores, require_backbones, weigh_alike
from clipnlc.combiners.explanation import KERNEL, Contributions, weighted
from clipnlc.combiners.kernel import (
    Residual,
    centred_rows,
    fit_residual,
    unit_mean,
    widths_of,
)
from clipnlc.combiners.static import fit_static
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import label_shift

_SCORED_ROWS = 2048  # whose centred features are in memory at a time when combining


class GaussianProcess(Combiner):
    """GP: scores `sum_b w_b z_b(x) + k(x, X) A`, the logits corrected by what labelled rows say.

    The weights w are those of `static`. The kernel is the mean of one per backbone, see
    `clipnlc.combiners.kernel`, its features centred on the labelled rows' mean. A is the mode of a Gaussian
    process for classification whose prior mean is the weighted logits (Miao et al., arXiv
    2404.00312, whose mean is one zero-shot model and whose kernel is a sum over backbones; the
    kernel's form and settings here are ours, chosen on training pools). Far from every labelled
    image the correction is alike for all images; a class without a label is scored by its logits
    and pushed down where labelled rows are. Labels that came at random, more of one class than of
    another, say nothing of how common the classes are: see `smoothing`.

    `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float64 `[backbones]`, each > 0.
        mean_: float64 `[width]`, of the labelled rows' unit-length features.
        rows_: float32 `[rows, width]`, the labelled rows' centred features, or the landmarks'.
        coefficients_: float64 or float32 `[rows, classes]`.
    """

    needs_labels = True
    needs_features = True
    per_class = True
    probabilistic = True
    keeps_features = True
    learnt = ("weight_", "mean_", "rows_", "coefficients_")
    selected_on = "nano training pools"
    weight_: Float[np.ndarray, " backbones"]
    mean_: Float[np.ndarray, " width"]
    rows_: Float32[np.ndarray, "rows width"]
    coefficients_: Float[np.ndarray, "rows classes"]

    def __init__(
        self,
        *,
        sigma: float = 6.0,
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
            sigma: standard deviation of the residual's prior, in logits.
            beta: how fast the kernel falls with the distance of features.
            per_backbone: the mean of one kernel per backbone; else one kernel of the mean cosine.
            pull: of the static weights to LOG-AVG.
            smoothing: of the labels' class proportions, which the fit makes up for: see
                `fitting.label_shift`.
            exact_rows: labelled rows above which only landmarks have coefficients: time grows with
                the cube of the rows, memory with their square.
            landmarks: how many there are then.
            seed: of the landmarks.
        """
        super().__init__(seed=seed)
        self.sigma = sigma
        self.beta = beta
        self.per_backbone = per_backbone
        self.pull = pull
        self.smoothing = smoothing
        self.exact_rows = exact_rows
        self.landmarks = landmarks

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        classes = ensemble.logits.shape[2]
        shift = label_shift(labels, np.full(classes, 1 / classes), smoothing=self.smoothing)
        mean = unit_mean(ensemble.features)
        weight = fit_static(ensemble.logits, labels, pull=self.pull, offset=shift)
        residual = fit_residual(
            centred_rows(ensemble.features, mean),
            weigh_alike(ensemble.logits, weight) + shift,
            labels,
            sigma=self.sigma,
            beta=self.beta,
            widths=self._widths(ensemble),
            exact_rows=self.exact_rows,
            landmarks=self.landmarks,
            seed=self.seed,
        )
        self.weight_, self.mean_ = weight, mean
        self.rows_, self.coefficients_ = residual.rows, residual.coefficients

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the weighted logits plus the residual."""
        self.require_fitted()
        require_backbones(len(self.weight_), ensemble)
        nothing = np.zeros(self.coefficients_.shape[1])
        residual = Residual(self.rows_, self.coefficients_, nothing)
        scores = weigh_alike(ensemble.logits, self.weight_)
        widths = self._widths(ensemble)
        for start in range(0, max(len(scores), 1), _SCORED_ROWS):
            part = slice(start, start + _SCORED_ROWS)
            rows = centred_rows([block[part] for block in ensemble.features], self.mean_)
            scores[part] += residual.scores(rows, beta=self.beta, widths=widths)
        return scores

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the weighted logits, and the residual."""
        scores = self._combine(ensemble)
        own = weighted(ensemble.logits, self.weight_)
        return Contributions(own, {KERNEL: scores - own.sum(axis=0)})

    def _mean_weight(self) -> Float[np.ndarray, " backbones"]:
        return self.weight_

    def _widths(self, ensemble: Ensemble) -> list[int]:
        return widths_of(ensemble.features) if self.per_backbone else []
