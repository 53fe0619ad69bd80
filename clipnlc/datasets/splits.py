"""Split names: what people call them, what we call them, and in which order."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from clipnlc.errors import DataError

TRAIN = "train"

WHOLE = "all"
"""The name of the single split of a data set that is not split."""

_ALIASES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}
USUAL = ("train", "val", "test")
"""The names of the usual splits, in order."""

FILLERS = frozenset(
    "data dataset file files folder image images img imgs jpeg jpegs jpg jpgs photo photos pic pics picture pictures png pngs sample samples set sets split".split()  # noqa: SIM905
)
"""Words that say nothing of a split or a class: `train_images` is train."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")

T = TypeVar("T")


def canonical(name: str) -> str:
    """Return our name of a split: `train`, `val`, `test`, or any other name as it is.

    >>> canonical("Validation"), canonical("training_set"), canonical("corruption_blur")
    ('val', 'train', 'corruption_blur')
    >>> canonical("imagesTest"), canonical("trainset"), canonical("test_tube")
    ('test', 'train', 'test_tube')
    """
    parts = [part for part in words(name) if part not in FILLERS]
    if len(parts) != 1:
        return name
    return _split_of(parts[0]) or name


def words(name: str) -> list[str]:
    """Return the words of a name, in lower case.

    >>> words("Training_set"), words("trainImages2"), words("JPEGImages")
    (['training', 'set'], ['train', 'images', '2'], ['jpeg', 'images'])
    """
    return [part.casefold() for part in _WORD.findall(name)]


def split_words(names: Sequence[str]) -> dict[str, str]:
    """Return the split of each name that is one: by itself, or by what the others are called.

    >>> split_words(["train_images", "valid", "cat"])
    {'train_images': 'train', 'valid': 'val'}
    >>> split_words(["seg_train", "seg_test"]), split_words(["train2017", "val2017"])
    ({'seg_train': 'train', 'seg_test': 'test'}, {'train2017': 'train', 'val2017': 'val'})
    """
    alone = {name: canonical(name) for name in names if is_alias(name)}
    if alone or len(names) < 2:  # noqa: PLR2004
        return alone
    found: dict[str, str] = {}
    rests = set()
    for name in names:
        parts = words(name)
        places = [at for at, part in enumerate(parts) if _split_of(part)]
        if len(places) != 1:
            return {}
        (at,) = places
        found[name] = _split_of(parts[at])
        rests.add((*parts[:at], "", *parts[at + 1 :]))
    return found if len(rests) == 1 and len(set(found.values())) == len(names) else {}


def _split_of(word: str) -> str:
    """Return the split that one word means, with `set` or `images` at its end; else ""."""
    for filler in ("", "set", "sets", "data", "images", "imgs", "split"):
        short = word.removesuffix(filler)
        if short in USUAL or short in _ALIASES:
            return _ALIASES.get(short, short)
    return ""


def is_alias(name: str) -> bool:
    """Return whether `name` is one of the usual words for train, val or test."""
    return canonical(name) in USUAL


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort split names: train, val, test, then the others by name.

    >>> in_order(["test", "blur", "train"])
    ('train', 'test', 'blur')
    """
    rank = {name: i for i, name in enumerate(USUAL)}
    return tuple(sorted(set(names), key=lambda n: (rank.get(n, len(USUAL)), n)))


def natural(text: str) -> tuple[tuple[str, int], ...]:
    """Sort key that reads runs of digits as numbers.

    >>> sorted(["10.tar", "2.tar", "1.tar"], key=natural)
    ['1.tar', '2.tar', '10.tar']
    """
    return tuple(
        ("", int(part)) if part.isdecimal() else (part, -1)
        for part in re.split(r"([0-9]+)", text)
        if part
    )


def pick(splits: Mapping[str, T], asked: str, path: Path) -> tuple[str, T]:
    """Return the canonical name and the value of the split that was asked for.

    Raises:
        DataError: there is no such split; the message lists those that exist.
    """
    name = canonical(asked)
    if name not in splits:
        raise DataError(
            f"no split {asked!r} in {path}; it has {', '.join(in_order(splits))}: choose one with --split"
        )
    return name, splits[name]


def gather(named: Iterable[tuple[str, T]], path: Path) -> dict[str, list[T]]:
    """Group members by the canonical name of their split.

    Raises:
        DataError: two words for one split (`val` and `validation`) are used side by side.
    """
    groups: dict[str, list[T]] = {}
    words: dict[str, str] = {}
    for word, member in named:
        name = canonical(word)
        if words.setdefault(name, word) != word:
            raise DataError(
                f"{path} has both {words[name]!r} and {word!r}, which are one split; merge or rename one"
            )
        groups.setdefault(name, []).append(member)
    return groups


def list_files(root: Path, suffix: str) -> dict[str, list[str]]:
    """List files by split, in numeric order, as paths relative to the root.

    Known layouts: `split/*.tar`, `split-*.tar`, `split.tar`, the same one folder deeper (`data/`, a
    configuration); files whose names tell no split are the split `all`. A single file is a data
    set of its own.

    Raises:
        DataError: two words for one split, one split in several places, or a folder that cannot be
            listed.
    """
    if root.is_file():
        return gather([(_place(root.name)[1], root.name)], root)
    try:
        return group_files(_find(root, suffix), root)
    except OSError as error:
        raise DataError(
            f"cannot list {error.filename}: {error.strerror}; fix its permissions or give another --dataset"
        ) from error


def group_files(names: Iterable[str], root: Path) -> dict[str, list[str]]:
    """Group files by the split in their names, in numeric order.

    Args:
        names: paths relative to the root.
        root: where they lie, for messages.

    Raises:
        DataError: two words for one split, or one split in several places.
    """
    ordered = sorted(names, key=lambda name: (natural(name), name))
    places: dict[str, str] = {}
    for name in ordered:
        place, word = _place(name)
        if places.setdefault(canonical(word), place) != place:
            raise DataError(
                f"split {word!r} of {root} lies in {places[canonical(word)] or '.'!r} and in {place or '.'!r}; give one of the folders"
            )
    return gather(((_place(name)[1], name) for name in ordered), root)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one; false for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def stem(name: str) -> str:
    """Return a relative path without its last suffix."""
    return name.rsplit(".", 1)[0]


def _find(root: Path, suffix: str, depth: int = 2) -> Iterator[str]:
    """Find visible files down to `configuration/split/file`.

    The third level is looked at in split folders only: in image folders it is where the images
    are, which may be very many.
    """
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            folder = is_folder(entry)
            if entry.name.endswith(suffix):
                if not folder:  # what is no regular file is refused by name when it is opened
                    yield entry.name
            elif depth and folder and (depth == 2 or is_alias(entry.name)):  # noqa: PLR2004
                yield from (
                    f"{entry.name}/{n}" for n in _find(root / entry.name, suffix, depth - 1)
                )


def _place(name: str) -> tuple[str, str]:
    """Read the split's word off a relative path, and the folder in which the splits lie."""
    *folders, file = name.split("/")
    for depth in reversed(range(len(folders))):
        if is_alias(folders[depth]):
            return "/".join(folders[:depth]), folders[depth]
    base = stem(file)
    word, _, rest = base.partition("-")
    if is_alias(word) or "-of-" in rest:
        return "/".join(folders), word
    if folders and folders != ["data"]:
        return "/".join(folders[:-1]), folders[-1]
    return "/".join(folders), WHOLE
