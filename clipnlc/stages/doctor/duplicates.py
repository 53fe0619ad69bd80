"""Checks for images that occur more than once, byte for byte."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from clipnlc.labels import UNLABELLED
from clipnlc.reports.diagnosis import SHOWN, Finding, Severity, first_few
from clipnlc.stages.doctor.images import Looked
from clipnlc.wording import count

GRAVE: Final = 0.01  # share of the images: a few duplicates are in most public data sets


def check_duplicates(looked: Mapping[str, Looked]) -> Iterator[Finding]:
    """Look for images in two splits, twice in one, and under two labels.

    Only images with the same bytes are found; the same picture saved again is another image.
    """
    findings = [
        *(finding for pair in combinations(looked.values(), 2) for finding in _across(*pair)),
        *(finding for one in looked.values() for finding in _within(one)),
        *_of_two_labels([one for name, one in looked.items() if name != UNLABELLED]),
    ]
    yield from findings
    if not findings:
        total = sum(len(one.rows) for one in looked.values())
        yield Finding("duplicates", "fine", f"none among {count(total, 'image')}")


def _across(one: Looked, other: Looked) -> Iterator[Finding]:
    """Find images that are in both of two splits, byte for byte."""
    twice = np.flatnonzero(np.isin(other.content, one.content))
    if not len(twice):
        return
    order = np.argsort(one.content, kind="stable")
    firsts = order[np.searchsorted(one.content[order], other.content[twice[:SHOWN]])]
    pairs = zip(other.rows[twice[:SHOWN]], one.rows[firsts], strict=True)
    yield Finding(
        "duplicates",
        _grave(len(twice), len(other.rows)),
        f"{count(len(twice), 'image')} of {other.split.name} "
        f"{'is' if len(twice) == 1 else 'are'} in {one.split.name} too",
        first_few(
            (f"{other.split.sample_id[b]} = {one.split.sample_id[a]}" for b, a in pairs),
            len(twice),
        ),
        "what is learnt or chosen on one split is then measured on the same images",
        "remove them from one of the two",
    )


def _within(one: Looked) -> Iterator[Finding]:
    """Count images that repeat an earlier one of their split."""
    order = np.argsort(one.content, kind="stable")
    repeats = order[1:][one.content[order][1:] == one.content[order][:-1]]
    if len(repeats):
        rows = np.sort(one.rows[repeats])
        yield Finding(
            "duplicates",
            "warning",
            f"{count(len(repeats), 'image')} of {one.split.name} "
            f"repeat{'s' * (len(repeats) == 1)} another one of it",
            first_few((one.split.sample_id[row] for row in rows[:SHOWN]), len(repeats)),
            "each counts more than once, and few labels are fewer images",
            "remove the repeats, or know that intervals are too small",
        )


def _of_two_labels(looked: Sequence[Looked]) -> Iterator[Finding]:
    """Find images that stand under more than one class, within a split or across splits."""
    if len({one.split.class_names for one in looked}) > 1:
        return  # labels of different lists cannot be compared
    content = np.concatenate([one.content for one in looked])
    labels = np.concatenate([one.split.labels[one.rows] for one in looked])
    places = np.concatenate([np.full(len(one.rows), at) for at, one in enumerate(looked)])
    rows = np.concatenate([one.rows for one in looked])
    order = np.lexsort((labels, content))
    same = content[order][1:] == content[order][:-1]
    differ = np.flatnonzero(same & (labels[order][1:] != labels[order][:-1]))
    if not len(differ):
        return
    names = looked[0].split.class_names

    def spelled(at: int) -> str:
        one, two = order[at], order[at + 1]
        sample = looked[places[one]].split.sample_id[rows[one]]
        return f"{sample} ({names[labels[one]]} and {names[labels[two]]})"

    yield Finding(
        "duplicates",
        _grave(len(differ), len(content)),
        f"{count(len(differ), 'image')} under two labels",
        first_few((spelled(int(at)) for at in differ[:SHOWN]), len(differ)),
        "one of the two labels is wrong, or the image shows both",
        "decide on one label",
    )


def _grave(count: int, of: int) -> Severity:
    return "problem" if count > GRAVE * of else "warning"
