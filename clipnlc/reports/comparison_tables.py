"""Records of comparisons laid out as tables."""

from collections.abc import Callable, Sequence

from clipnlc.labels import Labels
from clipnlc.reports.notes import SHARED_IMAGES_NOTE
from clipnlc.reports.record import Compared, Comparison
from clipnlc.reports.tables import (
    UNDEFINED,
    UNKNOWN,
    Cell,
    Line,
    Report,
    Section,
    Table,
    decimal,
    percent,
    points,
)
from clipnlc.wording import count

KINDS = {
    "backbone": "backbones alone",
    "reference": "read off the test labels",
    "method": "methods",
    "control": "controls",
}


def comparison_report(
    comparison: Comparison, *, each: bool = True, controls: bool = True
) -> Report:
    """Lay out the differences over all data sets, and the tests; before them of each data set.

    Args:
        comparison: the record.
        each: with the tables of each of several data sets.
        controls: with the rows of controls.
    """

    def shown(rows: Sequence[Compared]) -> list[Compared]:
        return [row for row in rows if controls or row.kind != "control"]

    against, several = comparison.against, len(comparison.datasets)
    tables = []
    for one in comparison.datasets if each or several == 1 else ():
        title = f"{one.dataset}: difference from {against} in points of accuracy"
        images = count(one.samples, f"{comparison.split} image")
        tables.append(_table(f"{title}, on {images}", shown(one.rows), _difference))
        single = [row for row in shown(one.rows) if len(row.seeds) == 1]
        if single:
            title = f"{one.dataset}: p-value of McNemar's test of two single fits"
            tables.append(_table(title, single, lambda row: Cell(_p_value(row.mcnemar[0]))))
    if several > 1:
        over = f"{against}, over {several} data sets"
        rows = shown(comparison.summary)
        title = f"mean difference from {over}, in points of accuracy"
        tables.append(_table(title, rows, _difference))
        title = f"p-value of the signed-rank test of each against {over}, adjusted"
        notes = comparison.notes
        tables.append(_table(title, rows, lambda row: Cell(_p_value(row.holm)), notes))
    seen = [*shown(comparison.summary)]
    seen += [r for one in comparison.datasets if each or several == 1 for r in shown(one.rows)]
    return Report(tuple(tables), tuple(_notes(against, seen)))


def _table(
    title: str,
    rows: Sequence[Compared],
    cell: Callable[[Compared], Cell],
    notes: tuple[str, ...] = (),
) -> Table:
    columns = sorted({row.column for row in rows})
    sections = []
    for kind, heading in KINDS.items():
        by_method: dict[str, dict[Labels, Cell]] = {}
        for row in rows:
            if row.kind == kind:
                by_method.setdefault(row.method, {})[row.column] = cell(row)
        lines = [
            Line(method, tuple(cells.get(column, Cell("")) for column in columns))
            for method, cells in by_method.items()
        ]
        if lines:
            sections.append(Section(heading, tuple(lines)))
    return Table(title, tuple(column.heading for column in columns), tuple(sections), notes)


def _difference(row: Compared) -> Cell:
    if row.low is None or row.high is None:
        unknown = UNKNOWN if row.interval == "not-estimable" else ""
        return Cell(points(row.difference), spread=unknown)
    half = percent((row.high - row.low) / 2)
    return Cell(points(row.difference), half, best=row.low <= 0 <= row.high)


def _p_value(value: float | None) -> str:
    """Write a p-value with three decimals.

    >>> _p_value(0.00004), _p_value(0.25), _p_value(None)
    ('<0.001', '0.250', '-')
    """
    least = 0.001
    return UNDEFINED if value is None else f"<{least}" if value < least else decimal(value)


def _notes(against: str, rows: Sequence[Compared]) -> list[str]:
    kinds = {row.interval for row in rows}
    notes = [
        f"Positive: better than {against}.",
        "A method that needs no labels is compared at every number of labels.",
        "Bold or starred: not separable, the 95 % interval of the paired difference includes zero.",
    ]
    if kinds & {"images", "images-and-draws"}:
        notes.append(
            "± on one data set: half this interval over the same images for both (bootstrap) and the "
            "same draws of labels (Student's t)."
        )
    if "not-estimable" in kinds:
        notes.append(
            "±?: the draw variance is not estimable, for there is one draw, or two draws are expected "
            "to share half of their labels or more."
        )
    if "data-sets" in kinds:
        notes.append(f"± over data sets: half this interval by Student's t. {SHARED_IMAGES_NOTE}")
    if any(row.signed_rank is not None for row in rows):
        notes.append(
            "signed-rank: Wilcoxon's exact test over the data sets, two-sided; adjusted by Holm for "
            "all methods that are compared at the same labels."
        )
    if any(row.mcnemar and len(row.seeds) == 1 for row in rows):
        notes.append(
            "McNemar's exact test asks whether two fits differ on such images; it says nothing of "
            "other draws of labels, and is not adjusted."
        )
    return notes
