"""Apply the fits of a store and measure what they give. Nothing is fitted here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.catalogue import catalogue
from clipnlc.commands import command
from clipnlc.datasets.clusters import cluster_of
from clipnlc.datasets.published import published_digest
from clipnlc.errors import StoreError
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.metrics import METRICS
from clipnlc.reports.record import (
    GFLOPS,
    Comparison,
    DatasetEvaluation,
    Evaluation,
    Method,
    Row,
    Source,
    versions,
)
from clipnlc.runs.finding import (
    Runs,
    backbones_with_logits,
    datasets_with_runs,
    find_runs,
    others_that_share_classes,
    refuse_crop,
)
from clipnlc.runs.freshness import Present, refuse_stale_runs
from clipnlc.runs.records import (
    comparison_path,
    evaluation_path,
    read_evaluation,
    save_record,
)
from clipnlc.runs.targets import Target, foreign_target, stored_target
from clipnlc.stages.evaluate.applying import images_taught, predictions_and_outcomes
from clipnlc.stages.evaluate.comparing import compared_over_sets, dataset_comparison, pairs
from clipnlc.stages.evaluate.measured import Measured, Outcome, Setting
from clipnlc.stages.evaluate.reference import (
    REFERENCE_HEAD,
    check_same_rows,
    pool_labels,
    reference_of,
)
from clipnlc.stages.evaluate.rows import (
    beside_published,
    dataset_evaluation,
    kind_of,
    references,
    spending,
    summary,
)
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

PUBLISHED = ("zero-shot", "test")
"""The head and the split of the published numbers."""


@dataclass(frozen=True)
class _Asked:
    """What was asked for, whichever the data set."""

    layout: Layout
    head: str
    split: str
    backbones: Sequence[str] | None
    fitted_on: str | None

    def __post_init__(self) -> None:
        refuse_crop(self.split)


@dataclass(frozen=True)
class Found:
    """One data set and the fresh runs that are applied to it, before any array is read."""

    dataset: str
    runs: Runs
    sources: tuple[Source, ...]


def evaluate(
    *,
    store: Path,
    datasets: Sequence[str] | None = None,
    head: str = "zero-shot",
    split: str = "test",
    backbones: Sequence[str] | None = None,
    fitted_on: str | None = None,
    keep_scores: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda _dataset, _done, _all: None,
) -> Evaluation:
    """Compare the combiners with every backbone alone, the best of them, and the oracle.

    Leaves what the fits give beside the logits, a record of each data set, and one of all together
    where there are several; a record of the very same files is returned as it is. The same stores
    give the same bytes. Where zero-shot accuracies of a data set are published, they stand beside
    ours.

    Args:
        store: root of the store.
        datasets: names in the store; by default every one with fits of its own, or, with
            `fitted_on`, every other one with such a split and a class in common.
        head: whose logits are combined.
        split: whose samples are predicted.
        backbones: the ensemble; by default every backbone with logits, or the only one with fits.
        fitted_on: apply the fits and heads of this data set to the others; classes match by name.
        keep_scores: also keep the scores of combiners that do not weigh backbones.
        on_progress: called with (data set, samples done, samples).

    Raises:
        MissingStageError: there are no such runs, or no such logits or features.
        StoreError: runs are stale, or of several ensembles; data sets share no class; a file is
            damaged, or cannot be written.
    """
    layout = Layout(store)
    asked = _Asked(layout, head, split, backbones, fitted_on)
    found = _found(asked, datasets)
    members = found[0].runs.members
    one = found[0].dataset if len(found) == 1 else None
    path = evaluation_path(layout, head, members, dataset=one, fitted_on=fitted_on)
    kept = _kept(layout, path, found, split)
    if kept is not None and not keep_scores:
        return kept

    measured = [_measure_with(asked, each, on_progress, keep_scores=keep_scores) for each in found]
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
        on_progress: called with (data set, samples done, samples).

    Raises:
        UnknownNameError: a method was not measured.
        DataError: a method reads the test images themselves.
        MissingStageError, StoreError: as `evaluate`.
    """
    layout = Layout(store)
    asked = _Asked(layout, head, split, backbones, fitted_on)
    found = _found(asked, datasets)
    measured = [_measure_with(asked, each, on_progress) for each in found]
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
        versions=versions(),
        fitted_on=fitted_on or "",
    )
    one = found[0].dataset if len(found) == 1 else None
    path = comparison_path(
        layout, head, found[0].runs.members, against, dataset=one, fitted_on=fitted_on
    )
    save_record(layout, path, comparison)
    return comparison


def _found(asked: _Asked, datasets: Sequence[str] | None) -> list[Found]:
    """Find the data sets and the fresh runs that are applied to them: one ensemble's."""
    layout, head, fitted_on = asked.layout, asked.head, asked.fitted_on
    if fitted_on is None:
        names = datasets_with_runs(layout, datasets or (), head)
    else:
        others = datasets or others_that_share_classes(layout, fitted_on, head, asked.split)
        names = tuple(sorted(set(others)))
    present = Present(layout)
    found = [_find(asked, present, name) for name in names]
    _check_one_ensemble(found, layout.root)
    return found


def _measure_with(
    asked: _Asked,
    each: Found,
    on_progress: Callable[[str, int, int], None],
    *,
    keep_scores: bool = False,
) -> Measured:
    def on_rows(done: int, rows: int) -> None:
        on_progress(each.dataset, done, rows)

    return _measure(asked, each, keep_scores=keep_scores, on_progress=on_rows)


def _find(asked: _Asked, present: Present, dataset: str) -> Found:
    """Read the headers of the runs for a data set, and refuse what is stale."""
    layout, head, split, fitted_on = asked.layout, asked.head, asked.split, asked.fitted_on
    runs = find_runs(layout, fitted_on or dataset, head, asked.backbones)
    refuse_stale_runs(present, runs)
    sources = []
    for name in runs.backbones:
        files = [runs.logits(layout, name, run) for run in runs.paths]
        if HEADS.get(head).per_draw and not HEADS.get(head).texts_suffice:
            files.insert(0, layout.logits(runs.dataset, REFERENCE_HEAD, name))
        for path in dict.fromkeys(files):
            logits = read_logit_header(path)
            rows = 0 if fitted_on else logits.rows.get(split, 0)
            sources.append(Source(layout.relative(path), logits.digest, rows))
        if fitted_on:
            path = layout.features(dataset, split, name)
            features = read_feature_header(path)
            sources.append(Source(layout.relative(path), features.digest, features.rows))
    for run, path in runs.paths.items():
        sources.append(Source(layout.relative(path), runs.headers[run].digest, 0))
    return Found(dataset, runs, tuple(sources))


def _check_one_ensemble(found: Sequence[Found], store: Path) -> None:
    first, *others = found
    for other in others:
        if other.runs.backbones != first.runs.backbones:
            raise StoreError(
                f"the fits of {first.dataset} combine {','.join(first.runs.backbones)}, and those "
                f"of {other.dataset} {','.join(other.runs.backbones)}; expected one ensemble: name "
                f"its backbones with --backbones, or run `{_one_ensemble(first, other, store)}`"
            )


def _one_ensemble(first: Found, other: Found, store: Path) -> str:
    """Spell what brings two data sets closer to one ensemble: logits that one lacks, or the fits."""
    head, layout = first.runs.head, Layout(store)
    both = [first.runs.dataset, other.runs.dataset]
    every = sorted({*first.runs.backbones, *other.runs.backbones})
    for dataset in both:
        lacking = [b for b in every if b not in backbones_with_logits(layout, dataset, head)]
        if lacking and head == "zero-shot":
            return command("extract", dataset=dataset, backbones=lacking, store=store)
        if lacking:
            return command(
                "train-heads", dataset=dataset, head=head, backbones=lacking, store=store
            )
    return command("train-nlc", dataset=both, head=head, backbones=every, store=store)


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
        *(split, versions(), {**METRICS.facts, **spent}, published_digest(), _methods(found)),
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


def _evaluation(
    asked: _Asked,
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
        versions=versions(),
        published_digest=published_digest(),
        fitted_on=asked.fitted_on or "",
    )


def _measure(
    asked: _Asked, found: Found, *, keep_scores: bool, on_progress: Callable[[int, int], None]
) -> Measured:
    runs = found.runs
    per_draw = HEADS.get(asked.head).per_draw
    reference = reference_of(runs)
    together = runs if not per_draw else replace(runs, head=reference.head, paths={}, headers={})
    with _target(asked, found, reference.head, reference.run) as target:
        predictions, alone, given = predictions_and_outcomes(
            asked.layout, together, target, keep_scores=keep_scores, on_progress=on_progress
        )
    numbers = [runs.backbones.index(name) for name in reference.backbones]
    alone, predictions = {n: alone[n] for n in reference.backbones}, predictions[numbers]
    outcomes: dict[Setting, dict[int, Outcome]] = references(alone, predictions, target.labels)
    for name in reference.fitted:  # of them, what is known without labels is nothing
        outcomes.pop(Setting.unfitted(name, "backbone"), None)
    for run in runs.paths if per_draw else ():
        which = Labels.parse(run)
        with _target(asked, found, asked.head, run) as its_own:
            check_same_rows(target, its_own)
            _, alone_here, given_here = predictions_and_outcomes(
                asked.layout,
                replace(runs, paths={run: runs.paths[run]}, headers={run: runs.headers[run]}),
                its_own,
                keep_scores=keep_scores,
                on_progress=on_progress,
            )
        taught = images_taught(asked.layout, runs, run)
        given |= {e: o._replace(unlabelled=taught or o.unlabelled) for e, o in given_here.items()}
        labels = max(outcome.labels for outcome in given_here.values())
        for name, outcome in alone_here.items():
            if reference.run is not None and name not in reference.fitted:
                continue  # it needs no labels, and has answered above
            its = outcomes.setdefault(Setting(name, "backbone", which.setting), {})
            its[which.seed] = outcome._replace(labels=labels, unlabelled=taught)
    for (run, name), outcome in given.items():
        which = Labels.parse(run)
        outcomes.setdefault(Setting(name, kind_of(name), which.setting), {})[which.seed] = outcome
    # Others publish zero-shot heads on test images.
    own = (asked.head, asked.split) == PUBLISHED and runs.dataset == found.dataset
    return Measured(
        dataset=found.dataset,
        sources=found.sources,
        backbones=reference.backbones,
        classes=len(target.class_names),
        sample_id=target.sample_id,
        labels=target.labels,
        predictions=predictions,
        outcomes=outcomes,
        published=beside_published(found.dataset, alone, target.labels) if own else (),
        cluster=cluster_of(found.dataset),
        pool=pool_labels(asked.layout, runs),
        notes=(*_left_out(target.unknown, runs.dataset), *filter(None, [reference.note])),
    )


def _target(
    asked: _Asked, found: Found, head: str, run: str | None = None
) -> AbstractContextManager[Target]:
    """Open what is predicted, under one head; `run` where that is fitted per draw."""
    layout, runs = asked.layout, found.runs
    if runs.dataset == found.dataset:
        return stored_target(
            layout, found.dataset, asked.split, head=head, backbones=runs.backbones, run=run
        )
    return foreign_target(
        layout,
        found.dataset,
        asked.split,
        source=runs.dataset,
        head=head,
        backbones=runs.backbones,
        run=run,
    )


def _left_out(unknown: Mapping[str, int], source: str) -> tuple[str, ...]:
    """Say how many images of which classes the fits know nothing of."""
    if not unknown:
        return ()
    images, classes = sum(unknown.values()), len(unknown)
    what = f"{images} image{'s' * (images != 1)} of {classes} class{'es' * (classes != 1)}"
    were = "were" if images > 1 else "was"
    return (f"{what} that {source} does not have {were} left out: {', '.join(unknown)}.",)
