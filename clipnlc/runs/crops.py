"""The augmented crops of a data set's train split: the same ones of every backbone, or none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float

from clipnlc.commands import command
from clipnlc.errors import StoreError
from clipnlc.heads.base import normalise
from clipnlc.stores.aligned import Columns, check_aligned
from clipnlc.stores.features import FeatureStore, read_feature_header, read_features
from clipnlc.stores.key import Key, differences
from clipnlc.stores.layout import Layout
from clipnlc.view import View, crop_number

_OWN: Final = ("split", "view")
"""What the keys of a crop and of train may differ in, of what shapes features."""


def crops_of(layout: Layout, dataset: str, backbones: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Return the feature files of every crop of train, by backbone.

    Raises:
        StoreError: a backbone lacks a crop that the store has of another one, or a number is left
            out; a crop is of other images, or was made otherwise, than the features of train; a
            file is damaged.
        MissingStageError: there are no features of train.
    """
    numbers = [
        number for name in layout.crops(dataset) if (number := crop_number(name)) is not None
    ]
    count = max(numbers, default=-1) + 1
    found = {
        backbone: tuple(
            layout.features(dataset, View.crop(number).split_name("train"), backbone)
            for number in range(count)
        )
        for backbone in backbones
    }
    lacking = {b: absent for b, paths in found.items() if (absent := _absent(paths))}
    if lacking:
        backbone, numbers = next(iter(lacking.items()))
        raise StoreError(
            f"{layout.root} holds {count} crops of the images of {dataset}/train, and {backbone} "
            f"lacks {_few(numbers)}; expected every crop of every backbone: "
            f"{_cure(layout, dataset, list(lacking), count)}"
        )
    for backbone, paths in found.items():
        plain = _images(layout.features(dataset, "train", backbone))
        for path in paths:
            changed = differences(plain, _images(path))
            if changed:
                raise StoreError(
                    f"{path} is not made of the same images, or not alike, as the features of "
                    f"{dataset}/train ({'; '.join(changed)}); expected crops of the same images: "
                    f"{_cure(layout, dataset, [backbone], count)}"
                )
    return found


def _absent(paths: Sequence[Path]) -> list[int]:
    return [number for number, path in enumerate(paths) if not path.is_file()]


def _few(numbers: Sequence[int]) -> str:
    """Name the crops that are lacking.

    >>> _few([3]), _few([0, 1, 2, 5])
    ('crop 3', 'crops 0, 1, 2, …')
    """
    shown = ", ".join(map(str, numbers[:3])) + ", …" * (len(numbers) > 3)  # noqa: PLR2004
    return f"crop{'s' * (len(numbers) > 1)} {shown}"


def _images(path: Path) -> Key:
    """Return what of a feature file's key shapes its features, besides which pixels."""
    images = read_feature_header(path).key.fields.get("images", {})
    return Key.of({name: images[name] for name in images if name not in _OWN})


def _cure(layout: Layout, dataset: str, backbones: Sequence[str], count: int) -> str:
    made = command(
        "extract", dataset=dataset, backbones=list(backbones), crops=count, store=layout.root
    )
    folder = layout.features(dataset, "train~crop-", "any").parent
    return f"run `{made}`, or, to do without crops, delete {folder}*"


def mean_of_crops(
    plain: FeatureStore, path: Path, crops: Sequence[Path]
) -> Float[np.ndarray, "samples dim"] | None:
    """Return the mean of the crops' features of length 1.

    Raises:
        StoreError: the crops are of other samples.
    """
    whole = Columns(path, plain.class_names, plain.sample_id, plain.labels)
    total: np.ndarray | None = None
    for crop in crops:
        found = read_features(crop)
        check_aligned(whole, Columns(crop, found.class_names, found.sample_id, found.labels))
        unit = normalise(found.features.astype(np.float32))
        total = unit if total is None else total + unit
    return total
