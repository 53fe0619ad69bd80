"""Map backbone and split to a feature file; check whether it is current."""

from collections.abc import Mapping, Sequence
from typing import Any

from clipnlc.backbones import Backbone
from clipnlc.datasets.images import MAX_PIXELS
from clipnlc.datasets.near_duplicates import RULE
from clipnlc.datasets.source import Split
from clipnlc.digests import content_digest
from clipnlc.errors import MissingStageError
from clipnlc.extraction.order import Job
from clipnlc.stores import features as feature_files
from clipnlc.stores.key import Key, differences
from clipnlc.stores.layout import Layout
from clipnlc.view import View, crop_number


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
    max_pixels: int = MAX_PIXELS,
) -> Job:
    """Return the path of a feature file and the key of everything that shapes it.

    The field `images` holds what the features depend on, `classes` what only labels and texts
    do, `origin` where the data came from, `division` how train and test were made of one split.
    """
    crop = crop_number(split.name)
    fields = {
        "images": {
            "backbone": backbone.name,
            **identity,
            "precision": precision,
            **({"compiled": True} if compiled else {}),
            **({"max_pixels": max_pixels} if max_pixels != MAX_PIXELS else {}),
            **({} if crop is None else View.crop(crop).key()),
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
    if split.test_share is not None:
        fields["division"] = {"test_share": split.test_share, "near_duplicates": dict(RULE)}
    return Job(backbone, layout.features(dataset, split.name, backbone.name), Key.of(fields))


def changes(job: Job) -> tuple[str, ...] | None:
    """Return the differences from the existing file's key: () without a file, None if equal.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        old = feature_files.read_feature_header(job.path).key
    except MissingStageError:
        return ()
    return None if old == job.key else tuple(differences(old, job.key))


def same_images(job: Job) -> bool:
    """Return whether the existing features stay: only labels, texts or origin changed.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        old = feature_files.read_feature_header(job.path).key
    except MissingStageError:
        return False
    return bool(old.fields.get("images") == job.key.fields["images"])
