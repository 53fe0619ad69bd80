"""Bring a person's own features or logits into the store, as a backbone among the others."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clipnlc.backbones import GROUPS
from clipnlc.commands import command, is_own_name
from clipnlc.datasets.array_roles import Names
from clipnlc.datasets.arrays import FLOOR, ArrayRows, read_rows
from clipnlc.datasets.fingerprints import digest_labels, digest_texts
from clipnlc.datasets.label_names import nearest
from clipnlc.datasets.splits import USUAL, canonical, in_order
from clipnlc.digests import content_digest
from clipnlc.errors import DataError, MissingStageError
from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.registry import unknown_name
from clipnlc.runs.finding import refuse_crop
from clipnlc.runs.imported import align, check_other_splits, class_names_of, reference_of
from clipnlc.stores import locks
from clipnlc.stores.feature_writing import write_features
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.key import Key, differences
from clipnlc.stores.layout import IMPORTED, Layout
from clipnlc.stores.logits import LogitStore, SplitLogits, read_logits, write_logits
from clipnlc.stores.removal import Removed, remove_backbone

if TYPE_CHECKING:
    from pathlib import Path


_TOO_GOOD: Final = 0.99
"""Accuracy of logits of train at which a model has probably been fitted on these rows."""


@dataclass(frozen=True)
class Imported:
    """Result for one split of one backbone.

    Attributes:
        dataset, split, backbone: where it is in the store.
        rows: samples.
        classes: their number.
        dim: width of the features; 0 without any.
        gives: what the backbone brings: `features`, `logits`, `texts`.
        accuracy: of the logits given, in [0, 1]; None without any.
        read: for each role, the array that was read.
        notes: what was assumed or changed.
        cached: it was there, with the same key.
        changed: `field: old -> new`, where a file with another key was replaced.
    """

    dataset: str
    split: str
    backbone: str
    rows: int
    classes: int
    dim: int
    gives: tuple[str, ...]
    accuracy: float | None
    read: dict[str, str]
    notes: tuple[str, ...]
    cached: bool
    changed: tuple[str, ...] = ()


def import_arrays(
    path: Path,
    *,
    store: Path,
    backbone: str,
    dataset: str,
    split: str,
    names: Names | None = None,
    logit_scale: float | None = None,
) -> Imported:
    """Make a backbone of a person's own features or logits of one split.

    Where other backbones of the split are in the store, the rows are put into their order, matched
    by sample id. What the store has of this backbone and split is replaced if it differs.

    Args:
        path: a file or folder of arrays; `clipnlc.datasets.array_files` says in which formats.
        store: the store's folder.
        backbone: what to call it: letters, digits, `-` and `_`.
        dataset: the data set's key; a new one, or one in the store.
        split: `train`, `val`, `test`, or one that the store has of the data set.
        names: which array is what; by default each is found by its usual name.
        logit_scale: factor on cosines of features and texts, or on the logits given.

    Raises:
        UnknownNameError: no such split is usual, nor in the store.
        DataError: the arrays cannot be used; the rows or classes are not those that the data set
            has in the store; the name is a backbone's that `extract` makes.
        StoreError: a store file is damaged or in use, or the disk refuses.
    """
    _check_name(backbone)
    refuse_crop(split)
    layout, split = Layout(store), canonical(split)
    _check_split(layout, dataset, split)
    near = nearest(dataset, layout.datasets())
    known = class_names_of(layout, dataset, split=split, backbone=backbone)
    rows = read_rows(path, split, names=names, logit_scale=logit_scale, known=known)
    reference = reference_of(layout, dataset, split=split, backbone=backbone)
    if reference is not None:
        rows = align(rows, reference, path)
    if rows.labels is None:
        meant = f"did you mean --dataset {near}? If not, " if near else ""
        raise DataError(
            f"{path} has no labels, and the store no other backbone of {dataset}/{split} to take "
            f"them from; {meant}name an array of them with --labels"
        )
    if rows.sample_id is None:
        ids = tuple(f"{split}:{row}" for row in range(len(rows)))
        note = f"rows have no sample ids: they are called {ids[0]} to {ids[-1]}"
        rows = replace(rows, sample_id=ids, notes=(*rows.notes, note))
    check_other_splits(layout, dataset, split, backbone, rows)
    target = layout.features(dataset, split, backbone)
    key = _key(rows, backbone, split)
    changed: tuple[str, ...] = ()
    cached = False
    with suppress(MissingStageError):
        old = read_feature_header(target).key
        cached = old == key
        changed = tuple(differences(old, key))
    with locks.writing(target):
        if not cached:
            _write_features(target, key, rows)
        with locks.writing(layout.logits(dataset, IMPORTED, backbone)):
            made = _write_logits(layout, dataset, split, backbone, rows)
    if rows.texts is not None:
        made |= write_zero_shot_logits(layout, dataset, backbone)
    gives = {"features": rows.features, "logits": rows.logits, "texts": rows.texts}
    right = None if rows.logits is None else rows.logits.argmax(axis=1) == rows.labels
    accuracy = None if right is None else float(right.mean())
    notes = rows.notes
    if near is not None:
        undo = command("import", remove=True, backbone=backbone, dataset=dataset, store=store)
        notes = (*notes, f"{dataset} is new; did you mean {near!r}? then undo this with `{undo}`")
    if split == "train" and accuracy is not None and accuracy >= _TOO_GOOD:
        doubt = (
            f"the logits are right in {100 * accuracy:.1f} % of train; if the model was fitted on "
            "these rows, import cross-validated logits instead"
        )
        notes = (*notes, doubt)
    return Imported(
        dataset=dataset,
        split=split,
        backbone=backbone,
        rows=len(rows),
        classes=len(rows.class_names),
        dim=0 if rows.features is None else rows.features.shape[1],
        gives=tuple(what for what, array in gives.items() if array is not None),
        accuracy=accuracy,
        read=dict(rows.read),
        notes=notes,
        cached=cached and not made,
        changed=changed,
    )


def remove_imported(*, store: Path, backbone: str, dataset: str) -> Removed:
    """Take a backbone that was imported out of a data set, with all that was made with it.

    Args:
        store: the store's folder.
        backbone: its name.
        dataset: the data set's key.

    Raises:
        UnknownNameError: the store has no such data set, or no such imported backbone of it.
        DataError: the name is a backbone's that `extract` makes.
        StoreError: a file is in use, or the disk refuses.
    """
    _check_name(backbone)
    layout = Layout(store)
    if dataset not in layout.datasets():
        raise unknown_name(f"data set of {store}", dataset, layout.datasets())
    present = sorted(layout.own_backbones(dataset))
    if not present:
        raise DataError(f"no backbone of {dataset} in {store} was imported; nothing is to remove")
    if backbone not in present:
        raise unknown_name(f"imported backbone of {dataset} in {store}", backbone, present)
    return remove_backbone(layout, dataset, backbone)


def _check_name(backbone: str) -> None:
    if not is_own_name(backbone) or backbone in GROUPS:
        raise DataError(
            f"--backbone is {backbone!r}, which names what extract makes; give letters, digits, - "
            "and _, as in --backbone forest"
        )


def _check_split(layout: Layout, dataset: str, split: str) -> None:
    """Refuse what is neither a usual split nor one that the store has of the data set."""
    known = in_order((*USUAL, *layout.splits(dataset)))
    if split not in known:
        raise unknown_name("--split", split, known)


def _key(rows: ArrayRows, backbone: str, split: str) -> Key:
    """Return everything that shapes the file; `content` follows the order of the rows too."""
    assert rows.labels is not None
    assert rows.sample_id is not None
    source: dict[str, Any] = {"digest": rows.digest, "read": dict(rows.read)}
    if rows.logit_scale != 1:
        source["logit_scale"] = rows.logit_scale
    if rows.were_probabilities:
        source["probability_floor"] = FLOOR
    return Key.of(
        {
            "images": {
                "backbone": backbone,
                "family": IMPORTED,
                "imported": source,
                "split": split,
                "content": digest_texts([rows.digest, *rows.sample_id]),
                "samples": len(rows),
            },
            "classes": {
                "labels": digest_labels(rows.labels),
                "names": content_digest(list(rows.class_names)),
                "templates": [],
            },
        }
    )


def _write_features(target: Path, key: Key, rows: ArrayRows) -> None:
    assert rows.labels is not None
    assert rows.sample_id is not None
    none = np.empty((len(rows), 0), dtype=np.float32)
    write_features(
        target,
        key,
        features=none if rows.features is None else rows.features,
        labels=rows.labels,
        sample_id=rows.sample_id,
        class_names=rows.class_names,
        texts=rows.texts,
        logit_scale=None if rows.texts is None else rows.logit_scale,
    )


def _write_logits(layout: Layout, dataset: str, split: str, backbone: str, rows: ArrayRows) -> bool:
    """Write, replace or remove this split's logits; those of other splits stay. False if current."""
    assert rows.labels is not None
    assert rows.sample_id is not None
    target = layout.logits(dataset, IMPORTED, backbone)
    splits: dict[str, SplitLogits] = {}
    old: Key | None = None
    with suppress(MissingStageError):
        before = read_logits(target)
        old, splits = before.key, {**before.splits}  # type: ignore[dict-item]
    splits.pop(split, None)
    if rows.logits is not None:
        splits[split] = SplitLogits(rows.logits, rows.labels, rows.sample_id)
    if not splits:
        target.unlink(missing_ok=True)
        return old is not None
    inputs = {}
    for each in sorted(splits):
        path = layout.features(dataset, each, backbone)
        inputs[layout.relative(path)] = read_feature_header(path).digest
    key = Key.of({"head": IMPORTED, "backbone": backbone, "inputs": inputs})
    if key == old:
        return False
    store = LogitStore(splits=splits, class_names=rows.class_names, key=key, learnt={}, facts={})
    write_logits(target, store)
    return True
