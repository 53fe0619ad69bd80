"""Open what a request names: data sets, their splits, and the rows of them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int64

from clipnlc import datasets
from clipnlc.datasets import splits as split_names
from clipnlc.datasets.dataset import Dataset
from clipnlc.datasets.prompts import read_templates
from clipnlc.datasets.source import Split
from clipnlc.errors import DataError
from clipnlc.extraction.order import Range
from clipnlc.extraction.request import Limit, Request, Rows
from clipnlc.view import View, crop_number
from clipnlc.wording import count

TRAIN: Final = "train"
"""The split whose images crops are made of."""

MOST_CROPS: Final = 100
"""Crops of an image; ten are published."""


def open_datasets(request: Request) -> list[Dataset]:
    """Open the data sets of a request.

    Raises:
        DataError: one cannot be used, `name` would name several, two would have one name, or
            `limit` leaves nothing.
        UnknownNameError: a name is not known.
    """
    names = tuple(itertools.chain.from_iterable(datasets.resolve(one) for one in request.dataset))
    if request.name is not None and len(names) != 1:
        raise DataError(f"--name names one data set, but {len(names)} were given; drop --name")
    limit = request.limit
    for most in limit.values() if isinstance(limit, Mapping) else [limit]:
        if most is not None and most < 1:
            raise DataError(f"--limit is {most}; give at least 1")
    found: dict[str, Dataset] = {}
    for one in names:
        opened = datasets.open_dataset(
            one,
            key=request.name,
            sources=request.sources,
            accept_different_data=request.accept_different_data,
            prompts=request.prompts,
            test_share=request.test_share,
            labels=request.labels,
            classes=request.classes,
        )
        _refuse_one_name(found.setdefault(opened.key, opened), opened)
    return list(found.values())


def _refuse_one_name(first: Dataset, other: Dataset) -> None:
    """Check that two data sets of one name are the same folder, given twice.

    Raises:
        DataError: they are not.
    """
    roots = [one.path for one in (first, other) if one.path is not None]
    if len({root.resolve() for root in roots}) > 1:
        raise DataError(
            f"{first.key!r} would be the name in the store of both {roots[0]} and {roots[1]}; "
            "extract them one by one, one of them with a name of its own: --name"
        )


def splits_of(request: Request, found: Sequence[Dataset]) -> dict[str, tuple[str, ...]]:
    """Return the names of the splits to extract, by the key of their data set.

    Raises:
        DataError: a range of rows is asked of more than one split, or a limit of one that is not
            there; crops are asked of data without train.
    """
    there = {
        one.key: split_names_of(request, one)
        for one in found
        if not request.split or isinstance(request.limit, Mapping)
    }
    parts = {one.key: tuple(request.split) or there[one.key] for one in found}
    if isinstance(request.limit, Mapping):
        known = split_names.in_order(name for names in there.values() for name in names)
        for name in request.limit:
            if split_names.canonical(name) not in known:
                raise DataError(
                    f"--limit names split {name!r}, but there are only {', '.join(known)}; choose among them"
                )
    parts = {key: (*names, *_crops(request, key, names)) for key, names in parts.items()}
    if request.rows is not None and [len(p) for p in parts.values()] != [1]:
        cure = "drop --crops" if request.crops else "name it with --split"
        raise DataError(f"--rows is for a single data set and split; {cure}")
    if request.crops and not any(crop_number(n) is not None for p in parts.values() for n in p):
        asked = ", ".join(dict.fromkeys(n for names in parts.values() for n in names))
        raise DataError(
            f"--crops makes crops of the images of train, and only {asked} would be extracted; "
            "add train to --split, or drop --crops"
        )
    return parts


def _crops(request: Request, key: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the crops of train, where that is among the splits of a data set.

    Raises:
        DataError: a split has the name of a crop already, or the number is out of range.
    """
    if not 0 <= request.crops <= MOST_CROPS:
        raise DataError(f"--crops is {request.crops}; give 0 to {MOST_CROPS}")
    for name in names:
        if crop_number(name) is not None:
            raise DataError(
                f"{key}/{name} is named as a crop; make crops of train with --crops, or give a "
                "split of the data set's own another name"
            )
    if TRAIN not in map(split_names.canonical, names):
        return ()
    return tuple(View.crop(number).split_name(TRAIN) for number in range(request.crops))


def split_names_of(request: Request, dataset: Dataset) -> tuple[str, ...]:
    """Return the splits that a data set has, with the columns of the request.

    Raises:
        DataError: it cannot be used.
    """
    return dataset.split_names(image_column=request.image_column, label_column=request.label_column)


def templates_of(request: Request, dataset: Dataset) -> tuple[str, ...] | None:
    """Return the prompt templates for a data set: the request's own, or the data set's, if any.

    Raises:
        DataError: the file of templates cannot be used.
    """
    return read_templates(request.templates) if request.templates else dataset.templates


def open_split(request: Request, dataset: Dataset, split: str, *, hash_cache: Path | None) -> Split:
    """Open one split of a data set, or a crop of it, with the class names and columns of the request.

    Raises:
        DataError: it cannot be used.
    """
    opened = dataset.open(
        source_of(split),
        class_names_file=request.class_names,
        image_column=request.image_column,
        label_column=request.label_column,
        hash_cache=hash_cache,
    )
    crop = crop_number(split)
    return opened if crop is None else replace(opened, name=View.crop(crop).split_name(opened.name))


def source_of(split: str) -> str:
    """Return the split whose images a crop shows; any other split is its own.

    >>> source_of("train~crop-3"), source_of("test")
    ('train', 'test')
    """
    return split if crop_number(split) is None else View.of_split(split)[0]


def limited(split: str, rows: int, limit: Limit | None) -> Int64[np.ndarray, " rows"]:
    """Choose rows spread evenly, so that a limited split still has most of its classes.

    >>> limited("train", 10, {"training": 4}).tolist(), limited("test", 3, {"train": 4}).tolist()
    ([0, 2, 5, 7], [0, 1, 2])
    """
    if isinstance(limit, Mapping):
        limit = {split_names.canonical(name): most for name, most in limit.items()}
        limit = limit.get(source_of(split))
    most = limit
    if most is None or most >= rows:
        return np.arange(rows)
    return (np.arange(most) * rows) // most


def range_of(wanted: Rows, rows: int) -> Range:
    """Clip a range of rows to those there are.

    Raises:
        DataError: it holds none of them.

    >>> range_of((2, None), 5), range_of((0, 9), 5)
    ((2, 5), (0, 5))
    """
    start, stop = wanted[0], rows if wanted[1] is None else min(wanted[1], rows)
    if not 0 <= start < stop:
        raise DataError(
            f"--rows {wanted[0]}:{'' if wanted[1] is None else wanted[1]} holds none of the "
            f"{count(rows, 'row')}; give a range within them, as in --rows 0:1000"
        )
    return (start, stop)
