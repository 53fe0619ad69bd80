"""Stores with features, logits and fits, for the stages that read them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from stores_examples import write_features

from clipnlc.digests import content_digest, with_digest
from clipnlc.labels import Labels
from clipnlc.reports.record import Row
from clipnlc.runs.fitted import fit
from clipnlc.runs.members import members_name
from clipnlc.runs.records import evaluation_path
from clipnlc.stores.aligned import open_ensemble
from clipnlc.stores.fits import Fit, FitStore, add_fits
from clipnlc.stores.given import read_given
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import (
    LogitStore,
    SplitLogits,
    read_logit_header,
    read_logits,
    write_logits,
)

BACKBONES = ("nano-RN50", "nano-ViT-B-32", "nano-ViT-B-16")
MEMBERS = tuple(sorted(BACKBONES))  # as an evaluation names them
MEMBERS_NAME = members_name(BACKBONES)
SHOTS = (1, 4)
SEEDS = (0, 1, 2)
WITH_LABELS = ("nlc", "static")
WITHOUT_LABELS = ("log-avg", "vote-1")
TRAIN_ROWS = 8  # per class


def labels_of(rows: int, classes: int) -> np.ndarray:
    return np.arange(rows) % classes


def sample_ids(rows: int) -> tuple[str, ...]:
    return tuple(f"{row:04}.png" for row in range(rows))


def write_backbones(
    layout: Layout,
    dataset: str,
    *,
    rows: int = 60,
    classes: int = 4,
    seed: int = 0,
    backbones: Sequence[str] = BACKBONES,
) -> dict[str, str]:
    """Write features and zero-shot logits of train and test; return what names train's logits."""
    random = np.random.default_rng(seed)
    names = tuple(f"class {c}" for c in range(classes))
    digests = {}
    for backbone in backbones:
        splits, inputs = {}, {}
        for split, count in (("test", rows), ("train", TRAIN_ROWS * classes)):
            labels, ids = labels_of(count, classes), sample_ids(count)
            logits = random.normal(size=(count, classes)).astype(np.float32)
            logits[np.arange(count), labels] += 1
            features = layout.features(dataset, split, backbone)
            inputs[layout.relative(features)] = write_features(
                features, logits[:, ::-1] + 1, labels=labels, sample_id=ids, class_names=names
            )
            splits[split] = SplitLogits(logits, labels, ids)
        path = layout.logits(dataset, "zero-shot", backbone)
        key = Key.of({"backbone": backbone, "inputs": inputs})
        write_logits(path, LogitStore(splits, names, key, {}, {}))
        digests |= train_inputs(layout, path)
    return digests


def train_inputs(layout: Layout, logits: Path) -> dict[str, str]:
    """Return what a fit on this logit file is made from."""
    return {f"{layout.relative(logits)}#train": read_logit_header(logits).split_digests["train"]}


def write_run(
    layout: Layout,
    dataset: str,
    inputs: dict[str, str],
    *,
    shots: int,
    seed: int,
    backbones: Sequence[str] = BACKBONES,
) -> Path:
    """Write one run: votes and an average without labels; NLC and static weights with shots."""
    which = Labels.shots(shots, seed=seed) if shots else Labels.none()
    train, labels, class_names = open_ensemble(
        {b: layout.logits(dataset, "zero-shot", b) for b in backbones},
        {b: layout.features(dataset, "train", b) for b in backbones},
        "train",
    )
    drawn = which.draw(labels, train.sample_id, classes=len(class_names)).rows
    facts = {
        "drawn": which.name,
        "labels": len(drawn),
        "labelled_samples": content_digest([train.sample_id[row] for row in drawn]),
    }
    settings = {"nlc": {"steps": 20, "learning_rate": 0.02}}
    made = {
        name: fit(name, train.rows(drawn), labels[drawn], which=which, settings=settings.get(name))
        for name in (WITH_LABELS if shots else WITHOUT_LABELS)
    }
    path = layout.fits(dataset, "zero-shot", members_name(backbones), which.name)
    first = next(iter(made.values()))
    fits = {
        name: Fit(
            Key.of(
                {
                    "combiner": name,
                    "settings": dict(each.settings),
                    "labels": which.name,
                    "inputs": inputs,
                }
            ),
            each.learnt,
            facts,
        )
        for name, each in made.items()
    }
    add_fits(path, FitStore(first.backbones, first.class_names, fits))
    return path


def write_dataset(
    layout: Layout, dataset: str, *, rows: int = 60, classes: int = 4, seed: int = 0
) -> dict[str, str]:
    """Write everything `evaluate` and `diversity` read of one data set."""
    inputs = write_backbones(layout, dataset, rows=rows, classes=classes, seed=seed)
    write_run(layout, dataset, inputs, shots=0, seed=0)
    for shots in SHOTS:
        for each in SEEDS:
            write_run(layout, dataset, inputs, shots=shots, seed=each)
    return inputs


def write_example(root: Path) -> Layout:
    """Write three data sets of different sizes."""
    layout = Layout(root)
    for seed, (dataset, rows, classes) in enumerate(
        [("digits", 60, 4), ("emoji", 45, 3), ("flags", 50, 5)]
    ):
        write_dataset(layout, dataset, rows=rows, classes=classes, seed=seed)
    return layout


def older_evaluation(text: str, *, version: int) -> str:
    """Write an evaluation record as version 1 to 4 did; the first two had two measures."""
    tree = {**json.loads(text), "format-version": version}
    del tree["digest"]
    if version == 4:
        return json.dumps(with_digest(tree))
    del tree["methods"]
    rows = [*tree["summary"], *(row for one in tree["datasets"] for row in one["rows"])]
    for one in tree["datasets"]:
        del one["cluster"]
    for row in rows:
        for name in ("unlabelled", "shared", "gain_low", "gain_high", "level"):
            del row[name]
    if version == 3:
        return json.dumps(with_digest(tree))
    del tree["measures"]
    for row in rows:
        drawn, measures = row.pop("drawn"), row.pop("measures")
        row["protocol"] = "no-labels" if drawn["kind"] == "none" else drawn["kind"]
        row["shots"] = drawn["amount"] if drawn["kind"] == "shots" else 0
        row["holdout"] = drawn["amount"] if drawn["kind"] == "holdout" else 0.0
        row["calibration_error"] = measures["calibration-error"]
        row["nll"] = measures["negative-log-likelihood"]
    if version == 1:
        del tree["published_digest"]
        for one in tree["datasets"]:
            del one["published"]
    return json.dumps(tree)


def row(rows: tuple[Row, ...], method: str, shots: int = 0) -> Row:
    drawn = Labels.shots(shots) if shots else Labels.none()
    (found,) = [r for r in rows if r.method == method and r.drawn == drawn]
    return found


def logits_and_labels(layout: Layout, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    stores = [read_logits(layout.logits(dataset, "zero-shot", b)).splits["test"] for b in MEMBERS]
    return np.stack([s.logits for s in stores]).astype(float), stores[0].labels


def nlc(layout: Layout, dataset: str, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weigh by einsum as the file of what the run gives says."""
    path = given_path(layout, dataset, f"{shots}-shots-seed-{seed}")
    logits, labels = logits_and_labels(layout, dataset)
    return np.einsum("bsc,sb->sc", logits, read_given(path).given["nlc"].weights), labels


def given_path(layout: Layout, dataset: str, run: str) -> Path:
    return layout.given(
        dataset, "test", source=dataset, head="zero-shot", members=MEMBERS_NAME, run=run
    )


def fits_path(layout: Layout, dataset: str, run: str) -> Path:
    return layout.fits(dataset, "zero-shot", MEMBERS_NAME, run)


def record_path(root: Path, dataset: str | None = None) -> Path:
    return evaluation_path(Layout(root), "zero-shot", MEMBERS_NAME, dataset=dataset)


def replace_split(path: Path, split: str, **changes) -> None:
    """Write a logit file with another split."""
    store = read_logits(path)
    changed = replace(store.splits[split], **changes)
    write_logits(path, replace(store, splits={**store.splits, split: changed}))
