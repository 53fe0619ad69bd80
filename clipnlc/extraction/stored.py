"""What a store holds of a data set already: whether it is the same one, and its splits fit together.

A path gets its name in the store from its folder, so two data sets may have one name. They are told
apart by their images: a data set that was moved, edited, laid out anew, or that grew, shares half of
them or more with what is stored. All splits of a data set have the same classes, prompts and backbone; a split that this run
does not make, since it was not asked for or has gone from the source, must fit or give way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clipnlc.commands import is_own_name
from clipnlc.datasets import keys as known_keys
from clipnlc.datasets.dataset import Dataset
from clipnlc.datasets.splits import canonical
from clipnlc.errors import StoreError
from clipnlc.extraction.finishing import merge
from clipnlc.labels import UNLABELLED
from clipnlc.stores import locks
from clipnlc.stores.features import (
    FeatureColumns,
    read_feature_columns,
    read_feature_header,
)
from clipnlc.stores.key import Key, differences
from clipnlc.stores.removal import remove_features
from clipnlc.stores.shards import remove_shards, reseal
from clipnlc.stores.texts import text_key
from clipnlc.view import crop_number

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from clipnlc.datasets.source import Split
    from clipnlc.extraction.order import Job
    from clipnlc.extraction.request import Request
    from clipnlc.stores.layout import Layout

_SHOWN: Final = 3

_SAME: Final = 0.5
"""Share of the images, of the smaller of two data sets, that makes them one."""


def typed(dataset: Dataset) -> str:
    """Return what names a data set in `--dataset`."""
    return str(_folder(dataset) or dataset.key)


def is_to_be_replaced(
    request: Request, layout: Layout, dataset: Dataset, splits: Iterable[Split]
) -> bool:
    """Return whether the store holds another data set under this name, which may be removed.

    Args:
        request: names the data set.
        layout: the store.
        dataset: which one.
        splits: its splits, those to be extracted first; as many as needed are opened.

    Raises:
        StoreError: it holds another one, and nothing is to be replaced; a file is damaged.
    """
    folder = _folder(dataset)
    found = _another(layout, dataset, splits) if folder else None
    if folder is None or found is None:
        return False
    if request.replace:
        return True
    cure = request.spelled(
        dataset=[str(folder)], name=_free_name(layout, folder.resolve().parent.name, dataset.key)
    )
    raise StoreError(
        f"{layout.dataset(dataset.key)} holds another data set than {folder}: {found}; give this one a "
        f"name of its own with --name: run `{cure}`, or let it take the other's place with --replace"
    )


def check_halves(request: Request, layout: Layout, dataset: Dataset, parts: Sequence[str]) -> None:
    """Refuse to replace train without test, or test without train, by another division.

    The store would hold images that are in both.

    Raises:
        StoreError: the half that stays was made under another `--test-share`; a file is damaged.
    """
    made = {canonical(part) for part in parts} & {"train", "test"}
    for half in sorted({"train", "test"} - made) if made else ():
        for backbone in layout.backbones(dataset.key, half):
            key = read_feature_header(layout.features(dataset.key, half, backbone)).key
            stored = key.fields.get("division", {}).get("test_share")
            if stored != request.test_share:
                kept = "undivided" if stored is None else f"divided by --test-share {stored:g}"
                raise StoreError(
                    f"{layout.root} holds {dataset.key}/{half} {kept}, with images that would be in "
                    f"{min(made)} too; {_cure_of_halves(request, layout, dataset, stored)}"
                )


def _cure_of_halves(
    request: Request, layout: Layout, dataset: Dataset, stored: float | None
) -> str:
    """Say what to run: `run` chose itself not to divide, so it is to keep its own way."""
    if request.program == "run":
        after = request.labels.stem if request.labels else "undivided"
        name = _free_name(layout, after, dataset.key)
        cure = request.spelled(dataset=[typed(dataset)], name=name)
        return f"run `{cure}` to have both, or give another --store"
    share = request.test_share or stored
    cure = request.spelled(dataset=[typed(dataset)], split=(), test_share=share)
    return f"run `{cure}` to make both, or give another --name"


def _folder(dataset: Dataset) -> Path | None:
    """Return where a path lies; None for a key, which stands for one data set for ever."""
    return None if dataset.key in known_keys() else dataset.path


@dataclass(frozen=True)
class _Another:
    images: int
    own: int
    shared: int
    there: Sequence[str]
    here: Sequence[str]

    def __str__(self) -> str:
        own = f"{self.shared} of its {self.own} images"
        said = f"{own} is" if self.shared == 1 else f"{own} are"
        return (
            f"{said if self.shared else 'none of its images is'} among the {self.images} images there "
            f"(classes there: {_few(self.there)}; here: {_few(self.here)})"
        )


def _another(layout: Layout, dataset: Dataset, splits: Iterable[Split]) -> _Another | None:
    """Return what is stored if it is another data set, by the images that are in both, else None."""
    paths = [
        layout.features(dataset.key, split, backbone)
        for split in layout.splits(dataset.key)
        for backbone in layout.backbones(dataset.key, split)
    ]
    if not paths:
        return None
    by_content: dict[object, Path] = {}  # backbones that saw the same images are read once
    for path in paths:
        key = read_feature_header(path).key
        by_content.setdefault(key.fields.get("images", {}).get("content", path), path)
    stored: list[FeatureColumns] = []
    there: set[bytes] = set()
    here: set[bytes] = set()
    classes: Sequence[str] = ()
    for split in splits:
        if split.content in by_content:
            return None
        if not stored:
            stored = [read_feature_columns(path) for path in by_content.values()]
            there = {one.tobytes() for columns in stored for one in _digests(columns)}
        if any(columns.content is None and _has_names_of(columns, split) for columns in stored):
            return None
        here |= {digest.tobytes() for digest in split.image_digests}
        if there and _SAME * len(there) <= len(here & there):
            return None  # whatever the other splits hold
        classes = split.class_names
    shared = len(here & there)
    if shared and _SAME * min(len(here), len(there)) <= shared:
        return None
    return _Another(
        sum(len(columns.sample_id) for columns in stored),
        len(here),
        shared,
        stored[0].class_names,
        classes,
    )


def _digests(stored: FeatureColumns) -> Iterable[np.ndarray]:
    return () if stored.content is None else stored.content


def _has_names_of(stored: FeatureColumns, split: Split) -> bool:
    """Return whether names of images and of classes are in both: all that older files tell."""
    same_classes = set(stored.class_names) & set(split.class_names)
    return bool(same_classes) and bool(set(stored.sample_id) & set(split.sample_id))


def _free_name(layout: Layout, above: str, key: str) -> str:
    """Suggest a name that the store does not have: with the folder above in front."""
    taken = {*layout.datasets(), *known_keys()}
    safe = re.sub(r"[^\w.-]+", "-", above).strip("-.")
    numbered = (f"{key}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([f"{safe}-{key}"], numbered) if name not in taken)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)


@dataclass(frozen=True)
class Other:
    """A feature file that this run does not make, of the backbone and data set of one that it does.

    Attributes:
        split: whose features.
        path: the file.
        key: what it was made from.
        job: one that this run makes.
    """

    split: str
    path: Path
    key: Key
    job: Job

    @property
    def differences(self) -> tuple[str, ...]:
        """What keeps both out of one file of logits: names of fields."""
        try:
            old, new = text_key(self.key), text_key(self.job.key)
        except KeyError:
            return ("the form of its key",)
        changed = [line.partition(":")[0] for line in differences(old, new)]
        return tuple("class names" if name == "names" else name for name in changed)

    @property
    def fits(self) -> bool:
        """Whether both go into one file of logits, with the same prompts at the latest."""
        return set(self.differences) <= {"templates"}


def others(
    layout: Layout, dataset: str, jobs: Iterable[Job], made: Sequence[str]
) -> Iterator[Other]:
    """Yield the files of splits other than those `made`, of the backbones of `jobs`.

    Raises:
        StoreError: a file is damaged.
    """
    for job in jobs:
        for split in (*layout.splits(dataset), *layout.crops(dataset)):
            path = layout.features(dataset, split, job.backbone.name)
            if split not in made and path.is_file():
                yield Other(split, path, read_feature_header(path).key, job)


def refuse_unlike(
    request: Request, dataset: Dataset, found: Iterable[Other], there: Sequence[str]
) -> None:
    """Check that the splits that stay as they are fit those that this run makes.

    Splits that have gone from the source may be removed, so they are not checked.

    Args:
        request: what is extracted.
        dataset: which one.
        found: the files of other splits.
        there: the splits that the source has.

    Raises:
        StoreError: a split that the source has was made with other classes or weights.
    """
    for other in found:
        if other.fits or other.split not in there:
            continue
        name = other.job.backbone.name
        cure = request.spelled(dataset=[typed(dataset)], split=(), rows=None)
        raise StoreError(
            f"{dataset.key}/{other.split} in the store was made with other "
            f"{' and '.join(other.differences)} for {name}; expected all splits alike: run `{cure}`"
        )


def settle(layout: Layout, dataset: str, other: Other) -> str | None:
    """Give a file of another split the prompts of this run, or remove it if it cannot have them.

    Returns:
        A note that says so; None where it fitted.

    Raises:
        StoreError: a file is damaged or in use, or the disk refuses.
    """
    place = f"{dataset}/{other.split}"
    if not other.differences:
        return None
    if not other.fits:
        remove_features(other.path)
        if crop_number(other.split) is not None:
            return (
                f"{place} has other {' and '.join(other.differences)}: its features were removed from "
                "the store; make crops again with --crops"
            )
        return (
            f"{place} has gone from the source and has other {' and '.join(other.differences)}: "
            "its features were removed from the store"
        )
    fields = other.key.fields
    fields["classes"]["templates"] = other.job.key.fields["classes"]["templates"]
    key = Key.of(fields)
    with locks.writing(other.path):
        remove_shards(other.path)
        reseal(other.path, key, read_feature_columns(other.path).labels)
        merge(layout, other.path, key)
    return f"{place} has the same prompts now"


def drop_unlabelled(layout: Layout, dataset: str, there: Sequence[str]) -> str | None:
    """Remove the split of images without labels where the source has none any more.

    Its images may be labelled now, and be of test: nothing is to learn from them as unlabelled ones.

    Args:
        layout: the store.
        dataset: which one.
        there: the splits that the source has.

    Returns:
        A note that says so; None where there was nothing to remove.

    Raises:
        StoreError: a file is in use, or the disk refuses.
    """
    if UNLABELLED in there or UNLABELLED not in layout.splits(dataset):
        return None
    for backbone in layout.backbones(dataset, UNLABELLED):
        remove_features(layout.features(dataset, UNLABELLED, backbone))
    return f"{dataset} has no images without labels any more: their features were removed"


def with_other_classes(
    layout: Layout, dataset: str, jobs: Sequence[Job], chosen: Iterable[str]
) -> tuple[str, ...]:
    """List the backbones, other than those `chosen`, that have other class names in the store.

    Imported ones are left out: `extract` cannot make them alike.

    Raises:
        StoreError: a file is damaged.
    """
    names = {job.key.fields["classes"]["names"] for job in jobs}
    split = {job.key.fields["images"]["split"] for job in jobs}
    rest = {b: s for s in split for b in layout.backbones(dataset, s) if b not in set(chosen)}
    return tuple(
        backbone
        for backbone, split in rest.items()
        if not is_own_name(backbone)
        and read_feature_header(layout.features(dataset, split, backbone))
        .key.fields.get("classes", {})
        .get("names")
        not in names
    )
