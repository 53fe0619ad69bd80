"""Small stores that several test files write."""

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from clipnlc.heads.zero_shot import ZeroShotHead
from clipnlc.stores.fits import Fit, FitStore, add_fits, read_fit_header
from clipnlc.stores.given import GivenArrays, GivenStore, add_given
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import LogitStore, SplitLogits, read_logit_header, write_logits
from clipnlc.stores.shards import Shard, merge_shards, write_shard


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Leave out the wait for the disk; a test file that imports this gets it for all its tests."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


CLASS_NAMES = ("cat", "dog", "Käfer")
BACKBONES = ("RN50.openai", "ViT-B-32.openai")
KEY = Key.of({"backbone": "RN50.openai", "precision": "fp32"})


def sample_ids(rows: int) -> tuple[str, ...]:
    return tuple(f"{CLASS_NAMES[row % 3]}/{row}.png" for row in range(rows))


def feature_rows(rows: int, dim: int = 3, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, dim)).astype(dtype)


def labels_of(rows: int) -> np.ndarray:
    return np.arange(rows) % 3


def write_features(
    path: Path,
    features: np.ndarray,
    *,
    key: Key = KEY,
    cuts: tuple[int, ...] = (),
    labels: np.ndarray | None = None,
    sample_id: tuple[str, ...] | None = None,
    class_names: tuple[str, ...] = CLASS_NAMES,
    texts: np.ndarray | None = None,
) -> str:
    """Write a feature file from shards that end at `cuts`; return its digest."""
    rows = len(features)
    labels = labels_of(rows) if labels is None else labels
    sample_id = sample_ids(rows) if sample_id is None else sample_id
    bounds = [0, *cuts, rows]
    for start, stop in pairwise(bounds):
        span = slice(start, stop)
        write_shard(path, key, Shard(start, stop, features[span], labels[span], sample_id[span]))
    return merge_shards(
        path,
        key,
        rows=rows,
        class_names=class_names,
        texts=np.eye(len(class_names), features.shape[1], dtype=np.float32)
        if texts is None
        else texts,
        logit_scale=100.0,
    )


def zero_shot_logits(
    features: np.ndarray, texts: np.ndarray, *, logit_scale: float = 100.0, logit_bias: float = 0.0
) -> np.ndarray:
    """Return what the zero-shot head of these texts makes of features."""
    head = ZeroShotHead().fit_to_texts(texts=texts, logit_scale=logit_scale, logit_bias=logit_bias)
    return head.logits(features)


def logit_store(
    rows: int = 6, *, seed: int = 0, inputs: dict[str, str] | None = None
) -> LogitStore:
    logits = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    return LogitStore(
        splits={
            "test": SplitLogits(logits, labels_of(rows), sample_ids(rows)),
            "train": SplitLogits(-logits, labels_of(rows), sample_ids(rows)),
        },
        class_names=CLASS_NAMES,
        key=Key.of({"head": "linear", "seed": seed, "inputs": inputs or {}}),
        learnt={"weight_": np.eye(3), "epochs_": np.array([3])},
        facts={"accuracy": 0.5, "epochs": 300, "optimiser": "adam"},
    )


def fit_store(
    combiners: tuple[str, ...] = ("log-avg", "nlc"), *, inputs: dict[str, str] | None = None
) -> FitStore:
    """Make fits: NLC has learnt something, the others nothing."""

    def fit(name: str) -> Fit:
        learnt = {"temperature_": np.array([1.0, 2.0])} if name == "nlc" else {}
        key = Key.of({"combiner": name, "settings": {"seed": 0}, "inputs": inputs or {}})
        return Fit(key, learnt, {"drawn": "4-shots-seed-0", "labels": 12, "labelled_samples": "ab"})

    return FitStore(BACKBONES, CLASS_NAMES, {name: fit(name) for name in combiners})


def given_store(
    combiners: tuple[str, ...] = ("log-avg", "vote-1"),
    *,
    rows: int = 6,
    inputs: dict[str, str] | None = None,
) -> GivenStore:
    """Make what combiners give: weights, but for the votes, whose scores were kept."""

    def given(name: str) -> GivenArrays:
        key = Key.of({"combiner": name, "inputs": inputs or {}})
        hits = (np.arange(rows) % 2).astype(np.float64)[:, None]
        values = {"accuracy": hits, "calibration-error": np.hstack([hits / 2, hits])}
        if name.startswith("vote"):
            return GivenArrays(key, values, scores=np.ones((rows, 3), np.float32))
        return GivenArrays(key, values, weights=np.full((rows, 2), 0.5, np.float32))

    each = {name: given(name) for name in combiners}
    return GivenStore(sample_ids(rows), BACKBONES, CLASS_NAMES, each)


def write_store(root: Path, *, dataset: str = "cub") -> Layout:
    """Write features, linear logits, one run of two backbones, and what it gives on six samples."""
    layout = Layout(root)
    of_train, of_test = {}, {}
    for seed, backbone in enumerate(BACKBONES):
        features = layout.features(dataset, "test", backbone)
        digest = write_features(features, feature_rows(6, dim=3 + seed))
        path = layout.logits(dataset, "linear", backbone)
        write_logits(path, logit_store(seed=seed, inputs={layout.relative(features): digest}))
        name, digests = layout.relative(path), read_logit_header(path).split_digests
        of_train[f"{name}#train"], of_test[f"{name}#test"] = digests["train"], digests["test"]
    fits = layout.fits(dataset, "linear", "two", "4-shots-seed-0")
    add_fits(fits, fit_store(inputs=of_train))
    store = given_store(("log-avg", "nlc"))
    fitted = read_fit_header(fits).digests
    inputs = {n: {f"{layout.relative(fits)}#{n}": fitted[n], **of_test} for n in store.given}
    add_given(
        layout.given(
            dataset, "test", source=dataset, head="linear", members="two", run="4-shots-seed-0"
        ),
        replace(
            store,
            given={
                name: replace(each, key=Key.of({"combiner": name, "inputs": inputs[name]}))
                for name, each in store.given.items()
            },
        ),
    )
    return layout


def same(one: object, two: object) -> bool:
    """Tell whether two values of a store hold the same bits."""
    if isinstance(one, np.ndarray):
        same_type = isinstance(two, np.ndarray) and one.dtype == two.dtype
        return same_type and one.shape == two.shape and one.tobytes() == two.tobytes()
    if isinstance(one, dict):
        return (
            isinstance(two, dict)
            and one.keys() == two.keys()
            and all(same(one[name], two[name]) for name in one)
        )
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(two) and same(vars(one), vars(two))
    return one == two
