"""The Python interface: a person's own arrays to a fitted combiner, its accuracy, and every rival's.

`import clipnlc` offers all of it: `ensemble_of`, `fit`, `compare`. Nothing is read or written. The
fits are those of `clipnlc train-nlc` on the same rows, labels and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Float64, Int, Int64
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.catalogue import catalogue
from clipnlc.ensemble import Ensemble
from clipnlc.errors import ClipnlcError, DataError
from clipnlc.fitting import softmax
from clipnlc.labels import Labels, dealt_folds
from clipnlc.metrics.accuracy import oracle_accuracy
from clipnlc.metrics.intervals import accuracy_interval
from clipnlc.runs.able import why_not
from clipnlc.runs.fitted import Fitted, apply
from clipnlc.runs.fitted import fit as fit_combiner
from clipnlc.runs.given_arrays import (
    checked_features,
    checked_labels,
    checked_logits,
    checked_names,
    misfit,
)
from clipnlc.wording import count, quoted, some

FOLDS: Final = 5
"""Parts of the labelled rows that `compare` fits without in turn, where there is no test set."""

ORACLE: Final = "oracle"


def ensemble_of(
    logits: Mapping[str, Float[np.ndarray, "samples classes"]] | None = None,
    *,
    probabilities: Mapping[str, Float[np.ndarray, "samples classes"]] | None = None,
    features: Mapping[str, Float[np.ndarray, "samples _"]] | None = None,
    sample_id: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Ensemble:
    """Make an ensemble of arrays, one per model; all have the same rows and classes in one order.

    Args:
        logits: by the model's name, floats `[samples, classes]`, already multiplied by the model's
            own logit scale.
        probabilities: by name, in [0, 1], every row with the sum 1; their logarithms are the
            logits, of 1.2e-7 where a probability is below.
        features: by name, floats `[samples, width]`, not normalised; widths may differ, and models
            may lack them. Combiners that read features take those that there are.
        sample_id: one name per row, unique; by default the row numbers.
        class_names: one per class; by default the class numbers.

    Raises:
        DataError: arrays have other rows or classes than the first, are not finite, or are no
            logits or probabilities; a model has features alone; names repeat.

    >>> import clipnlc, numpy as np
    >>> made = clipnlc.ensemble_of({"clip": np.eye(3)}, probabilities={"forest": np.eye(3)})
    >>> made.backbones, made.logits.shape
    (('clip', 'forest'), (2, 3, 3))
    """
    models: dict[str, np.ndarray] = {}
    for what, given in (("logits", logits or {}), ("probabilities", probabilities or {})):
        for name, array in given.items():
            if name in models:
                raise DataError(f"{name} has both logits and probabilities; give one of them")
            models[name] = checked_logits(name, np.asarray(array), what)
    if not models:
        raise DataError("an ensemble needs the logits or probabilities of at least one model")
    first, shape = next((name, array.shape) for name, array in models.items())
    for name, array in models.items():
        if array.shape != shape:
            raise DataError(
                f"{name} has {list(array.shape)} logits and {first} {list(shape)}; expected the same "
                "samples and classes"
            )
    samples, classes = shape
    foreign = next((name for name in features or {} if name not in models), None)
    if foreign is not None:
        raise DataError(f"{foreign} has features and no logits; give its logits or probabilities")
    return Ensemble(
        logits=np.stack(list(models.values())),
        features=tuple(checked_features(name, features, samples) for name in models)
        if features
        else (),
        sample_id=checked_names("sample_id", sample_id, samples),
        backbones=tuple(models),
        class_names=tuple(map(str, class_names if class_names is not None else range(classes)))
        if class_names is None or len(class_names) == classes
        else misfit("class_names", len(class_names), classes),
    )


@dataclass(frozen=True)
class FittedCombiner:
    """A fitted combiner; made by `fit`. It sees nothing of the rows that it predicts but one by one.

    Attributes:
        fitted: name, settings and learnt arrays.

    >>> import clipnlc, numpy as np
    >>> rows = clipnlc.ensemble_of({"a": np.eye(3), "b": np.eye(3)}, class_names=["x", "y", "z"])
    >>> fitted = clipnlc.fit(rows, np.arange(3), "prob-avg")
    >>> fitted
    <prob-avg of a, b, fitted on 3 labels: 3 classes>
    >>> fitted.name, fitted.class_names
    ('prob-avg', ('x', 'y', 'z'))
    >>> fitted.predict(rows.rows([2, 0])).tolist(), fitted.accuracy(rows, np.array([0, 1, 1]))
    ([2, 0], 0.6666666666666666)
    """

    fitted: Fitted

    @property
    def name(self) -> str:
        """The combiner's name, as `clipnlc combiners` lists it."""
        return self.fitted.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the fit."""
        return self.fitted.class_names

    def scores(self, ensemble: Ensemble) -> Float64[np.ndarray, "samples classes"]:
        """Return a score per row and class of the ensemble; the highest is the prediction.

        Models and classes are matched by name, so their order does not matter.

        Raises:
            DataError: the combiner needs features and the ensemble lacks them, or it lacks names.
            StoreError: it has other models or classes than the fit.

        >>> import clipnlc, numpy as np
        >>> rows = clipnlc.ensemble_of({"a": np.eye(2), "b": 3 * np.eye(2)})
        >>> clipnlc.fit(rows, np.arange(2), "log-avg").scores(rows).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
        """
        _check_able(self.name, ensemble)
        with threadpool_limits(limits=1):
            return apply(self.fitted, ensemble).combined(ensemble)

    def predict(self, ensemble: Ensemble) -> Int64[np.ndarray, " samples"]:
        """Return the class number of each row, counted as the ensemble's classes are.

        Raises:
            DataError, StoreError: as `scores`.
        """
        predicted: Int64[np.ndarray, " samples"] = self.scores(ensemble).argmax(axis=1)
        return predicted

    def probabilities(self, ensemble: Ensemble) -> Float64[np.ndarray, "samples classes"]:
        """Return probabilities in [0, 1], rows with the sum 1: the softmax of the scores.

        Raises:
            DataError: the softmax of this combiner's scores is no probability; else as `scores`.

        >>> import clipnlc, numpy as np
        >>> rows = clipnlc.ensemble_of(probabilities={"a": np.array([[0.9, 0.1]])})
        >>> clipnlc.fit(rows, np.array([0]), "prob-avg").probabilities(rows).round(3).tolist()
        [[0.9, 0.1]]
        """
        if not COMBINERS.get(self.name).probabilistic:
            raise DataError(
                f"scores of {self.name} are no logits of probabilities; use scores, or a combiner "
                "such as gp"
            )
        return softmax(self.scores(ensemble))

    def accuracy(self, ensemble: Ensemble, labels: Int[np.ndarray, " samples"]) -> float:
        """Return the share of rows predicted right, in [0, 1]; on rows that were not fitted on.

        Raises:
            DataError: labels do not fit the ensemble; else as `scores`.
        """
        return float((self.predict(ensemble) == checked_labels(labels, ensemble)).mean())

    def __repr__(self) -> str:
        """Say what it is and what it was fitted on."""
        fitted = self.fitted
        return (
            f"<{fitted.name} of {', '.join(fitted.backbones)}, fitted on "
            f"{count(int(fitted.facts['labels']), 'label')}: {count(len(fitted.class_names), 'class')}>"
        )


def fit(
    ensemble: Ensemble,
    labels: Int[np.ndarray, " samples"],
    combiner: str = "gp",
    *,
    pool: Ensemble | None = None,
    seed: int = 0,
    **settings: Any,  # noqa: ANN401  (of any combiner)
) -> FittedCombiner:
    """Fit a combiner on labelled rows.

    Logits of rows that a model itself was fitted on look surer than those of others; give such a
    model's logits cross-fitted (scikit-learn: `cross_val_predict`), or rows that it has not seen.

    Args:
        ensemble: the labelled rows, from `ensemble_of`.
        labels: class numbers `[samples]`, in `[0, classes)`.
        combiner: a name that `clipnlc combiners` lists; `gp` is recommended, `balanced` reads
            logits alone and needs no labels.
        pool: unlabelled rows, for combiners that learn from them too (`balanced`, `balanced-gp`);
            by default the labelled ones. Never the rows that accuracy is then measured on.
        seed: of everything random in the fit.
        settings: of the combiner, where they differ from its defaults.

    Raises:
        DataError: labels do not fit the rows; the combiner needs what the ensemble does not have;
            a setting is not known.
        UnknownNameError: no combiner has this name.

    >>> import clipnlc, numpy as np
    >>> rows = clipnlc.ensemble_of({"left": np.eye(2), "right": np.eye(2)[::-1]})
    >>> clipnlc.fit(rows, np.array([0, 1]), "log-avg").scores(rows).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    COMBINERS.get(combiner)
    truth = checked_labels(labels, ensemble)
    _check_able(combiner, ensemble)
    try:
        with threadpool_limits(limits=1):
            fitted = fit_combiner(
                combiner,
                ensemble,
                truth,
                which=Labels.all(seed=seed),
                settings=settings,
                facts={"labels": len(truth)},
                pool=pool,
            )
    except (ValueError, TypeError) as error:
        raise DataError(f"{combiner} cannot be fitted: {' '.join(str(error).split())}") from error
    return FittedCombiner(fitted)


@dataclass(frozen=True)
class Compared:
    """One row of a comparison.

    Attributes:
        name: a model's, a combiner's, or `oracle`: right where any model is.
        kind: `model`, `combiner` or `bound`.
        accuracy: share of rows predicted right, in [0, 1].
        low, high: its 95 % interval (Wilson), which is of the rows alone.
        reads_test: it read all test rows together, so it is comparable with nothing that does not.

    >>> Compared("log-avg", "combiner", accuracy=0.5, low=0.25, high=0.75).reads_test
    False
    """

    name: str
    kind: str
    accuracy: float
    low: float
    high: float
    reads_test: bool = False


@dataclass(frozen=True)
class Comparison:
    """Every model and combiner on the same rows; made by `compare`. `print` gives a table.

    Attributes:
        rows: in a fixed order that no accuracy decides.
        labels: labelled rows that combiners were fitted on.
        samples: rows that all were measured on.
        cross_fitted: whether those are the labelled rows, each predicted by a fit without it.
        unable: by combiner, why it could not run.

    >>> import clipnlc, numpy as np
    >>> rows = clipnlc.ensemble_of({"a": np.eye(2), "b": np.eye(2)})
    >>> clipnlc.compare(rows, np.arange(2), rows, np.arange(2), combiners="vote-1")["vote-1"].accuracy
    1.0
    """

    rows: tuple[Compared, ...]
    labels: int
    samples: int
    cross_fitted: bool
    unable: Mapping[str, str]

    def __getitem__(self, name: str) -> Compared:
        """Return the row of a model or combiner.

        Raises:
            DataError: it has none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise DataError(
            self.unable.get(name)
            or f"no row is called {quoted(name)}; there are {some([r.name for r in self.rows], 40)}"
        )

    def __str__(self) -> str:
        """Return the table."""
        how = (
            f"cross-fitted on {count(self.labels, 'labelled row')}"
            if self.cross_fitted
            else f"{count(self.samples, 'test row')}, fitted on {count(self.labels, 'label')}"
        )
        width = max(len(row.name) for row in self.rows)
        lines = [f"accuracy in %, 95 % interval; {how}"]
        for row in self.rows:
            note = "  reads all test rows together" if row.reads_test else ""
            interval = f"{100 * row.low:5.1f} to {100 * row.high:5.1f}"
            lines.append(
                f"{row.name:<{width}}  {row.kind:<8}  {100 * row.accuracy:5.1f}  {interval}{note}"
            )
        lines += [f"not run: {why}" for why in self.unable.values()]
        return "\n".join(lines)


def compare(
    ensemble: Ensemble,
    labels: Int[np.ndarray, " samples"],
    test: Ensemble | None = None,
    test_labels: Int[np.ndarray, " test"] | None = None,
    *,
    combiners: str | Iterable[str] = "all",
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _name: None,
) -> Comparison:
    """Fit every combiner on the same labelled rows, and measure all on rows that none has seen.

    Without a test set, accuracies are cross-fitted: the labelled rows are dealt out into 5 parts,
    class by class, and each part is predicted by a fit on the others. Nothing is chosen by the
    result; whoever picks the best row of the table reports an accuracy that is too high.

    Args:
        ensemble: the labelled rows, from `ensemble_of`.
        labels: class numbers `[samples]`.
        test: other rows of the same models and classes.
        test_labels: their class numbers; needed with `test`.
        combiners: names or groups, as `clipnlc combiners` lists them.
        seed: of everything random in fits, and of the parts.
        on_progress: called with the name of each combiner before it is fitted.

    Raises:
        DataError: labels do not fit the rows; test rows without labels; too few rows to divide.
        UnknownNameError: a combiner is not known.

    >>> import clipnlc, numpy as np
    >>> labels = np.arange(20) % 2
    >>> rows = clipnlc.ensemble_of({"sure": np.eye(2)[labels], "wrong": np.eye(2)[1 - labels] / 2})
    >>> print(clipnlc.compare(rows, labels, rows, labels, combiners="log-avg,gp"))
    accuracy in %, 95 % interval; 20 test rows, fitted on 20 labels
    sure     model     100.0   83.9 to 100.0
    wrong    model       0.0    0.0 to  16.1
    log-avg  combiner  100.0   83.9 to 100.0
    oracle   bound     100.0   83.9 to 100.0
    not run: gp reads features, and sure and wrong have logits alone
    """
    names = COMBINERS.resolve(combiners)
    truth = checked_labels(labels, ensemble)
    if (test is None) != (test_labels is None):
        raise DataError("give test and test_labels together, or neither")
    measured, answers = ensemble, truth
    if test is not None and test_labels is not None:
        measured, answers = test, checked_labels(test_labels, test)
    reasons = {name: why_not(name, ensemble) or why_not(name, measured) for name in names}
    unable = {name: why for name, why in reasons.items() if why is not None}
    able = [name for name in names if name not in unable]
    rows = [
        _row(name, "model", one.argmax(axis=1) == answers)
        for name, one in zip(measured.backbones, measured.logits, strict=True)
    ]
    for name in able:
        on_progress(name)
        try:
            right = (
                _cross_fitted(name, ensemble, truth, seed) == answers
                if test is None
                else fit(ensemble, truth, name, seed=seed).predict(measured) == answers
            )
        except ClipnlcError as error:
            unable[name] = str(error)
            continue
        reads_test = COMBINERS.get(name).reads_test
        rows.append(_row(name, "combiner", right, reads_test=reads_test))
    oracle = oracle_accuracy(measured.logits.argmax(axis=2), answers)
    bound = accuracy_interval(oracle, len(answers))
    rows.append(Compared(ORACLE, "bound", oracle, bound.low, bound.high))
    return Comparison(tuple(rows), len(truth), len(answers), test is None, unable)


def _cross_fitted(
    name: str, ensemble: Ensemble, labels: Int[np.ndarray, " samples"], seed: int
) -> Int64[np.ndarray, " samples"]:
    """Return each labelled row's class by a fit that has not seen it."""
    if len(labels) < FOLDS:
        raise DataError(
            f"{count(len(labels), 'labelled row')} cannot be divided into {FOLDS} parts; give a test set"
        )
    folds = dealt_folds(labels, ensemble.sample_id, FOLDS, draw=f"compare:{seed}")
    predicted = np.empty(len(labels), dtype=np.int64)
    for fold in range(FOLDS):
        seen, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fitted = fit(ensemble.rows(seen), labels[seen], name, seed=seed)
        predicted[held] = fitted.predict(ensemble.rows(held))
    return predicted


def _row(name: str, kind: str, right: np.ndarray, *, reads_test: bool = False) -> Compared:
    found = accuracy_interval(float(right.mean()), len(right))
    return Compared(name, kind, found.centre, found.low, found.high, reads_test)


def _check_able(combiner: str, ensemble: Ensemble) -> None:
    if not ensemble.backbones or not ensemble.class_names:
        raise DataError("the ensemble has no names; make it with clipnlc.ensemble_of")
    reason = why_not(combiner, ensemble)
    if reason is not None:
        able = [entry.name for entry in catalogue("recommended,parameter-free")]
        cure = next((name for name in able if why_not(name, ensemble) is None), "log-avg")
        raise DataError(f"{reason}; choose another combiner, such as {cure}")
