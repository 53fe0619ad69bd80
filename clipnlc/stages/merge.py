"""Merge the shards that several workers sealed into feature files, and write their logits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipnlc.commands import command
from clipnlc.errors import MissingStageError
from clipnlc.extraction.finishing import merge as merge_shards
from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.extraction.order import Range
from clipnlc.stores import features as feature_files
from clipnlc.stores import locks, shards
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout, from_part, maker


@dataclass(frozen=True)
class Merged:
    """Result for the shards of one feature file.

    Attributes:
        dataset, split, backbone: whose shards.
        rows: samples that are sealed.
        missing: ranges that are not; empty if the file was written.
    """

    dataset: str
    split: str
    backbone: str
    rows: int
    missing: tuple[Range, ...]


def merge(
    *,
    store: Path,
    dataset: Sequence[str] = (),
    backbones: Sequence[str] = (),
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
) -> list[Merged]:
    """Merge the shards of every split that is complete; list what is missing of the others.

    Neither images nor weights are needed: the shards hold the settings they were made with, and
    the texts of their backbone are in the store.

    Args:
        store: the store's folder.
        dataset: keys; all in the store if empty.
        backbones: names; all in the store if empty.
        on_progress: called before each file with its name, a number and their count.

    Raises:
        MissingStageError: there are no shards.
        StoreError: a file is damaged or in use, or cannot be written.
    """
    layout = Layout(store)
    found = [
        (key, split, from_part(folder.stem), folder.with_suffix(".h5"))
        for key in dataset or layout.datasets()
        for split in (*layout.splits(key), *layout.crops(key))
        for folder in sorted((layout.dataset(key) / "features" / split).glob("*.shards"))
        if not backbones or from_part(folder.stem) in backbones
        if shards.shard_files(folder.with_suffix(".h5"))
    ]
    if not found:
        some = command("extract --dataset … --split … --rows START:STOP", store=store)
        raise MissingStageError(f"{store} holds no unmerged shards; make some with `{some}`")
    merged = []
    for number, (key, split, backbone, path) in enumerate(found):
        on_progress(f"{key}/{split} {backbone}", number, len(found))
        with locks.writing(path):
            merged.append(_merge(layout, path, key, split, backbone))
    for key in dict.fromkeys(m.dataset for m in merged):
        for backbone in dict.fromkeys(m.backbone for m in merged if m.dataset == key):
            if not any(m.missing for m in merged if (m.dataset, m.backbone) == (key, backbone)):
                write_zero_shot_logits(layout, key, backbone)
    return merged


def _merge(layout: Layout, path: Path, dataset: str, split: str, backbone: str) -> Merged:
    key = _newest_key(path)
    rows = key.fields["images"]["samples"]
    if _is_merged(path, key):
        shards.remove_shards(path)  # left by a run that was killed
        return Merged(dataset, split, backbone, rows, ())
    missing = tuple(shards.missing_ranges(path, key, rows, rows))
    if not missing:
        merge_shards(layout, path, key)
    return Merged(dataset, split, backbone, rows - sum(b - a for a, b in missing), missing)


def _is_merged(path: Path, key: Key) -> bool:
    try:
        return feature_files.read_feature_header(path).key == key
    except MissingStageError:
        return False


def _newest_key(path: Path) -> Key:
    """Return the key under which most rows are sealed; shards of other keys are stale."""
    rows: Counter[Key] = Counter()
    for file in shards.shard_files(path):
        header = shards.read_shard_header(file)
        feature_files.check_made(file, header.key)
        rows[header.key] += header.stop - header.start
    if not rows:
        raise MissingStageError(
            f"{path} has no sealed shards yet; run `{maker(path)}` to make them"
        )
    return rows.most_common(1)[0][0]
