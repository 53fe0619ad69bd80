"""Open what a request names: data sets, their splits, and the rows of them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

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
from clipnlc.wording import count


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
            there.
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
    if request.rows is not None and [len(p) for p in parts.values()] != [1]:
        raise DataError("--rows is for a single data set and split; name it with --split")
    return parts


def split_names_of(request: Request, dataset: Dataset) -> tuple[str, ...]:
    """Return the splits that a data set has, with the columns of the request.

    Raises:
        DataError: it cannot be used.
    """
    return dataset.split_names(image_column=request.image_column, label_column=request.label_column)


def templates_of(request: Request, dataset: Dataset) -> tuple[str, ...]:
    """Return the prompt templates for a data set: the request's own, or the data set's.

    Raises:
        DataError: the file of templates cannot be used.
    """
    return read_templates(request.templates) if request.templates else dataset.templates


def open_split(request: Request, dataset: Dataset, split: str, *, hash_cache: Path | None) -> Split:
    """Open one split of a data set, with the class names and columns of the request.

    Raises:
        DataError: it cannot be used.
    """
    return dataset.open(
        split,
        class_names_file=request.class_names,
        image_column=request.image_column,
        label_column=request.label_column,
        hash_cache=hash_cache,
    )


def limited(split: str, rows: int, limit: Limit | None) -> Int64[np.ndarray, " rows"]:
    """Choose rows spread evenly, so that a limited split still has most of its classes.

    >>> limited("train", 10, {"training": 4}).tolist(), limited("test", 3, {"train": 4}).tolist()
    ([0, 2, 5, 7], [0, 1, 2])
    """
    if isinstance(limit, Mapping):
        limit = {split_names.canonical(name): most for name, most in limit.items()}.get(split)
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
