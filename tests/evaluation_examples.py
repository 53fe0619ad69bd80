"""Stores with logits, features and combined runs, for the stages that read them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from stores_examples import write_features

from clipnlc.labels import Labels
from clipnlc.reports.record import Row
from clipnlc.stores.combined import Combination, CombinedStore, add_combinations, read_combined
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import LogitStore, SplitLogits, read_logits, write_logits

BACKBONES = ("nano-RN50", "nano-ViT-B-32", "nano-ViT-B-16")
SHOTS = (1, 4)
SEEDS = (0, 1, 2)
WEIGHERS = ("nlc", "static")


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
    """Write features and zero-shot logits of a test split; return the logit files' digests."""
    random = np.random.default_rng(seed)
    labels, ids = labels_of(rows, classes), sample_ids(rows)
    names = tuple(f"class {c}" for c in range(classes))
    digests = {}
    for backbone in backbones:
        logits = random.normal(size=(rows, classes)).astype(np.float32)
        logits[np.arange(rows), labels] += 1
        features = layout.features(dataset, "test", backbone)
        made = write_features(
            features, logits[:, ::-1] + 1, labels=labels, sample_id=ids, class_names=names
        )
        path = layout.logits(dataset, "zero-shot", backbone)
        key = Key.of({"backbone": backbone, "inputs": {layout.relative(features): made}})
        store = LogitStore({"test": SplitLogits(logits, labels, ids)}, names, key, {}, {})
        digests[layout.relative(path)] = write_logits(path, store)
    return digests


def write_run(
    layout: Layout,
    dataset: str,
    inputs: dict[str, str],
    *,
    shots: int,
    seed: int,
    rows: int = 60,
    classes: int = 4,
    backbones: Sequence[str] = BACKBONES,
    order: Sequence[int] | None = None,
) -> Path:
    """Write one run: votes and CONF without labels; NLC and static weights with shots."""
    random = np.random.default_rng([shots, seed])
    facts = {
        "protocol": "shots" if shots else "no-labels",
        "shots": shots,
        "holdout": 0.0,
        "seed": seed,
        "labels": shots * classes,
    }

    def key(name: str) -> Key:
        return Key.of({"combiner": name, "shots": shots, "seed": seed, "inputs": inputs})

    if shots:
        combinations = {
            name: Combination(
                key(name), {}, facts, weights=random.random((rows, len(backbones)), np.float32)
            )
            for name in WEIGHERS
        }
        run = f"{shots}-shots-seed-{seed}"
    else:
        equal = np.full((rows, len(backbones)), 1 / len(backbones), np.float32)
        scores = random.normal(size=(rows, classes)).astype(np.float32)
        combinations = {
            "log-avg": Combination(key("log-avg"), {}, facts, weights=equal),
            "vote-1": Combination(key("vote-1"), {}, facts, scores=scores),
        }
        run = "no-labels"
    ids = sample_ids(rows)
    path = layout.combined(dataset, "zero-shot", run)
    add_combinations(
        path,
        CombinedStore(
            ids if order is None else tuple(ids[i] for i in order),
            tuple(backbones),
            tuple(f"class {c}" for c in range(classes)),
            combinations,
        ),
    )
    return path


def write_dataset(
    layout: Layout, dataset: str, *, rows: int = 60, classes: int = 4, seed: int = 0
) -> dict[str, str]:
    """Write everything `evaluate` and `diversity` read of one data set."""
    inputs = write_backbones(layout, dataset, rows=rows, classes=classes, seed=seed)
    write_run(layout, dataset, inputs, shots=0, seed=0, rows=rows, classes=classes)
    for shots in SHOTS:
        for each in SEEDS:
            write_run(layout, dataset, inputs, shots=shots, seed=each, rows=rows, classes=classes)
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
    """Write an evaluation record as version 1 or 2 did, which had two measures."""
    tree = {**json.loads(text), "format-version": version}
    del tree["digest"], tree["measures"]
    for row in [*tree["summary"], *(row for one in tree["datasets"] for row in one["rows"])]:
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
    stores = [read_logits(layout.logits(dataset, "zero-shot", b)).splits["test"] for b in BACKBONES]
    return np.stack([s.logits for s in stores]).astype(float), stores[0].labels


def nlc(layout: Layout, dataset: str, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Combine by einsum what the run's file says."""
    run = read_combined(layout.combined(dataset, "zero-shot", f"{shots}-shots-seed-{seed}"))
    logits, labels = logits_and_labels(layout, dataset)
    return np.einsum("bsc,sb->sc", logits, run.combinations["nlc"].weights), labels
