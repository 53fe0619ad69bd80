"""A fitted ensemble as a teacher: its probabilities of the classes on the images of train."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from clipnlc.combiners import COMBINERS
from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError
from clipnlc.fitting import row_blocks, softmax
from clipnlc.labels import Labels, ranks
from clipnlc.runs.finding import Runs, backbones_with_logits, find_runs, read_fitted, usual_teacher
from clipnlc.runs.fitted import Fitted, apply
from clipnlc.runs.freshness import PART, Present, refuse_stale_runs
from clipnlc.stores.aligned import Columns, open_split
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.key import Json
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

HEAD: Final = "zero-shot"
"""Whose logits teachers combine."""

SPLIT: Final = "train"

TARGET_CELLS: Final = 2**25
"""Probabilities that a student learns from at most: 33,000 images of 1,000 classes, at random. Its
fit holds a dozen arrays as large."""


class Lesson(NamedTuple):
    """What a teacher says of some rows of train.

    Attributes:
        columns: all of train; classes are in the order of the probabilities.
        rows: numbers of rows, ascending.
        targets: a row for each of them, with sum 1.
    """

    columns: Columns
    rows: Int64[np.ndarray, " rows"]
    targets: Float32[np.ndarray, "rows classes"]


@dataclass(frozen=True)
class Teacher:
    """A fit of a combiner on the zero-shot logits of every backbone.

    Attributes:
        layout: the store.
        dataset: what it was fitted on.
        fitted: the combiner.
        digest: names what it learnt.
        inputs: what its probabilities are made from: name in the store -> digest.
    """

    layout: Layout
    dataset: str
    fitted: Fitted
    digest: str
    inputs: Mapping[str, str]

    @property
    def facts(self) -> dict[str, Json]:
        """What tells it from another teacher."""
        backbones = sorted(self.fitted.backbones)
        return {"combiner": self.fitted.name, "fit": self.digest, "backbones": backbones}

    @cached_property
    def lesson(self) -> Lesson:
        """Its probabilities on train, or on as many rows at random as `TARGET_CELLS` allows.

        Raises:
            StoreError: files are damaged or do not hold the same samples; it cannot be applied.
        """
        backbones = sorted(self.fitted.backbones)
        logits = {b: self.layout.logits(self.dataset, HEAD, b) for b in backbones}
        needed = backbones if self.fitted.combiner.needs_features else []
        features = {b: self.layout.features(self.dataset, SPLIT, b) for b in needed}
        with open_split(logits, features, SPLIT) as split:
            classes = len(split.class_names)
            order = np.argsort(ranks(split.sample_id, draw="pool"))
            rows = np.sort(order[: max(1, TARGET_CELLS // classes)])
            targets = np.empty((len(rows), classes), dtype=np.float32)
            width = len(backbones) * classes + (split.feature_width if needed else 0)
            for block in row_blocks(len(rows), width):
                ensemble = split.ensemble(rows[block], features=bool(needed))
                targets[block] = softmax(apply(self.fitted, ensemble).combined(ensemble))
            path = next(iter(logits.values()))
            columns = Columns(path, split.class_names, split.sample_id, split.labels)
        return Lesson(columns, rows, targets)


def find_teachers(
    layout: Layout, dataset: str, name: str | None, runs: Sequence[Labels]
) -> dict[Labels, Teacher]:
    """Read the teacher of every run: the fit on the very same labels.

    Args:
        layout: the store.
        dataset: what is learnt.
        name: of the combiner; by default that of `usual_teacher`.
        runs: which labels.

    Raises:
        DataError: the combiner cannot teach, or not on these labels.
        MissingStageError: it was not fitted on some of them.
        StoreError: a fit is stale; a file is damaged.
        UnknownNameError: no combiner has this name.
    """
    names = {which: name or usual_teacher(which) for which in runs}
    for which, its in names.items():
        _check_teaches(its, which)
    if not names:
        return {}
    found: Runs | None = None
    try:
        found = find_runs(layout, dataset, HEAD, backbones_with_logits(layout, dataset, HEAD))
    except MissingStageError:
        lacking = list(names)
    else:
        lacking = [
            which
            for which, its in names.items()
            if which.name not in found.paths or its not in found.headers[which.name].keys
        ]
    if lacking or found is None:
        first = min(lacking)
        cure = command(
            "train-nlc",
            dataset=dataset,
            combiners=list(dict.fromkeys(names[which] for which in lacking)),
            store=layout.root,
            **Labels.options(lacking),
        )
        raise MissingStageError(
            f"{layout.root} holds no fit of {names[first]} {first.phrase} (seed {first.seed}) on the "
            f"{HEAD} logits of every backbone of {dataset} to learn from; run `{cure}` first"
        )
    refuse_stale_runs(Present(layout), found, {which.name: [its] for which, its in names.items()})
    return {which: _teacher(layout, found, which, its) for which, its in names.items()}


def _check_teaches(name: str, which: Labels) -> None:
    cls = COMBINERS.get(name)
    other = f"give another --teacher, as {usual_teacher(which)}"
    if not cls.row_wise:
        raise DataError(f"{name} answers an image by looking at the others with it; {other}")
    if not cls.probabilistic:
        raise DataError(f"{name} does not give an image probabilities of the classes; {other}")
    if which.kind == "none" and cls.needs_labels:
        raise DataError(f"the teacher {name} needs labels; give --shots 1 or more, or {other}")
    if which.kind != "none" and not cls.learns_from_labels():
        raise DataError(f"the teacher {name} learns from no label; give --shots 0, or {other}")


def _teacher(layout: Layout, runs: Runs, which: Labels, name: str) -> Teacher:
    path, header = runs.paths[which.name], runs.headers[which.name]
    fitted = read_fitted(runs, which.name, [name])[name]
    inputs = {f"{layout.relative(path)}{PART}{name}": header.digests[name]}
    for backbone in runs.backbones:
        logits = layout.logits(runs.dataset, HEAD, backbone)
        part = read_logit_header(logits).split_digests.get(SPLIT, "")
        inputs[f"{layout.relative(logits)}{PART}{SPLIT}"] = part
        if fitted.combiner.needs_features:
            features = layout.features(runs.dataset, SPLIT, backbone)
            inputs[layout.relative(features)] = read_feature_header(features).digest
    return Teacher(layout, runs.dataset, fitted, header.digests[name], inputs)
