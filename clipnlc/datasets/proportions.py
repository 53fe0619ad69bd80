"""Files that say how common each class is: `class,proportion` lines, or a JSON object."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clipnlc.datasets.text_files import TextFile, read_text
from clipnlc.errors import DataError
from clipnlc.wording import quoted

OPTION = "--class-proportions"


def read_proportions(path: Path) -> dict[str, float]:
    """Read a positive number for each class; they need not sum to 1, so counts do too.

    A first line without a number is a heading.

    Raises:
        DataError: the file cannot be read; a line is no class and number; a class stands twice.
    """
    file = read_text(
        path,
        what="class proportions",
        option=OPTION,
        cure="write a line `class,proportion` for each class, with a number above 0",
    )
    found: dict[str, float] = {}
    for line, name, value in _entries(file):
        if name in found:
            raise file.refuse(f"has {quoted(name)} twice", line)
        if not (math.isfinite(value) and value > 0):
            raise file.refuse(f"has {value:g} for {quoted(name)}", line)
        found[name] = value
    if not found:
        raise file.refuse("names no class")
    return found


def _entries(file: TextFile) -> Iterator[tuple[int | None, str, float]]:
    tree = file.tree()
    if isinstance(tree, dict):
        for name, value in tree.items():
            number = _number(value)
            if not isinstance(name, str) or number is None:
                raise file.refuse(f"has no number for {quoted(str(name))}")
            yield None, name, number
        return
    for line in file.numbered():
        if not line.text:
            continue
        cells = [cell.strip() for cell in next(csv.reader([line.text]))]
        number = _number(cells[-1]) if len(cells) == 2 else None  # noqa: PLR2004  (a pair)
        if number is not None:
            yield line.number, cells[0], number
        elif line.number > 1 or len(cells) != 2:  # noqa: PLR2004
            raise file.refuse(f"has {quoted(line.text)}", line.number)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def in_order(
    proportions: Mapping[str, float], class_names: Sequence[str], dataset: str
) -> list[float]:
    """Return the proportion of each class; a name that repeats shares its own equally.

    Raises:
        DataError: a class has none, or one is of no class.
    """
    missing = [name for name in class_names if name not in proportions]
    foreign = [name for name in proportions if name not in class_names]
    if missing or foreign:
        said = (
            f"no proportion for {quoted(missing[0])}, a class of {dataset}"
            if missing
            else f"a proportion for {quoted(foreign[0])}, which is no class of {dataset}"
        )
        raise DataError(f"{OPTION} has {said}; give one for each of its {len(class_names)} classes")
    counts = {name: class_names.count(name) for name in proportions}
    return [proportions[name] / counts[name] for name in class_names]
