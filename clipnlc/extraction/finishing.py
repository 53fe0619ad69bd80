"""Sealed shards to feature files, and those to zero-shot logits; needs no model and no image."""

from pathlib import Path
from typing import Final

import numpy as np

from clipnlc.commands import command
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.heads import HEADS, Head
from clipnlc.stores import features as feature_files
from clipnlc.stores import locks, shards
from clipnlc.stores import logits as logit_files
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.texts import read_texts, text_key

HEAD: Final = "zero-shot"

_ROWS: Final = 8192
"""Rows of features in memory while logits are made."""


def merge(layout: Layout, path: Path, key: Key) -> None:
    """Merge the sealed shards of a feature file; the caller holds its lock.

    Raises:
        MissingStageError: the texts of this backbone were never embedded.
        StoreError: the shards do not tile the samples, or a file is damaged or cannot be written.
    """
    texts = read_texts(layout.texts(key.fields["images"]["backbone"], text_key(key)))
    shards.merge_shards(
        path,
        key,
        rows=key.fields["images"]["samples"],
        class_names=texts.class_names,
        texts=texts.texts,
        logit_scale=texts.logit_scale,
        logit_bias=texts.logit_bias,
    )


def write_zero_shot_logits(layout: Layout, dataset: str, backbone: str) -> bool:
    """Write the zero-shot logits of every split; return False if they are current already.

    A backbone without texts has none: False, too.

    Raises:
        StoreError: a file is damaged or in use, or the splits name different classes.
    """
    paths = {
        split: path
        for split in layout.splits(dataset)
        if (path := layout.features(dataset, split, backbone)).is_file()
    }
    if not paths:
        return False
    headers = {s: feature_files.read_feature_header(p) for s, p in paths.items()}
    if not any(header.has_texts for header in headers.values()):
        return False
    key = Key.of(
        {
            "head": HEAD,
            "backbone": backbone,
            "inputs": {layout.relative(paths[s]): headers[s].digest for s in paths},
        }
    )
    target = layout.logits(dataset, HEAD, backbone)
    try:
        if logit_files.read_logit_header(target).key == key:
            return False
    except MissingStageError:
        pass
    with locks.writing(target):
        columns = {s: feature_files.read_feature_columns(p) for s, p in paths.items()}
        first, *others = columns.values()
        for other in others:
            if not _same_classifier(first, other):
                cure = command("extract", dataset=dataset, backbones=backbone, store=layout.root)
                raise StoreError(
                    f"the splits of {dataset} have other class names or prompts for {backbone}; "
                    f"extract all of them alike: give the same command no --split, or run `{cure}`"
                )
        zero_shot: Head = HEADS.get(HEAD)()
        if first.texts is None or first.logit_scale is None:
            return False
        zero_shot.fit_to_texts(
            texts=first.texts, logit_scale=first.logit_scale, logit_bias=first.logit_bias
        )
        logit_files.write_logits(
            target,
            logit_files.LogitStore(
                splits={
                    split: logit_files.LogitBlocks(
                        map(
                            zero_shot.logits, feature_files.read_feature_blocks(paths[split], _ROWS)
                        ),
                        found.labels,
                        found.sample_id,
                    )
                    for split, found in columns.items()
                },
                class_names=first.class_names,
                key=key,
                learnt=zero_shot.state(),
                facts={},
            ),
        )
    return True


def _same_classifier(
    one: feature_files.FeatureColumns, other: feature_files.FeatureColumns
) -> bool:
    """Return whether two splits have the same classes, texts and logit scale."""
    if one.texts is None or other.texts is None:
        return one.class_names == other.class_names and one.texts is other.texts
    return (
        one.class_names == other.class_names
        and np.array_equal(one.texts, other.texts)
        and (one.logit_scale, one.logit_bias) == (other.logit_scale, other.logit_bias)
    )
