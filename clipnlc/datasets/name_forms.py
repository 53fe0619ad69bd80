"""The forms that files of class names have: JSON, Python, YAML's `names:`, lines cut into cells."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clipnlc.datasets.text_files import Line, Module, TextFile, Unreadable, expression
from clipnlc.wording import quoted, some

_KEYS: Final = re.compile(
    r"(class_?|label_?)?names|classes|categories|labels|id2label|class_to_idx"
)
"""Where a JSON file that says more has its classes."""

_NUMBER: Final = re.compile(r"(\d{1,9})[.):]?")
_PLACEHOLDER: Final = re.compile(r"\{\w*\}|%s")
_QUOTED: Final = re.compile(r"""(['"]).*\1\s*,?\s*(#.*)?$""")
_SCALAR: Final = r"""'[^']*'|"[^"]*"|[^,]+"""
_FLOW: Final = re.compile(rf"\s*((?:\d+\s*:\s*)?(?:{_SCALAR}))\s*(?:,|$)")
_KEYED: Final = re.compile(r"""(\d+|'[^']*'|"[^"]*"|[^:'"]+?)\s*:\s+(.*)""")


@dataclass(frozen=True)
class Row:
    """One line, or one entry of a list: its cells, and where it stands."""

    cells: tuple[str, ...]
    line: int | None
    entry: int | None = None


def numbers(values: Sequence[str]) -> list[int] | None:
    """Return values that are whole numbers, `0.` and `1)` included; None where one is not."""
    found = [_NUMBER.fullmatch(value) for value in values]
    return [int(match[1]) for match in found if match] if all(found) else None


def tables(lines: Sequence[Line]) -> Iterator[tuple[list[Row], bool]]:
    """Split lines into cells in each way that gives every line as many.

    Also says whether any column may have the classes, as in CSV, or only the first.
    """
    for comma in ("\t", ",", ";"):
        split = [_csv(one.text, comma) for one in lines]
        if len({len(cells) for cells in split}) == 1 and len(split[0]) > 1:
            yield as_rows(split, lines), True
    separators: tuple[str | None, ...] = ("=", ":", ",", None)
    for separator in separators:
        split = [tuple(c.strip() for c in one.text.split(separator, 1)) for one in lines]
        if all(len(cells) == 2 for cells in split):  # noqa: PLR2004  (class and name)
            yield as_rows(split, lines), False


def as_rows(split: Sequence[tuple[str, ...]], lines: Sequence[Line]) -> list[Row]:
    """Put cells and the numbers of their lines together."""
    return [Row(cells, one.number) for cells, one in zip(split, lines, strict=True)]


def _csv(text: str, separator: str) -> tuple[str, ...]:
    try:
        cells = next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # a cell that is too long
        return (text,)
    return tuple(cell.strip() for cell in cells)


def unquoted(file: TextFile, lines: Sequence[Line]) -> list[Line]:
    """Take names out of the quotes and commas of a list that lost its brackets."""
    matches = [_QUOTED.match(one.text) for one in lines]
    if not any(matches):
        return list(lines)
    found = [expression(one.text) for one in lines]
    wrong = next((i for i, text in enumerate(found) if not isinstance(text, str)), None)
    if wrong is not None:
        if any(len(_csv(lines[wrong].text, comma)) > 1 for comma in ",;\t"):
            return list(lines)  # CSV quotes what has a comma
        raise file.refuse(
            f"{quoted(lines[wrong].text)} is no quoted name, and others are", lines[wrong].number
        )
    return [Line(one.number, text) for one, text in zip(lines, found, strict=True)]


def rows_of_tree(file: TextFile, tree: Any) -> list[Row]:  # noqa: ANN401
    """Return the entries of a list or an object; none of an empty one.

    Raises:
        DataError: it has another form.
    """
    match tree:
        case Module():
            return rows_of_tree(file, _only(file, tree))
        case list():
            cells = _cells_of_list(file, tree)
        case dict() if _is_cells(list(tree.values())):
            cells = [[key, value] for key, value in tree.items()]
        case dict() if (
            tree and numbers([str(key) for key in tree]) and _are_alike(list(tree.values()))
        ):
            cells = [[key, *value] for key, value in tree.items()]
        case dict() if tree:
            return rows_of_tree(file, _only(file, tree))
        case dict():
            cells = []
        case _:
            raise file.refuse("is neither a list of names nor an object of names")
    return [
        Row(tuple(str(value).strip() for value in row), None, entry)
        for entry, row in enumerate(cells, start=1)
    ]


def _cells_of_list(file: TextFile, entries: list[Any]) -> list[list[Any]]:
    if all(isinstance(one, str) for one in entries):
        return [[one] for one in entries]
    if _are_alike(entries):
        return entries
    if all(isinstance(one, dict) for one in entries):
        rows = [list(one.values()) for one in entries]
        if _are_alike(rows) and all(list(one) == list(entries[0]) for one in entries):
            return [list(entries[0]), *rows]
    for number, one in enumerate(entries, start=1):
        if isinstance(one, Unreadable):
            raise file.refuse("is an expression, not a name", one.line)
        if type(one) is not type(entries[0]):
            raise file.refuse(f"entry {number} is of another kind than the first")
    raise file.refuse("is neither a list of names nor an object of names")


def _only(file: TextFile, tree: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the one list or object of names that a larger object holds."""
    held = {key: value for key, value in tree.items() if isinstance(value, list | dict) and value}
    if not isinstance(tree, Module):
        held = {key: value for key, value in held.items() if _KEYS.fullmatch(key)}
    texts = {
        key: value
        for key, value in held.items()
        if not any(isinstance(one, str) and _PLACEHOLDER.search(one) for one in value)
    }
    if len(texts) != 1:
        found = f"several lists ({some(texts)})" if texts else "no list of names"
        raise file.refuse(
            f"has {found}: is neither a list of names nor an object of names; write one list"
        )
    return next(iter(texts.values()))


def _is_cells(values: object) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(v, str | int) and not isinstance(v, bool) for v in values)
    )


def _are_alike(rows: list[Any]) -> bool:
    return bool(rows) and all(_is_cells(row) and len(row) == len(rows[0]) for row in rows)


def rows_of_yaml(file: TextFile) -> list[Row] | None:
    """Return the entries of YAML's `names:` (YOLO, Ultralytics); None without that key."""
    lines = file.text.split("\n")
    start = next((i for i, t in enumerate(lines) if re.match(r"names\s*:\s*($|[#\[{])", t)), None)
    if start is None:
        return None
    rest = lines[start].partition(":")[2].strip()
    if rest[:1] in ("[", "{"):
        inside = " ".join([rest, *lines[start + 1 :]])[1:]
        close = inside.find("]" if rest[0] == "[" else "}")
        parts = _FLOW.findall(inside[:close])
        entries = [Line(start + 1, part) for part in parts]
    else:
        entries = []
        for number, text in enumerate(lines[start + 1 :], start=start + 2):
            if text and text[0] not in " \t-#":
                break
            if text.strip() and not text.strip().startswith("#"):
                entries.append(Line(number, text.strip()))
    rows = []
    for one in entries:
        listed = one.text.removeprefix("- ").strip()
        keyed = _KEYED.fullmatch(one.text)
        cells = (keyed[1], keyed[2]) if keyed and listed == one.text else (listed,)
        rows.append(Row(tuple(_scalar(cell) for cell in cells), one.number))
    if len({len(row.cells) for row in rows}) > 1:
        counts = Counter(len(row.cells) for row in rows).most_common()
        odd = next(row for row in rows if len(row.cells) == counts[-1][0])
        raise file.refuse("is not like the other entries of `names`", odd.line)
    return rows


def _scalar(text: str) -> str:
    """Return a scalar of YAML without its quotes or its comment."""
    quote = text[:1]
    if quote and quote in "'\"" and text.find(quote, 1) > 0:
        return text[1 : text.find(quote, 1)]
    return text.split(" #", 1)[0].strip()
