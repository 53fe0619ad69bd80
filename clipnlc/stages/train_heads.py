"""Train a linear head per backbone, from the class texts on, and keep a hold-out for combiners."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from clipnlc.errors import DataError, MissingStageError
from clipnlc.heads.linear import LinearHead
from clipnlc.heads.zero_shot import zero_shot_logits
from clipnlc.labels import stratified_split
from clipnlc.metrics.accuracy import accuracy
from clipnlc.stores import locks
from clipnlc.stores.features import read_feature_header, read_features
from clipnlc.stores.key import Key, differences
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import LogitStore, SplitLogits, read_logit_header, write_logits

if TYPE_CHECKING:
    from pathlib import Path

HEAD: Final = "linear"
HOLDOUT: Final = "holdout"
"""The part of train that no head sees: combiners are fitted on it."""


@dataclass(frozen=True)
class TrainedHead:
    """What became of one head.

    Attributes:
        dataset: its key.
        backbone: its name.
        rows: samples it was trained on.
        held_out: samples kept for the combiners; the two accuracies are measured on them.
        zero_shot: accuracy of the zero-shot head on the held-out samples, in [0, 1].
        linear: accuracy of the trained head on them.
        epochs: passes over the rows that made the weights.
        cached: it was there, with the same key.
        changed: `field: old -> new`, where a head with another key was replaced.
    """

    dataset: str
    backbone: str
    rows: int
    held_out: int
    zero_shot: float
    linear: float
    epochs: int
    cached: bool
    changed: tuple[str, ...] = ()


def train_heads(
    *,
    store: Path,
    dataset: Sequence[str] = (),
    backbones: Sequence[str] = (),
    holdout: float = 0.1,
    epochs: int = 300,
    learning_rate: float = 2e-5,
    batch_size: int = 256,
    early_stopping: float = 0.0,
    seed: int = 0,
    on_progress: Callable[[TrainedHead, int, int], None] = lambda _head, _done, _all: None,
) -> list[TrainedHead]:
    """Train linear heads on 90 % of train; write the logits of the other 10 % and of test.

    Adam, 2e-5, 300 epochs and the 90/10 split are the paper's; that they belong to these heads is
    our reading (`clipnlc.heads.linear`).

    Args:
        store: the store's folder.
        dataset: keys; by default every data set with features in the store.
        backbones: names; by default every backbone with features.
        holdout: share of train that is kept for the combiners, stratified and seeded.
        epochs: passes over the rows.
        learning_rate: of Adam.
        batch_size: rows of one step.
        early_stopping: share of the head's own 90 % that decides when to stop; 0 for never.
        seed: of the split and the order of the rows.
        on_progress: called after each head, with it and (heads done, heads).

    Raises:
        MissingStageError: no features of train or test.
        StoreError: a store file is damaged or in use.
        DataError: a share is not in (0, 1).
    """
    for option, share, lowest in (
        ("--holdout", holdout, 0.01),
        ("--early-stopping", early_stopping, 0),
    ):
        if not lowest <= share < 1:
            raise DataError(f"{option} is {share}; give a share of at least {lowest} and below 1")
    layout = Layout(store)
    wanted = []
    for name in dataset or _with_features(layout):
        present = tuple(backbones) or layout.backbones(name, "train")
        if not present:
            raise MissingStageError(
                f"{store} holds no features of a train split of {name}; run "
                f"`clipnlc extract --dataset {shlex.quote(name)}` on a data set that has one"
            )
        wanted += [(name, backbone) for backbone in present]
    settings: dict[str, int | float] = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "early_stopping": early_stopping,
    }
    done: list[TrainedHead] = []
    for name, backbone in wanted:
        head = LinearHead(
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            stopping_share=early_stopping,
            seed=seed,
        )
        done.append(_one(layout, name, backbone, head, settings, holdout=holdout, seed=seed))
        on_progress(done[-1], len(done), len(wanted))
    return done


def _with_features(layout: Layout) -> tuple[str, ...]:
    names = tuple(d for d in layout.datasets() if layout.splits(d))
    if not names:
        raise MissingStageError(
            f"{layout.root} holds no features; run `clipnlc extract --dataset …` first"
        )
    return names


def _one(
    layout: Layout,
    dataset: str,
    backbone: str,
    head: LinearHead,
    settings: dict[str, int | float],
    *,
    holdout: float,
    seed: int,
) -> TrainedHead:
    sources = {s: layout.features(dataset, s, backbone) for s in ("train", "test")}
    inputs = {layout.relative(p): read_feature_header(p).digest for p in sources.values()}
    key = Key.of(
        {
            "head": HEAD,
            "backbone": backbone,
            "holdout": holdout,
            "seed": seed,
            **settings,
            "inputs": inputs,
        }
    )
    target = layout.logits(dataset, HEAD, backbone)
    changed: tuple[str, ...] = ()
    try:
        header = read_logit_header(target)
        if header.key == key:
            return _trained(dataset, backbone, header.facts, cached=True, changed=())
        changed = tuple(differences(header.key, key))
    except MissingStageError:
        pass
    with locks.writing(target):
        train, test = (read_features(sources[s]) for s in ("train", "test"))
        kept, held = stratified_split(train.labels, train.sample_id, share=holdout, seed=seed)
        if not len(held):
            raise DataError(
                f"{dataset} has a single training image, so none can be held out for the "
                "combiners; use the zero-shot head"
            )
        head.fit(
            features=train.features[kept],
            labels=train.labels[kept],
            sample_id=[train.sample_id[i] for i in kept],
            texts=train.texts,
            logit_scale=train.logit_scale,
            logit_bias=train.logit_bias,
        )
        held_labels = train.labels[held]
        linear = head.logits(train.features[held])
        zero_shot = zero_shot_logits(
            train.features[held],
            train.texts,
            logit_scale=train.logit_scale,
            logit_bias=train.logit_bias,
        )
        facts = {
            "rows": len(kept),
            "held_out": len(held),
            "zero_shot_accuracy": accuracy(zero_shot, held_labels),
            "linear_accuracy": accuracy(linear, held_labels),
            "epochs": int(head.epochs_),
        }
        held_id = tuple(train.sample_id[i] for i in held)
        write_logits(
            target,
            LogitStore(
                splits={
                    HOLDOUT: SplitLogits(linear, held_labels, held_id),
                    "test": SplitLogits(head.logits(test.features), test.labels, test.sample_id),
                },
                class_names=train.class_names,
                key=key,
                learnt={k: np.asarray(v) for k, v in head.state().items()},
                facts=facts,
            ),
        )
    return _trained(dataset, backbone, facts, cached=False, changed=changed)


def _trained(
    dataset: str,
    backbone: str,
    facts: Mapping[str, int | float | str],
    *,
    cached: bool,
    changed: tuple[str, ...],
) -> TrainedHead:
    return TrainedHead(
        dataset=dataset,
        backbone=backbone,
        rows=int(facts["rows"]),
        held_out=int(facts["held_out"]),
        zero_shot=float(facts["zero_shot_accuracy"]),
        linear=float(facts["linear_accuracy"]),
        epochs=int(facts["epochs"]),
        cached=cached,
        changed=changed,
    )
