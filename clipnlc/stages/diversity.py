"""Measure how differently the backbones of a store see the same samples."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipnlc.commands import command
from clipnlc.errors import ClipnlcError, DataError, StoreError
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.measures import Facts, Square
from clipnlc.metrics import PAIRWISE
from clipnlc.metrics.accuracy import backbone_accuracies, best_single_accuracy, oracle_accuracy
from clipnlc.metrics.diversity import share_right_for_some
from clipnlc.reports.record import (
    Correlation,
    Diversity,
    DiversityReport,
    Matrix,
    Row,
    Source,
    defined,
    versions,
)
from clipnlc.runs.finding import datasets_with_logits, refuse_crop
from clipnlc.runs.freshness import Present, refuse_stale_logits
from clipnlc.runs.members import members_name
from clipnlc.runs.mixture import AUTO, ZERO_SHOT, label_free_logits, refuse_lacking
from clipnlc.runs.packages import find_member, packages_of
from clipnlc.runs.records import (
    diversity_path,
    evaluation_path,
    read_diversity,
    read_evaluation,
    save_record,
)
from clipnlc.stores.aligned import open_ensemble
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

TEST = "test"
"""The split that the command measures."""

FEWEST = 3  # data sets from which a rank correlation is worth a line


def diversity(
    *,
    store: Path,
    datasets: Sequence[str] | None = None,
    head: str = "zero-shot",
    split: str = TEST,
    backbones: Sequence[str] | None = None,
    features: bool = True,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> DiversityReport:
    """Measure pairs and the whole ensemble of backbones, per data set and on average.

    Where `evaluate` has left records of the same logits of at least three data sets, the oracle's
    gain and the diversity are also ranked against NLC's gain. Writes a record (see `runs.records`);
    the same stores give the same bytes. What the record that is there says of the very same files
    is not measured again.

    Args:
        store: root of the store.
        datasets: names in the store; by default every one with logits of this head.
        head: whose logits are compared; under `auto` those of the zero-shot head, or that a
            backbone came with.
        split: whose samples are predicted.
        backbones: those to compare, in this order; by default all that have logits.
        features: also compare the features, by linear CKA.
        on_progress: called with (data sets done, data sets) after each one measured.

    Raises:
        DataError: the head is fitted per draw of labels; a backbone lacks the texts or features that
            the head reads.
        MissingStageError: logits or features have not been made.
        StoreError: logits are stale, not aligned, or of different backbones; a file is damaged;
            the record cannot be written.
    """
    plan = _Plan.of(Layout(store), datasets, head, split, backbones=backbones, features=features)
    measured = []
    for done, files in enumerate(plan.files, start=1):
        known = plan.kept.get(files.dataset)
        if known is not None and known.sources == files.sources:
            measured.append(known)
            continue
        measured.append(_measure(files, plan.measures))
        on_progress(done, len(plan.files))
    members = members_name(plan.backbones)
    report = DiversityReport(
        head=head,
        split=split,
        backbones=plan.backbones,
        measures=plan.measures,
        datasets=tuple(measured),
        mean=_mean(measured),
        correlations=tuple(_correlations(plan.layout, measured, head, split, members)),
        versions=plan.made_with,
    )
    save_record(plan.layout, plan.path, report)
    return report


def is_measurable(
    *,
    store: Path,
    datasets: Sequence[str] | None = None,
    head: str = "zero-shot",
    backbones: Sequence[str] | None = None,
) -> bool:
    """Return whether `diversity` finds what it needs, by the headers of the files alone.

    It never raises: whoever offers the command as the next one has done his own work well.

    Args:
        store: as for `diversity`; so are the others.
        datasets: likewise.
        head: likewise.
        backbones: likewise.
    """
    try:
        _Plan.of(Layout(store), datasets, head, TEST, backbones=backbones, features=True)
    except (ClipnlcError, OSError):
        return False
    return True


def _datasets(layout: Layout, datasets: Sequence[str], head: str) -> tuple[str, ...]:
    """Return the data sets named, or all with logits; `auto` takes those of other heads."""
    if head != AUTO:
        return datasets_with_logits(layout, datasets, head)
    found = tuple(datasets) or tuple(name for name in layout.datasets() if layout.splits(name))
    return found or datasets_with_logits(layout, (), ZERO_SHOT)


def _ensemble(layout: Layout, datasets: Sequence[str], head: str, split: str) -> tuple[str, ...]:
    """Return the backbones that have logits, which must be the same for every data set."""

    def with_logits(dataset: str) -> tuple[str, ...]:
        if head == AUTO:
            return layout.backbones(dataset, split)
        return layout.logit_backbones(dataset, head)

    first = with_logits(datasets[0])
    for dataset in datasets[1:]:
        other = with_logits(dataset)
        if other != first:
            raise StoreError(
                f"{datasets[0]} has {head} logits of {','.join(first)}, and {dataset} of "
                f"{','.join(other)}; expected the same: name those to compare with --backbones"
            )
    return first


# Measuring -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """The files that one data set's measures are made of, checked to be fresh."""

    dataset: str
    split: str
    logits: Mapping[str, Path]
    features: Mapping[str, Path]
    sources: tuple[Source, ...]

    @classmethod
    def of(
        cls,
        layout: Layout,
        dataset: str,
        head: str,
        split: str,
        backbones: Sequence[str],
        *,
        features: bool,
    ) -> "_Files":
        logits = label_free_logits(layout, dataset, head, backbones)
        seen = {n: layout.features(dataset, split, n) for n in backbones} if features else {}
        sources = []
        refuse_stale_logits(Present(layout), map(layout.relative, logits.values()))
        for path in logits.values():
            header = read_logit_header(path)
            sources.append(Source(layout.relative(path), header.digest, header.rows.get(split, 0)))
        for path in seen.values():
            found = read_feature_header(path)
            sources.append(Source(layout.relative(path), found.digest, found.rows))
        return cls(dataset, split, logits, seen, tuple(sources))


@dataclass(frozen=True)
class _Plan:
    """What is to be measured, and all that it takes: headers were read, and are fresh."""

    layout: Layout
    backbones: tuple[str, ...]
    path: Path
    measures: Mapping[str, Facts]
    made_with: Mapping[str, str]
    kept: Mapping[str, Diversity]
    files: tuple[_Files, ...]

    @classmethod
    def of(
        cls,
        layout: Layout,
        datasets: Sequence[str] | None,
        head: str,
        split: str,
        *,
        backbones: Sequence[str] | None,
        features: bool,
    ) -> "_Plan":
        if find_member(HEADS, head, layout).per_draw and head != AUTO:
            raise DataError(
                f"the head {head} is fitted for each draw of labels by itself; expected a head that is "
                "fitted once: choose --head zero-shot or linear"
            )
        refuse_crop(split)
        names = _datasets(layout, sorted(set(datasets or ())), head)
        for name in names if head != AUTO else ():
            refuse_lacking(layout, name, head, backbones or ())
        ensemble = (
            tuple(backbones) if backbones is not None else _ensemble(layout, names, head, split)
        )
        _refuse_one(layout, names, ensemble, named=backbones is not None)
        path = diversity_path(
            layout, head, members_name(ensemble), dataset=names[0] if len(names) == 1 else None
        )
        measures = {
            name: PAIRWISE.get(name).facts
            for name in PAIRWISE
            if features or PAIRWISE.get(name).reads == "predictions"
        }
        made_with = {**versions(), **packages_of(HEADS, [head]), **packages_of(PAIRWISE, measures)}
        return cls(
            layout=layout,
            backbones=ensemble,
            path=path,
            measures=measures,
            made_with=made_with,
            kept=_kept(layout, path, split, measures, made_with),
            files=tuple(
                _Files.of(layout, name, head, split, ensemble, features=features) for name in names
            ),
        )


def _refuse_one(
    layout: Layout, names: Sequence[str], ensemble: Sequence[str], *, named: bool
) -> None:
    if len(ensemble) != 1:
        return
    cure = f"run `{command('extract --backbones …', dataset=names, store=layout.root)}`"
    if named:
        cure = "name more of them with --backbones"
    raise StoreError(
        f"there is only {ensemble[0]} to compare; expected at least two backbones: {cure}"
    )


def _kept(
    layout: Layout,
    path: Path,
    split: str,
    measures: Mapping[str, Facts],
    made_with: Mapping[str, str],
) -> dict[str, Diversity]:
    """Return what the record that is there says of each data set, if the same code measured it."""
    if not os.path.lexists(path):  # a link to nowhere is refused
        return {}
    record = read_diversity(layout, path)
    if (record.split, record.versions, record.measures) != (split, made_with, measures):
        return {}
    return {one.dataset: one for one in record.datasets}


def _measure(files: _Files, measures: Iterable[str]) -> Diversity:
    opened = open_ensemble(files.logits, files.features, files.split)
    predictions, labels = opened.ensemble.logits.argmax(axis=2), opened.labels
    matrices: dict[str, Square] = {}
    for name in measures:
        row = PAIRWISE.get(name)
        features = row.reads == "features"
        matrices[name] = row(opened.ensemble.features) if features else row(predictions, labels)
    means = {measure: _pair_mean(matrix) for measure, matrix in matrices.items()}
    return Diversity(
        dataset=files.dataset,
        samples=len(labels),
        accuracies=tuple(float(a) for a in backbone_accuracies(predictions, labels)),
        right_for_some=share_right_for_some(predictions, labels),
        oracle=oracle_accuracy(predictions, labels),
        best_single=best_single_accuracy(predictions, labels),
        matrices={measure: _as_record(matrix) for measure, matrix in matrices.items()},
        pair_means=means,
        sources=files.sources,
        notes=_undefined([m for m, matrix in matrices.items() if np.isnan(matrix).any()]),
    )


def _pair_mean(matrix: Square) -> float | None:
    """Average over pairs of unlike backbones, where defined."""
    pairs = matrix[np.triu_indices(len(matrix), k=1)]
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if known.size else None


def _as_record(matrix: Square) -> Matrix:
    return tuple(tuple(defined(value) for value in row) for row in matrix.tolist())


def _mean(measured: Sequence[Diversity]) -> Diversity:
    """Average over data sets, each counting once; entries where they are defined."""
    matrices = {}
    for measure in measured[0].matrices:
        stack = np.array([one.matrices[measure] for one in measured], dtype=np.float64)
        known = ~np.isnan(stack)
        total = np.where(known, stack, 0).sum(axis=0)
        mean = np.full_like(total, math.nan)
        np.divide(total, known.sum(axis=0), out=mean, where=known.any(axis=0))
        matrices[measure] = mean
    return Diversity(
        dataset="mean",
        samples=sum(one.samples for one in measured),
        accuracies=tuple(np.mean([one.accuracies for one in measured], axis=0).tolist()),
        right_for_some=float(np.mean([one.right_for_some for one in measured])),
        oracle=float(np.mean([one.oracle for one in measured])),
        best_single=float(np.mean([one.best_single for one in measured])),
        matrices={measure: _as_record(matrix) for measure, matrix in matrices.items()},
        pair_means={measure: _pair_mean(matrix) for measure, matrix in matrices.items()},
        sources=(),
        notes=(),
    )


# NLC's gain ------------------------------------------------------------------------------------


def _correlations(
    layout: Layout, measured: Sequence[Diversity], head: str, split: str, members: str
) -> list[Correlation]:
    """Rank the data sets by diversity and by NLC's gain, for everything NLC was fitted on."""
    rows = [_nlc_rows(layout, one, head, split, members) for one in measured]
    settings = [s for s in rows[0] if all(s in its for its in rows)]
    if len(measured) < FEWEST or not settings:
        return []
    from scipy.stats import spearmanr  # noqa: PLC0415  (a second that most calls can spare)

    ranked = {
        "oracle-gain": [one.oracle_gain for one in measured],
        "right-for-some": [one.right_for_some for one in measured],
    }
    correlations = []
    for measure, values in ranked.items():
        for setting in settings:
            gains = [its[setting].gain for its in rows]
            constant = len(set(values)) == 1 or len(set(gains)) == 1
            rho, p = (math.nan, math.nan) if constant else spearmanr(values, gains)
            correlations.append(
                Correlation(
                    measure,
                    setting,
                    rho=defined(float(rho)),
                    p=defined(float(p)),
                    datasets=len(measured),
                )
            )
    return correlations


def _nlc_rows(
    layout: Layout, one: Diversity, head: str, split: str, members: str
) -> Mapping[Labels, Row]:
    """Return evaluate's rows of NLC by setting, if its record is of these very logits."""
    path = evaluation_path(layout, head, members, dataset=one.dataset)
    if not os.path.lexists(path):  # a link to nowhere is refused
        return {}
    record = read_evaluation(layout, path)
    (its,) = record.datasets
    logits = {(s.path, s.digest) for s in one.sources if s.path.split("/")[1] == "logits"}
    theirs = {(s.path, s.digest) for s in its.sources if s.path.split("/")[1] == "logits"}
    if record.split != split or logits != theirs:
        return {}
    return {r.drawn: r for r in its.rows if r.method == "nlc"}


def _undefined(measures: Sequence[str]) -> tuple[str, ...]:
    if not measures:
        return ()
    where = "where a backbone is always or never right, always says the same, or has no features"
    return (f"undefined for some pairs, {where}: {', '.join(measures)}",)
