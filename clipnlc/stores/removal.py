"""Take out of a store what nobody wants in it, or nothing can bring up to date any more."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipnlc.errors import StoreError
from clipnlc.stores import locks
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.fits import read_fit_header
from clipnlc.stores.layout import Layout, as_part
from clipnlc.stores.shards import remove_shards


@dataclass(frozen=True)
class Removed:
    """What was removed of one backbone of a data set.

    Attributes:
        dataset, backbone: where it was in the store.
        splits: of its features.
        logits: files of its logits, under every head.
        fits: files of fits on ensembles that it was in.
    """

    dataset: str
    backbone: str
    splits: tuple[str, ...]
    logits: int
    fits: int


def remove_features(path: Path) -> None:
    """Remove a feature file, its shards, and the folder of its split if nothing else is in it.

    Raises:
        StoreError: the file is in use, or the disk refuses.
    """
    with locks.writing(path), disk_errors(path):
        path.unlink(missing_ok=True)
        remove_shards(path)
    _remove_empty(path.parent)


def remove_backbone(layout: Layout, dataset: str, backbone: str) -> Removed:
    """Remove all that a store holds of one backbone of a data set, as if it had never been there.

    Its features, its logits, the fits on ensembles that it is in, and what those gave. Records stay.
    Features go last, so that the same call goes on with what a killed one left.

    Raises:
        StoreError: one of the files is in use, or the disk refuses.
    """
    fits = list(_fits_with(layout, dataset, backbone))
    for path in fits:
        members = Path(path.parent.parent.name, path.parent.name)
        for other in layout.datasets():
            given = layout.dataset(other) / "given" / as_part(dataset) / members / path.stem
            for file in _files(given, "*.h5"):
                _remove(file)
        _remove(path)
    logits = _files(layout.dataset(dataset) / "logits", f"{as_part(backbone)}.h5")
    for path in logits:
        _remove(path)
    splits = tuple(s for s in layout.splits(dataset) if backbone in layout.backbones(dataset, s))
    for split in splits:
        remove_features(layout.features(dataset, split, backbone))
    _remove_empty(layout.dataset(dataset))
    return Removed(dataset, backbone, splits, len(logits), len(fits))


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


def _fits_with(layout: Layout, dataset: str, backbone: str) -> Iterator[Path]:
    """Find the fits on ensembles with a backbone; what is damaged is left to `verify`."""
    for path in _files(layout.dataset(dataset) / "fits", "*.h5"):
        with suppress(StoreError):
            if backbone in read_fit_header(path).backbones:
                yield path


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if locks.LOCKS not in path.parts)


def _remove(path: Path) -> None:
    with locks.writing(path), disk_errors(path):
        path.unlink(missing_ok=True)
    _remove_empty(path.parent)


def _remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing but locks."""
    with disk_errors(folder):
        if not any(path.is_file() and locks.LOCKS not in path.parts for path in folder.rglob("*")):
            shutil.rmtree(folder)
