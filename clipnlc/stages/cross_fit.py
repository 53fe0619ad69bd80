"""The accuracy of a fit on few labels, estimated on these labels by cross-fitting; test is not read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.digests import content_digest
from clipnlc.ensemble import by_name
from clipnlc.errors import DataError
from clipnlc.heads import HEADS
from clipnlc.labels import UNLABELLED, canonical_rows
from clipnlc.reports.record import CrossFit, Fewer
from clipnlc.runs.cross_fitting import FOLDS, CrossFitted, cross_fit
from clipnlc.runs.finding import Runs, read_fitted
from clipnlc.runs.pools import read_pool
from clipnlc.runs.predictor import find_fit, missing_fit
from clipnlc.runs.records import cross_fit_path, read_cross_fit, save_record
from clipnlc.stores.aligned import open_split
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

if TYPE_CHECKING:
    from pathlib import Path

    from clipnlc.labels import Labels


def cross_fitted(
    *,
    store: Path,
    dataset: str,
    which: Labels,
    combiner: str,
    head: str = "zero-shot",
    backbones: Sequence[str] | None = None,
    drawn: bool = True,
    folds: int = FOLDS,
) -> CrossFitted:
    """Estimate the accuracy of a fit of `train-nlc` on the labels that it was fitted on.

    Every labelled image is answered for by a fit on the labels of other folds, with the same
    settings. Where the data set has a split `unlabelled`, its images are learnt from without labels,
    as those of train are. Which labels there are in that split is not looked at. A record of it is
    left in the store, which `export` reads; of the same fit and images it is returned at once.

    Args:
        store: the store's folder.
        dataset: its key.
        which: the labels that the fit was made on.
        combiner: its name.
        head: one that no label was used for, as `zero-shot`.
        backbones: the ensemble; by default every backbone with logits, or the only one with fits.
        drawn: whether the labelled images are a random draw from all of them.
        folds: at most.

    Raises:
        DataError: there are not two labelled images; the head or the combiner cannot be
            cross-fitted.
        MissingStageError: there is no such fit.
        StoreError: the fit is stale; store files are damaged or do not fit together.
        UnknownNameError: a combiner or head is not known.
    """
    _refuse(combiner, head)
    layout = Layout(store)
    runs = find_fit(layout, dataset, head=head, combiner=combiner, which=which, backbones=backbones)
    place = cross_fit_path(layout, head, runs.members, combiner, which.name, dataset=dataset)
    fitted = read_fitted(runs, which.name, [combiner])[combiner]
    logits = {name: runs.logits(layout, name, which.name) for name in runs.backbones}
    headers = [read_logit_header(path) for path in logits.values()]
    splits = ("train", UNLABELLED) if all(UNLABELLED in h.rows for h in headers) else ("train",)
    total = sum(headers[0].rows.get(split, 0) for split in splits)
    if os.path.lexists(place):
        known = read_cross_fit(layout, place)
        same = (known.fit, known.random) == (runs.headers[which.name].digests[combiner], drawn)
        if same and known.others == total - known.count and known.folds == min(folds, known.count):
            return _of_record(known)

    def features(split: str) -> dict[str, Path]:
        return {name: layout.features(dataset, split, name) for name in runs.backbones}

    with threadpool_limits(limits=1):  # as where it was fitted
        with open_split(logits, features("train"), "train") as train:
            draw = which.draw(train.labels, train.sample_id, classes=len(train.class_names))
            if len(draw.rows) < 2:  # noqa: PLR2004  (one to fit on and one to judge)
                raise DataError(
                    f"{dataset} has a single labelled image in this fit; cross-fitting takes two or "
                    "more: label more"
                )
            used = [train.sample_id[row] for row in draw.rows]
            if content_digest(used) != fitted.facts["labelled_samples"]:
                raise missing_fit(  # this is another draw than that of the fit
                    layout, dataset, head=head, combiner=combiner, which=which, backbones=backbones
                )
            classes = by_name(train.class_names)
            rows = draw.rows[canonical_rows(used)]
            labelled = train.ensemble(rows, features=True, classes=classes)
            labels = np.argsort(classes)[train.labels[rows]]
            rest = (
                open_split(logits, features(UNLABELLED), UNLABELLED)
                if UNLABELLED in splits
                else nullcontext()
            )
            with rest as others:
                pool = read_pool(
                    [train, others] if others else [train], features=True, classes=classes
                )
        found = cross_fit(
            combiner,
            labelled,
            labels,
            pool=pool,
            which=which,
            settings={n: v for n, v in fitted.settings.items() if n != "seed"},
            others=total - len(rows),
            drawn=drawn,
            folds=folds,
        )
    save_record(layout, place, _record(found, runs, combiner, which))
    return found


def _record(found: CrossFitted, runs: Runs, combiner: str, which: Labels) -> CrossFit:
    return CrossFit(
        dataset=runs.dataset,
        head=runs.head,
        backbones=runs.backbones,
        combiner=combiner,
        run=which.name,
        fit=runs.headers[which.name].digests[combiner],
        count=found.count,
        folds=found.folds,
        others=found.others,
        random=found.drawn,
        accuracy=found.accuracy,
        low=found.low,
        high=found.high,
        fewer=tuple(Fewer(labels, accuracy) for labels, accuracy in found.fewer),
    )


def _of_record(known: CrossFit) -> CrossFitted:
    return CrossFitted(
        accuracy=known.accuracy,
        low=known.low,
        high=known.high,
        count=known.count,
        folds=known.folds,
        others=known.others,
        drawn=known.random,
        fewer=tuple((one.labels, one.accuracy) for one in known.fewer),
    )


def _refuse(combiner: str, head: str) -> None:
    """Check that labels are read by the combiner alone, and images one by one.

    Raises:
        DataError: they are not.
        UnknownNameError: the combiner or the head is not known.
    """
    if HEADS.get(head).needs_labels or HEADS.get(head).per_draw:
        raise DataError(
            f"the head {head} was fitted on labels too, so its combiners cannot be cross-fitted on "
            "them; expected --head zero-shot"
        )
    known = COMBINERS.get(combiner)
    if known.reads_test or not known.row_wise:
        raise DataError(
            f"{combiner} looks at other images than the one it predicts, so it cannot be "
            "cross-fitted; expected a combiner that can be used, as gp"
        )
