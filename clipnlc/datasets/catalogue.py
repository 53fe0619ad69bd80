"""What `clipnlc datasets` lists."""

import json
from dataclasses import dataclass

from clipnlc.datasets import foreign_keys, hub, nano
from clipnlc.datasets.foreign import FOREIGN
from clipnlc.datasets.hub.dataset import PublishedDataset
from clipnlc.plugins import GROUP


@dataclass(frozen=True)
class Entry:
    """One data set that needs no path.

    Attributes:
        key: as given to `--dataset`.
        group: `nano`, `all` (the paper's), `ood`, or `plugins` of other packages.
        classes: number of classes; None if unknown.
        train: number of training images; None if unknown.
        val: images to choose on, mostly 0; None if unknown.
        test: images to be measured on; None where that is not known.
        metric: what the CLIP paper reports, `accuracy` or `class-mean-accuracy`.
        kind: what the images are.
        note: what to know of it.
        licence: of the images, in short.
        source: the preferred repository and its commit, `package`, or another package and its version.
        gated: the source's terms must be accepted on the hub.
        at_hand: the splits that need no download.
        class_names: in label order; empty where only the source knows them.
        templates: prompt templates.
    """

    key: str
    group: str
    classes: int | None
    train: int | None
    val: int | None
    test: int | None
    metric: str
    kind: str
    note: str
    licence: str
    source: str
    gated: bool
    at_hand: tuple[str, ...]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]


def catalogue() -> list[Entry]:
    """Describe every data set that needs no path; nothing is downloaded."""
    return [
        *(_embedded(key) for key in nano.KEYS),
        *(_published(key) for name in ("all", "ood") for key in hub.keys(name)),
        *(_foreign(key) for key in foreign_keys()),
    ]


def _foreign(key: str) -> Entry:
    """Describe a data set of another package, which is not opened for it."""
    return Entry(
        key=key,
        group=GROUP,
        classes=None,
        train=None,
        val=None,
        test=None,
        metric="accuracy",
        kind="",
        note="",
        licence="",
        source=str(FOREIGN.declared()[key][0]),
        gated=False,
        at_hand=(),
        class_names=(),
        templates=(),
    )


def _embedded(key: str) -> Entry:
    card = json.loads((nano.dataset_root(key) / "dataset.json").read_text("utf-8"))
    rows = card["rows"]
    return Entry(
        key=key,
        group="nano",
        classes=len(card["class_names"]),
        train=sum(n for part, n in rows.items() if part.startswith("train")),
        val=0,
        test=sum(n for part, n in rows.items() if part.startswith("test")),
        metric="accuracy",
        kind=card["kind"],
        note=card["note"],
        licence=card["licence"],
        source="package",
        gated=False,
        at_hand=("train", "test"),
        class_names=tuple(card["class_names"]),
        templates=tuple(card["templates"]),
    )


def _published(key: str) -> Entry:
    entry = hub.entries()[key]
    first = entry.sources[0]
    train, val, test = (
        first.splits[name].rows if name in first.splits else 0 for name in ("train", "val", "test")
    )
    return Entry(
        key=key,
        group=entry.group,
        classes=entry.classes,
        train=train,
        val=val,
        test=test,
        metric=entry.metric,
        kind=entry.kind,
        note=entry.note,
        licence=entry.licence,
        source=f"{first.id}@{first.revision}" if first.revision else first.id,
        gated=first.gated,
        at_hand=PublishedDataset(key, entry.templates, entry).at_hand(),
        class_names=entry.class_names or (),
        templates=entry.templates,
    )
