"""Several stores opened together, row by row the same samples."""

import shlex
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

from clipnlc.ensemble import Ensemble
from clipnlc.errors import StoreError
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import locate
from clipnlc.stores.logits import read_split


class AlignedLogits(NamedTuple):
    """Several backbones' logits of the same samples of one split.

    Attributes:
        labels: class numbers in `[0, classes)`, int64 `[samples]`.
        class_names: one per class.
        sample_id: one per row.
        logits: float32 `[backbones, samples, classes]`, backbones in the order asked for.
    """

    labels: Int64[np.ndarray, " samples"]
    class_names: tuple[str, ...]
    sample_id: tuple[str, ...]
    logits: Float32[np.ndarray, "backbones samples classes"]


class AlignedEnsemble(NamedTuple):
    """An ensemble, with the labels of its samples.

    Attributes:
        ensemble: logits and features of the same samples.
        labels: class numbers in `[0, classes)`, int64 `[samples]`.
        class_names: one per class.
    """

    ensemble: Ensemble
    labels: Int64[np.ndarray, " samples"]
    class_names: tuple[str, ...]


class Columns(NamedTuple):
    """What two stores must agree in, and the file it was read from."""

    path: Path
    class_names: tuple[str, ...]
    sample_id: tuple[str, ...]
    labels: Int64[np.ndarray, " samples"]


def open_aligned_logits(paths: Mapping[str, Path], split: str) -> AlignedLogits:
    """Open one split of the logit file of each backbone.

    Besides the result, one backbone's logits are in memory at a time.

    Raises:
        MissingStageError: a file, or the split in it, has not been made.
        StoreError: two files hold other samples, labels or classes; a file is damaged.
    """
    assert paths, "an ensemble has a backbone"
    return _open_logits(paths, split)[0]


def open_ensemble(
    logits: Mapping[str, Path], features: Mapping[str, Path], split: str
) -> AlignedEnsemble:
    """Open one split of the logit file and the feature file of each backbone.

    `features` names the same backbones as `logits`, or none when no features are wanted.

    Raises:
        MissingStageError: a file, or the split in it, has not been made.
        StoreError: two files hold other samples, labels or classes; a file is damaged.
    """
    assert logits, "an ensemble has a backbone"
    assert not features or list(features) == list(logits), "the same backbones in the same order"
    aligned, first = _open_logits(logits, split)
    blocks = tuple(_aligned_features(path, first) for path in features.values())
    ensemble = Ensemble(logits=aligned.logits, features=blocks, sample_id=aligned.sample_id)
    return AlignedEnsemble(ensemble, aligned.labels, aligned.class_names)


def _open_logits(paths: Mapping[str, Path], split: str) -> tuple[AlignedLogits, Columns]:
    (first_path, *other_paths) = paths.values()
    opened, class_names = read_split(first_path, split)
    first = Columns(first_path, class_names, opened.sample_id, opened.labels)
    logits = np.empty((len(paths), *opened.logits.shape), np.float32)
    logits[0] = opened.logits
    for row, path in enumerate(other_paths, start=1):
        opened, class_names = read_split(path, split)
        check_aligned(first, Columns(path, class_names, opened.sample_id, opened.labels))
        logits[row] = opened.logits
    return AlignedLogits(first.labels, first.class_names, first.sample_id, logits), first


def _aligned_features(path: Path, first: Columns) -> Float[np.ndarray, "samples dim"]:
    store = read_features(path)
    check_aligned(first, Columns(path, store.class_names, store.sample_id, store.labels))
    return store.features.astype(np.float32, copy=False)


def check_aligned(first: Columns, other: Columns) -> None:
    """Check that two stores hold the same samples, labels and classes in the same order.

    Raises:
        StoreError: names both files and the first row that differs.
    """
    difference = _first_difference(first, other)
    if difference is not None:
        raise StoreError(
            f"{first.path} and {other.path} are not aligned: {difference} in the second; "
            f"run `{_aligning_command(first.path, other.path)}` and the stages after it, "
            "so that both hold the same samples"
        )


def _first_difference(first: Columns, other: Columns) -> str | None:
    """Say where samples, classes or labels differ first; None where they do not."""
    for what, one, two in (
        ("sample_id of row", first.sample_id, other.sample_id),
        ("class", first.class_names, other.class_names),
    ):
        if one != two:
            pairs = enumerate(zip_longest(one, two))
            row, (a, b) = next((row, pair) for row, pair in pairs if pair[0] != pair[1])
            return f"{what} {row} is {_shown(a)} in the first and {_shown(b)}"
    wrong = np.flatnonzero(first.labels != other.labels)
    if wrong.size:
        row = int(wrong[0])
        found = f"{first.labels[row]} in the first and {other.labels[row]}"
        return f"the label of row {row} ({first.sample_id[row]!r}) is {found}"
    return None


def _aligning_command(first: Path, other: Path) -> str:
    one, two = locate(first), locate(other)
    if one is None or two is None or one.backbone is None or two.backbone is None:
        return "clipnlc extract"
    backbones = ",".join(dict.fromkeys([one.backbone, two.backbone]))
    return (
        f"clipnlc extract --dataset {shlex.quote(two.dataset)} --backbones {shlex.quote(backbones)}"
    )


def _shown(name: str | None) -> str:
    return "absent" if name is None else repr(name)
