"""Take out of a store what nothing can bring up to date any more."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from clipnlc.stores import locks
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.layout import Layout
from clipnlc.stores.shards import remove_shards


def remove_features(path: Path) -> None:
    """Remove a feature file, its shards, and the folder of its split if nothing else is in it.

    Raises:
        StoreError: the file is in use, or the disk refuses.
    """
    with locks.writing(path), disk_errors(path):
        path.unlink(missing_ok=True)
        remove_shards(path)
    if not any(p for p in path.parent.iterdir() if p.name != locks.LOCKS):
        with disk_errors(path):
            shutil.rmtree(path.parent)


def remove_dataset(layout: Layout, dataset: str) -> None:
    """Remove all that a store holds of a data set: features, logits, fits, records.

    Raises:
        StoreError: one of its feature files is in use, or the disk refuses.
    """
    for split in (*layout.splits(dataset), *layout.crops(dataset)):
        for backbone in layout.backbones(dataset, split):
            with locks.writing(layout.features(dataset, split, backbone)):
                pass  # refused while another process writes it
    folder = layout.dataset(dataset)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")  # gone at once, or not
    with disk_errors(folder):
        folder.rename(aside)
        with suppress(FileNotFoundError):
            shutil.rmtree(aside)
