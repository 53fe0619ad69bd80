"""Finds what `evaluate` is to measure: data sets, and the fresh runs that are applied to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipnlc.commands import command
from clipnlc.errors import DataError, StoreError
from clipnlc.heads import HEADS
from clipnlc.labels import UNLABELLED
from clipnlc.reports.record import Source
from clipnlc.runs.finding import (
    Runs,
    backbones_with_logits,
    datasets_with_runs,
    find_runs,
    others_that_share_classes,
    refuse_crop,
)
from clipnlc.runs.freshness import Present, refuse_stale_runs
from clipnlc.runs.packages import find_member
from clipnlc.stages.evaluate.reference import REFERENCE_HEAD
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """What was asked for, whichever the data set."""

    layout: Layout
    head: str
    split: str
    backbones: Sequence[str] | None
    fitted_on: str | None

    def __post_init__(self) -> None:
        """Refuse a split that is not measured."""
        refuse_crop(self.split)


@dataclass(frozen=True)
class Found:
    """One data set and the fresh runs that are applied to it, before any array is read."""

    dataset: str
    runs: Runs
    sources: tuple[Source, ...]


def found_runs(asked: Asked, datasets: Sequence[str] | None) -> list[Found]:
    """Find the data sets and the fresh runs that are applied to them: one ensemble's."""
    layout, head, fitted_on = asked.layout, asked.head, asked.fitted_on
    find_member(HEADS, head, layout)
    if fitted_on is None:
        names = _measurable(
            layout,
            asked.split,
            datasets_with_runs(layout, datasets or (), head),
            named=bool(datasets),
        )
    else:
        others = datasets or others_that_share_classes(layout, fitted_on, head, asked.split)
        names = tuple(sorted(set(others)))
    present = Present(layout)
    found = [_find(asked, present, name) for name in names]
    _check_one_ensemble(found, layout.root)
    return found


def labelled_in_part(layout: Layout, dataset: str, split: str) -> bool:
    """Return whether a data set has images without labels, and no such split to measure on."""
    splits = layout.splits(dataset)
    return UNLABELLED in splits and split not in splits


def _measurable(
    layout: Layout, split: str, names: tuple[str, ...], *, named: bool
) -> tuple[str, ...]:
    """Leave out what is labelled in part; refuse it where it was named, or where nothing is left."""
    partial = [name for name in names if labelled_in_part(layout, name, split)]
    if partial and (named or len(partial) == len(names)):
        raise DataError(
            f"{partial[0]} has labels for some images only, and no {split} split to measure on; its "
            "accuracy is cross-fitted by `clipnlc run PHOTOS --labels FILE`, where --test-share makes "
            f"a {split} split of the labelled images"
        )
    return tuple(name for name in names if name not in partial)


def _find(asked: Asked, present: Present, dataset: str) -> Found:
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
