"""Reports as text for a terminal."""

import os
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from clipnlc.reports.tables import Cell, Report, Section, Table
from clipnlc.wording import printable

WIDTH = 100
"""Columns if unknown: pipes, files, continuous integration."""

TITLE = 28
"""Columns that a section's title may take where the names are shorter; a longer one is broken."""


def console() -> Console:
    """Return a console on standard output, as wide as $COLUMNS, or the terminal, or `WIDTH` columns."""
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        made.width = WIDTH
    return made


def show(report: Report, to: Console) -> None:
    """Print what a report says, its tables, and below them what must be known to read them.

    A table too wide for the console is printed in parts, each with the names.
    """
    width = min(to.width, report.width)
    for sentence in report.headline:
        to.print(Text(printable(sentence)), width=width)
    if report.headline:
        to.print()
    for table in report.tables:
        to.print(Text(printable(table.title), style="bold"), width=width)
        for part in _parts(table, width):
            to.print(_drawn(table, part, width), width=width)
        for note in table.notes:
            to.print(Text(f" {printable(note)}", style="dim"), width=width)
        to.print()
    for note in report.notes:
        to.print(Text(printable(note), style="dim"), width=width)


def _parts(table: Table, width: int) -> Iterator[range]:
    """Cut the columns into runs that fit beside the names."""
    room = width - _names(table)
    start, used = 0, 0
    widths = [_width(table, column) + 1 for column in range(len(table.columns))]
    for column, wide in enumerate(widths):
        if used + wide > room and column > start:
            yield range(start, column)
            start, used = column, 0
        used += wide
    yield range(start, len(table.columns))


def _names(table: Table) -> int:
    """Return the room for the names; a title that is longer than they are is broken into lines."""
    names = [
        f"{_indent(section)}{line.name}" for section in table.sections for line in section.lines
    ]
    titles = [len(section.title) for section in table.sections]
    return max(*map(len, names), min(max(titles), TITLE), 0)


def _indent(section: Section) -> str:
    return " " if section.title else ""


def _filled(table: Table, part: range, room: int) -> dict[int, int]:
    """Return the columns' widths: headings on one line where there is room, the narrowest first.

    Left to itself, rich takes the room for a heading from other columns' numbers. A column that is too
    wide by itself is broken into lines.
    """
    widths = {column: min(_width(table, column), max(room - 1, 1)) for column in part}
    spare = room - sum(width + 1 for width in widths.values())
    while spare > 0 and (short := [c for c in part if widths[c] < len(table.columns[c])]):
        widths[min(short, key=lambda c: widths[c])] += 1
        spare -= 1
    return widths


def _width(table: Table, column: int) -> int:
    heading = max((len(word) for word in table.columns[column].split()), default=0)
    number, spread = _widths(_cells(table, column))
    return max(heading, number + spread + 1)


def _cells(table: Table, column: int) -> list[Cell]:
    return [line.cells[column] for section in table.sections for line in section.lines]


def _widths(cells: Sequence[Cell]) -> tuple[int, int]:
    """Return the room for the longest number, and for the longest interval."""
    number = max(len(cell.text) for cell in cells)
    spread = max(len(cell.spread) + 1 if cell.spread else 0 for cell in cells)
    return number, spread


def _drawn(table: Table, part: range, width: int) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    names = _names(table)
    drawn.add_column("", width=names)
    widths = {}
    for column, wide in _filled(table, part, width - names).items():
        number, spread = _widths(_cells(table, column))
        widths[column] = min(number, wide), spread
        drawn.add_column(table.columns[column], vertical="bottom", width=wide)
    for section in table.sections:
        indent = _indent(section)
        if section.title:
            drawn.add_row(Text(printable(section.title), style="dim"))
        for line in section.lines:
            cells = [_aligned(line.cells[column], *widths[column]) for column in part]
            drawn.add_row(Text(indent + printable(line.name)), *cells)
        drawn.add_section()
    return drawn


def _aligned(cell: Cell, number: int, spread: int) -> Text:
    """Put numbers under numbers and intervals under intervals; a star after the best."""
    text = Text(f"{cell.text:>{number}}", style="bold green" if cell.best else "")
    text.append(f"±{cell.spread}".ljust(spread) if cell.spread else " " * spread)
    text.append("*" if cell.best else " ")
    return text
