"""What a table of labels calls its classes, and names that may be misspellings of others."""

import shlex
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final

from clipnlc.datasets.name_files import folded
from clipnlc.wording import count, quoted, some

_SHOWN: Final = 12
"""Classes that a note counts one by one, or spells in a command."""

_MOST: Final = 300
"""Classes that are compared with each other; of more it would take seconds."""

_NEAR: Final = 0.8
"""Ratio of `difflib` from which two names are alike: 0.88 of `trinagle` and `triangle`, 0.67 of `cat`
and `car`. Ours."""

_FEWER: Final = 3
"""A class is taken for a misspelling of one with so many times its images. Ours."""


def class_counts(counts: Mapping[str, int]) -> str:
    """Spell the classes with their images, sorted by name.

    >>> class_counts({"square": 41, "circle": 40, "trinagle": 1})
    '3 classes: circle 40, square 41, trinagle 1'
    """
    each = some((f"{name} {counts[name]}" for name in sorted(counts)), _SHOWN)
    return f"{count(len(counts), 'class')}: {each}"


def near_names(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return a note on each class with few images whose name is nearly that of one with many.

    Two names that differ in digits alone (`class 1`, `class 10`) are taken for two classes. Those that
    differ in case or white space alone have a note of their own elsewhere.

    Args:
        counts: images by class.
    """
    if len(counts) > _MOST:
        return ()
    found = {}
    for name in sorted(counts):
        many = [other for other in sorted(counts) if counts[name] * _FEWER <= counts[other]]
        near = max(many, key=lambda other: _alike(name, other), default=name)
        if near != name and _alike(name, near) >= _NEAR:
            found[name] = near
    merged = {folded(name): name for name in sorted(counts.keys() - found.keys())}
    cure = classes_option(sorted(merged.values()))
    return tuple(
        f"{quoted(name)} ({count(counts[name], 'image')}) is nearly {quoted(near)} ({counts[near]}): "
        f"if they are one class, give {cure}"
        for name, near in found.items()
    )


def nearest(name: str, others: Sequence[str]) -> str | None:
    """Return the one of other names that a name may be meant for; None where it is one of them.

    It differs in case or white space, or is nearly the same; not in digits alone.

    >>> nearest("photo", ["pets", "photos"]), nearest("Photos", ["photos"])
    ('photos', 'photos')
    >>> nearest("cifar10", ["cifar100"]), nearest("pets", ["pets", "pet"])
    (None, None)
    """
    if name in others:
        return None
    alike = {other: float(folded(name) == folded(other)) or _alike(name, other) for other in others}
    near = max(alike, key=lambda other: alike[other], default=None)
    return near if near is not None and alike[near] >= _NEAR else None


def classes_option(names: Sequence[str]) -> str:
    """Spell the option that says these are the classes; of many, that a file says it.

    >>> classes_option(["cat", "hot dog"]), classes_option(["a,b", "c"])
    ("--classes 'cat,hot dog'", '--classes FILE, with one a line')
    """
    if len(names) > _SHOWN or any("," in name or not name.isprintable() for name in names):
        return "--classes FILE, with one a line"
    return f"--classes {shlex.quote(','.join(names))}"


def _alike(one: str, other: str) -> float:
    """Return how alike two names are, in [0, 1]; 0 where that is no misspelling."""
    one, other = folded(one), folded(other)
    if one == other or _letters(one) == _letters(other):
        return 0.0
    matcher = SequenceMatcher(None, one, other)
    # The ratio is at most this, which takes no time.
    return matcher.ratio() if matcher.real_quick_ratio() >= _NEAR else 0.0


def _letters(text: str) -> str:
    return "".join(c for c in text if not c.isdigit())
