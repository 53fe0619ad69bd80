"""Apply the fits of a store and measure what they give. Nothing is fitted here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.catalogue import catalogue
from clipnlc.datasets.clusters import cluster_of
from clipnlc.datasets.published import published_digest
from clipnlc.heads import HEADS
from clipnlc.metrics import METRICS
from clipnlc.reports.record import (
    GFLOPS,
    Comparison,
    DatasetEvaluation,
    Evaluation,
    Method,
    Row,
    versions,
)
from clipnlc.runs.packages import packages_of
from clipnlc.runs.records import (
    comparison_path,
    evaluation_path,
    read_evaluation,
    save_record,
)
from clipnlc.stages.evaluate.comparing import compared_over_sets, dataset_comparison, pairs
from clipnlc.stages.evaluate.finding import Asked, Found, found_runs
from clipnlc.stages.evaluate.measured import Measured
from clipnlc.stages.evaluate.measuring import measure
from clipnlc.stages.evaluate.rows import dataset_evaluation, spending, summary
from clipnlc.stores.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path


def evaluate(
    *,
    store: Path,
    datasets: Sequence[str] | None = None,
    head: str = "zero-shot",
    split: str = "test",
    backbones: Sequence[str] | None = None,
    fitted_on: str | None = None,
    keep_scores: bool = False,
    workers: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda _dataset, _done, _all: None,
) -> Evaluation:
    """Compare the combiners with every backbone alone, the best of them, and the oracle.

    Leaves what the fits give beside the logits, a record of each data set, and one of all together
    where there are several; a record of the very same files is returned as it is. The same stores
    give the same bytes. Where zero-shot accuracies of a data set are published, they stand beside
    ours.

    Args:
        store: root of the store.
        datasets: names in the store; by default every one with fits of its own that has images to
            measure on, or, with `fitted_on`, every other one with such a split and a class in common.
        head: whose logits are combined.
        split: whose samples are predicted.
        backbones: the ensemble; by default every backbone with logits, or the only one with fits.
        fitted_on: apply the fits and heads of this data set to the others; classes match by name.
        keep_scores: also keep the scores of combiners that do not weigh backbones.
        workers: processes, each with a data set at a time.
        on_progress: called with (data set, samples done, samples), or, where processes work, with
            ("data sets", data sets done, data sets).

    Raises:
        MissingStageError: there are no such runs, or no such logits or features.
        StoreError: runs are stale, or of several ensembles; data sets share no class; a file is
            damaged, or cannot be written.
    """
    layout = Layout(store)
    asked = Asked(layout, head, split, backbones, fitted_on)
    found = found_runs(asked, datasets)
    members = found[0].runs.members
    one = found[0].dataset if len(found) == 1 else None
    path = evaluation_path(layout, head, members, dataset=one, fitted_on=fitted_on)
    kept = _kept(layout, path, found, split)
    if kept is not None and not keep_scores:
        return kept

    measured = measure(
        asked, found, keep_scores=keep_scores, workers=workers, on_progress=on_progress
    )
    rows = [dataset_evaluation(each) for each in measured]
    for single, its_own, its in zip(found, measured, rows, strict=True):
        # The summary over one data set is its own rows.
        evaluation = _evaluation(asked, [single], [its_own], [its], (its.rows, ()))
        place = evaluation_path(layout, head, members, dataset=its.dataset, fitted_on=fitted_on)
        save_record(layout, place, evaluation)
    if len(measured) > 1:
        evaluation = _evaluation(asked, found, measured, rows, summary(measured))
        save_record(layout, path, evaluation)
    return evaluation


def compare(
    *,
    store: Path,
    against: str,
    baselines: Sequence[str] = (),
    datasets: Sequence[str] | None = None,
    head: str = "zero-shot",
    split: str = "test",
    backbones: Sequence[str] | None = None,
    fitted_on: str | None = None,
    workers: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda _dataset, _done, _all: None,
) -> Comparison:
    """Compare one method with others on the same images and labels; leaves a record of it.

    Args:
        store: root of the store.
        against: the method that others are compared with.
        baselines: the others, the family that p-values are adjusted for; every combiner by default.
        datasets: as of `evaluate`, and so are all below.
        head: whose logits are combined.
        split: whose samples are predicted.
        backbones: the ensemble.
        fitted_on: apply the fits and heads of this data set to the others.
        workers: processes, each with a data set at a time.
        on_progress: as of `evaluate`.

    Raises:
        UnknownNameError: a method was not measured.
        DataError: a method reads the test images themselves.
        MissingStageError, StoreError: as `evaluate`.
    """
    layout = Layout(store)
    asked = Asked(layout, head, split, backbones, fitted_on)
    found = found_runs(asked, datasets)
    measured = measure(asked, found, workers=workers, on_progress=on_progress)
    compared = pairs(measured, against, baselines)
    over_sets = compared_over_sets(measured, compared) if len(measured) > 1 else ((), ())
    comparison = Comparison(
        head=head,
        split=split,
        backbones=found[0].runs.backbones,
        against=against,
        datasets=tuple(dataset_comparison(one, compared) for one in measured),
        summary=over_sets[0],
        notes=over_sets[1],
        versions=_versions(found),
        fitted_on=fitted_on or "",
    )
    one = found[0].dataset if len(found) == 1 else None
    path = comparison_path(
        layout, head, found[0].runs.members, against, dataset=one, fitted_on=fitted_on
    )
    save_record(layout, path, comparison)
    return comparison


def _kept(layout: Layout, path: Path, found: Sequence[Found], split: str) -> Evaluation | None:
    """Return the record that is there, if it was made from the very same files."""
    if not os.path.lexists(path):  # a link to nowhere is refused
        return None
    kept = read_evaluation(layout, path)
    sources = {one.dataset: one.sources for one in kept.datasets}
    wanted = {one.dataset: one.sources for one in found}
    made_with = (
        *(kept.split, kept.versions, kept.measures, kept.published_digest, kept.methods),
        {one.dataset: one.cluster for one in kept.datasets},
    )
    spent = {name: facts for name, facts in kept.measures.items() if name == GFLOPS}
    now = (
        *(split, _versions(found), {**METRICS.facts, **spent}, published_digest(), _methods(found)),
        {one.dataset: cluster_of(one.dataset) for one in found},
    )
    return kept if sources == wanted and made_with == now else None


def _methods(found: Sequence[Found]) -> dict[str, Method]:
    """Describe every combiner with a fit."""
    fitted = {n for one in found for header in one.runs.headers.values() for n in header.keys}
    recommended = COMBINERS.groups.get("recommended", ())
    return {
        entry.name: Method(
            meaning=entry.meaning,
            learns_from=(
                *(("labels",) if entry.labels != "no" else ()),
                *(("unlabelled",) if entry.unlabelled else ()),
                *(("test",) if entry.reads_test else ()),
            ),
            selected_on=entry.selected_on,
            recommended=entry.name in recommended,
        )
        for entry in catalogue([name for name in COMBINERS if name in fitted])
    }


def _versions(found: Sequence[Found]) -> dict[str, str]:
    """Return the versions of all packages whose code fits, applies or measures."""
    fitted = {n for one in found for header in one.runs.headers.values() for n in header.keys}
    return {
        **versions(),
        **packages_of(HEADS, [found[0].runs.head]),
        **packages_of(COMBINERS, sorted(fitted)),
        **packages_of(METRICS, METRICS),
    }


def _evaluation(
    asked: Asked,
    found: Sequence[Found],
    measured: Sequence[Measured],
    datasets: Sequence[DatasetEvaluation],
    over_sets: tuple[Sequence[Row], Sequence[str]],
) -> Evaluation:
    spent, rows = spending(measured, over_sets[0])
    return Evaluation(
        head=asked.head,
        split=asked.split,
        backbones=found[0].runs.backbones,
        measures={**METRICS.facts, **spent},
        methods=_methods(found),
        datasets=tuple(replace(d, rows=spending(measured, d.rows)[1]) for d in datasets),
        summary=rows,
        notes=tuple(over_sets[1]),
        versions=_versions(found),
        published_digest=published_digest(),
        fitted_on=asked.fitted_on or "",
    )
