"""Which feature file a backbone and a split make, and whether it is there."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from clipnlc import datasets
from clipnlc.backbones import Backbone
from clipnlc.datasets.dataset import Dataset
from clipnlc.datasets.source import Split
from clipnlc.digests import content_digest
from clipnlc.errors import DataError, MissingStageError
from clipnlc.extraction.order import Job, Range
from clipnlc.stores import features as feature_files
from clipnlc.stores.key import Key, differences
from clipnlc.stores.layout import Layout

Limit = int | Mapping[str, int]
"""At most this many images: of every split, or of the splits named."""

Rows = tuple[int, int | None]
"""First row, and the row after the last; None is the end of the split."""


def open_datasets(
    wanted: Sequence[str],
    *,
    name: str | None,
    limit: Limit | None,
    sources: Mapping[str, Path] | Path | None,
    accept_different_data: bool,
    prompts: str,
) -> list[Dataset]:
    """Open data sets by keys, groups or paths; `name` is the key of a path.

    Raises:
        DataError: one cannot be used, `name` would name several, or `limit` leaves nothing.
        UnknownNameError: a name is not known.
    """
    names = tuple(itertools.chain.from_iterable(datasets.resolve(one) for one in wanted))
    if name is not None and len(names) != 1:
        raise DataError(f"--name names one data set, but {len(names)} were given; drop --name")
    for most in limit.values() if isinstance(limit, Mapping) else [limit]:
        if most is not None and most < 1:
            raise DataError(f"--limit is {most}; give at least 1")
    return [
        datasets.open_dataset(
            one,
            key=name,
            sources=sources,
            accept_different_data=accept_different_data,
            prompts=prompts,
        )
        for one in names
    ]


def job_of(
    layout: Layout,
    dataset: str,
    split: Split,
    backbone: Backbone,
    *,
    identity: Mapping[str, Any],
    precision: str,
    compiled: bool,
    samples: int,
    templates: Sequence[str],
) -> Job:
    """Name the feature file and everything that shapes it.

    The field `images` holds what the features depend on, `classes` what only labels and texts
    do, `origin` where the data came from.
    """
    fields = {
        "images": {
            "backbone": backbone.name,
            **identity,
            "precision": precision,
            **({"compiled": True} if compiled else {}),
            "split": split.name,
            "content": split.content,
            "samples": samples,
        },
        "classes": {
            "labels": split.fingerprint,
            "names": content_digest(list(split.class_names)),
            "templates": list(templates),
        },
    }
    if split.origin:
        fields["origin"] = dict(split.origin)
    return Job(backbone, layout.features(dataset, split.name, backbone.name), Key.of(fields))


def changes(job: Job) -> tuple[str, ...] | None:
    """Tell what differs from the file that is there; `None` where nothing does.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        old = feature_files.read_feature_header(job.path).key
    except MissingStageError:
        return ()
    return None if old == job.key else tuple(differences(old, job.key))


def same_images(job: Job) -> bool:
    """Tell whether the features that are there stay: only labels, texts or origin changed.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        old = feature_files.read_feature_header(job.path).key
    except MissingStageError:
        return False
    return bool(old.fields.get("images") == job.key.fields["images"])


def limited(split: str, rows: int, limit: Limit | None) -> Int64[np.ndarray, " rows"]:
    """Choose rows spread evenly, so that a limited split still has most of its classes.

    >>> limited("train", 10, {"train": 4}).tolist(), limited("test", 3, {"train": 4}).tolist()
    ([0, 2, 5, 7], [0, 1, 2])
    """
    most = limit.get(split) if isinstance(limit, Mapping) else limit
    if most is None or most >= rows:
        return np.arange(rows)
    return (np.arange(most) * rows) // most


def range_of(wanted: Rows, rows: int) -> Range:
    """Cut a wanted range of rows to those there are.

    Raises:
        DataError: it holds none of them.

    >>> range_of((2, None), 5), range_of((0, 9), 5)
    ((2, 5), (0, 5))
    """
    start, stop = wanted[0], rows if wanted[1] is None else min(wanted[1], rows)
    if not 0 <= start < stop:
        raise DataError(
            f"--rows {wanted[0]}:{'' if wanted[1] is None else wanted[1]} holds none of the "
            f"{rows} rows; give a range within them, as in --rows 0:1000"
        )
    return (start, stop)


def check_single_split(rows: Rows | None, parts: Mapping[str, Sequence[str]]) -> None:
    """Check that a range of rows is asked of one split only.

    Raises:
        DataError: it is not.
    """
    if rows is not None and [len(p) for p in parts.values()] != [1]:
        raise DataError("--rows is for a single data set and split; name it with --split")
