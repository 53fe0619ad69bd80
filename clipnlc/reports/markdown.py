"""Reports as Markdown (GitHub's tables)."""

from clipnlc.reports.tables import Cell, Report, Table


def markdown(report: Report) -> str:
    """Write the tables of a report, each under a heading, and its notes as a list."""
    blocks = [block for table in report.tables for block in _table(table)]
    blocks.append("\n".join(f"- {escaped(note)}" for note in report.notes))
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> list[str]:
    lines = [
        _line(["", *(escaped(column) for column in table.columns)]),
        _line(["---", *("---:" for _ in table.columns)]),
    ]
    for section in table.sections:
        if section.title:
            lines.append(_line([f"*{section.title}*", *("" for _ in table.columns)]))
        lines += [
            _line([escaped(line.name), *(_cell(cell) for cell in line.cells)])
            for line in section.lines
        ]
    notes = [escaped(note) for note in table.notes]
    return [f"### {escaped(table.title)}", "\n".join(lines), *notes]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = f"{cell.text} ± {cell.spread}" if cell.spread else cell.text
    return f"**{text}**" if cell.best else text


def escaped(text: str) -> str:
    """Keep names from being read as markup."""
    for mark in "\\|*_`<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
