"""Baselines: logistic regression on all backbones' features, alone and on top of static weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners.base import Combiner, Scores, weigh_alike
from clipnlc.combiners.explanation import UNLABELLED, Contributions, weighted
from clipnlc.combiners.kernel import DOUBLE_ROWS, draw_landmarks
from clipnlc.combiners.static import fit_static
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, log_softmax, product_by_blocks
from clipnlc.labels import ranks
from clipnlc.logistic import fit_kernel, fit_primal

STRENGTHS = tuple(10 ** (half / 2) for half in range(-4, 5))
"""0.01 to 100: what `strength` is chosen among, as scikit-learn's `C`."""

WITHOUT_FOLDS = 1.0
"""The strength where no class has two labels, so that none can be held out; scikit-learn's default
`C`. Our reading."""

_FOLDS = 5
_FOLDS_OF_MANY = 3  # above `DOUBLE_ROWS` rows, where a fold more changes little and takes long
_JUDGED_ROWS = 8192
"""Rows that the strength is chosen on at most, drawn from the classes in turn."""

_EXACT_ROWS = 20_000
"""Rows up to which the dual form is solved, whose cost does not depend on the width."""

ENOUGH = 1e-6
"""Nats per row that a fit by which a strength is judged may be above its minimum."""

Offset = Callable[[Int[np.ndarray, " kept"]], Float[np.ndarray, "samples classes"]]
"""Given the rows that may be learnt from, the fixed logits of all rows."""


def fit_regression(
    inputs: Float[np.ndarray, "samples width"],
    labels: Int[np.ndarray, " samples"],
    offset: Offset,
    *,
    strength: float,
    classes: Int[np.ndarray, " chosen"],
) -> Float[np.ndarray, "width classes"]:
    """Minimise `strength sum CE(offset + inputs W, labels) + |W|^2 / 2`; return W in float32.

    Args:
        inputs: one row per labelled sample.
        labels: class numbers.
        offset: the fixed logits.
        strength: scikit-learn's `C`: the smaller, the more regular.
        classes: the classes that take part; the others' columns are 0.
    """
    rows = np.arange(len(labels))
    fixed = offset(rows)
    weights = np.zeros((inputs.shape[1], fixed.shape[1]), dtype=np.float32)
    place = np.searchsorted(classes, labels)
    sigma = math.sqrt(strength)
    if len(labels) <= _EXACT_ROWS:
        gram = _gram(inputs, np.float64 if len(labels) <= DOUBLE_ROWS else np.float32)
        found, copied = None, len(labels) <= _JUDGED_ROWS  # more may not fit a second time
        for smaller in (step for step in (1.0, 10.0) if step < strength and copied):
            # From a solution that is found fast: far from one, the search takes twice the steps.
            found = fit_kernel(
                gram.copy(),
                fixed[:, classes],
                place,
                sigma=math.sqrt(smaller),
                start=found,
                enough=ENOUGH,
            )
        found = fit_kernel(gram, fixed[:, classes], place, sigma=sigma, start=found)
        weights[:, classes] = inputs.T.astype(found.dtype) @ found
    else:
        weights[:, classes] = fit_primal(inputs, fixed[:, classes], place, sigma=sigma)
    return weights


def choose_strength(
    inputs: Float[np.ndarray, "samples width"],
    labels: Int[np.ndarray, " samples"],
    offset: Offset,
    *,
    fold: Int[np.ndarray, " samples"],
    every_class: bool,
) -> float:
    """Choose among `STRENGTHS` by the cross-entropy of held-out labels.

    The search starts at 1 and goes up, or else down, as long as the cross-entropy falls; over the
    strength it has one minimum, but for noise. One matrix of products serves all fits.

    Args:
        inputs: one row per labelled sample.
        labels: class numbers.
        offset: the fixed logits; what they learn is learnt anew for each fold.
        fold: the fold that a row is held out in, -1 where it never is; see `folds`.
        every_class: every class takes part; else those with a row that is learnt from.
    """
    gram = _gram(inputs, np.float32)
    parts = []
    for number in range(fold.max() + 1):
        kept, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        fixed = offset(kept)
        classes = np.arange(fixed.shape[1]) if every_class else np.unique(labels[kept])
        fixed, place = fixed[:, classes], np.searchsorted(classes, labels)
        parts.append((kept, held, fixed, place))

    starts: list[np.ndarray | None] = [None] * len(parts)

    def judged(strength: float) -> float:
        total = 0.0
        for number, (kept, held, fixed, place) in enumerate(parts):
            found = starts[number] = fit_kernel(
                gram[np.ix_(kept, kept)],
                fixed[kept],
                place[kept],
                sigma=math.sqrt(strength),
                start=starts[number],
                enough=ENOUGH,
            )
            scores = fixed[held] + gram[np.ix_(held, kept)] @ found
            total += cross_entropy(scores, place[held]) * len(held)
        return total

    at = STRENGTHS.index(1)
    best = judged(STRENGTHS[at])
    for way in (1, -1):
        before = at
        while 0 <= at + way < len(STRENGTHS) and (value := judged(STRENGTHS[at + way])) < best:
            at, best = at + way, value
        if at != before:
            break
    return STRENGTHS[at]


def folds(
    labels: Int[np.ndarray, " samples"], sample_id: tuple[str, ...], *, most: int, seed: int
) -> Int[np.ndarray, " samples"]:
    """Deal each class's rows to stratified folds; a class's only row is never held out (-1).

    There are as many folds as the largest class has rows, at most `most`. A row's place depends on
    its identifier and the seed.

    >>> folds(np.array([0, 0, 1]), ("a", "b", "c"), most=5, seed=0).tolist()[2]
    -1
    """
    found = np.full(len(labels), -1, dtype=np.int64)
    order = np.argsort(ranks(sample_id, draw=f"probe:{seed}"))
    count = min(most, int(np.bincount(labels).max()))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        if len(rows) > 1:
            found[rows] = np.arange(len(rows)) % count
    return found


def _gram(
    inputs: Float[np.ndarray, "samples width"], dtype: type[np.floating]
) -> Float[np.ndarray, "samples samples"]:
    exact = inputs.astype(dtype, copy=False)
    gram: np.ndarray = exact @ exact.T
    return gram


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
            drawn = draw_landmarks(labels, _JUDGED_ROWS, seed=self.seed)
            part, judged = ensemble.rows(drawn), labels[drawn]
            most = _FOLDS if len(drawn) <= DOUBLE_ROWS else _FOLDS_OF_MANY
            fold = folds(judged, part.sample_id, most=most, seed=self.seed)
            strength = WITHOUT_FOLDS
            if fold.max() >= 0:
                strength = choose_strength(
                    inputs[drawn],
                    judged,
                    offset(part, judged),
                    fold=fold,
                    every_class=every_class,
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
    stratified folds; with one label per class, where none can be held out, it is `WITHOUT_FOLDS`.
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
