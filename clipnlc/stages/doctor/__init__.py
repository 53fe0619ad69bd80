"""Look for what goes wrong with data sets in practice, before it costs accuracy.

Nothing is fitted and no result is written. Test labels are read, to find mistakes in them and in
the class names; nothing that is found enters a number of another stage.

To add a check: a function here, in the file of what it looks at, that yields `Finding`s (one of
severity `fine` where all is well), and a line in `doctor`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clipnlc.commands import command
from clipnlc.datasets import foreign_keys, is_path, keys, open_dataset
from clipnlc.datasets.images import MAX_PIXELS
from clipnlc.errors import DataError
from clipnlc.reports.diagnosis import Diagnosis, gravest_first
from clipnlc.stages.doctor.duplicates import check_duplicates
from clipnlc.stages.doctor.images import Progress, check_images, look
from clipnlc.stages.doctor.naming import (
    check_coverage,
    check_names,
    check_numbering,
    check_opening,
)
from clipnlc.stages.doctor.predictions import TEST, check_predictions, kept_logits
from clipnlc.stores.layout import Layout

TEST_SHARE: Final = 0.3
"""Share of test in the command that divides data without a test split."""


def doctor(
    *,
    store: Path | None,
    dataset: str,
    key: str | None = None,
    sources: Mapping[str, Path] | Path | None = None,
    class_names: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    labels: Path | None = None,
    classes: tuple[str, ...] = (),
    test_share: float | None = None,
    limit: int | None = None,
    max_pixels: int = MAX_PIXELS,
    on_progress: Progress = lambda _split, _done, _all: None,
) -> Diagnosis:
    """Look at the class names, the splits, the images, and the zero-shot predictions if any.

    Labels of every split, test included, are looked at to diagnose; nothing is fitted or chosen
    with them, and nothing is written but the store's cache of file hashes, if there is a store.
    One image is in memory at a time, and 16 bytes of each that was looked at. What is not on disk
    is downloaded, as by `extract`.

    Args:
        store: root of the store whose zero-shot logits are looked at; None leaves them out.
        dataset: a key, or a path.
        key: what a path is called in the store; by default the folder's own name.
        sources: copies on disk of published data sets, as for `open_dataset`.
        class_names: a file of names that replace the data set's own.
        image_column: the column of the images or their files, where there are columns.
        label_column: the column of the labels, where there are columns.
        labels: of a folder of images, a table of their labels.
        classes: with `labels`, the class names.
        test_share: divide a data set without a test split first, as `extract` does.
        limit: images to decode per split, in stretches spread over it; all by default.
        max_pixels: a larger image cannot be read.
        on_progress: called with (split, images looked at, images to look at).

    Raises:
        UnknownNameError: there is no such data set.
        DataError: there is nothing that could be looked at: no images, no labels, no class names.
        StoreError: a logit file is damaged.
    """
    if store is not None and not is_path(dataset) and dataset not in (*keys(), *foreign_keys()):
        _refuse_without_path(Layout(store), dataset)
    # Other rows than expected are a finding here, not a reason to stop.
    found = open_dataset(
        dataset,
        key=key,
        sources=sources,
        accept_different_data=True,
        test_share=test_share,
        labels=labels,
        classes=classes,
    )
    cache = None if store is None or not store.is_dir() else store / "file-hashes.sqlite"
    opened = {
        name: found.open(
            name,
            class_names_file=class_names,
            image_column=image_column,
            label_column=label_column,
            hash_cache=cache,
        )
        for name in found.split_names(image_column=image_column, label_column=label_column)
    }
    names = opened.get(TEST, next(iter(opened.values()))).class_names
    looked = {name: look(split, limit, on_progress, max_pixels) for name, split in opened.items()}
    kept = [] if store is None else kept_logits(Layout(store), found.key)
    extract = command(
        "extract",
        dataset=dataset,
        name=key,
        source=_source(sources, dataset),
        class_names=class_names,
        image_column=image_column,
        label_column=label_column,
        labels=labels,
        classes=classes,
        test_share=test_share or (None if TEST in opened else TEST_SHARE),
        on_bad_image="skip" if any(one.unreadable.count for one in looked.values()) else None,
        store=store,
    )
    findings = [
        *check_names(found, opened),
        *check_numbering(opened),
        *check_opening(opened),
        *check_coverage(opened),
        *check_duplicates(looked),
        *check_images(looked),
        *(() if store is None else check_predictions(found.key, kept, names, extract=extract)),
    ]
    return Diagnosis(
        dataset=found.key,
        rows={name: len(split) for name, split in opened.items()},
        looked_at={name: one.looked for name, one in looked.items()},
        backbones=tuple(one.backbone for one in kept),
        findings=gravest_first(findings),
    )


def _source(sources: Mapping[str, Path] | Path | None, dataset: str) -> str | None:
    """Spell `--source` for one data set."""
    if isinstance(sources, Path):
        return str(sources)
    return f"{dataset}={sources[dataset]}" if sources and dataset in sources else None


def _refuse_without_path(layout: Layout, dataset: str) -> None:
    """Say what is needed of a data set that the store has: it does not know where the images lie."""
    if dataset in layout.datasets():
        raise DataError(
            f"{layout.root} holds {dataset}, but not where its images lie; give their path, with "
            f"--name {dataset} unless its folder is called so"
        )
