"""Checks of class names, of their order, and of the classes of each split."""

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Final

import numpy as np

from clipnlc.datasets import Dataset
from clipnlc.datasets.source import Split
from clipnlc.datasets.splits import natural
from clipnlc.labels import UNLABELLED
from clipnlc.reports.diagnosis import Finding, first_few
from clipnlc.wording import count

_IDENTIFIER: Final = re.compile(
    r"n\d{8}"  # WordNet: n01440764
    r"|\d+\.\s?\S.*"  # CUB: 001.Black_footed_Albatross
    r"|0\d*[\s_-]\S.*"  # 007_bird
)
_NUMBERED: Final = re.compile(r"(\D*)(\d+)")


def check_names(found: Dataset, opened: Mapping[str, Split]) -> Iterator[Finding]:
    """Look for names that no prompt can use, or that differ between splits."""
    lists = {name: split.class_names for name, split in opened.items()}
    (first, names), *others = lists.items()
    differing = [name for name, its in others if its != names]
    if differing:
        yield Finding(
            "class names",
            "problem",
            f"{first} and {', '.join(differing)} have other class names or another order of them",
            first_few(
                f"label {label} is {one!r} and {other!r}"
                for label, (one, other) in enumerate(zip_longest(names, lists[differing[0]]))
                if one != other
            ),
            "the labels of one split mean other classes in the other",
            "give all splits one list with --class-names FILE",
        )
    spelled: dict[str, list[str]] = {}
    for name in names:
        spelled.setdefault(" ".join(name.replace("_", " ").casefold().split()), []).append(name)
    equal = [same for same in spelled.values() if len(same) > 1]
    if equal:
        yield Finding(
            "class names",
            "problem",
            f"{count(len(equal), 'name')} for more than one class",
            first_few(" = ".join(map(repr, same)) for same in equal),
            "a zero-shot head cannot tell classes of one name apart",
            "tell them apart in words with --class-names FILE",
        )
    odd = [name for name in names if _IDENTIFIER.fullmatch(name)]
    # A data set that brings templates has chosen its names: MNIST's classes are numbers.
    if found.templates is None:
        odd += [name for name in names if name.isdecimal()]
    if odd:
        yield Finding(
            "class names",
            "warning",
            f"{len(odd)} of {len(names)} look like identifiers",
            first_few(map(repr, odd)),
            "no text tower knows what they mean in a prompt",
            "give words with --class-names FILE, one `identifier = name` a line",
        )
    if not (differing or equal or odd):
        yield Finding(
            "class names", "fine", f"{count(len(names), 'name')}, all different, all words"
        )


def check_numbering(opened: Mapping[str, Split]) -> Iterator[Finding]:
    """Look for numbered classes that tools put into different orders: 1, 2, 10 or 1, 10, 2."""
    first = next(iter(opened.values()))
    names, identifiers = first.class_names, first.identifiers or first.class_names
    parts = [_NUMBERED.fullmatch(one) for one in identifiers]
    numbered = all(parts) and len({part[1] for part in parts if part}) == 1
    if not numbered or sorted(identifiers) == sorted(identifiers, key=natural):
        yield Finding("label order", "fine", "not a matter of how numbers are sorted")
        return
    by_number = list(identifiers) == sorted(identifiers, key=natural)
    yield Finding(
        "label order",
        "warning",
        "classes are numbered, and sorted as text they have another order; here "
        f"{'by number' if by_number else 'not by number'}",
        first_few(
            f"label {label} is {one!r}" + (f" ({name})" if name != one else "")
            for label, (one, name) in enumerate(zip(identifiers, names, strict=True))
        ),
        "labels may be permuted: names listed, or labels made, in the other order do not fit these",
        "map by name, not by place: --class-names FILE with one `identifier = name` a line",
    )


def check_opening(opened: Mapping[str, Split]) -> Iterator[Finding]:
    """Repeat what was noticed on opening, such as labels that had to be matched by name."""
    notes = dict.fromkeys(note for split in opened.values() for note in split.notes)
    for name, split in opened.items():
        if different := split.origin.get("accepted"):
            notes.pop(f"accepted {different}", None)
            yield Finding(
                "data",
                "problem",
                f"{name} has {different}",
                (),
                "a part of it, another edition, or another division into splits",
                "get the right copy; results on this one are not comparable with others'",
            )
    yield from (Finding("data", "note", note) for note in notes)


def check_coverage(opened: Mapping[str, Split]) -> Iterator[Finding]:
    """Look for classes without images; labels are counted whatever the limit of images."""
    complete = True
    labelled = {name: split for name, split in opened.items() if name != UNLABELLED}
    for name, split in labelled.items():
        rows = np.bincount(split.labels, minlength=len(split.class_names))
        absent = [repr(split.class_names[label]) for label in np.flatnonzero(rows == 0)]
        if absent:
            complete = False
            yield Finding(
                "classes",
                "warning",
                f"{len(absent)} of {len(split.class_names)} have no image in {name}",
                first_few(absent),
                "files are missing, or the labels are shifted against the list of names",
                "compare the class folders or label columns of the splits",
            )
    if complete:
        yield Finding("classes", "fine", f"all have images in {' and in '.join(labelled)}")
