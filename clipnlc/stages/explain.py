"""Say how stored fits decide; nothing is fitted, and test is not opened."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from clipnlc.combiners import COMBINERS
from clipnlc.ensemble import by_name
from clipnlc.labels import Labels, ranks
from clipnlc.reports.explained import ClassWeights, Explained
from clipnlc.runs.finding import (
    Runs,
    backbones_with_logits,
    find_runs,
    labelled_split,
    read_fitted,
)
from clipnlc.stores.aligned import open_split
from clipnlc.stores.layout import Layout

ROWS: Final = 1000
"""Images that a decision is explained on, at most: drawn at random, the same for every fit."""


Fits = Mapping[str, Mapping[Labels, Sequence[str]]]
"""Combiners by data set and draw of labels."""


def explain(
    *, store: Path, fits: Fits, backbones: Sequence[str] = (), head: str = "zero-shot"
) -> list[Explained]:
    """Say of each fit how it decides on images of the split that labels are drawn from.

    Those are other images than the few it was fitted on, which a kernel fits too well. Combiners
    that do not say what they decide by are left out.

    Args:
        store: the store's folder.
        fits: which ones; they are there, as `train-nlc` leaves them.
        backbones: of the ensemble; by default every backbone with logits of this head.
        head: whose logits.

    Raises:
        MissingStageError: there is no such fit, or no labelled split.
        StoreError: a file is damaged, or files do not fit together.
    """
    layout = Layout(store)
    found: list[Explained] = []
    for dataset, by_draw in fits.items():
        members = tuple(backbones) or backbones_with_logits(layout, dataset, head)
        runs = find_runs(layout, dataset, head, members)
        for which, names in by_draw.items():
            found += _explained(layout, runs, which, names)
    return found


def _explained(
    layout: Layout, runs: Runs, which: Labels, names: Sequence[str]
) -> Iterator[Explained]:
    run = which.name
    fitted = {name: one.combiner for name, one in read_fitted(runs, run, names).items()}
    features = any(COMBINERS.get(name).needs_features for name in fitted)
    logits = {backbone: runs.logits(layout, backbone, run) for backbone in sorted(runs.backbones)}
    paths = {b: layout.features(runs.dataset, "train", b) for b in logits if features}
    with open_split(logits, paths, labelled_split(runs.head)) as split:
        order = np.argsort(ranks(split.sample_id, draw="explain"))
        rows = np.sort(order[:ROWS])
        # In the order of names, which is that of what was learnt.
        classes = by_name(split.class_names)
        ensemble = split.ensemble(rows, features=features, classes=classes)
        labels = np.argsort(classes)[split.labels[rows]]
    for name, combiner in fitted.items():
        try:
            explained = combiner.explain(ensemble, labels)
        except NotImplementedError:
            continue

        def by_backbone(values: np.ndarray) -> dict[str, float]:
            return dict(zip(ensemble.backbones, values.tolist(), strict=True))

        table = () if explained.by_class is None else explained.by_class
        yield Explained(
            dataset=runs.dataset,
            combiner=name,
            which=which,
            images=len(rows),
            shares={**by_backbone(explained.share), **explained.others},
            weights={} if explained.weight is None else by_backbone(explained.weight),
            by_class=tuple(
                ClassWeights(class_name, {} if np.isnan(values).any() else by_backbone(values))
                for class_name, values in zip(ensemble.class_names, table, strict=False)
            ),
        )
