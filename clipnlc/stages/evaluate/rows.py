"""Outcomes in, rows out: what evaluate says of one data set, and of several together.

Nothing is read or written here, and nothing needs the scores: an outcome holds, per sample, what
each measure of `METRICS` needs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from clipnlc.combiners import COMBINERS
from clipnlc.datasets.published import SUSPICIOUS, published_accuracy
from clipnlc.labels import Labels
from clipnlc.measures import Values
from clipnlc.metrics import ACCURACY, METRICS
from clipnlc.metrics.accuracy import backbone_accuracies, share_of_gap_closed
from clipnlc.metrics.intervals import accuracy_interval, seed_interval
from clipnlc.reports.record import (
    BEST_SINGLE,
    ORACLE,
    DatasetEvaluation,
    Kind,
    Published,
    Row,
    Source,
    defined,
)

KINDS: tuple[Kind, ...] = ("backbone", "reference", "method", "control")


class Setting(NamedTuple):
    """What a row of the table is about; `drawn` has no seed (`Labels.setting`)."""

    method: str
    kind: Kind
    drawn: Labels

    @classmethod
    def unfitted(cls, method: str, kind: Kind) -> "Setting":
        """Return the setting of what has no labels."""
        return cls(method, kind, Labels.none())


class Outcome(NamedTuple):
    """What one run of one method gave on one data set.

    Attributes:
        values: by measure, the values of each sample; without the measures that the method has no
            probabilities for. Never without the accuracy.
        labels: how many labelled samples it was fitted on.
        sample_digest: names which samples those were; empty where the run does not say.
    """

    values: Mapping[str, Values]
    labels: int = 0
    sample_digest: str = ""

    @property
    def right(self) -> Bool[np.ndarray, " samples"]:
        """Whether the predicted class is the label."""
        found: np.ndarray = self.values[ACCURACY][:, 0] > 0
        return found


@dataclass(frozen=True)
class Measured:
    """One data set's outcomes by setting and seed, and what they are compared with.

    Attributes:
        dataset: name in the store.
        sources: the files behind the outcomes.
        backbones: of the ensemble, in the order of `predictions`.
        classes: number of classes.
        labels: of the samples.
        predictions: of each backbone alone.
        outcomes: of backbones, references and combiners.
        published: beside the backbones' own.
        notes: what a reader should know beforehand, one sentence each.
    """

    dataset: str
    sources: tuple[Source, ...]
    backbones: tuple[str, ...]
    classes: int
    labels: Int[np.ndarray, " samples"]
    predictions: Int[np.ndarray, "backbones samples"]
    outcomes: Mapping[Setting, Mapping[int, Outcome]]
    published: tuple[Published, ...]
    notes: tuple[str, ...] = ()

    @property
    def best_single(self) -> str:
        """The backbone with the highest accuracy on these very labels; the first of equals."""
        return self.backbones[int(backbone_accuracies(self.predictions, self.labels).argmax())]

    def accuracy(self, method: str) -> float:
        """Return the accuracy of a reference."""
        (outcome,) = self.outcomes[Setting.unfitted(method, "reference")].values()
        return float(outcome.right.mean())


def references(
    alone: Mapping[str, Outcome],
    predictions: Int[np.ndarray, "backbones samples"],
    labels: Int[np.ndarray, " samples"],
) -> dict[Setting, dict[int, Outcome]]:
    """Return every backbone alone, the best of them on these very labels, and the oracle."""
    right = predictions == labels
    best = list(alone.values())[int(right.mean(axis=1).argmax())]
    hits = right.any(axis=0)[:, None].astype(np.float64)
    hit_or_miss = METRICS.get(ACCURACY).each  # what is known of an oracle, which has no scores
    oracle = Outcome({n: hits for n in METRICS if METRICS.get(n).each == hit_or_miss})
    return {
        **{Setting.unfitted(name, "backbone"): {0: one} for name, one in alone.items()},
        Setting.unfitted(BEST_SINGLE, "reference"): {0: best},
        Setting.unfitted(ORACLE, "reference"): {0: oracle},
    }


def beside_published(
    dataset: str, alone: Mapping[str, Outcome], labels: Int[np.ndarray, " samples"]
) -> tuple[Published, ...]:
    """Set each backbone beside what is published of it, by the measure that was published."""
    beside = []
    for name, outcome in alone.items():
        known = published_accuracy(dataset, name)
        if known is None:
            continue
        ours = METRICS.get(known.metric).sum_up(outcome.values[known.metric], labels)
        difference = ours - known.accuracy
        beside.append(
            Published(
                backbone=name,
                metric=known.metric,
                ours=ours,
                published=known.accuracy,
                difference=difference,
                published_samples=known.samples,
                suspicious=abs(difference) > SUSPICIOUS,
            )
        )
    return tuple(beside)


def dataset_evaluation(one: Measured) -> DatasetEvaluation:
    """Return the rows of one data set, and what a reader should know of them."""
    settings = sorted(one.outcomes, key=_place(one))
    return DatasetEvaluation(
        dataset=one.dataset,
        samples=len(one.labels),
        classes=one.classes,
        best_single=one.best_single,
        rows=tuple(_row(setting, [one]) for setting in settings),
        sources=one.sources,
        notes=(*one.notes, *_doubts(one)),
        published=one.published,
    )


def summary(measured: Sequence[Measured]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Average what every data set has with a common seed, and say what is left out."""
    settings = sorted({s for one in measured for s in one.outcomes}, key=_place(measured[0]))
    rows, notes = [], []
    for setting in settings:
        lacking = [one.dataset for one in measured if setting not in one.outcomes]
        if lacking:
            why = f"{', '.join(lacking)} lacks it"
            notes.append(f"{_spelled(setting)} is left out of the summary: {why}.")
        elif not _common_seeds(setting, measured):
            notes.append(f"{_spelled(setting)} is left out of the summary: no seed is common.")
        else:
            rows.append(_row(setting, measured))
    drained = Counter(drawn for one in measured for drawn in _exhausted(one))
    notes += [
        f"{_capital(drawn.phrase)} every seed drew the same labels in {count} of {len(measured)} "
        "data sets, so ± is too small there."
        for drawn, count in sorted(drained.items())
    ]
    return tuple(rows), tuple(notes)


def _place(one: Measured) -> Callable[[Setting], tuple[int, int, Labels]]:
    """Order rows by kind, by the tables of backbones and combiners, and by labels."""
    methods = [*one.backbones, BEST_SINGLE, ORACLE, *COMBINERS]

    def key(setting: Setting) -> tuple[int, int, Labels]:
        method = methods.index(setting.method) if setting.method in methods else len(methods)
        return KINDS.index(setting.kind), method, setting.drawn

    return key


def _common_seeds(setting: Setting, over: Sequence[Measured]) -> list[int]:
    return sorted(set.intersection(*(set(one.outcomes[setting]) for one in over)))


def _row(setting: Setting, over: Sequence[Measured]) -> Row:
    """Summarise a setting over data sets; the row of one data set is the summary over it alone."""
    seeds = _common_seeds(setting, over)
    draws = [[one.outcomes[setting][seed] for one in over] for seed in seeds]
    accuracies = [_mean(float(outcome.right.mean()) for outcome in draw) for draw in draws]
    accuracy = _mean(accuracies)
    low, high, interval = _interval(setting, accuracies, over)
    best = _mean(one.accuracy(BEST_SINGLE) for one in over)
    closed = share_of_gap_closed(
        accuracy=accuracy,
        best_single=best,
        oracle=_mean(one.accuracy(ORACLE) for one in over),
    )
    return Row(
        **setting._asdict(),
        labels=max(sum(outcome.labels for outcome in draw) for draw in draws),
        seeds=tuple(seeds),
        accuracies=tuple(accuracies),
        accuracy=accuracy,
        low=low,
        high=high,
        interval=interval,
        gain=accuracy - best,
        gap_closed=defined(closed),
        measures={name: _measure(name, draws, [one.labels for one in over]) for name in METRICS},
    )


def _measure(
    name: str, draws: Sequence[Sequence[Outcome]], labels: Sequence[Int[np.ndarray, " _"]]
) -> float | None:
    """Average a measure over seeds, and over data sets unless all samples are put together."""
    if not all(name in outcome.values for draw in draws for outcome in draw):
        return None
    measure = METRICS.get(name)
    totals = []
    for draw in draws:
        values = [outcome.values[name] for outcome in draw]
        if measure.pooled:
            totals.append(measure.sum_up(np.concatenate(values), np.concatenate(labels)))
        else:
            totals.append(_mean(map(measure.sum_up, values, labels)))
    return _mean(totals)


def _interval(
    setting: Setting, accuracies: Sequence[float], over: Sequence[Measured]
) -> tuple[float | None, float | None, Literal["seeds", "samples"] | None]:
    """Return the bounds and their kind; a mean over data sets without draws has none."""
    if len(accuracies) > 1:
        return *seed_interval(accuracies)[1:], "seeds"
    if setting.drawn.kind == "none" and len(over) == 1:
        return *accuracy_interval(accuracies[0], len(over[0].labels))[1:], "samples"
    return None, None, None


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _doubts(one: Measured) -> list[str]:
    """Say what a reader should know before trusting the rows of this data set."""
    doubts = [
        f"{name} predicts one class for every sample; look at its weights and its features."
        for name, predicted in zip(one.backbones, one.predictions, strict=True)
        if len(np.unique(predicted)) == 1 and len(np.unique(one.labels)) > 1
    ]
    if one.accuracy(ORACLE) == one.accuracy(BEST_SINGLE):
        doubts.append("The oracle gains nothing, so the share of its gap is undefined.")
    few = {
        setting.drawn: labels
        for setting, seeds in one.outcomes.items()
        if setting.drawn.kind == "shots"
        for labels in [max(outcome.labels for outcome in seeds.values())]
        if 0 < labels < setting.drawn.amount * one.classes
    }
    doubts += [
        f"{drawn.amount} per class of {one.classes} classes gave {labels} labels: some classes "
        "have fewer."
        for drawn, labels in sorted(few.items())
    ]
    doubts += [
        f"{_capital(drawn.phrase)} every seed drew the same labels, for the pool holds no others: "
        "± is then the spread of the training alone."
        for drawn in _exhausted(one)
    ]
    lonely = [
        setting
        for setting, seeds in one.outcomes.items()
        if setting.drawn.kind != "none" and len(seeds) == 1
    ]
    if lonely:
        doubts.append(f"{len(lonely)} rows have a single seed, and so no interval.")
    return doubts


def _exhausted(one: Measured) -> list[Labels]:
    """Name the draws that used the whole pool, so that every seed has the same labels."""
    return sorted(
        {
            setting.drawn
            for setting, seeds in one.outcomes.items()
            if setting.drawn.kind != "none" and len(seeds) > 1
            if len(digests := {outcome.sample_digest for outcome in seeds.values()}) == 1
            if digests != {""}
        }
    )


def _spelled(setting: Setting) -> str:
    return f"{setting.method} {setting.drawn.phrase}"


def _capital(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:]
