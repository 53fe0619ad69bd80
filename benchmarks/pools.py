"""Folds of the nano training pools, for choosing settings without any test label.

Images of a pool that another set tests on are left out of it: 254 of emoji_kind's are in
emoji_group's test, and 71 the other way round. Every pool is cut into stratified folds; what is
chosen by is one fold, which neither labels nor unlabelled images are taken from.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from clipnlc.datasets.nano import KEYS, dataset_root
from clipnlc.datasets.source import open_split
from clipnlc.ensemble import Ensemble
from clipnlc.labels import Labels, ranks
from clipnlc.stores.aligned import open_ensemble
from clipnlc.stores.layout import Layout

FOLDS = 4


@dataclass(frozen=True)
class Round:
    """One fold that is judged, and the rest that is learnt from."""

    number: int
    pool: Ensemble
    labels: Int[np.ndarray, " pool"]
    judge: Ensemble
    truth: Int[np.ndarray, " judged"]

    def draw(self, which: Labels) -> tuple[Ensemble, Int[np.ndarray, " drawn"]]:
        """Draw labelled rows of the pool; the seed is the number of the round."""
        which = Labels(which.kind, which.amount, self.number)
        classes = self.pool.logits.shape[2]
        rows = which.draw(self.labels, self.pool.sample_id, classes=classes).rows
        return self.pool.rows(rows), self.labels[rows]


def digests(dataset: str, split: str) -> list[str]:
    """Name every image of a split by its bytes, in the order of its rows; labels are not read."""
    samples = open_split(dataset_root(dataset), split).read()
    return [hashlib.blake2b(sample.data).hexdigest() for sample in samples]


def untested(dataset: str) -> dict[str, bool]:
    """Return, by sample id of a pool, whether no other set tests on that image."""
    tested = {d for other in KEYS if other != dataset for d in digests(other, "test")}
    pool = open_split(dataset_root(dataset), "train")
    found = digests(dataset, "train")
    return {name: digest not in tested for name, digest in zip(pool.sample_id, found, strict=True)}


def train_of(
    store: Path, dataset: str
) -> tuple[Ensemble, Int[np.ndarray, " samples"], tuple[str, ...]]:
    """Read train with zero-shot logits: ensemble, class numbers, class names as the store has them."""
    layout = Layout(store)
    names = layout.logit_backbones(dataset, "zero-shot")
    return open_ensemble(
        {b: layout.logits(dataset, "zero-shot", b) for b in names},
        {b: layout.features(dataset, "train", b) for b in names},
        "train",
    )


def rounds(store: Path, dataset: str) -> Iterator[Round]:
    """Yield every fold of a pool with the rest; classes are in the store's order, not by name."""
    whole, labels, class_names = train_of(store, dataset)
    clean = untested(dataset)
    rows = np.flatnonzero([clean[name] for name in whole.sample_id])
    whole, labels = whole.rows(rows), labels[rows]
    order = np.argsort(ranks(whole.sample_id, draw="ablation"))
    fold = np.empty(len(labels), dtype=int)
    for label in range(len(class_names)):
        rows = order[labels[order] == label]
        fold[rows] = np.arange(len(rows)) % FOLDS
    for number in range(FOLDS):
        pool, judged = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        yield Round(number, whole.rows(pool), labels[pool], whole.rows(judged), labels[judged])
