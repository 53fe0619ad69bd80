"""Head `auto`: what answers for each backbone, so that unlike backbones stand in one ensemble.

| a backbone | is answered by |
|---|---|
| that embeds texts | the zero-shot head |
| that came with logits (`docs/formats/logit-store.md`) | these |
| else, with features | `logistic-few`, fitted on the labels of the run |

The part of a backbone is a fact of its features' file and of what was imported, so it is found again
at any time; the key of every file of the head `auto`, and of every fit on such files, names it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.runs.finding import backbones_with_logits, datasets_with_logits
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import IMPORTED, Layout, Location, without_import

AUTO: Final = "auto"
ZERO_SHOT: Final = "zero-shot"
FITTED: Final = "logistic-few"
"""What answers for a backbone that has features alone."""


def part_of(layout: Layout, dataset: str, backbone: str) -> str:
    """Return what answers for a backbone under the head `auto`.

    Raises:
        DataError: it has neither features nor logits.
        MissingStageError: it has no features of train.
        StoreError: the file is damaged.
    """
    header = read_feature_header(layout.features(dataset, "train", backbone))
    if header.has_texts:
        return ZERO_SHOT
    if layout.logits(dataset, IMPORTED, backbone).is_file():
        return IMPORTED
    if header.dim:
        return FITTED
    place = Location(layout.root, "logits", dataset, backbone=backbone)
    raise DataError(
        f"{backbone} has neither texts nor features nor logits on {dataset}, so nothing answers for "
        f"it; import its logits again, {without_import(place)}"
    )


def usual_head(layout: Layout, dataset: str, backbones: Sequence[str] = ()) -> str:
    """Return the head that needs the least of these backbones, by default of all with features.

    It is `zero-shot` where all embed texts, else `auto`.

    Raises:
        MissingStageError: a backbone has no features of train.
        StoreError: a file is damaged.
    """
    names = tuple(backbones) or layout.backbones(dataset, "train")
    headers = (read_feature_header(layout.features(dataset, "train", name)) for name in names)
    return ZERO_SHOT if all(header.has_texts for header in headers) else AUTO


def refuse_without_labels(parts: Mapping[tuple[str, str], str]) -> None:
    """Check that every backbone has an answer before there is any label.

    Args:
        parts: `part_of` by data set and backbone.

    Raises:
        DataError: names those of a data set that have none.
    """
    found = [place for place, part in parts.items() if part == FITTED]
    if found:
        dataset = found[0][0]
        lacking = [backbone for its, backbone in found if its == dataset]
        they = f"{', '.join(lacking)} on {dataset} {'has' if len(lacking) == 1 else 'have'}"
        raise DataError(
            f"{they} neither texts nor logits, so the head {AUTO} fits {FITTED} on labels, and 0 "
            "shots give none; give --shots 1 or more, or name the others with --backbones"
        )


def refuse_without_texts(layout: Layout, dataset: str, head: str, backbones: Sequence[str]) -> None:
    """Check that no backbone lacks what a head reads: texts, or features.

    Args:
        layout: the store.
        dataset: whose features.
        head: its name; `auto` takes every backbone.
        backbones: those asked for; by default every one with features of train or test.

    Raises:
        DataError: names those that lack it, and what to do.
        StoreError: a file is damaged.
    """
    cls = HEADS.get(head)
    if cls.texts_suffice:
        return
    present = [
        (split, name) for split in ("train", "test") for name in layout.backbones(dataset, split)
    ]
    wanted = set(backbones or (name for _, name in present))
    headers = {
        name: read_feature_header(layout.features(dataset, split, name))
        for split, name in present
        if name in wanted
    }
    no_texts = [name for name in headers if cls.needs_texts and not headers[name].has_texts]
    lacking = sorted({*no_texts, *(name for name in headers if not headers[name].dim)})
    if not lacking:
        return
    others = sorted(backbones_with_logits(layout, dataset, head)) or sorted(
        set(headers) - set(lacking)
    )
    what = "texts" if no_texts else "features"
    cure = command("train-heads", dataset=dataset, head=AUTO, store=layout.root)
    alone = (
        f", or leave out {', '.join(lacking)} with --backbones {','.join(others)}" if others else ""
    )
    raise DataError(
        f"{', '.join(lacking)} on {dataset} {'has' if len(lacking) == 1 else 'have'} no {what}, which "
        f"the head {head} reads; run `{cure}` and give --head {AUTO}{alone}"
    )


def datasets_of(layout: Layout, datasets: Sequence[str], head: str) -> tuple[str, ...]:
    """Return the data sets named, or all in the store; each has logits of this head.

    Raises:
        DataError: one has none, since its backbones lack what the head reads.
        MissingStageError: one that was named has none, or none was named and none has any.
        StoreError: a file is damaged.
    """
    try:
        return datasets_with_logits(layout, datasets, head)
    except MissingStageError:
        for name in datasets or layout.datasets():
            ensemble_of(layout, name, head, ())
        raise


def ensemble_of(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str]
) -> tuple[str, ...]:
    """Return the backbones named, or all with logits of this head, sorted.

    Raises:
        DataError: one that was not left out has no logits of this head, since it lacks the texts or
            features that the head reads.
        StoreError: a file is damaged.
    """
    refuse_lacking(layout, dataset, head, backbones)
    return tuple(sorted(set(backbones) or backbones_with_logits(layout, dataset, head)))


def refuse_lacking(layout: Layout, dataset: str, head: str, backbones: Sequence[str]) -> None:
    """Check that no backbone is without logits of this head since it lacks what the head reads.

    Args:
        layout: the store.
        dataset: whose features and logits.
        head: its name.
        backbones: those asked for; by default every one with features of train or test.

    Raises:
        DataError, StoreError: as `refuse_without_texts`.
    """
    of_features = {b for split in ("train", "test") for b in layout.backbones(dataset, split)}
    present = backbones_with_logits(layout, dataset, head)
    if lacking := sorted((set(backbones) or of_features) - set(present)):
        refuse_without_texts(layout, dataset, head, lacking)


def with_unlabelled(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str], labels: Sequence[Labels]
) -> tuple[Labels, ...]:
    """Add the run without labels where every backbone has an answer of the head `auto` for it."""
    none = Labels.none()
    has = set(layout.logit_backbones(dataset, head, none.name))
    if HEADS.get(head).texts_suffice and has >= set(backbones) and none not in labels:
        return (none, *labels)
    return tuple(labels)


def label_free_logits(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str]
) -> dict[str, Path]:
    """Return the logit file of each backbone, by name, whatever labels a run has.

    Under the head `auto` it is that of the zero-shot head, or of the logits that it came with.

    Args:
        layout: the store.
        dataset: its key.
        head: one that is fitted once, or `auto`.
        backbones: names.

    Raises:
        DataError: under `auto`, a backbone is answered by a head that is fitted on the labels of a run.
        MissingStageError: a backbone has no features of train.
        StoreError: a file is damaged.
    """
    if head != AUTO:
        return {name: layout.logits(dataset, head, name) for name in backbones}
    parts = {name: part_of(layout, dataset, name) for name in backbones}
    fitted = [name for name in backbones if parts[name] == FITTED]
    if fitted:
        others = [name for name in backbones if name not in fitted]
        cure = command("diversity", dataset=dataset, head=AUTO, backbones=others, store=layout.root)
        raise DataError(
            f"{', '.join(fitted)} on {dataset} {'has' if len(fitted) == 1 else 'have'} neither texts nor "
            f"logits, so {FITTED} is fitted on the labels of each run by itself; run `{cure}` to "
            "compare the others"
        )
    return {name: layout.logits(dataset, parts[name], name) for name in backbones}
