"""Match what a source calls its classes with our names, so that labels follow names.

A source may list its classes in any order and spell them its own way; a label taken by position
would then be wrong without an error. So names are compared without case, accents and punctuation,
then by the entry's aliases and WordNet ids, and one that cannot be matched is an error. Bare
numbers are only taken where the registry says that their order is ours.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from clipnlc.datasets.hub.entries import Entry, Source
from clipnlc.errors import DataError

_NUMBERED = re.compile(r"^\d+\.(?=\D)")  # CUB's 001.Black_footed_Albatross
_FILED = re.compile(r"^/\w/")  # SUN397's /a/abbey


def plain(name: str) -> str:
    """Reduce a class name to what its spellings share.

    >>> plain("001.Black_footed_Albatross"), plain("/a/apartment_building/outdoor"), plain("F/A-18")
    ('black footed albatross', 'apartment building outdoor', 'f a 18')
    """
    bare = _FILED.sub("", _NUMBERED.sub("", name))
    letters = unicodedata.normalize("NFKD", bare).casefold()
    letters = "".join(c for c in letters if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", letters))


def numbering(
    told: Sequence[str] | None, entry: Entry, sources: Sequence[Source], where: str
) -> Int64[np.ndarray, " classes"]:
    """Return our label of each class of a source.

    Args:
        told: what the source calls its classes, in its own label order; None for bare numbers.
        entry: the data set; it has class names.
        sources: the registry's sources that the data may be a copy of.
        where: the data, for messages.

    Returns:
        Labels in [0, `entry.classes`), none of them twice.

    Raises:
        DataError: a name is unknown, two names are one class, or numbers cannot be told apart.
    """
    assert entry.class_names is not None
    ordered = any(source.labels == "index" for source in sources)
    if told is None:
        if ordered:
            return np.arange(entry.classes, dtype=np.int64)
        raise DataError(
            f"the labels of {where} are bare numbers, and their order is not known; give the class names, one a line in label order, with --class-names FILE"
        )
    table = _table(entry)
    found = [table.get(plain(name)) for name in told]
    if None not in found:
        return _without_repeats([m for m in found if m is not None], told, entry, where)
    if any(s.own_names_begin and _begins(told, s.own_names_begin) for s in sources):
        if len(told) == entry.classes:
            return np.arange(entry.classes, dtype=np.int64)
    elif ordered and all(name.isdecimal() for name in told):
        numbers = np.array([int(name) for name in told], dtype=np.int64)
        if len(set(numbers)) == len(numbers) and numbers.max() < entry.classes:
            return numbers
    unknown = [name for name, match in zip(told, found, strict=True) if match is None]
    raise DataError(
        f"{where} calls a class {unknown[0]!r}, which is none of the {entry.classes} of {entry.key} ({len(unknown)} of {len(told)} are unknown); name its classes with --class-names FILE, or give another copy with --source {entry.key}=PATH"
    )


def _table(entry: Entry) -> dict[str, tuple[int, ...]]:
    """Return our labels by plain name; ImageNet has two names that two classes share."""
    assert entry.class_names is not None
    table: dict[str, tuple[int, ...]] = {}
    for label, name in enumerate(entry.class_names):
        table[plain(name)] = (*table.get(plain(name), ()), label)
    table |= {plain(alias): table[plain(name)] for alias, name in entry.aliases.items()}
    return table | {wnid: (label,) for label, wnid in enumerate(entry.wnids)}


def _without_repeats(
    found: Sequence[tuple[int, ...]], told: Sequence[str], entry: Entry, where: str
) -> Int64[np.ndarray, " classes"]:
    """Give each class its label; names that come twice in both lists are paired in order."""
    times = Counter(found)
    met: Counter[tuple[int, ...]] = Counter()
    labels = []
    for match, name in zip(found, told, strict=True):
        if times[match] != len(match):
            same = [t for t, f in zip(told, found, strict=True) if f == match]
            raise DataError(
                f"{where} has {len(same)} classes that would be {name!r} ({', '.join(same)}), {entry.key} has {len(match)}; name them with --class-names FILE"
            )
        labels.append(match[met[match]])
        met[match] += 1
    return np.array(labels, dtype=np.int64)


def _begins(told: Sequence[str], beginning: Sequence[str]) -> bool:
    return [plain(t) for t in told[: len(beginning)]] == [plain(b) for b in beginning]
