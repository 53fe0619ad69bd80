"""Dividing a data set without a test split into train and test, by the content of its images.

Images are ordered within each class by a seeded digest of their bytes, and the first of them are
test. So the division depends on no file name and no order, and an image that is added moves few of the
others. Images that are equal byte for byte, or show nearly the same picture (`near_duplicates`), are on
one side.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from clipnlc.datasets.dataset import Dataset
from clipnlc.datasets.near_duplicates import groups_of_images
from clipnlc.datasets.rows import Images
from clipnlc.datasets.source import Split, part_of
from clipnlc.datasets.splits import canonical, in_order
from clipnlc.errors import DataError
from clipnlc.wording import count, some

TRAIN: Final = "train"
TEST: Final = "test"

_SEED: Final = b"clipnlc test share 0"


@dataclass(frozen=True)
class ChosenImages:
    """Some rows of another split's images, in their order."""

    images: Images
    rows: Int64[np.ndarray, " rows"]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the image bytes of the rows `start` to `stop`; neighbours are read together."""
        rows = self.rows[start:stop]
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
            if len(run):
                yield from self.images.read(int(run[0]), int(run[-1]) + 1)


@dataclass(frozen=True)
class DividedDataset(Dataset):
    """A data set whose train, or only, split is divided into train and test.

    Attributes:
        whole: the data set as it is.
        share: of the images of each class that are test, in (0, 1).
    """

    whole: Dataset
    share: float
    _opened: dict[object, Split] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _groups: dict[str, Int64[np.ndarray, " samples"]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def path(self) -> Path | None:
        """Where the whole lies."""
        return self.whole.path

    def split_names(
        self, *, image_column: str | None = None, label_column: str | None = None
    ) -> tuple[str, ...]:
        """Return the splits after the division.

        Raises:
            DataError: there is a test split, or nothing to divide.
        """
        names = self.whole.split_names(image_column=image_column, label_column=label_column)
        divided = self._divided(names)
        return in_order((*(name for name in names if name != divided), TRAIN, TEST))

    def open(
        self,
        split: str,
        *,
        class_names_file: Path | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        hash_cache: Path | None = None,
    ) -> Split:
        """Open a split; of the two that were one, the rows that are of it.

        Raises:
            DataError: as `split_names`; too few images; as the data set's own `open`.
        """
        names = self.whole.split_names(image_column=image_column, label_column=label_column)
        divided = self._divided(names)
        wanted = canonical(split)
        here = divided if wanted in (TRAIN, TEST) else split
        options = (class_names_file, image_column, label_column)
        if (here, options) not in self._opened:
            self._opened.clear()  # one is kept: the other half of it is what is opened next
            self._opened[here, options] = self.whole.open(
                here,
                class_names_file=class_names_file,
                image_column=image_column,
                label_column=label_column,
                hash_cache=hash_cache,
            )
        opened = self._opened[here, options]
        if wanted not in (TRAIN, TEST):
            return opened
        if opened.content not in self._groups:
            self._groups.clear()
            self._groups[opened.content] = groups_of_images(
                opened.images, opened.image_digests, hash_cache
            )
        group = self._groups[opened.content]
        test = choose_test(opened.image_digests, opened.labels, self.share, group)
        if test.all() or not test.any():
            raise DataError(
                f"the {count(len(test), 'image')} of {self.key}/{here} cannot be divided: a class needs two that differ"
            )
        rows = np.flatnonzero(test if wanted == TEST else ~test)
        note = f"split {here} was divided by content: {int((~test).sum())} train, {int(test.sum())} test (--test-share {self.share:g})"
        chosen = replace(
            opened,
            images=ChosenImages(opened.images, rows),
            digests=opened.image_digests,
            test_share=self.share,
        )
        found = part_of(chosen, wanted, rows, note)
        alike = _note_alike(opened, group)
        return replace(found, notes=(*found.notes, alike)) if alike else found

    def expected_rows(self, split: str) -> int | None:
        """Return what is expected of a split that is not divided; of the others nothing is known."""
        return None if canonical(split) in (TRAIN, TEST) else self.whole.expected_rows(split)

    def expected_classes(self) -> int | None:
        """Return what is known of the data set."""
        return self.whole.expected_classes()

    def download_bytes(self, splits: Iterable[str]) -> int | None:
        """Return what is left to download for these splits."""
        if self.path is not None:  # nothing is, and its columns are not known here
            return 0
        names = self.whole.split_names()
        asked = [self._divided(names) if canonical(s) in (TRAIN, TEST) else s for s in splits]
        return self.whole.download_bytes(dict.fromkeys(asked))

    def _divided(self, names: tuple[str, ...]) -> str:
        """Return the split that is divided: train, or the only one."""
        if TEST in names:
            raise DataError(f"{self.key} has a test split; drop --test-share")
        if TRAIN in names:
            return TRAIN
        if len(names) > 1:
            raise DataError(
                f"{self.key} has no train split to divide, only {', '.join(names)}; call one of them train"
            )
        return names[0]


def divided(dataset: Dataset, share: float | None) -> Dataset:
    """Return the data set, with a test split of this share where one is asked for.

    Raises:
        DataError: the share is not between 0 and 1.
    """
    check_share(share)
    if share is None:
        return dataset
    return DividedDataset(dataset.key, dataset.templates, dataset, share)


def _note_alike(split: Split, group: Int64[np.ndarray, " samples"]) -> str:
    """Say how many images are nearly another one, and which group of them is the largest."""
    digests = split.image_digests
    firsts = np.unique(np.column_stack([group, digests]), axis=0, return_index=True)[1]
    sizes = np.bincount(group[firsts])  # images that are equal byte for byte count once
    if sizes.max(initial=0) < 2:  # noqa: PLR2004  (none is like another)
        return ""
    first = min(firsts[sizes[group[firsts]] == sizes.max()])  # of equals the one listed first
    largest = np.sort(firsts[group[firsts] == group[first]])
    return (
        f"{count(int(sizes[sizes > 1].sum()), 'image')} of {count(int((sizes > 1).sum()), 'group')} "
        "that look nearly the same stay on one side each; the largest has "
        f"{count(len(largest), 'image')}: {some(split.sample_id[row] for row in largest)}"
    )


def choose_test(
    digests: UInt8[np.ndarray, "samples 16"],
    labels: Int64[np.ndarray, " samples"],
    share: float,
    group: Int64[np.ndarray, " samples"] | None = None,
) -> Bool[np.ndarray, " samples"]:
    """Choose the test images: as near to the share of each class as its images allow.

    A class of two images or more that differ has at least one on each side; one of a single image
    has it in train. An image that stands under several classes counts as of the first. Images of one
    `group` are on one side, as are those of one digest, which are never in two groups.

    >>> digests = np.arange(80, dtype=np.uint8).repeat(2).reshape(10, 16)
    >>> choose_test(digests, np.array([0] * 5 + [1] * 5), 0.4).reshape(2, 5).sum(axis=1)
    array([2, 2])
    """
    content, of = np.unique(digests, axis=0, return_inverse=True)
    of = of.reshape(-1)
    group = of if group is None else group
    groups = int(group.max(initial=-1)) + 1
    ranks = np.array(
        [int.from_bytes(hashlib.sha256(_SEED + one.tobytes()).digest()[:8]) for one in content],
        dtype=np.uint64,
    )
    rank = np.full(groups, np.iinfo(np.uint64).max)
    np.minimum.at(rank, group, ranks[of])  # a group stands where its first image would
    size = np.bincount(group)
    stratum = np.full(groups, labels.max(initial=0))
    np.minimum.at(stratum, group, labels)
    order = np.lexsort((rank, stratum))
    chosen = np.zeros(groups, dtype=bool)
    for members in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        images = np.cumsum(size[members])
        if len(members) > 1:
            nearest = np.abs(images[:-1] - share * images[-1]).argmin()
            chosen[members[: nearest + 1]] = True
    return chosen[group]


def check_share(share: float | None) -> None:
    """Check that a share of test is one.

    Raises:
        DataError: it is not between 0 and 1.
    """
    if share is not None and not 0 < share < 1:
        raise DataError(f"--test-share is {share:g}; give a share between 0 and 1, as 0.3")
