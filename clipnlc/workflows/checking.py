"""What `run` looks for before and after it extracts photos: what a newcomer's folder lacks most often."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from clipnlc.datasets.splits import TRAIN
from clipnlc.errors import DataError
from clipnlc.extraction.inputs import open_datasets, open_split, splits_of
from clipnlc.labels import NO_LABEL
from clipnlc.reports.diagnosis import first_few
from clipnlc.stages.doctor.images import look
from clipnlc.stores.layout import Layout
from clipnlc.wording import count, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from clipnlc.datasets.dataset import Dataset
    from clipnlc.extraction.request import Request
    from clipnlc.reports.progress import Advance


def refuse_one_class(request: Request, dataset: Dataset, splits: tuple[str, ...]) -> None:
    """Check that labels, those of train where there is such a split, are of two classes or more.

    Raises:
        DataError: they are of one; the photos cannot be used.
    """
    part = TRAIN if TRAIN in splits else splits[0]
    cache = _hash_cache(request)
    is_new = not cache.parent.exists()
    split = open_split(request, dataset, part, hash_cache=cache)
    labels = split.labels[split.labels != NO_LABEL]
    found = [split.class_names[label] for label in np.unique(labels)]
    if len(found) == 1:
        if is_new:  # a store of hashes alone is of no use to who may name another one next
            cache.unlink(missing_ok=True)
            with suppress(OSError):
                cache.parent.rmdir()
        raise DataError(
            f"{count(len(labels), 'label')} of {request.labels or dataset.path}, all of them "
            f"{quoted(found[0])}: no combiner can be fitted on one class; label photos of another too"
        )


def name_unreadable(request: Request, error: DataError, advance: Advance) -> DataError:
    """Return an error that names several of the images that cannot be read, and says how many there are.

    Args:
        request: what was to be extracted.
        error: what the first of them led to; returned where it is the only one.
        advance: called with how many images were looked at.
    """
    (dataset,) = open_datasets(request)
    names: list[str] = []
    total, reason = 0, ""
    for part in splits_of(request, [dataset])[dataset.key]:
        split = open_split(request, dataset, part, hash_cache=_hash_cache(request))
        looked = look(
            split,
            None,
            lambda name, done, of: advance(
                f"images of {name} to look for broken ones", done, of, ""
            ),
            request.max_pixels,
        )
        names += looked.unreadable.places
        total += looked.unreadable.count
        reason = reason or looked.reason
    if total < 2:  # noqa: PLR2004  (that one is named already)
        return error
    why = f" (the first: {reason})" if reason else ""
    return DataError(
        f"{total} images of {dataset.path} cannot be read: {', '.join(first_few(names, total))}{why}; "
        "replace or remove them, or use --on-bad-image skip"
    )


def _hash_cache(request: Request) -> Path:
    return Layout(request.store).root / "file-hashes.sqlite"
