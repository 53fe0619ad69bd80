"""Tables between two marks of a page in `docs/`, so that its prose stays."""

from pathlib import Path

BEGIN, END = "<!-- tables -->\n", "<!-- end -->"


def write_tables(page: Path, tables: str) -> None:
    """Put Markdown between the marks of a page, in place of what is there; make the page if absent.

    Raises:
        ValueError: the page does not have both marks, once.
    """
    text = page.read_text("utf-8") if page.is_file() else f"{BEGIN}{END}\n"
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}{tables}\n{END}{after}", "utf-8")
