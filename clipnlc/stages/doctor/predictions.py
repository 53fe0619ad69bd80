"""Checks of what the backbones' zero-shot heads say, where a store holds it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from clipnlc.datasets.published import SUSPICIOUS, published_accuracy
from clipnlc.metrics import METRICS
from clipnlc.metrics.confusion import best_relabelling, confusion_matrix, swapped_pairs
from clipnlc.reports.diagnosis import Finding, first_few
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import SplitLogits, read_logit_header, read_split
from clipnlc.wording import count

TEST: Final = "test"
HEAD: Final = "zero-shot"

FAR: Final = 0.1  # a share under the published accuracy that other prompts do not explain
NEAR_CHANCE: Final = 0.05  # of the way from chance to always right
RELABELLED: Final = 0.1  # at least so much more accuracy under another order of the names
FEW: Final = 10  # images of a class; of fewer, accident makes one name the more frequent


class KeptLogits(NamedTuple):
    """One backbone's zero-shot logits of the test split, as the store holds them."""

    backbone: str
    path: Path


@dataclass
class Confusions:
    """What the backbones' predictions have in common, gathered one backbone at a time.

    Attributes:
        halves: confusions summed over the backbones, of one half of each class's rows and of the
            other, so that an order found on one half is tried on the other.
        swaps: how many backbones swap a pair of classes.
        accuracies: one per backbone.
        samples: rows of the largest split.
    """

    halves: Int[np.ndarray, "2 classes classes"]
    swaps: dict[tuple[int, int], int] = field(default_factory=dict)
    accuracies: dict[str, float] = field(default_factory=dict)
    samples: int = 0

    def add(self, backbone: str, split: SplitLogits) -> None:
        """Take one backbone's predictions in."""
        classes = split.logits.shape[1]
        predicted = split.logits.argmax(axis=1)
        first = _every_other_of_its_class(split.labels)
        halves = [
            confusion_matrix(predicted[half], split.labels[half], classes=classes)
            for half in (first, ~first)
        ]
        self.halves += np.stack(halves)
        whole = halves[0] + halves[1]
        rows = whole.sum(axis=1)
        for pair in swapped_pairs(whole):
            if min(rows[list(pair)]) >= FEW:
                self.swaps[pair] = self.swaps.get(pair, 0) + 1
        self.accuracies[backbone] = float((predicted == split.labels).mean())
        self.samples = max(self.samples, len(split.labels))


def _every_other_of_its_class(labels: Int[np.ndarray, " samples"]) -> Bool[np.ndarray, " samples"]:
    marked = np.zeros(len(labels), bool)
    marked[np.argsort(labels, kind="stable")[::2]] = True
    return marked


def kept_logits(layout: Layout, dataset: str) -> list[KeptLogits]:
    """Find the zero-shot logits of the test split; only headers are read.

    Raises:
        StoreError: a header is damaged.
    """
    paths = {
        backbone: layout.logits(dataset, HEAD, backbone)
        for backbone in layout.logit_backbones(dataset, HEAD)
    }
    return [KeptLogits(b, p) for b, p in paths.items() if TEST in read_logit_header(p).rows]


def check_predictions(
    dataset: str, kept: Sequence[KeptLogits], names: tuple[str, ...], *, extract: str
) -> Iterator[Finding]:
    """Look for swapped and permuted names, and for low accuracies; one backbone in memory.

    Args:
        dataset: its name in the store.
        kept: what to look at.
        names: the class names of the data; logits of other ones are passed over, and said to be.
        extract: the command that makes logits of this very data, as it was looked at.

    Raises:
        StoreError: a file is damaged.
    """
    if not kept:
        yield Finding(
            "predictions",
            "note",
            f"the store holds no zero-shot logits of {dataset} on {TEST}, so swapped names and low "
            "accuracies were not looked for",
            cure=f"run `{extract}`, then this again",
        )
        return
    seen = Confusions(np.zeros((2, len(names), len(names)), np.int64))
    below: list[tuple[str, float, float]] = []
    foreign = []
    for backbone, path in kept:
        split, its_names = read_split(path, TEST)
        if its_names != names:
            foreign.append(backbone)
            continue
        seen.add(backbone, split)
        known = published_accuracy(dataset, backbone)
        if known is not None:
            ours = METRICS.get(known.metric)(split.logits, split.labels)
            if ours < known.accuracy - SUSPICIOUS:
                below.append((backbone, ours, known.accuracy))
    if foreign:
        yield Finding(
            "predictions",
            "warning",
            f"the store's logits have other class names than the data: {count(len(foreign), 'backbone')}",
            first_few(foreign),
            "names were changed after the extraction",
            f"run `{extract}` again",
        )
    if not seen.accuracies:
        return
    findings = [*_swaps(seen, names), *_order(seen, names), *_below(below), *_chance(seen, names)]
    yield from findings
    if not findings:
        low, high = min(seen.accuracies.values()), max(seen.accuracies.values())
        yield Finding(
            "predictions",
            "fine",
            f"zero-shot accuracy is {100 * low:.1f} to {100 * high:.1f} %, and no other order of "
            "the names fits better",
        )


def _swaps(seen: Confusions, names: Sequence[str]) -> Iterator[Finding]:
    """Look for pairs that most backbones swap.

    With the nine nano backbones on the ten nano sets this finds 970 of the 1201 swaps of two
    names that can be made, and nothing where none was made.
    """
    pairs = sorted(pair for pair, times in seen.swaps.items() if 2 * times > len(seen.accuracies))
    if pairs:
        yield Finding(
            "predictions",
            "problem",
            f"{count(len(pairs), 'pair')} of classes called each other more often than by their own "
            "name, by most backbones",
            first_few(f"{names[one]!r} and {names[two]!r}" for one, two in pairs),
            "the two names are swapped, or stand in another order than the labels",
            "look at some images of both; fix the order with --class-names FILE",
        )


def _order(seen: Confusions, names: Sequence[str]) -> Iterator[Finding]:
    """Look for another order of the names that fits much better on rows it was not found on."""
    total = seen.halves.sum()
    orders = [best_relabelling(half) for half in seen.halves]
    label = np.arange(len(names))
    right = sum(
        int(other[label, order].sum())
        for order, other in zip(orders, seen.halves[::-1], strict=True)
    )
    plain = float(seen.halves.trace(axis1=1, axis2=2).sum() / total)
    better = right / total
    # About three standard errors of the difference of two shares.
    least = max(RELABELLED, 1.5 / math.sqrt(seen.samples))
    if better - plain < least or 2 * plain > better:
        return
    called = best_relabelling(seen.halves.sum(axis=0)).tolist()
    moved = [one for one, other in enumerate(called) if one != other]
    yield Finding(
        "predictions",
        "problem",
        f"zero-shot accuracy is {100 * plain:.1f} %, and would be {100 * better:.1f} % with the "
        f"names of {len(moved)} of {count(len(names), 'class')} in another order",
        first_few(f"{names[one]!r} images are called {names[called[one]]!r}" for one in moved),
        "the names are in another order than the labels",
        "list them in label order, or by `identifier = name`, with --class-names FILE",
    )


def _below(below: Sequence[tuple[str, float, float]]) -> Iterator[Finding]:
    if below:
        far = any(published - ours > FAR for _, ours, published in below)
        yield Finding(
            "predictions",
            "problem" if far else "warning",
            f"zero-shot accuracy in % is under the published one for {count(len(below), 'backbone')}",
            first_few(
                f"{backbone} {100 * ours:.1f} against {100 * published:.1f}"
                for backbone, ours, published in below
            ),
            "other prompts or class names, another order of the labels, or other test rows",
            "compare the class names and templates, and the number of test images",
        )


def _chance(seen: Confusions, names: Sequence[str]) -> Iterator[Finding]:
    chance = 1 / len(names)
    near = [
        f"{backbone} {100 * accuracy:.1f} %"
        for backbone, accuracy in seen.accuracies.items()
        if accuracy - chance < NEAR_CHANCE * (1 - chance)
    ]
    if near:
        yield Finding(
            "predictions",
            "warning",
            f"{len(near)} of {count(len(seen.accuracies), 'backbone')} near chance "
            f"({100 * chance:.1f} %)",
            first_few(near),
            "the backbones do not know these classes by these names, or labels are wrong",
            "try other words with --class-names and --templates",
        )
