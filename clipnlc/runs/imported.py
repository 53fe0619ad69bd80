"""How a person's own rows fit what a store has of a data set: the same samples, in the same order."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from clipnlc.commands import command
from clipnlc.datasets.arrays import ArrayRows
from clipnlc.errors import DataError
from clipnlc.runs.finding import Runs
from clipnlc.stores.features import read_feature_columns, read_feature_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import IMPORTED, Layout
from clipnlc.stores.logits import read_logit_header
from clipnlc.wording import count, quoted


def refuse_imported(layout: Layout, runs: Runs, combiner: str, keys: Mapping[str, Key]) -> None:
    """Check that every backbone of an ensemble can embed new images.

    Args:
        layout: the store.
        runs: the ensemble.
        combiner: what was asked for.
        keys: those of its features, by backbone.

    Raises:
        DataError: some were imported as arrays, without their models.
    """
    images = {name: key.fields.get("images", {}) for name, key in keys.items()}
    own = [name for name in runs.backbones if images[name].get("family") == IMPORTED]
    if own:
        others = [name for name in runs.backbones if name not in own]
        cure = command(
            "train-nlc",
            dataset=runs.dataset,
            backbones=others,
            combiners=combiner,
            store=layout.root,
        )
        alone = (
            f"run `{cure}` for an ensemble of the others"
            if others
            else "predict with backbones that extract makes"
        )
        raise DataError(
            f"{', '.join(own)} of {runs.dataset} came as arrays, without a model that new images could "
            f"be given to; {alone}"
        )


class Reference(NamedTuple):
    """The rows of a split that other backbones have in a store.

    Attributes:
        backbone: one that has them.
        sample_id: one per row.
        labels: class numbers.
    """

    backbone: str
    sample_id: tuple[str, ...]
    labels: Int64[np.ndarray, " samples"]


def class_names_of(
    layout: Layout, dataset: str, *, split: str, backbone: str
) -> tuple[str, ...] | None:
    """Return the class names of a data set in a store, but for one file; None where there is none.

    Args:
        layout: the store.
        dataset: its key.
        split: of the file that is left out: it is about to be replaced.
        backbone: likewise.

    Raises:
        StoreError: a file is damaged.
    """
    for place in layout.splits(dataset):
        for name in layout.backbones(dataset, place):
            if (place, name) != (split, backbone):
                return read_feature_columns(layout.features(dataset, place, name)).class_names
    return None


def reference_of(layout: Layout, dataset: str, *, split: str, backbone: str) -> Reference | None:
    """Return the rows that other backbones have of a split; None where there are no others.

    Raises:
        StoreError: a file is damaged.
    """
    others = [name for name in layout.backbones(dataset, split) if name != backbone]
    if not others:
        return None
    found = read_feature_columns(layout.features(dataset, split, others[0]))
    return Reference(others[0], found.sample_id, found.labels)


def check_other_splits(
    layout: Layout, dataset: str, split: str, backbone: str, rows: ArrayRows
) -> None:
    """Check that a backbone gives the same in all its splits: features as wide, logits, texts.

    Raises:
        DataError: what it has of another split is of another kind.
        StoreError: a file is damaged.
    """
    logits = layout.logits(dataset, IMPORTED, backbone)
    given = read_logit_header(logits).rows if logits.is_file() else {}
    for other in layout.splits(dataset):
        path = layout.features(dataset, other, backbone)
        if other == split or not path.is_file():
            continue
        there = read_feature_columns(path)
        header = read_feature_header(path)
        pairs = {
            "features of width": (
                header.dim,
                0 if rows.features is None else rows.features.shape[1],
            ),
            "logits": (other in given, rows.logits is not None),
            "texts": (there.texts is not None, rows.texts is not None),
        }
        for what, (old, new) in pairs.items():
            if old != new:
                raise _unlike(backbone, f"{dataset}/{other}", split, what, old, new)
        if rows.texts is not None and there.texts is not None:
            if np.array_equal(rows.texts, there.texts) and rows.logit_scale == there.logit_scale:
                continue
            raise DataError(
                f"{backbone} has other texts in {dataset}/{other}; expected the same texts and logit "
                "scale in all splits: give this model another --backbone name"
            )


def _unlike(  # noqa: PLR0917  (what a sentence says)
    backbone: str, place: str, split: str, what: str, old: int, new: int
) -> DataError:
    def spelled(value: int) -> str:
        if isinstance(value, bool):
            return what if value else f"no {what}"
        return f"{what} {value}" if value else "no features"

    return DataError(
        f"{backbone} has {spelled(old)} in {place} in the store, and here, for {split}, "
        f"{spelled(new)}; expected the same of all splits: give this model another --backbone name"
    )


def align(rows: ArrayRows, reference: Reference, path: Path) -> ArrayRows:
    """Return rows in the order of a reference, with its labels and sample ids.

    Rows with sample ids are matched by them, in any order; rows without by their place, if there
    are as many and their labels are the same.

    Args:
        rows: as they were read.
        reference: what other backbones have.
        path: the file, for messages.

    Raises:
        DataError: the rows are others, or have other labels; the first is named.
    """
    if rows.sample_id is None:
        return _by_place(rows, reference, path)
    place = {name: row for row, name in enumerate(rows.sample_id)}
    known = set(reference.sample_id)
    lost = [name for name in reference.sample_id if name not in place]
    foreign = [name for name in rows.sample_id if name not in known]
    if lost or foreign:
        beside = f"the rows of {reference.backbone} in the store"
        if foreign:
            row = place[foreign[0]]
            found = f"its row {row} ({quoted(foreign[0])}) is none of {beside}"
            found += f", such as {quoted(lost[0])}" if lost else ""
        else:
            found = f"it lacks {quoted(lost[0])} of {beside}"
        raise DataError(
            f"{path} is misaligned: {found} ({len(foreign)} foreign, {len(lost)} lacking, of "
            f"{count(len(reference.sample_id), 'row')}); expected the same sample ids, in any order"
        )
    order = np.array([place[name] for name in reference.sample_id], dtype=np.int64)
    ordered = rows if np.array_equal(order, np.arange(len(order))) else _taken(rows, order)
    notes = ordered.notes
    if ordered is not rows:
        notes = (*notes, f"rows were put into the order of {reference.backbone}'s, by sample id")
    _check_labels(ordered.labels, reference, path, order)
    return replace(ordered, labels=reference.labels, notes=notes)


def _by_place(rows: ArrayRows, reference: Reference, path: Path) -> ArrayRows:
    there = len(reference.sample_id)
    cure = "give sample ids with --sample-id"
    if len(rows) != there:
        raise DataError(
            f"{path} has {count(len(rows), 'row')} without sample ids, and {reference.backbone} "
            f"{there} in the store, so they cannot be matched; {cure}"
        )
    if rows.labels is None:
        raise DataError(
            f"{path} has neither sample ids nor labels, so nothing shows that its rows are those of "
            f"{reference.backbone} in the store; {cure}"
        )
    _check_labels(rows.labels, reference, path, np.arange(there), f"; {cure}")
    note = (
        f"rows have no sample ids: matched by their order with {reference.backbone}'s, whose labels "
        "are the same"
    )
    return replace(rows, sample_id=reference.sample_id, notes=(*rows.notes, note))


def _check_labels(
    labels: Int64[np.ndarray, " samples"] | None,
    reference: Reference,
    path: Path,
    order: Int64[np.ndarray, " samples"],
    cure: str = "",
) -> None:
    if labels is None:
        return
    wrong = np.flatnonzero(labels != reference.labels)
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{path} is misaligned: its row {order[row]} ({quoted(reference.sample_id[row])}) has "
            f"label {labels[row]}, and {reference.labels[row]} in {reference.backbone} in the store "
            f"({len(wrong)} of {count(len(labels), 'row')} differ); expected the same labels{cure}"
        )


def _taken(rows: ArrayRows, order: Int64[np.ndarray, " samples"]) -> ArrayRows:
    return replace(
        rows,
        features=None if rows.features is None else rows.features[order],
        logits=None if rows.logits is None else rows.logits[order],
        labels=None if rows.labels is None else rows.labels[order],
        sample_id=None if rows.sample_id is None else tuple(rows.sample_id[i] for i in order),
    )
