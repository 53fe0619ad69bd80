"""Outcomes in, rows out: what evaluate says of one data set, and of several together.

Nothing is read or written here, and nothing needs the scores: an outcome holds, per sample, what
each measure of `METRICS` needs.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from clipnlc.combiners import COMBINERS
from clipnlc.datasets.published import SUSPICIOUS, published_accuracy
from clipnlc.labels import Labels
from clipnlc.measures import Facts
from clipnlc.metrics import ACCURACY, METRICS
from clipnlc.metrics.accuracy import share_of_gap_closed
from clipnlc.reports.record import (
    BEST_SINGLE,
    GFLOPS,
    ORACLE,
    RIVALS,
    DatasetEvaluation,
    Kind,
    Published,
    Row,
    defined,
)
from clipnlc.stages.evaluate.measured import Measured, Outcome, Setting
from clipnlc.stages.evaluate.uncertainty import (
    ONE_DRAW,
    SHARED_LIMIT,
    accuracy_bounds,
    common_seeds,
    defined_bounds,
    estimable,
    includes_zero,
    is_mean,
    paired_on_one,
    paired_over_sets,
)

KINDS: tuple[Kind, ...] = ("backbone", "reference", "method", "control", "transductive")


def kind_of(combiner: str) -> Kind:
    """Return the kind of a combiner's rows."""
    if COMBINERS.get(combiner).reads_test:
        return "transductive"
    return "control" if combiner in COMBINERS.groups["controls"] else "method"


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
        cluster=one.cluster,
        samples=len(one.labels),
        classes=one.classes,
        best_single=one.best_single,
        rows=_rows(settings, [one]),
        sources=one.sources,
        notes=(*one.notes, *_doubts(one)),
        published=one.published,
    )


def summary(measured: Sequence[Measured]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Average what every data set has with a common seed, and say what is left out."""
    settings = sorted({s for one in measured for s in one.outcomes}, key=_place(measured[0]))
    kept, notes = [], []
    for setting in settings:
        lacking = [one.dataset for one in measured if setting not in one.outcomes]
        if lacking:
            why = f"{', '.join(lacking)} lacks it"
            notes.append(f"{_spelled(setting)} is left out of the summary: {why}.")
        elif not common_seeds(measured, setting):
            notes.append(f"{_spelled(setting)} is left out of the summary: no seed is common.")
        else:
            kept.append(setting)
    alike = Counter(drawn for one in measured for drawn in _much_shared(one))
    notes += [
        f"{_capital(drawn.phrase)} two draws share half of their labels or more in {count} of "
        f"{len(measured)} data sets: the draw variance is not estimable."
        for drawn, count in sorted(alike.items())
    ]
    return _rows(kept, measured), tuple(notes)


def _place(one: Measured) -> Callable[[Setting], tuple[int, int, Labels]]:
    """Order rows by kind, by the tables of backbones and combiners, and by labels."""
    methods = [*one.backbones, BEST_SINGLE, ORACLE, *COMBINERS]

    def key(setting: Setting) -> tuple[int, int, Labels]:
        method = methods.index(setting.method) if setting.method in methods else len(methods)
        return KINDS.index(setting.kind), method, setting.drawn

    return key


@dataclass(frozen=True)
class _Found:
    """A row, and what it is the mean of.

    Attributes:
        setting: of the row.
        row: without `level`.
        by_set: by measure, the mean over the seeds on each data set; None where not defined.
    """

    setting: Setting
    row: Row
    by_set: Mapping[str, Float[np.ndarray, " sets"] | None]


def _rows(settings: Sequence[Setting], over: Sequence[Measured]) -> tuple[Row, ...]:
    """Summarise settings over data sets; the rows of one data set are the summary over it alone."""
    best_single = Setting.unfitted(BEST_SINGLE, "reference")
    best = np.array([one.accuracy(BEST_SINGLE) for one in over])
    oracle = _mean(one.accuracy(ORACLE) for one in over)
    found = []
    for setting in settings:
        seeds = common_seeds(over, setting)
        draws = [[one.outcomes[setting][seed] for one in over] for seed in seeds]
        by_set = {name: _by_set(name, draws, over) for name in METRICS}
        accuracies = [_mean(float(outcome.right.mean()) for outcome in draw) for draw in draws]
        accuracy = _mean(accuracies)
        low, high, interval = accuracy_bounds(setting, seeds, over, accuracy)
        gain_low = gain_high = None
        if len(over) > 1:
            gains = by_set[ACCURACY]
            assert gains is not None
            gain_low, gain_high = defined_bounds(paired_over_sets(gains - best, over))
        elif estimable(setting, seeds, over):
            paired = paired_on_one(over[0], setting, best_single, ACCURACY)
            gain_low, gain_high = defined_bounds(paired)
        closed = share_of_gap_closed(accuracy=accuracy, best_single=_mean(best), oracle=oracle)
        shared = [one.shared(setting.drawn) for one in over]
        row = Row(
            **setting._asdict(),
            labels=max(sum(outcome.labels for outcome in draw) for draw in draws),
            unlabelled=max(sum(outcome.unlabelled for outcome in draw) for draw in draws),
            shared=None
            if None in shared
            else _mean(share for share in shared if share is not None),
            seeds=seeds,
            accuracies=tuple(accuracies),
            accuracy=accuracy,
            low=low,
            high=high,
            interval=interval,
            gain=accuracy - _mean(best),
            gain_low=gain_low,
            gain_high=gain_high,
            gap_closed=defined(closed),
            level=(),
            measures={
                **{name: _measure(name, draws, by_set[name], over) for name in METRICS},
                GFLOPS: _spent(draws),
            },
        )
        found.append(_Found(setting, row, by_set))
    return tuple(replace(one.row, level=_level(one, found, over)) for one in found)


def _level(one: _Found, others: Sequence[_Found], over: Sequence[Measured]) -> tuple[str, ...]:
    """Name the measures in which a row is not separable from the best of its column."""
    rivals = [o for o in others if o.row.kind in RIVALS and o.row.drawn == one.row.drawn]
    return tuple(
        name for name in METRICS if one.row.kind in RIVALS and _is_level(name, one, rivals, over)
    )


def _is_level(
    measure: str, one: _Found, rivals: Sequence[_Found], over: Sequence[Measured]
) -> bool:
    own = one.row.measures[measure]
    values = {r.setting: v for r in rivals if (v := r.row.measures[measure]) is not None}
    if own is None:
        return False
    lower = METRICS.get(measure).better == "lower"
    best = next(
        r for r in rivals if values.get(r.setting) == (min if lower else max)(values.values())
    )
    leading = best.row.measures[measure]
    if leading is not None and math.isclose(own, leading, rel_tol=1e-9):
        return True  # sums over backbones in another order end in other bits
    ours, theirs = one.by_set[measure], best.by_set[measure]
    if len(over) > 1 and ours is not None and theirs is not None:
        return includes_zero(paired_over_sets(ours - theirs, over))
    if len(over) == 1 and is_mean(measure):
        return includes_zero(paired_on_one(over[0], one.setting, best.setting, measure))
    return False


def _by_set(
    name: str, draws: Sequence[Sequence[Outcome]], over: Sequence[Measured]
) -> Float[np.ndarray, " sets"] | None:
    """Return the mean of a measure over the seeds on each data set; None where it has none."""
    measure = METRICS.get(name)
    if measure.pooled or not all(name in outcome.values for draw in draws for outcome in draw):
        return None
    totals = [
        [measure.sum_up(o.values[name], one.labels) for o, one in zip(draw, over, strict=True)]
        for draw in draws
    ]
    means: np.ndarray = np.array(totals).mean(axis=0)
    return means


def _measure(
    name: str,
    draws: Sequence[Sequence[Outcome]],
    by_set: Float[np.ndarray, " sets"] | None,
    over: Sequence[Measured],
) -> float | None:
    """Average a measure over seeds, and over data sets unless all samples are put together."""
    measure = METRICS.get(name)
    if by_set is not None:
        return float(by_set.mean())
    if not measure.pooled or not all(name in o.values for draw in draws for o in draw):
        return None
    labels = np.concatenate([one.labels for one in over])
    return _mean(
        measure.sum_up(np.concatenate([o.values[name] for o in draw]), labels) for draw in draws
    )


def _spent(draws: Sequence[Sequence[Outcome]]) -> float | None:
    """Return what an image took in the mean over seeds and data sets; None where always all."""
    every = [outcome.spent for draw in draws for outcome in draw]
    if None in every:
        return None
    return _mean(spent[0] for spent in every if spent is not None)


def spending(
    measured: Sequence[Measured], rows: Sequence[Row]
) -> tuple[dict[str, Facts], tuple[Row, ...]]:
    """Return the facts of what images take, and rows without it where none takes less than all."""
    every = {o.spent for one in measured for its in one.outcomes.values() for o in its.values()}
    totals = [spent[1] for spent in every if spent is not None]
    if any(spent[0] < spent[1] for spent in every if spent is not None):
        return {GFLOPS: _gflops(max(totals))}, tuple(rows)
    return {}, tuple(_without_spending(row) for row in rows)


def _without_spending(row: Row) -> Row:
    return replace(row, measures={n: value for n, value in row.measures.items() if n != GFLOPS})


def _gflops(total: float) -> Facts:
    return Facts(
        title="GFLOPs of the image towers per image",
        unit="",
        better="lower",
        bounds=(0.0, total),
        meaning=f"of methods that need not compute every backbone; all together take {total:.3g}",
    )


def _mean(values: Iterable[float] | Float[np.ndarray, " _"]) -> float:
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
        f"{_capital(drawn.phrase)} two draws share {100 * share:.0f} % of their labels: the draw "
        "variance is not estimable."
        for drawn, share in _much_shared(one).items()
    ]
    lonely = [
        setting
        for setting, seeds in one.outcomes.items()
        if setting.drawn.kind not in ONE_DRAW and len(seeds) == 1
    ]
    if lonely:
        doubts.append(f"{len(lonely)} rows have a single seed, so the draw variance is unknown.")
    return doubts


def _much_shared(one: Measured) -> dict[Labels, float]:
    """Name the draws that share too many labels to show their variance, and the share."""
    several = {
        setting.drawn
        for setting, seeds in one.outcomes.items()
        if len(seeds) > 1 and setting.drawn.kind not in ONE_DRAW
    }
    shared = {drawn: one.shared(drawn) for drawn in sorted(several)}
    return {drawn: s for drawn, s in shared.items() if s is not None and s >= SHARED_LIMIT}


def _spelled(setting: Setting) -> str:
    return f"{setting.method} {setting.drawn.phrase}"


def _capital(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:]
