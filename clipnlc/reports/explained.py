"""Tables of how fits decide: each backbone's share, and weights of classes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clipnlc.labels import Labels
from clipnlc.reports.tables import UNDEFINED, Cell, Line, Report, Section, Table
from clipnlc.wording import count

WIDTH: Final = 80

MOST_CLASSES: Final = 40
"""That a table of weights has; the others are in the JSON."""

_NAME: Final = 18
"""Characters of a class's name that are shown."""


@dataclass(frozen=True)
class ClassWeights:
    """The mean weights of the backbones on images of one class.

    Attributes:
        name: the class's.
        weights: by backbone; none where no image of the class is among those looked at.
    """

    name: str
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Explained:
    """How one fit decides on images of the labelled split.

    Attributes:
        dataset: its key.
        combiner: its name.
        which: the labels that it was fitted on.
        images: how many were looked at.
        shares: each backbone's part of the margins between predicted class and runner-up, and by
            name that of what belongs to none; they sum to 1. See `combiners.explanation`.
        weights: the factor of each backbone's logits, the mean over images; none where the combiner
            does not weigh them.
        by_class: the same over images of each true class; none where every image has the same.
    """

    dataset: str
    combiner: str
    which: Labels
    images: int
    shares: Mapping[str, float]
    weights: Mapping[str, float]
    by_class: tuple[ClassWeights, ...]


def explained_report(dataset: str, rows: Sequence[Explained]) -> Report:
    """Lay out what fits of one data set say, the mean over seeds, in tables of 80 columns."""
    groups: dict[tuple[str, Labels], list[Explained]] = {}
    combiners = list(dict.fromkeys(row.combiner for row in rows))
    for row in sorted(rows, key=lambda row: (combiners.index(row.combiner), row.which)):
        groups.setdefault((row.combiner, row.which.setting), []).append(row)
    classes = [
        _weight_table(dataset, combiner, which, group)
        for (combiner, which), group in groups.items()
        if group[0].by_class
    ]
    note = (
        "share: of the sum of all margins between the predicted class and the runner-up, the part "
        "that a backbone's weighted logits have; below 0 it speaks against the answers"
    )
    return Report((_share_table(dataset, groups), *classes), (note,), width=WIDTH)


def short_names(backbones: Sequence[str]) -> list[str]:
    """Shorten names to what tells them apart, in words that a heading can be broken between.

    >>> short_names(["nano-RN50", "nano-RN50x16", "nano-ViT-B-32"])
    ['RN50', 'RN50 x16', 'ViT B 32']
    >>> short_names(["RN50.openai", "ViT-L-14-336.openai"])
    ['RN50', 'ViT L 14 336']
    """
    if len(backbones) == 1:
        return list(backbones)
    families = {name.partition("-")[0] for name in backbones if "-" in name}
    alike = len(families) == 1 and all("-" in name for name in backbones)
    names = [name.partition("-")[2] if alike else name for name in backbones]
    if len({name.partition(".")[2] for name in names}) == 1:
        names = [name.partition(".")[0] for name in names]
    return [re.sub(r"(?<=\d)(?=x\d)", " ", name.replace("-", " ")) for name in names]


def _share_table(dataset: str, groups: Mapping[tuple[str, Labels], Sequence[Explained]]) -> Table:
    """One row per backbone, and per part that belongs to none; one column per fit."""
    every = [row for group in groups.values() for row in group]
    parts = dict.fromkeys(part for row in every for part in row.shares)
    columns = tuple(f"{combiner} {_labels(which)}".strip() for combiner, which in groups)

    def line(part: str) -> Line:
        cells = (_mean(row.shares.get(part) for row in group) for group in groups.values())
        return Line(part, tuple(Cell(_share(value)) for value in cells))

    section = Section("", tuple(line(part) for part in parts))
    images = count(max(row.images for row in every), "image")
    title = f"{dataset}: shares in the decision, % (on {images} that labels are drawn from)"
    return Table(title, columns, (section,))


def _weight_table(dataset: str, combiner: str, which: Labels, group: Sequence[Explained]) -> Table:
    names = max((list(one.weights) for one in group[0].by_class), key=len)
    lines = []
    for several in list(zip(*(row.by_class for row in group), strict=True))[:MOST_CLASSES]:
        cells = (_mean(one.weights.get(name) for one in several) for name in names)
        name = several[0].name
        short = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
        lines.append(Line(short, tuple(Cell(_weight(value)) for value in cells)))
    left = len(group[0].by_class) - len(lines)
    notes = (f"and {left} more classes, with --json",) if left else ()
    title = f"{dataset}: weights of {combiner} {which.phrase}, mean over images of each class"
    return Table(title, tuple(short_names(names)), (Section("", tuple(lines)),), notes)


def _labels(which: Labels) -> str:
    """Return what a heading says of the labels: nothing of none."""
    if which.kind == "none":
        return ""
    return f"{which.amount:g}" if which.kind == "shots" else which.heading


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _share(value: float | None) -> str:
    return "" if value is None else f"{round(100 * value) + 0:d}"


def _weight(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.2f}"
