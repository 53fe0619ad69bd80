"""Photos that were drawn at random to be labelled, and the CSV that their labels come back in.

`file,guess,confidence,label`: files relative to the folder of photos, in the order in which they were
drawn. The order is pseudo-random and decided by the names and a seed alone (`labels.ranks`), so a
further draw goes on where the last ended, and whether some labelled photos are a random draw can be
checked against the folder: they are the first ones of its order. `<name>.csv.json` beside the CSV
records the seed, the classes, and the photos that could not be read and were passed over. A browser
saves the CSV under a new name (`labels (1).csv`), so the other records beside it are tried as well.
"""

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Any, Final

import numpy as np

from clipnlc.datasets.tabled import read_table
from clipnlc.digests import matches_digest, with_digest
from clipnlc.errors import DataError
from clipnlc.files import read_regular, reason, write_whole
from clipnlc.labels import ranks
from clipnlc.wording import count, shown

COLUMNS: Final = ("file", "guess", "confidence", "label")
FORMAT: Final = "clipnlc-draw"
VERSION: Final = 1
LARGEST: Final = 64 * 2**20
"""Bytes of a CSV or a record; a million photos take less."""

NOT_DRAWN: Final = "they are not the photos that the command label drew from this folder"

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that a spreadsheet takes for a formula."""


@dataclass(frozen=True)
class Row:
    """One photo.

    Attributes:
        file: its path relative to the folder of photos, with `/`.
        guess: the class that the ensemble without labels names.
        confidence: its probability as it is spelled in the file; empty where there is none.
        label: the class that a person named; empty where nobody has.
    """

    file: str
    guess: str
    confidence: str
    label: str = ""


@dataclass(frozen=True)
class Draw:
    """How photos were drawn.

    Attributes:
        seed: of the order.
        unreadable: photos that were passed over, for they cannot be read.
        classes: those that the photos can be labelled as; empty in a record of an older clipnlc.
    """

    seed: int = 0
    unreadable: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def in_order(files: Sequence[str], seed: int) -> list[str]:
    """Return files in the pseudo-random order in which they are drawn.

    >>> in_order(["a.png", "b.png"], 0) == in_order(["b.png", "a.png"], 0)
    True
    """
    return [files[row] for row in np.argsort(ranks(files, draw=f"label:{seed}"))]


def doubt(rows: Sequence[Row], files: Collection[str], draw: Draw) -> str | None:
    """Return why labelled photos are no random draw from a folder; None where they are one.

    Args:
        rows: of the CSV, labelled or not.
        files: every photo of the folder, relative to it.
        draw: how they were drawn.
    """
    labelled = {row.file for row in rows if row.label}
    readable = sorted(set(files) - set(draw.unreadable))
    if not labelled <= set(readable):
        return "some labelled photos are not in the folder"
    order = in_order(readable, draw.seed)
    if set(order[: len(labelled)]) == labelled:
        return None
    blank = [row.file for row in rows if not row.label]
    if blank and set(order[: len(rows)]) == labelled | set(blank):
        return (
            f"{count(len(blank), 'photo')} of the {len(rows)} that were drawn "
            f"{'has' if len(blank) == 1 else 'have'} no label, and not the last ones"
        )
    return NOT_DRAWN


def read_rows(path: Path) -> tuple[Row, ...]:
    """Read the CSV of a draw, with any separator that `--labels` takes, as spreadsheets save it.

    White space around labels is dropped. The columns of the guesses may be gone.

    Raises:
        DataError: it cannot be read, has no such columns, or lists a file twice.
    """
    table = read_table(path.parent, path.name)
    if not {"file", "label"} <= set(table.header):
        raise DataError(
            f"{path} has the columns {shown(','.join(table.header))}, expected "
            f"{','.join(COLUMNS)}, as the command label writes them; give --out another file"
        )
    rows: dict[str, Row] = {}
    for line, cells in table.rows:
        found = dict.fromkeys(COLUMNS, "")
        found.update({k: v for k, v in zip(table.header, cells, strict=True) if k in found})
        file = normpath(found["file"])
        if file in rows:
            raise DataError(f"{path} line {line} lists {shown(file)} again; delete one")
        rows[file] = Row(file, found["guess"], found["confidence"], found["label"].strip())
    return tuple(rows.values())


def rows_csv(rows: Sequence[Row]) -> str:
    """Spell rows as CSV; `./` keeps a spreadsheet from taking a file's name for a formula."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows((safe_file(row.file), row.guess, row.confidence, row.label) for row in rows)
    return text.getvalue()


def safe_file(file: str) -> str:
    """Spell a relative path so that no spreadsheet takes it for a formula.

    >>> safe_file("=1.png"), safe_file("a/=1.png")
    ('./=1.png', 'a/=1.png')
    """
    return f"./{file}" if file.startswith(_FORMULA) else file


def record_of(path: Path) -> Path:
    """Return where the record of a draw lies, beside its CSV."""
    return path.with_name(f"{path.name}.json")


def read_draw(path: Path) -> Draw | None:
    """Read the record beside a CSV of labels; None where there is none.

    Raises:
        DataError: it is damaged, or of a newer clipnlc.
    """
    place = record_of(path)
    if not place.exists():
        return None
    text = _text(place)
    try:
        tree = json.loads(text)
        if tree["format"] == FORMAT and tree["format-version"] > VERSION:
            raise DataError(
                f"{place} has format-version {tree['format-version']}, this clipnlc reads up to "
                f"{VERSION}: update clipnlc"
            )
        return _draw_of(tree)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DataError(
            f"{place} is no record of a draw ({problem}); delete it: then the labels in {path.name} "
            "count as chosen unless they were drawn with seed 0"
        ) from problem


def find_draw(path: Path, files: Collection[str]) -> Draw | None:
    """Find how the photos in a CSV of labels were drawn; None where they were not.

    By the record of its name; else, where all rows have guesses, as the command label writes them, by
    whichever record beside it has exactly these photos as the first ones of its order. Seed 0 needs
    no record.

    Args:
        path: the CSV, or another table of labels.
        files: every photo of the folder, relative to it.

    Raises:
        DataError: the record of its name is damaged, or of a newer clipnlc.
    """
    if own := read_draw(path):
        return own
    try:
        rows = read_rows(path)
    except DataError:
        return None  # somebody's own table: --labels reads more than label writes
    if not rows or not all(row.guess for row in rows):
        return None
    drawn = {row.file for row in rows}
    for draw in (*_draws_beside(path), Draw()):
        readable = sorted(set(files) - set(draw.unreadable))
        if set(in_order(readable, draw.seed)[: len(rows)]) == drawn:
            return draw
    return None


def _draws_beside(path: Path) -> Iterator[Draw]:
    """Yield what the records in the folder of a CSV say; those that are damaged are of other CSVs."""
    for place in sorted(record_of(path).parent.glob(record_of(Path("*.csv")).name)):
        with suppress(DataError):
            if found := read_draw(place.with_suffix("")):
                yield found


def _draw_of(tree: Mapping[str, Any]) -> Draw:
    if tree["format"] != FORMAT or not matches_digest(tree):
        raise ValueError("it was altered")
    return Draw(
        int(tree["seed"]),
        tuple(map(str, tree["unreadable"])),
        tuple(map(str, tree.get("classes", ()))),
    )


def write_draw(path: Path, rows: Sequence[Row], draw: Draw) -> None:
    """Write the CSV and the record beside it; each is there whole or not at all.

    Raises:
        OSError: the disk refuses.
    """
    # The record first: a CSV without it would count as chosen.
    write_record(path, draw)
    write_whole(path, rows_csv(rows))


def write_record(path: Path, draw: Draw) -> None:
    """Write the record beside a CSV.

    Raises:
        OSError: the disk refuses.
    """
    tree = {
        "format": FORMAT,
        "format-version": VERSION,
        "seed": draw.seed,
        "unreadable": list(draw.unreadable),
        "classes": list(draw.classes),
    }
    write_whole(record_of(path), json.dumps(with_digest(tree), indent=1) + "\n")


def _text(path: Path) -> str:
    try:
        return read_regular(path, at_most=LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"cannot read the record of the draw in {path}: {reason(error, path)}; fix it, or give another file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8; save it as UTF-8") from error
