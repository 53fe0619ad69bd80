"""Labels and class names of a person's arrays: numbered, named, and in a known order."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from clipnlc.datasets.array_roles import Arrays, kind_of, row_name
from clipnlc.errors import DataError
from clipnlc.wording import count, quoted, some


class Labelled(NamedTuple):
    """The labels of the rows, and what their numbers stand for.

    Attributes:
        labels: numbers of `class_names`; None without any.
        class_names: one per class, in the order of the arrays with one column per class.
        notes: what was assumed.
    """

    labels: Int64[np.ndarray, " samples"] | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


class Width(NamedTuple):
    """An array with one column (or row) per class: its role, and how many it has."""

    role: str
    classes: int


def read_labels(
    files: Arrays,
    *,
    sample_id: Sequence[str] | None,
    width: Width | None,
    known: Sequence[str] | None,
) -> Labelled:
    """Return labels as numbers of class names.

    Args:
        files: where they are.
        sample_id: one per row, for messages.
        width: what has the classes in an order.
        known: the class names of the data set, where it is known.

    Raises:
        DataError: a row is unlabelled or of no class; there are neither labels nor class names; the
            order of the classes is not known.
    """
    found = files.read("labels")
    listed = files.read("class_names")
    named = None if listed is None else _names(files, listed)
    if found is not None:
        _refuse_unlabelled(files, found, sample_id)
        if named is None and found.dtype.kind in "iu" and "labels" not in files.others:
            named = files.main.class_names(files.names["labels"])
    # Classes that are called by numbers, as scikit-learn's `classes_`, are matched as words.
    called_numbers = listed is not None and listed.dtype.kind in "iu"
    words = found is not None and (found.dtype.kind in "Ob" or called_numbers)
    notes: tuple[str, ...] = ()
    if named is None:
        assert found is not None or not words
        named, notes = (
            _named_by_words(files, found, width, known)
            if words and found is not None
            else _named_by_numbers(files, found, width, known)
        )
    if width is not None and width.classes != len(named):
        raise DataError(
            f"{files.where(width.role)} has {width.classes} classes, and there are "
            f"{count(len(named), 'class name')} ({some(named)}); expected as many"
        )
    if found is None:
        return Labelled(None, named, notes)
    number = _numbers_of_words if words else _numbers
    return Labelled(number(files, found, named, sample_id), named, notes)


def _named_by_words(
    files: Arrays, found: np.ndarray, width: Width | None, known: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the classes by the words that label the rows."""
    words = tuple(sorted({str(cell) for cell in found.tolist()}))
    if width is None:  # a split need not have every class
        return (tuple(known) if known is not None and set(words) <= set(known) else words), ()
    if width.classes != len(words):
        raise DataError(
            f"{files.where('labels')} has {count(len(words), 'class')}, and {width.role} "
            f"{width.classes}; give --class-names, in the order of {width.role}"
        )
    if known is None:
        return words, (f"classes of {width.role} are taken to be in the order of their names",)
    if sorted(known) != list(known):
        raise DataError(
            f"{files.main.path} does not say in which order {width.role} has the classes; give "
            "--class-names"
        )
    return words, ()


def _named_by_numbers(
    files: Arrays, found: np.ndarray | None, width: Width | None, known: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the classes as the data set does, else by their numbers."""
    if known is not None:
        alike = "classes are taken to be in the order of the data set's in the store"
        return tuple(known), (alike,)
    if found is None:
        raise DataError(
            f"{files.main.path} has no labels by their usual names; expected one a row: name them "
            "with --labels"
        )
    number = int(found.max(initial=0)) + 1 if width is None else width.classes
    named = tuple(str(each) for each in range(number))
    return named, (f"classes are called {named[0]} to {named[-1]}; name them with --class-names",)


def _names(files: Arrays, found: np.ndarray) -> tuple[str, ...]:
    if found.ndim != 1 or found.dtype.kind not in "iuO" or not len(found):
        raise DataError(
            f"{files.where('class_names')} holds {kind_of(found)}; expected one name a class: name "
            "another with --class-names"
        )
    return tuple(str(cell) for cell in found.tolist())


def _refuse_unlabelled(files: Arrays, found: np.ndarray, sample_id: Sequence[str] | None) -> None:
    where = files.where("labels")
    if found.ndim != 1 or (found.dtype.kind == "f" and (found % 1)[np.isfinite(found)].any()):
        raise DataError(f"{where} holds {kind_of(found)}; expected one label a row")
    if found.dtype.kind == "O":
        bare = np.array([cell is None or not str(cell).strip() for cell in found.tolist()], bool)
    elif found.dtype.kind == "b":
        return
    else:
        bare = ~np.isfinite(found) | (found < 0)
    wrong = np.flatnonzero(bare)
    if wrong.size:
        row = int(wrong[0])
        more = f" ({count(len(wrong), 'such row')})" if len(wrong) > 1 else ""
        raise DataError(
            f"{row_name(row, sample_id)} of {where} is unlabelled{more}; label it or leave it out"
        )


def _numbers(
    files: Arrays, found: np.ndarray, named: Sequence[str], sample_id: Sequence[str] | None
) -> Int64[np.ndarray, " samples"]:
    numbers: Int64[np.ndarray, " samples"] = found.astype(np.int64)
    wrong = np.flatnonzero(numbers >= len(named))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{row_name(row, sample_id)} of {files.where('labels')} has label {numbers[row]}, and "
            f"there are {len(named)} classes, 0 to {len(named) - 1}"
        )
    return numbers


def _numbers_of_words(
    files: Arrays, found: np.ndarray, named: Sequence[str], sample_id: Sequence[str] | None
) -> Int64[np.ndarray, " samples"]:
    if len(set(named)) < len(named):
        raise DataError(
            f"the class name {quoted(_repeated(named))} repeats, so words cannot say which is meant; "
            "give labels as numbers"
        )
    place = {name: number for number, name in enumerate(named)}
    words = [str(cell) for cell in found.tolist()]
    lost = next((row for row, word in enumerate(words) if word not in place), None)
    if lost is not None:
        raise DataError(
            f"{row_name(lost, sample_id)} of {files.where('labels')} is {quoted(words[lost])}, which "
            f"is none of the {count(len(named), 'class name')} ({some(named)})"
        )
    return np.array([place[word] for word in words], dtype=np.int64)


def class_order(
    path: Path, named: Sequence[str], known: Sequence[str] | None
) -> Int64[np.ndarray, " classes"] | None:
    """Return, for each known class, its number here; None where the order is the same.

    Raises:
        DataError: the names are others, or repeat and stand in another order.
    """
    if known is None or tuple(named) == tuple(known):
        return None
    if sorted(named) != sorted(known):
        foreign = next((name for name in named if name not in set(known)), None)
        lost = next((name for name in known if name not in set(named)), None)
        found = (
            f"{quoted(foreign)} is here only"
            if foreign is not None
            else f"{quoted(lost)} is lacking"
        )
        raise DataError(
            f"{path} has {count(len(named), 'class')} and the data set in the store {len(known)}: "
            f"{found}; expected the same names, in any order"
        )
    if len(set(known)) < len(known):
        raise DataError(
            f"{path} has the store's class names in another order, and {quoted(_repeated(known))} "
            "repeats; give them in the store's order"
        )
    place = {name: number for number, name in enumerate(named)}
    return np.array([place[name] for name in known], dtype=np.int64)


def _repeated(names: Sequence[str]) -> str:
    return next(name for row, name in enumerate(names) if name in names[:row])
