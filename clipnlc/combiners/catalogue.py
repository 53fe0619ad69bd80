"""What `clipnlc combiners` lists, and what tables say of every combiner."""

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import getdoc
from typing import Any

from clipnlc.combiners import COMBINERS


@dataclass(frozen=True)
class Entry:
    """One combiner.

    Attributes:
        name: as given to `--combiners`.
        groups: those that it is in.
        meaning: what it does, one line; the first of its class's docstring.
        labels: whether it learns from labels: `no`, `yes`, or `optional` where it can do without.
        unlabelled: it also learns from unlabelled images of train.
        features: it reads the images' features, not the logits alone.
        reads_test: it reads all the images that it predicts together.
        selected_on: what its default settings were chosen on.
        package: who made it, with the version; empty for clipnlc's own.
    """

    name: str
    groups: tuple[str, ...]
    meaning: str
    labels: str
    unlabelled: bool
    features: bool
    reads_test: bool
    selected_on: str
    package: str = ""


def catalogue(names: str | Iterable[str] = "all") -> list[Entry]:
    """Describe combiners, by names and groups.

    Raises:
        UnknownNameError: a name is neither a combiner nor a group.
    """
    return [_entry(name, COMBINERS.get(name)) for name in COMBINERS.resolve(names)]


def _entry(name: str, cls: Any) -> Entry:  # noqa: ANN401  (a class of the table)
    optional = "optional" if getattr(cls, "takes_labels", False) else "no"
    return Entry(
        name=name,
        groups=tuple(group for group, members in COMBINERS.all_groups.items() if name in members),
        meaning=(getdoc(cls) or "").split("\n")[0],
        labels="yes" if cls.needs_labels else optional,
        unlabelled=getattr(cls, "reads_pool", False),
        features=cls.needs_features,
        reads_test=getattr(cls, "reads_test", False),
        selected_on=cls.selected_on,
        package=str(COMBINERS.plugin(name) or ""),
    )
