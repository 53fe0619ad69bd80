"""Which rows of a feature file that is made anew are taken from the file it replaces.

A feature depends on the bytes of its image and on the backbone's settings, not on the image's name
or its neighbours: where the settings are the same, the row of an image with the same bytes is
copied. Its last bits may differ from those of another batch, as they do with another batch size.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from clipnlc.datasets.source import Split
from clipnlc.errors import MissingStageError
from clipnlc.extraction.order import Job
from clipnlc.stores.features import read_feature_columns, read_feature_header
from clipnlc.stores.key import Key

EMBED = -1
"""Stands for a row that must be embedded."""

Reused = Int64[np.ndarray, " rows"]
"""For each row of an order, its row in the existing file, or `EMBED`."""


def reusable(job: Job, split: Split, rows: Int64[np.ndarray, " rows"]) -> Reused:
    """Find the images of `rows` in the existing feature file of a job.

    Raises:
        StoreError: the file is damaged.
        DataError: an image cannot be read.
    """
    nothing = np.full(len(rows), EMBED)
    try:
        header = read_feature_header(job.path)
    except MissingStageError:
        return nothing
    if _settings(header.key) != _settings(job.key):
        return nothing
    content = read_feature_columns(job.path).content
    if content is None:
        return nothing
    place = {digest.tobytes(): row for row, digest in enumerate(content)}
    wanted = split.image_digests[rows]
    return np.array([place.get(digest.tobytes(), EMBED) for digest in wanted], dtype=np.int64)


def alike(
    jobs: Sequence[Job], split: Split, rows: Int64[np.ndarray, " rows"]
) -> list[tuple[list[Job], Reused]]:
    """Group the jobs that reuse the same rows: they share what is left to decode.

    Raises:
        StoreError: an existing file is damaged.
        DataError: an image cannot be read.
    """
    groups: dict[bytes, tuple[list[Job], Reused]] = {}
    for job in jobs:
        reused = reusable(job, split, rows)
        groups.setdefault(reused.tobytes(), ([], reused))[0].append(job)
    return list(groups.values())


def _settings(key: Key) -> dict[str, object]:
    """Return what of a key shapes the features of an image; the image itself aside."""
    images = key.fields.get("images", {})
    return {name: images[name] for name in images if name not in ("split", "content", "samples")}
