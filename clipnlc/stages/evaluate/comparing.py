"""One method against the others: paired differences and tests, on one data set and over several."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from clipnlc.combiners import COMBINERS
from clipnlc.errors import DataError
from clipnlc.labels import Labels
from clipnlc.metrics import ACCURACY
from clipnlc.metrics.comparisons import cluster_means, holm, mcnemar, signed_rank
from clipnlc.registry import unknown_name
from clipnlc.reports.record import RIVALS, Compared, DatasetComparison
from clipnlc.stages.evaluate.measured import Measured, Setting
from clipnlc.stages.evaluate.uncertainty import (
    ONE_DRAW,
    common_seeds,
    defined_bounds,
    estimable,
    paired_on_one,
    paired_over_sets,
)

LEVEL = 0.05


class Pair(NamedTuple):
    """Two settings that are compared, and the labels of the column that they stand in."""

    setting: Setting
    other: Setting
    column: Labels


def pairs(measured: Sequence[Measured], against: str, baselines: Sequence[str] = ()) -> list[Pair]:
    """List what is compared: at each kind of labels, what was fitted on them or needs none.

    Args:
        measured: data sets; only settings that all of them have are compared.
        against: the method that the others are compared with; a backbone, or a reference, may be.
        baselines: the others, or groups of combiners; by default every combiner.

    Raises:
        UnknownNameError: one of them was not measured.
        DataError: one of them reads the test images themselves.
    """
    common = set.intersection(*(set(one.outcomes) for one in measured))
    settings = [s for s in measured[0].outcomes if s in common]
    _refuse_transductive(settings, (against, *baselines))
    known = list(dict.fromkeys(s.method for s in settings if s.kind != "transductive"))
    groups = COMBINERS.all_groups
    for name in (against, *baselines):
        if name not in known and (name == against or name not in groups):
            raise unknown_name("method among those measured", name, known)
    named = {name for baseline in baselines for name in groups.get(baseline, (baseline,))}
    others = [
        s
        for s in settings
        if s.method != against
        if (s.method in named if baselines else s.kind in RIVALS)
    ]
    reference = {s.drawn: s for s in settings if s.method == against}
    return [
        pair
        for column in sorted({s.drawn for s in settings})
        for pair in _in_column(column, reference.get(column, reference.get(Labels.none())), others)
    ]


def _refuse_transductive(settings: Sequence[Setting], asked: Sequence[str]) -> None:
    apart = {s.method for s in settings if s.kind == "transductive"}
    for name in asked:
        for member in COMBINERS.all_groups.get(name, (name,)):
            if member in apart:
                raise DataError(
                    f"{member} reads the test images themselves, so a difference from it says "
                    "nothing of the methods; leave it out of --against and --baselines"
                )


def _in_column(
    column: Labels, reference: Setting | None, others: Sequence[Setting]
) -> Iterator[Pair]:
    fitted = {s.method: s for s in others if s.drawn == column}
    free = {s.method: s for s in others if s.drawn.kind == "none"}
    for setting in ({**free, **fitted}).values():
        if reference is not None and column in (setting.drawn, reference.drawn):
            yield Pair(setting, reference, column)


def dataset_comparison(one: Measured, compared: Sequence[Pair]) -> DatasetComparison:
    """Compare on one data set, over its images and draws; single fits by McNemar's test."""
    rows = []
    for pair in compared:
        setting, other, column = pair
        seeds = common_seeds([one], setting, other)
        if not seeds:
            continue
        found = paired_on_one(one, setting, other, ACCURACY)
        known = all(estimable(s, seeds, [one]) for s in (setting, other))
        low, high = defined_bounds(found) if known else (None, None)
        unlabelled = all(s.drawn.kind in ONE_DRAW for s in (setting, other))
        hits = (one.each_seed(s, seeds, ACCURACY) > 0 for s in (setting, other))
        rows.append(
            Compared(
                **setting._asdict(),
                column=column,
                seeds=seeds,
                difference=found.centre,
                low=low,
                high=high,
                interval=(
                    "not-estimable" if not known else "images" if unlabelled else "images-and-draws"
                ),
                mcnemar=tuple(mcnemar(a, b) for a, b in zip(*hits, strict=True)),
            )
        )
    return DatasetComparison(one.dataset, one.cluster, len(one.labels), tuple(rows), one.sources)


def compared_over_sets(
    measured: Sequence[Measured], compared: Sequence[Pair]
) -> tuple[tuple[Compared, ...], tuple[str, ...]]:
    """Compare over several data sets, and say what tests of so few can show."""
    rows = []
    for setting, other, column in compared:
        seeds = common_seeds(measured, setting, other)
        if not seeds:
            continue
        differences = np.array(
            [
                one.each_seed(setting, seeds, ACCURACY).mean()
                - one.each_seed(other, seeds, ACCURACY).mean()
                for one in measured
            ]
        )
        found = paired_over_sets(differences, measured)
        low, high = defined_bounds(found)
        rows.append(
            Compared(
                **setting._asdict(),
                column=column,
                seeds=seeds,
                difference=found.centre,
                low=low,
                high=high,
                interval=None if low is None else "data-sets",
                signed_rank=signed_rank(
                    cluster_means(differences, [one.cluster for one in measured])
                ),
            )
        )
    return tuple(_with_holm(rows)), tuple(_limits(measured, rows))


def _with_holm(rows: Sequence[Compared]) -> list[Compared]:
    """Adjust the p-values of each column of labels for being one family."""
    adjusted: dict[tuple[str, Labels], float] = {}
    for column in {row.column for row in rows}:
        family = [row for row in rows if row.column == column]
        found = holm([row.signed_rank for row in family if row.signed_rank is not None])
        adjusted |= {(row.method, column): p for row, p in zip(family, found, strict=True)}
    return [replace(row, holm=adjusted[row.method, row.column]) for row in rows]


def _limits(measured: Sequence[Measured], rows: Sequence[Compared]) -> Iterator[str]:
    """Say where no outcome at all could be significant."""
    clusters = len({one.cluster for one in measured})
    least = 2 * 0.5**clusters
    family = max((sum(r.column == row.column for r in rows) for row in rows), default=0)
    if family * least > LEVEL:
        yield (
            f"With {clusters} data sets or clusters of them the least p-value of the signed-rank "
            f"test is {least:.3f}, and {min(1.0, family * least):.3f} adjusted for {family} "
            "methods: no difference can be significant; name fewer with --baselines."
        )
