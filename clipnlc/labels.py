"""Which labelled samples something is fitted on: the one value that spells, sorts and draws them.

Which rows are drawn depends on their `sample_id` and the seed, never on the order of the rows.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from clipnlc.errors import DataError

LabelKind = Literal["none", "shots", "count", "holdout", "all"]

KINDS: tuple[LabelKind, ...] = ("none", "shots", "count", "holdout", "all")

UNLABELLED: Final = "unlabelled"
"""The split of a data set that holds its images without a label, which methods may learn from."""

NO_LABEL: Final = -1
"""The label of an image without one; only in that split."""

_SPELLED = re.compile(
    r"(?:(?P<shots>\d+)-shots|(?P<count>\d+)-labels|holdout-(?P<holdout>\d+(?:\.\d+)?(?:e-\d+)?)"
    r"|(?P<all>all)-labels)-seed-(?P<seed>\d+)"
)


class Draw(NamedTuple):
    """The rows that were drawn, and the classes that had too few.

    Attributes:
        rows: the row numbers, ascending.
        short: class number -> rows it has, for each class with fewer than were asked for.
    """

    rows: Int[np.ndarray, " drawn"]
    short: dict[int, int]


@dataclass(frozen=True)
class Labels:
    """None, k of each class, n at random, a share (stratified), or all of the labelled samples.

    Labels compare in the order of a table's columns: none, shots, counts, hold-outs, all; then by
    amount, then by seed.

    Attributes:
        kind: `none`, `shots`, `count`, `holdout` or `all`.
        amount: samples per class for `shots`, samples for `count`, the share in (0, 1] for
            `holdout`; 0 for the others.
        seed: of the draw, and of everything random in a fit.

    >>> [Labels.shots(4, seed=1).name, Labels.none().name, Labels.holdout(0.1).name]
    ['4-shots-seed-1', 'no-labels', 'holdout-0.1-seed-0']
    """

    kind: LabelKind
    amount: int | float = 0
    seed: int = 0

    @classmethod
    def none(cls) -> "Labels":
        """Return no labels."""
        return cls("none")

    @classmethod
    def shots(cls, amount: int, *, seed: int = 0) -> "Labels":
        """Return `amount` samples of each class."""
        return cls("shots", amount, seed)

    @classmethod
    def count(cls, amount: int, *, seed: int = 0) -> "Labels":
        """Return `amount` samples at random, whatever their classes."""
        return cls("count", amount, seed)

    @classmethod
    def holdout(cls, share: float, *, seed: int = 0) -> "Labels":
        """Return a share of the samples in (0, 1], stratified by class."""
        return cls("holdout", share, seed)

    @classmethod
    def all(cls, *, seed: int = 0) -> "Labels":
        """Return every labelled sample."""
        return cls("all", 0, seed)

    @classmethod
    def parse(cls, name: str) -> "Labels":
        """Read back the name of a run.

        Raises:
            DataError: it is no such name.

        >>> Labels.parse("30-labels-seed-2")
        Labels(kind='count', amount=30, seed=2)
        """
        if name == "no-labels":
            return cls.none()
        found = _SPELLED.fullmatch(name)
        for kind in KINDS[1:] if found else ():
            if found and (text := found[kind]) is not None:
                amount = 0 if kind == "all" else float(text) if kind == "holdout" else int(text)
                return cls(kind, amount, int(found["seed"]))
        raise DataError(
            f"{name!r} does not name a draw of labels; expected no-labels, 4-shots-seed-0, "
            "30-labels-seed-0, holdout-0.1-seed-0 or all-labels-seed-0"
        )

    def __post_init__(self) -> None:
        """Check the amount.

        Raises:
            DataError: it is out of range.
        """
        whole = float(self.amount).is_integer()
        if self.kind in ("shots", "count") and not (whole and self.amount >= 1):
            what = "shots per class" if self.kind == "shots" else "labels"
            raise DataError(f"{self.amount:g} {what} were asked for; give whole numbers from 1")
        if self.kind == "holdout" and not 0 < self.amount <= 1:
            raise DataError(f"--holdout is {self.amount:g}; give a share above 0, up to 1")

    def __lt__(self, other: "Labels") -> bool:
        """Return which comes first; see the class."""
        return self._place() < other._place()

    def _place(self) -> tuple[int, int | float, int]:
        return KINDS.index(self.kind), self.amount, self.seed

    @property
    def name(self) -> str:
        """The name of a run fitted on these labels, as in a store's paths."""
        if self.kind == "none":
            return "no-labels"
        spelled = {
            "shots": f"{self.amount}-shots",
            "count": f"{self.amount}-labels",
            "holdout": f"holdout-{self.amount:g}",
            "all": "all-labels",
        }[self.kind]
        return f"{spelled}-seed-{self.seed}"

    @property
    def setting(self) -> "Labels":
        """The same labels with seed 0: what several seeds have in common."""
        return replace(self, seed=0)

    @property
    def heading(self) -> str:
        """The heading of a table's column.

        >>> [Labels.shots(1).heading, Labels.holdout(0.1).heading, Labels.all().heading]
        ['1 shot', '10 % held', 'all labels']
        """
        return {
            "none": "no labels",
            "shots": f"{self.amount:g} shot{'s' * (self.amount != 1)}",
            "count": f"{self.amount:g} label{'s' * (self.amount != 1)}",
            "holdout": f"{100 * self.amount:g} % held",
            "all": "all labels",
        }[self.kind]

    @property
    def phrase(self) -> str:
        """What a sentence says of a fit: `at 4 per class`, `without labels`."""
        return {
            "none": "without labels",
            "shots": f"at {self.amount:g} per class",
            "count": f"on {self.amount:g} label{'s' * (self.amount != 1)}",
            "holdout": f"on a hold-out of {100 * self.amount:g} %",
            "all": "on all labels",
        }[self.kind]

    @staticmethod
    def options(several: "Sequence[Labels]", *, zero: bool = False) -> dict[str, str]:
        """Return the options of a command that draws these labels; seeds reach the highest.

        Draws of another kind than the first are left out, and hold-outs of another share: a command
        takes one. Shots and all labels go together. With `zero`, no labels are spelled, as 0 shots.

        >>> Labels.options([Labels.shots(1, seed=2), Labels.shots(4), Labels.all()])
        {'shots': '1,4,all', 'seeds': '3'}
        >>> Labels.options([Labels.none(), Labels.shots(1)], zero=True)
        {'shots': '0,1', 'seeds': '1'}
        """
        drawn = sorted(which for which in several if which.kind != "none")
        none = zero and len(drawn) < len(several)
        if not drawn:
            return {"shots": "0"} if none else {}
        first = drawn[0]
        kinds = ("shots", "all") if first.kind in ("shots", "all") else (first.kind,)
        alike = [which for which in drawn if which.kind in kinds]
        if first.kind == "holdout":
            alike = [which for which in alike if which.amount == first.amount]
        none = none and "shots" in kinds
        amounts = dict.fromkeys(
            [
                *(["0"] if none else []),
                *("all" if which.kind == "all" else f"{which.amount}" for which in alike),
            ]
        )
        seeds = str(1 + max(which.seed for which in alike))
        return {kinds[0]: ",".join(amounts), "seeds": seeds}

    @staticmethod
    def few() -> "tuple[Labels, ...]":
        """Return the draws that stages fit on by default: 1 to 32 of each class."""
        return tuple(Labels.shots(shots) for shots in (1, 2, 4, 8, 16, 32))

    def draw(
        self,
        labels: Int[np.ndarray, " samples"],
        sample_id: Sequence[str],
        *,
        classes: int,
    ) -> Draw:
        """Choose the rows. With the same seed, a draw of more shots or labels holds those of fewer.

        A class with fewer samples than shots gives all it has.
        """
        rows = np.arange(len(labels))
        if self.kind == "none":
            return Draw(rows[:0], {})
        if self.kind == "shots":
            return _shots(labels, sample_id, classes, int(self.amount), self.seed)
        if self.kind == "count":
            order = np.argsort(ranks(sample_id, draw=f"count:{self.seed}"))
            return Draw(np.sort(order[: int(self.amount)]), {})
        if self.kind == "holdout" and self.amount < 1:
            share = self.amount
            return Draw(stratified_split(labels, sample_id, share=share, seed=self.seed)[1], {})
        return Draw(rows, {})

    def shared(self, labels: Int[np.ndarray, " samples"]) -> float:
        """Return the share of its labels that another draw from the same samples is expected to have.

        >>> labels = np.repeat([0, 1], [4, 8])
        >>> [Labels.shots(4).shared(labels), Labels.count(3).shared(labels), Labels.all().shared(labels)]
        [0.75, 0.25, 1.0]
        """
        if self.kind == "shots":
            sizes = np.bincount(labels)
            drawn = np.minimum(sizes, self.amount)[sizes > 0]
            return float((drawn**2 / sizes[sizes > 0]).sum() / drawn.sum())
        shares = {"none": 0.0, "count": self.amount / len(labels), "holdout": self.amount}
        return min(1.0, float(shares.get(self.kind, 1.0)))


def ranks(sample_id: Sequence[str], *, draw: str) -> Int[np.ndarray, " samples"]:
    """Return each row's place in a pseudo-random order of the samples.

    `draw` names the order; two names give independent orders. A sample's place is decided by a
    hash of the name and its identifier, so it does not depend on where the row stands.

    >>> ranks(["a", "b", "c"], draw="x")[::-1].tolist() == ranks(["c", "b", "a"], draw="x").tolist()
    True
    """
    digests = [
        hashlib.blake2b(f"{draw}:{name}".encode(), digest_size=8).digest() for name in sample_id
    ]
    keys = np.frombuffer(b"".join(digests), dtype=">u8")
    places = np.empty(len(keys), dtype=np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return places


def dealt_folds(
    labels: Int[np.ndarray, " samples"], sample_id: Sequence[str], number: int, *, draw: str
) -> Int[np.ndarray, " samples"]:
    """Return each row's fold, from 0: rows are dealt out one by one, class by class.

    Neither the order of the rows nor that of the classes changes it; `draw` names the order, see
    `ranks`.

    >>> dealt_folds(np.array([0, 0, 1, 1]), ["a", "b", "c", "d"], 2, draw="folds:0").tolist()
    [1, 0, 1, 0]
    """
    place = ranks(sample_id, draw=draw)
    first = np.full(int(labels.max(initial=0)) + 1, len(labels))
    np.minimum.at(first, labels, place)
    folds = np.empty(len(labels), dtype=np.int64)
    folds[np.lexsort((place, first[labels]))] = np.arange(len(labels)) % number
    return folds


def canonical_rows(sample_id: Sequence[str]) -> Int[np.ndarray, " samples"]:
    """Return the row numbers in the order of their identifiers.

    What is learnt from rows taken in this order does not depend on the order they came in.

    >>> canonical_rows(["b", "a"]).tolist()
    [1, 0]
    """
    return np.array(sorted(range(len(sample_id)), key=sample_id.__getitem__), dtype=np.int64)


def stratified_split(
    labels: Int[np.ndarray, " samples"], sample_id: Sequence[str], *, share: float, seed: int
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held"]]:
    """Split the rows in two, class by class; return the kept and the held row numbers, ascending.

    About `share` (in (0, 1)) of each class's rows are held. A class with two or more rows has at
    least one on both sides; a class with a single row is kept. Where no class has two rows, as in
    a trial run on a few images of many classes, the held rows are drawn from all of them.

    >>> kept, held = stratified_split(np.arange(4), ["a", "b", "c", "d"], share=0.1, seed=0)
    >>> len(kept), len(held)
    (3, 1)
    """
    order = np.argsort(ranks(sample_id, draw=f"split:{seed}"))
    held = np.zeros(len(labels), dtype=bool)
    strata = _by_class(labels, order)
    if all(len(rows) < 2 for rows in strata.values()):  # noqa: PLR2004  (no class to divide)
        strata = {0: order}
    for rows in strata.values():
        if len(rows) > 1:
            held[rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _shots(
    labels: Int[np.ndarray, " samples"],
    sample_id: Sequence[str],
    classes: int,
    shots: int,
    seed: int,
) -> Draw:
    by_class = _by_class(labels, np.argsort(ranks(sample_id, draw=f"shots:{seed}")))
    none = np.empty(0, dtype=np.int64)
    pools = [by_class.get(label, none) for label in range(classes)]
    short = {label: len(pool) for label, pool in enumerate(pools) if len(pool) < shots}
    return Draw(np.sort(np.concatenate([pool[:shots] for pool in pools])), short)


def _by_class(
    labels: Int[np.ndarray, " samples"], order: Int[np.ndarray, " samples"]
) -> dict[int, Int[np.ndarray, " rows"]]:
    """Sort the rows of `order` into their classes, keeping the order within each."""
    if not len(labels):
        return {}
    present, counts = np.unique(labels, return_counts=True)
    grouped = order[np.argsort(labels[order], kind="stable")]
    parts = np.split(grouped, np.cumsum(counts)[:-1])
    return {int(label): rows for label, rows in zip(present, parts, strict=True)}
