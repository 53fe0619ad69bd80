"""One head of one backbone: fitted on its rows, and the file of its logits of every split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.digests import content_digest
from clipnlc.errors import DataError
from clipnlc.heads import HEADS, Head
from clipnlc.heads.cross_fitting import cross_fitted_logits
from clipnlc.heads.labelled_rows import LabelledRows
from clipnlc.plugins import blame
from clipnlc.runs.crops import mean_of_crops
from clipnlc.runs.finding import CROSS_FITTED, HOLDOUT
from clipnlc.runs.packages import package_of
from clipnlc.stores.aligned import Columns, check_aligned
from clipnlc.stores.features import FeatureStore, read_features
from clipnlc.stores.key import Json, Key
from clipnlc.stores.logits import (
    LogitBlocks,
    LogitStore,
    SplitLogits,
    read_split,
    write_logits,
)

if TYPE_CHECKING:
    from pathlib import Path

    from clipnlc.labels import Labels
    from clipnlc.runs.teacher import Teacher
    from clipnlc.stores.layout import Layout

_BLOCK: Final = 8192
"""Rows of logits in memory at a time."""

Settings = Mapping[str, int | float | str | bool]


@dataclass(frozen=True)
class HeadTask:
    """The heads of one backbone on one data set, which share what is read.

    Attributes:
        runs: the labels of each head; hold-outs are what it is not fitted on.
        per_run: whether heads are fitted per run, and not on all but a hold-out.
        crops: the features of augmented crops of train, for a head that takes them.
        teachers: by run, for a head that has one.
        part: what answers for the backbone under the head `auto` (`runs.mixture`); else empty.
    """

    layout: Layout
    dataset: str
    backbone: str
    head: str
    settings: Settings
    runs: tuple[Labels, ...]
    per_run: bool
    crops: tuple[Path, ...]
    teachers: Mapping[Labels, Teacher]
    part: str = ""

    def features(self, split: str) -> Path:
        """Return the backbone's feature file of a split."""
        return self.layout.features(self.dataset, split, self.backbone)

    def target(self, which: Labels) -> Path:
        """Return the file that the head of a run is written to."""
        run = which.name if self.per_run else None
        return self.layout.logits(self.dataset, self.head, self.backbone, run)

    def make(self, which: Labels) -> Head:
        """Make the unfitted head of a run."""
        head: Head = HEADS.get(self.head)(seed=which.seed, **self.settings)
        return head

    def key(self, which: Labels, inputs: Mapping[str, str]) -> Key:
        """Return every resolved input of the head of a run by name."""
        rows: dict[str, Json] = (
            {"labels": which.name} if self.per_run else {"holdout": which.amount}
        )
        if HEADS.get(self.head).takes_views:
            rows["crops"] = len(self.crops)
        if which in self.teachers:
            rows["teacher"] = self.teachers[which].facts
            inputs = {**inputs, **self.teachers[which].inputs}
        if self.part:
            rows["part"] = self.part
        return Key.of(
            {
                "head": self.head,
                **package_of(HEADS, self.head),
                "settings": self.make(which).settings(),
                "backbone": self.backbone,
                **rows,
                "inputs": inputs,
            }
        )


@dataclass(frozen=True)
class Rows:
    """What is read for the heads of one backbone.

    Attributes:
        train, test: the two splits.
        zero_shot: classes that the zero-shot head predicts for train; None without texts.
        crops: the mean over augmented crops of each image of train; None without crops.
        imported: logits that the backbone came with, of train and of test; empty where a head is
            fitted.
    """

    train: FeatureStore
    test: FeatureStore
    zero_shot: Int[np.ndarray, " samples"] | None
    crops: Float[np.ndarray, "samples dim"] | None
    imported: Mapping[str, Float[np.ndarray, "samples classes"]]

    @classmethod
    def read(
        cls, train: Path, test: Path, crops: Sequence[Path], imported: Path | None = None
    ) -> Rows:
        """Read the features of two splits, and what else there is.

        Raises:
            MissingStageError: a file, or a split of the imported logits, is not there.
            StoreError: a file is damaged; imported logits or crops are of other samples.
        """
        found = read_features(train)
        predicted = None
        if found.texts is not None and found.logit_scale is not None:
            zero_shot: Head = HEADS.get("zero-shot")()
            zero_shot.fit_to_texts(
                texts=found.texts, logit_scale=found.logit_scale, logit_bias=found.logit_bias
            )
            blocks = (
                zero_shot.logits(found.features[begin : begin + _BLOCK])
                for begin in range(0, len(found.labels), _BLOCK)
            )
            predicted = _predictions(blocks, len(found.labels))
        of_test = read_features(test)
        columns = {"train": _columns(found, train), "test": _columns(of_test, test)}
        logits = (
            {} if imported is None else {s: _imported(imported, s, c) for s, c in columns.items()}
        )
        return cls(found, of_test, predicted, mean_of_crops(found, train, crops), logits)

    def logits(
        self, head: Head | None, split: str, rows: Int[np.ndarray, " rows"]
    ) -> Iterator[Float[np.ndarray, "block classes"]]:
        """Yield the logits of these rows of a split, block by block; without a head, the imported."""
        features = (self.train if split == "train" else self.test).features
        for begin in range(0, len(rows), _BLOCK):
            block = rows[begin : begin + _BLOCK]
            yield self.imported[split][block] if head is None else head.logits(features[block])


def _imported(path: Path, split: str, columns: Columns) -> Float[np.ndarray, "samples classes"]:
    """Read the imported logits of a split, which has the samples of its features."""
    found, class_names = read_split(path, split)
    check_aligned(columns, Columns(path, class_names, found.sample_id, found.labels))
    return found.logits


def _columns(found: FeatureStore, path: Path) -> Columns:
    return Columns(path, found.class_names, found.sample_id, found.labels)


def fit_head(
    task: HeadTask, which: Labels, rows: Rows, key: Key, target: Path
) -> dict[str, int | float | str]:
    """Fit one head, write its file, and return the facts that are in it."""
    train, test = rows.train, rows.test
    drawn = which.draw(train.labels, train.sample_id, classes=len(train.class_names)).rows
    rest = np.setdiff1d(np.arange(len(train.labels)), drawn)
    teacher = task.teachers.get(which)
    kept, held = (drawn, rest) if task.per_run else (rest, drawn)
    if teacher is not None:
        kept = teacher.lesson.rows
    if task.per_run and not len(kept) and which.kind != "none":
        raise DataError(f"{task.dataset} has too few training images to fit {which.phrase}")
    if not task.per_run and not len(held):
        raise DataError(
            f"{task.dataset} has a single training image, so none can be held out for the "
            "combiners; use the zero-shot head"
        )
    facts: dict[str, int | float | str] = {"rows": len(kept), "held_out": len(held)}
    if teacher is not None:
        check_aligned(teacher.lesson.columns, _columns(train, task.features("train")))
        facts |= {"labels": len(drawn)}
        facts |= {"labelled_samples": content_digest([train.sample_id[i] for i in drawn])}
    seen = LabelledRows(
        features=train.features[kept],
        # Of a head that has a teacher: no label is read.
        labels=train.labels[kept] if teacher is None else np.zeros(len(kept), dtype=np.int64),
        sample_id=tuple(train.sample_id[i] for i in kept),
        texts=train.texts,
        logit_scale=train.logit_scale,
        logit_bias=train.logit_bias,
        views=None if rows.crops is None else rows.crops[kept],
        targets=None if teacher is None else teacher.lesson.targets,
        classes=len(train.class_names),
    )
    splits: dict[str, LogitBlocks | SplitLogits] = {}
    with blame(HEADS.plugin(task.head), f"the head {task.head}"):
        head = None if rows.imported else seen.fit(task.make(which))
        if HEADS.get(task.head).per_draw and teacher is None:
            if head is None:
                crossed = rows.imported["train"][kept]
            else:
                crossed = cross_fitted_logits(lambda: task.make(which), seen, seed=which.seed)
            splits[CROSS_FITTED] = SplitLogits(crossed, seen.labels, seen.sample_id)
    facts |= {"part": task.part} if task.part else {}
    facts |= {} if head is None else head.facts()
    if HEADS.get(task.head).takes_views:
        facts["crops"] = len(task.crops)
    if len(held):
        truth = train.labels[held]
        held_id = tuple(train.sample_id[i] for i in held)
        splits[HOLDOUT] = LogitBlocks(rows.logits(head, "train", held), truth, held_id)
        if rows.zero_shot is not None:
            facts["zero_shot_accuracy"] = float((rows.zero_shot[held] == truth).mean())
        facts["accuracy"] = float(
            (_predictions(rows.logits(head, "train", held), len(held)) == truth).mean()
        )
    every = np.arange(len(test.labels))
    splits["test"] = LogitBlocks(rows.logits(head, "test", every), test.labels, test.sample_id)
    write_logits(
        target,
        LogitStore(
            splits=splits,
            class_names=train.class_names,
            key=key,
            learnt={} if head is None else head.state(),
            facts=facts,
        ),
    )
    return facts


def _predictions(
    logits: Iterable[Float[np.ndarray, "block classes"]], rows: int
) -> Int[np.ndarray, " rows"]:
    predictions = np.empty(rows, dtype=np.int64)
    for number, block in enumerate(logits):
        predictions[number * _BLOCK :][: len(block)] = block.argmax(axis=1)
    return predictions
