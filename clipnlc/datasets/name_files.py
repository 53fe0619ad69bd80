"""Files of class names (`--class-names`): lists in label order, and tables of class and name.

Which column of a table has the classes is told by the classes themselves: a table is only taken where
each class stands in it once. Anything else that is no list is refused with its line.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clipnlc.datasets.name_forms import (
    Row,
    as_rows,
    numbers,
    rows_of_tree,
    rows_of_yaml,
    tables,
    unquoted,
)
from clipnlc.datasets.text_files import Line, TextFile, check_text, read_text
from clipnlc.errors import DataError
from clipnlc.wording import quoted, some

_HEADERS: Final = re.compile(
    r"(class|label|category|synset|display)?\s?(id|index|idx|names?|classes|class|labels?|folder|wnid|"
    r"synset|category|description|words|code|number|key|text|identifier)"
)
_COMMENT: Final = re.compile(r"#($|[ !])")
_WNID: Final = re.compile(r"n\d{8}")
_PLACEHOLDER: Final = re.compile(r"\{\w*\}|%s")
_LEFTOVER: Final = re.compile(
    r"lambda\b|def\b|import\b|from\b.+\bimport\b|[\[\](){}]+,?$|.*[\[({]$"
)
_LONGEST_PHRASE: Final = 5  # words of an identifier that is looked for in a name


def folded(text: str) -> str:
    """Return what names have in common that differ in case, `_`, `-` and white space only.

    >>> folded("Test-Tube_1") == folded("test  tube 1")
    True
    """
    words = unicodedata.normalize("NFKC", text).casefold().replace("_", " ").replace("-", " ")
    return " ".join(words.split())


def name_file(path: Path) -> TextFile:
    """Open a file of class names.

    Raises:
        DataError: it is no text.
    """
    cure = "write one class name a line, in label order, or one `class = name` a line"
    return read_text(path, what="the class names", option="--class-names", cure=cure)


def listed_classes(path: Path) -> tuple[str, ...]:
    """Return the classes that a file lists: those that it gives names, else the names themselves.

    Raises:
        DataError: it is no text.
    """
    file = name_file(path)
    tree = file.tree()
    rows = rows_of_yaml(file) if tree is None else list(rows_of_tree(file, tree))
    if rows is not None:
        return tuple(row.cells[0] for row in rows)
    lines = [one.text for one in file.numbered() if one.text and not _COMMENT.match(one.text)]
    named = all("=" in line for line in lines)
    return tuple(line.split("=")[0].strip() if named else line for line in lines)


def read_names(
    path: Path, identifiers: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the names of classes.

    Args:
        path: the file.
        identifiers: one per class in label order; None when labels are bare numbers.

    Returns:
        The names in label order, and notes for the user.

    Raises:
        DataError: it is in no form that is known, or does not fit the classes.
    """
    file = name_file(path)
    tree = file.tree()
    if tree is None:
        rows = rows_of_yaml(file)
        found = _lines(file, identifiers) if rows is None else _told(file, rows, identifiers)
    else:
        found = _told(file, list(rows_of_tree(file, tree)), identifiers)
    for row in found:
        for cell in row.cells:
            check_text(file, cell, row.line, entry=row.entry)
    names = [row.cells[-1] for row in found]
    if template := next((name for name in names if _PLACEHOLDER.search(name)), None):
        raise file.refuse(f"{quoted(template)} is a prompt template: give it with --templates")
    if found and len(found[0].cells) > 1:  # each row says its class
        return _by_class(file, found, identifiers), ()
    return _by_position(file, found, identifiers)


def _by_class(
    file: TextFile, rows: Sequence[Row], identifiers: Sequence[str] | None
) -> tuple[str, ...]:
    wanted = identifiers if identifiers is not None else [str(i) for i in range(len(rows))]
    labels = _fit([row.cells[0] for row in rows], wanted)
    if labels is None:
        raise _misfit(file, rows, wanted)
    names = {label: row for label, row in zip(labels, rows, strict=True) if label is not None}
    for row in names.values():
        if not row.cells[-1]:
            raise file.refuse(f"class {quoted(row.cells[0])} has no name", row.line)
    return tuple(names[label].cells[-1] for label in range(len(wanted)))


def _misfit(file: TextFile, rows: Sequence[Row], wanted: Sequence[str]) -> DataError:
    """Say which class is unknown, missing or named twice."""
    known = {folded(one) for one in wanted}
    seen: dict[str, Row] = {}
    for row in rows:
        if (first := seen.setdefault(folded(row.cells[0]), row)) is not row:
            where = f" (first in line {first.line})" if first.line else ""
            return file.refuse(f"class {quoted(row.cells[0])} is named twice{where}", row.line)
    unknown = [row for key, row in seen.items() if key not in known]
    missing = [one for one in wanted if folded(one) not in seen]
    parts = [f"has no name for class {some(missing)}"] if missing else []
    if unknown:
        parts.append(f"names {some(r.cells[0] for r in unknown)}, which is no class")
    return file.refuse(
        f"{' and '.join(parts) or 'has classes that differ in case only'}; the classes are "
        f"{some(wanted)}",
        unknown[0].line if unknown else None,
    )


def _by_position(
    file: TextFile, rows: Sequence[Row], identifiers: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = tuple(row.cells[-1] for row in rows)
    if identifiers is None:
        return names, ()
    if len(names) != len(identifiers):
        surplus = rows[len(identifiers)].line if len(names) > len(identifiers) else None
        raise file.refuse(
            f"has {len(names)} class names, the data has {len(identifiers)} classes "
            f"({some(identifiers)})",
            surplus,
        )
    spelled = {folded(name): name for name in names}
    own = [folded(identifier) for identifier in identifiers]
    if len(spelled) == len(names) and set(spelled) == set(own):
        if [folded(name) for name in names] == own:
            return names, ()
        by_name = tuple(spelled[one] for one in own)
        note = "class names stand in another order than the classes, and were matched by name"
        return by_name, (f"{note}: {_ends(identifiers, by_name)}",)
    _refuse_order(file, rows, own, identifiers)
    return names, (f"class names were taken in label order: {_ends(identifiers, names)}",)


def _refuse_order(
    file: TextFile, rows: Sequence[Row], own: Sequence[str], identifiers: Sequence[str]
) -> None:
    """Refuse names that are, or hold, the names of classes in other places."""
    place = {one: label for label, one in enumerate(own)}
    here, elsewhere = 0, []
    for label, row in enumerate(rows):
        words = folded(row.cells[-1]).split()
        phrases = {
            " ".join(words[i : i + n])
            for n in range(1, _LONGEST_PHRASE + 1)
            for i in range(len(words) - n + 1)
        }
        held = {place[phrase] for phrase in phrases if phrase in place}
        if label in held:
            here += 1
        elif held:
            elsewhere.append((folded(row.cells[-1]) in place, row, label, min(held)))
    certain = [found for found in elsewhere if found[0]]
    if certain or len(elsewhere) > here:
        _, row, label, other = (certain or elsewhere)[0]
        raise file.refuse(
            f"{quoted(row.cells[-1])} would name class {label}, {quoted(identifiers[label])}, but is "
            f"the name of class {other}, {quoted(identifiers[other])}: the order is another than "
            "the classes'",
            row.line,
        )


def _ends(identifiers: Sequence[str], names: Sequence[str]) -> str:
    pairs = [some([f"{i} = {n}"]) for i, n in zip(identifiers, names, strict=True)]
    most = 4
    return ", ".join(pairs if len(pairs) <= most else [*pairs[:2], "…", *pairs[-2:]])


# --- tables


def _fit(values: Sequence[str], wanted: Sequence[str]) -> list[int | None] | None:
    """Return the label that each value stands for; None where they are not the classes.

    WordNet ids may be more than there are classes: those of another have no label.
    """
    for spell in (str, folded):
        label = {spell(one): i for i, one in enumerate(wanted)}
        spelled = [spell(value) for value in values]
        if len(label) == len(wanted) and len(set(spelled)) == len(spelled):
            more = all(map(_WNID.fullmatch, [*values, *wanted])) and set(spelled) > set(label)
            if set(spelled) == set(label) or more:
                return [label.get(one) for one in spelled]
    return None


def _choose(
    file: TextFile, rows: Sequence[Row], identifiers: Sequence[str] | None, *, anywhere: bool = True
) -> list[Row] | None:
    """Return rows of class and name, or of names in label order; None where no column fits.

    `anywhere`: the classes may stand in another column than the first.
    """
    columns = list(zip(*(row.cells for row in rows), strict=True))
    keys = columns if anywhere else columns[:1]
    wanted = identifiers if identifiers is not None else [str(i) for i in range(len(rows))]
    key = next((i for i, column in enumerate(keys) if _fit(column, wanted)), None)
    order: list[int] = []
    if key is None and identifiers is not None:
        for i, column in enumerate(keys):
            found = numbers(column) or []
            start = min(found, default=0)
            if start in (0, 1) and sorted(found) == list(range(start, start + len(wanted))):
                key, order = i, [n - start for n in found]
                break
    if key is None:
        return None
    names = [i for i in range(len(columns)) if i != key]
    if len(names) > 1:
        names = [i for i in names if not numbers(columns[i])]
        names = [i for i in names if not all(map(_WNID.fullmatch, columns[i]))]
    if len(names) != 1 or numbers(columns[names[0]]):
        raise file.refuse(
            f"has {len(columns)} columns, and which has the names is not certain; keep two: class "
            "and name",
            rows[0].line,
        )
    if order:
        by_label = sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])
        return [Row((row.cells[names[0]],), row.line, row.entry) for _, row in by_label]
    return [Row((r.cells[key], r.cells[names[0]]), r.line, r.entry) for r in rows]


def _told(file: TextFile, rows: Sequence[Row], identifiers: Sequence[str] | None) -> list[Row]:
    """Decide what the entries of JSON, Python or YAML are.

    Raises:
        DataError: the file has no rows, or a table fits no class.
    """
    if not rows:
        raise file.refuse("holds no class name")
    if len(rows[0].cells) == 1:
        return list(rows)
    found = _choose(file, rows, identifiers) or _choose_below_header(file, rows, identifiers)
    if found is None:
        wanted = identifiers if identifiers is not None else [str(i) for i in range(len(rows))]
        raise _misfit(file, rows, wanted)
    return found


def _choose_below_header(
    file: TextFile, rows: Sequence[Row], identifiers: Sequence[str] | None, *, anywhere: bool = True
) -> list[Row] | None:
    header, rest = rows[0].cells, rows[1:]
    if not rest or not any(_HEADERS.fullmatch(folded(cell)) for cell in header):
        return None
    named = [i for i, cell in enumerate(header) if "name" in folded(cell)]
    if len(header) > 2 and len(named) == 1:  # noqa: PLR2004  (else there is no choice)
        for i in range(len(header)):
            two = [Row((r.cells[i], r.cells[named[0]]), r.line, r.entry) for r in rest]
            if i != named[0] and (found := _choose(file, two, identifiers)):
                return found
    return _choose(file, rest, identifiers, anywhere=anywhere)


# --- lines


def _lines(file: TextFile, identifiers: Sequence[str] | None) -> list[Row]:
    """Tell a list from a table.

    Raises:
        DataError: neither is certain.
    """
    every = [one for one in file.numbered() if not _COMMENT.match(one.text)]
    lines = [one for one in every if one.text]
    if not lines:
        raise file.refuse("holds no class name")
    if all(one.text.startswith(("- ", "* ")) for one in lines):
        every = lines = [Line(one.number, one.text[2:].strip()) for one in lines]
    lines = unquoted(file, lines)
    plain = [Row((one.text,), one.number) for one in lines]
    own = set(map(folded, identifiers or ()))
    if {folded(one.text) for one in lines} == own:
        return plain
    for table, anywhere in tables(lines):
        found = _choose(file, table, identifiers, anywhere=anywhere)
        if found is None:
            found = _choose_below_header(file, table, identifiers, anywhere=anywhere)
        if found is not None:
            return found
    _refuse_table(file, lines, identifiers)
    _refuse_code(file, lines)
    if identifiers is None and _HEADERS.fullmatch(folded(lines[0].text)):
        raise file.refuse(f"{quoted(lines[0].text)} is a header, not a class name", lines[0].number)
    # A blank line is a class with a blank name where that makes the number right.
    blank = len(every) > len(lines) and (identifiers is None or len(every) == len(identifiers))
    return [Row((one.text,), one.number) for one in every] if blank else plain


def _refuse_code(file: TextFile, lines: Sequence[Line]) -> None:
    """Refuse what is left of a list of a program."""
    for one in lines:
        if _LEFTOVER.match(one.text):
            raise file.refuse(f"{quoted(one.text)} is code, not a class name", one.number)
    if len(lines) > 1 and all(one.text.endswith(",") for one in lines[:-1]):
        raise file.refuse(f"{quoted(lines[0].text)} ends with a comma", lines[0].number)


def _refuse_table(file: TextFile, lines: Sequence[Line], identifiers: Sequence[str] | None) -> None:
    """Refuse lines that are meant as a table and do not fit the classes."""
    known = {folded(one) for one in identifiers or ()}
    wanted = identifiers if identifiers is not None else [str(i) for i in range(len(lines))]
    separators: tuple[str | None, ...] = ("=", "\t", ":", ";", ",", None)
    for separator in separators:
        split = [tuple(c.strip() for c in one.text.split(separator, 1)) for one in lines]
        rows = [row for row in as_rows(split, lines) if len(row.cells) > 1]
        keys = [row.cells[0] for row in rows]
        hits = sum(folded(key) in known for key in keys)
        complete = len(rows) == len(lines)
        meant = {
            "=": complete or hits > 0,
            "\t": complete or hits > 0,
            ":": complete or hits > 0,
            ";": complete or hits > 0,
            ",": hits > 0 or (complete and _is_table(keys)),
            None: complete and (2 * hits > len(lines) or _is_table(keys)),
        }[separator]
        if not meant:
            continue
        if not complete:
            name = "a tab" if separator == "\t" else f"{separator!r}"
            odd = next(one for one, cells in zip(lines, split, strict=True) if len(cells) == 1)
            raise file.refuse(
                f"{quoted(odd.text)} has no {name} between class and name, and others have",
                odd.number,
            )
        body = rows[1:] if _HEADERS.fullmatch(folded(keys[0])) and len(rows) > 1 else rows
        raise _misfit(file, body, wanted if identifiers is not None else wanted[: len(body)])


def _is_table(keys: Sequence[str]) -> bool:
    """Return whether keys are WordNet ids or different numbers: codes of classes, not words."""
    below = keys[1:] if keys and _HEADERS.fullmatch(folded(keys[0])) else keys
    if not below:
        return False
    wnids = all(map(_WNID.fullmatch, below))
    found = numbers(below)
    return wnids or (found is not None and len(set(found)) == len(found))
