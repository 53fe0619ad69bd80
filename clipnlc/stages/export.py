"""Hand on one fit of a store as a folder that needs no store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipnlc.backbones import parse
from clipnlc.backbones.weights import hub_repository
from clipnlc.combiners import COMBINERS, RECOMMENDED
from clipnlc.commands import command
from clipnlc.errors import BackboneError, DataError, UnknownNameError
from clipnlc.export import Measurement
from clipnlc.labels import Labels
from clipnlc.metrics.intervals import accuracy_interval
from clipnlc.reports.card import model_card
from clipnlc.runs.exported import export_of
from clipnlc.runs.finding import Runs, find_runs, only_dataset
from clipnlc.runs.freshness import Present
from clipnlc.runs.predictor import is_drawn, only_labels, open_predictor
from clipnlc.runs.records import (
    cross_fit_path,
    evaluation_path,
    read_cross_fit,
    read_evaluation,
)
from clipnlc.stores.export import write_export
from clipnlc.stores.layout import Layout, locate

if TYPE_CHECKING:
    from pathlib import Path

    from clipnlc.reports.record import DatasetEvaluation


@dataclass(frozen=True)
class Exported:
    """One exported folder.

    Attributes:
        folder: where it is.
        dataset, head, combiner: what was exported.
        run: the name of the labels that the combiner was fitted on.
        backbones: the ensemble.
        classes: how many.
        measured: what is known of its accuracy; empty where this very fit was not measured.
        cached: whether the same folder was there already.
        bytes: size of the folder.
        evaluate: the command that measures it.
    """

    folder: str
    dataset: str
    head: str
    combiner: str
    run: str
    backbones: tuple[str, ...]
    classes: int
    measured: tuple[Measurement, ...]
    cached: bool
    bytes: int
    evaluate: str


def export(
    *,
    store: Path,
    out: Path,
    dataset: str | None = None,
    head: str = "zero-shot",
    combiner: str = RECOMMENDED[0],
    which: Labels | None = None,
    seed: int = 0,
    backbones: Sequence[str] | None = None,
    force: bool = False,
) -> Exported:
    """Write one fit, the heads below it and a model card into a folder of its own.

    Args:
        store: root of the store.
        out: the folder: absent, empty, or an earlier export.
        dataset: what was fitted on; by default the only one with fits.
        head: whose logits.
        combiner: its name.
        which: the labels that it was fitted on; by default the only ones with this seed.
        seed: where `which` is not given.
        backbones: the ensemble; by default every backbone with logits, or the only one with fits.
        force: replace the export of another fit.

    Raises:
        DataError: there are several data sets, or labels, and none was named; the combiner looks at
            other images than the one it predicts.
        MissingStageError: there is no such fit.
        StoreError: the fit is stale; a file is damaged; `out` holds something else.
        UnknownNameError: no combiner has this name.
    """
    layout = Layout(store)
    known = COMBINERS.get(combiner)
    if known.reads_test:
        raise DataError(
            f"{combiner} reads all images that it predicts together, and an export answers for one; "
            "expected a combiner that can be used, as gp"
        )
    if not known.row_wise:
        raise DataError(
            f"{combiner} looks at other images than the one it predicts, to be compared with; "
            "expected a combiner that can be used, as gp"
        )
    if dataset is None:
        dataset = only_dataset(layout, head)
    if which is None or not is_drawn(head, combiner):
        which = only_labels(
            layout, dataset, head=head, combiner=combiner, backbones=backbones, seed=seed
        )
    predictor = open_predictor(
        layout, dataset, head=head, combiner=combiner, which=which, backbones=backbones
    )
    runs = find_runs(layout, dataset, head, backbones)
    measured = (
        *_cross_fitted(layout, runs, combiner, which),
        *_measured(layout, runs, combiner, which),
    )
    exported = export_of(predictor, measured)
    card = model_card(exported, folder=out.resolve().name, base_models=_on_hub(runs.backbones))
    written = write_export(out, exported, card=card, force=force)
    return Exported(
        folder=str(out),
        dataset=dataset,
        head=head,
        combiner=combiner,
        run=which.name,
        backbones=runs.backbones,
        classes=len(exported.class_names),
        measured=measured,
        cached=not written,
        bytes=sum(path.stat().st_size for path in out.iterdir() if path.is_file()),
        evaluate=command(
            "evaluate",
            dataset=dataset,
            head=None if head == "zero-shot" else head,
            backbones=backbones,
            store=store,
        ),
    )


def _cross_fitted(
    layout: Layout, runs: Runs, combiner: str, which: Labels
) -> Iterator[Measurement]:
    """Yield what is known of the accuracy of this very fit from its own labels."""
    path = cross_fit_path(
        layout, runs.head, runs.members, combiner, which.name, dataset=runs.dataset
    )
    if not os.path.lexists(path):
        return
    record = read_cross_fit(layout, path)
    if record.fit == runs.headers[which.name].digests[combiner]:
        yield Measurement(
            dataset=record.dataset,
            split="train",
            images=record.count,
            accuracy=record.accuracy,
            low=record.low,
            high=record.high,
            estimate="cross-fitted" if record.random else "cross-fitted-chosen",
        )


def _measured(layout: Layout, runs: Runs, combiner: str, which: Labels) -> Iterator[Measurement]:
    """Yield what evaluate's records say of this very fit, on its own data set and on others."""
    present = Present(layout)
    for dataset in (runs.dataset, *(d for d in layout.datasets() if d != runs.dataset)):
        fitted_on = None if dataset == runs.dataset else runs.dataset
        path = evaluation_path(
            layout, runs.head, runs.members, dataset=dataset, fitted_on=fitted_on
        )
        if not os.path.lexists(path):
            continue
        record = read_evaluation(layout, path)
        for one in record.datasets:
            if _is_of(one, layout, runs, which, present):
                yield from _rows(one, record.split, combiner, which)


def _is_of(
    one: DatasetEvaluation, layout: Layout, runs: Runs, which: Labels, present: Present
) -> bool:
    """Whether it was measured of the fit, the heads and the images that the store has now."""
    mine = layout.relative(runs.paths[which.name])
    sources: Mapping[str, str] = {source.path: source.digest for source in one.sources}
    if sources.get(mine) != runs.headers[which.name].digest:
        return False
    return all(
        present.digest(path) == digest
        for path, digest in sources.items()
        if not _is_fit(layout, path)
    )


def _is_fit(layout: Layout, path: str) -> bool:
    location = locate(layout.root / path)
    return location is not None and location.kind in ("fits", "combined")


def _rows(
    one: DatasetEvaluation, split: str, combiner: str, which: Labels
) -> Iterator[Measurement]:
    for row in one.rows:
        if row.method != combiner or row.drawn != which.setting:
            continue
        for seed, accuracy in zip(row.seeds, row.accuracies, strict=True):
            if seed == which.seed:
                found = accuracy_interval(accuracy, one.samples)
                yield Measurement(one.dataset, split, one.samples, accuracy, found.low, found.high)


def _on_hub(backbones: Sequence[str]) -> dict[str, str]:
    """Return the hub's names of the backbones that have one."""
    found = {}
    for name in backbones:
        try:
            backbone = parse(name)
            repository = hub_repository(backbone) if backbone.source == "tag" else ""
        except (BackboneError, UnknownNameError):  # the name of a weights file, without its place
            continue
        if repository:
            found[name] = repository
    return found
