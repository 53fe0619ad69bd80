"""Baselines: logistic regression on all backbones' features, alone and on top of static weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Combiner, Scores, weigh_alike
from clipnlc.combiners.explanation import UNLABELLED, Contributions, weighted
from clipnlc.combiners.static import fit_static
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import log_softmax, product_by_blocks
from clipnlc.regression import (
    JUDGED_ROWS,
    STRENGTHS,
    Offset,
    draw_landmarks,
    fit_regression,
    held_out_strength,
)


@dataclass(frozen=True)
class _Found:
    """What a regression learnt."""

    weight: Float[np.ndarray, "width classes"]
    strength: float
    classes: Int[np.ndarray, " chosen"]


class _Regression(Combiner):
    """What both have: the strength, and products with the concatenated features."""

    needs_labels = True
    needs_features = True
    per_class = True
    probabilistic = True
    weight_: Float[np.ndarray, "width classes"]
    strength_: Float[np.ndarray, ""]
    widths_: Int[np.ndarray, " backbones"]

    def __init__(self, *, strength: float = 0.0, seed: int = 0) -> None:
        """Store the settings.

        Args:
            strength: as scikit-learn's `C`; 0 chooses one of `STRENGTHS` by cross-validation.
            seed: of the folds.
        """
        super().__init__(seed=seed)
        self.strength = strength

    def _regress(
        self,
        ensemble: Ensemble,
        labels: Int[np.ndarray, " samples"],
        offset: Callable[[Ensemble, Int[np.ndarray, " samples"]], Offset],
        *,
        every_class: bool,
    ) -> _Found:
        inputs = ensemble.concatenated()
        strength = self.strength
        if not strength:
            drawn = draw_landmarks(labels, JUDGED_ROWS, seed=self.seed)
            part, judged = ensemble.rows(drawn), labels[drawn]
            strength = held_out_strength(
                inputs[drawn],
                judged,
                part.sample_id,
                offset(part, judged),
                every_class=every_class,
                strengths=STRENGTHS,
                seed=self.seed,
            )
        present = np.unique(labels)
        classes = np.arange(ensemble.logits.shape[2]) if every_class else present
        weight = fit_regression(
            inputs, labels, offset(ensemble, labels), strength=strength, classes=classes
        )
        self.widths_ = np.array([block.shape[1] for block in ensemble.features])
        return _Found(weight, strength, present)

    def _products(self, ensemble: Ensemble) -> Scores:
        """Return the concatenated features times the weights, the same bits in any block of rows."""
        self.require_fitted()
        if len(ensemble.logits) != len(self.widths_):
            raise ValueError(
                f"fitted on {len(self.widths_)} backbones, asked to combine {len(ensemble.logits)}"
            )
        inputs = ensemble.concatenated()
        if [block.shape[1] for block in ensemble.features] != self.widths_.tolist():
            raise ValueError(f"fitted on features {self.widths_.sum()} wide, not {inputs.shape[1]}")
        products: np.ndarray = product_by_blocks(inputs, self.weight_).astype(np.float64)
        return products

    def _own_products(self, ensemble: Ensemble) -> Float[np.ndarray, "backbones samples classes"]:
        """Return what each backbone's features add to the products."""
        self._products(ensemble)  # it checks the widths
        ends = np.cumsum(self.widths_)[:-1]
        blocks = np.split(ensemble.concatenated().astype(np.float64), ends, axis=1)
        parts = zip(blocks, np.split(self.weight_, ends), strict=True)
        return np.stack([block @ weight for block, weight in parts])


class Probe(_Regression):
    """PROBE: L2-regularised multinomial logistic regression on the concatenated features.

    The usual linear probe of CLIP (Radford et al. 2021, arXiv 2103.00020), on every backbone's unit
    features side by side. The strength has the lowest cross-entropy of held-out labels in up to five
    stratified folds; with one label per class, where none can be held out, it is
    `regression.WITHOUT_FOLDS`.
    There is no intercept: with k labels of each class it has nothing to learn, and with labels as
    they come it would learn how many each class happens to have. Our reading.

    A class without a label has no weights to learn. It keeps the probability that LOG-AVG gives it,
    and the classes with labels share what is left as the regression says. So with labels of every
    class no logit is read. `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float32 `[width, classes]`, 0 for a class without a label.
        strength_: float64 `[]`, as scikit-learn's `C`.
        widths_: int64 `[backbones]`, of the features.
        labelled_: int64, the numbers of the classes with labels, ascending.
    """

    learnt = ("weight_", "strength_", "widths_", "labelled_")
    labelled_: Int[np.ndarray, " labelled"]

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        def nothing(of: Ensemble, _: Int[np.ndarray, " samples"]) -> Offset:
            zeros = np.zeros(of.logits.shape[1:], dtype=np.float32)
            return lambda _: zeros

        found = self._regress(ensemble, labels, nothing, every_class=False)
        self.weight_, self.strength_ = found.weight, np.array(found.strength)
        self.labelled_ = found.classes

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return log probabilities."""
        scores = self._products(ensemble)
        labelled = self.labelled_
        if len(labelled) == scores.shape[1]:
            return scores
        equal = np.full(len(ensemble.logits), 1 / len(ensemble.logits))
        log_average = log_softmax(weigh_alike(ensemble.logits, equal))
        known = log_average[:, labelled]
        highest = known.max(axis=1, keepdims=True)
        share = highest + np.log(np.exp(known - highest).sum(axis=1, keepdims=True))
        found = log_average
        found[:, labelled] = log_softmax(scores[:, labelled]) + share
        return found

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return the products; of a class without a label the weighted logits, and what is missing."""
        own = self._own_products(ensemble)
        rest = np.setdiff1d(np.arange(own.shape[2]), self.labelled_)
        if not len(rest):
            return Contributions(own, {})
        own[:, :, rest] = ensemble.logits[:, :, rest] / len(own)
        return Contributions(own, {UNLABELLED: self._combine(ensemble) - own.sum(axis=0)})


class ProbeStatic(_Regression):
    """PROBE-STATIC: the regression of `probe`, added to the logits that `static` gives.

    The static weights are fitted first and held fixed, anew in each fold that chooses the strength.
    A class without a label is scored by its logits, and pushed down where labelled rows are.
    `softmax` of the scores is a fitted probability.

    Attributes:
        weight_: float32 `[width, classes]`.
        strength_: float64 `[]`, as scikit-learn's `C`.
        widths_: int64 `[backbones]`, of the features.
        static_: float64 `[backbones]`, each > 0.
    """

    learnt = ("weight_", "strength_", "widths_", "static_")
    static_: Float[np.ndarray, " backbones"]

    def __init__(self, *, strength: float = 0.0, pull: float = 1.0, seed: int = 0) -> None:
        """Store the settings.

        Args:
            strength: as scikit-learn's `C`; 0 chooses one of `STRENGTHS` by cross-validation.
            pull: of the static weights to LOG-AVG.
            seed: of the folds.
        """
        super().__init__(strength=strength, seed=seed)
        self.pull = pull

    def _learn(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> None:
        def static(of: Ensemble, its_labels: Int[np.ndarray, " samples"]) -> Offset:
            def offset(kept: Int[np.ndarray, " kept"]) -> Float[np.ndarray, "samples classes"]:
                weight = fit_static(of.logits[:, kept], its_labels[kept], pull=self.pull)
                return weigh_alike(of.logits, weight)

            return offset

        found = self._regress(ensemble, labels, static, every_class=True)
        self.weight_, self.strength_ = found.weight, np.array(found.strength)
        self.static_ = fit_static(ensemble.logits, labels, pull=self.pull)

    def _combine(self, ensemble: Ensemble) -> Scores:
        """Return the weighted logits plus the regression."""
        products = self._products(ensemble)
        products += weigh_alike(ensemble.logits, self.static_)
        return products

    def _contributions(self, ensemble: Ensemble) -> Contributions:
        """Return what each backbone's features and its weighted logits add."""
        own = self._own_products(ensemble)
        return Contributions(own + weighted(ensemble.logits, self.static_), {})

    def _mean_weight(self) -> Float[np.ndarray, " backbones"]:
        return self.static_
