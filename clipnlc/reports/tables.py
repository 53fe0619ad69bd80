"""Records laid out as tables, before they are shown anywhere.

Shares become per cent with one decimal; differences of shares become points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clipnlc.commands import command
from clipnlc.labels import LabelKind, Labels
from clipnlc.measures import Facts, Unit
from clipnlc.reports.narrowed import without_controls
from clipnlc.reports.notes import PUBLISHED_NOTE, explanations, further
from clipnlc.reports.record import (
    BEST_SINGLE,
    ORACLE,
    RIVALS,
    DatasetEvaluation,
    Evaluation,
    Row,
)
from clipnlc.wording import count

UNDEFINED = "-"
READ_TEST = "read the test images themselves"


@dataclass(frozen=True)
class Cell:
    """One value as text; `spread` is half its interval, `best` what is level with the best."""

    text: str
    spread: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """Rows of one kind; a table with one untitled section is plain."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """A titled table; `columns` leaves out the column of names, and `notes` stand below."""

    title: str
    columns: tuple[str, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What tables say, they in reading order, and what must be known to read them.

    On a terminal no more than `width` columns are used.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    headline: tuple[str, ...] = ()
    width: int = 1000


def points(value: float | None) -> str:
    """Write a difference of shares in points; no minus sign before zero.

    >>> points(0.0123), points(-0.0001), points(None)
    ('+1.2', '+0.0', '-')
    """
    return UNDEFINED if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def percent(value: float | None) -> str:
    """Write a share in per cent with one decimal.

    >>> percent(0.1234), percent(None)
    ('12.3', '-')
    """
    return UNDEFINED if value is None else f"{round(100 * value, 1) + 0.0:.1f}"


def decimal(value: float | None) -> str:
    """Write a number with three decimals.

    >>> decimal(0.12345), decimal(-0.0), decimal(None)
    ('0.123', '0.000', '-')
    """
    return UNDEFINED if value is None else f"{round(value, 3) + 0.0:.3f}"


Sections = tuple[tuple[str, Callable[[Row], bool]], ...]
"""Titles of sections, and which rows stand in them."""

# Evaluation ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """One number of a row, how it and its interval are spelled, and what says who is level.

    Attributes:
        of: the number.
        level: the measure in which a row may be level with the best.
        spell: the number as text.
        spread: half the interval as text; empty for none.
    """

    of: Callable[[Row], float | None]
    level: str = "accuracy"
    spell: Callable[[float | None], str] = percent
    spread: Callable[[Row], str] = lambda _row: ""

    @classmethod
    def measure(cls, name: str, facts: Facts) -> "Shown":
        """Return a measure of the record."""
        return cls(lambda row: row.measures[name], name, SPELLED[facts.unit])


SPELLED: Mapping[Unit, Callable[[float | None], str]] = {
    "%": percent,
    "nats": decimal,
    "": decimal,
}
UNKNOWN = "?"
"""In place of half an interval where the draw variance is not estimable."""


def half(row: Row, low: float | None, high: float | None) -> str:
    """Write half an interval; `?` where the draws do not show their variance."""
    if low is None or high is None:
        return UNKNOWN if row.interval == "not-estimable" else ""
    return percent((high - low) / 2)


def _half_gain(row: Row) -> str:
    return "" if row.method == BEST_SINGLE else half(row, row.gain_low, row.gain_high)


SHOWN_ACCURACY = Shown(lambda row: row.accuracy, spread=lambda row: half(row, row.low, row.high))
GAIN = Shown(lambda row: row.gain, spell=points, spread=_half_gain)
GAP_CLOSED = Shown(lambda row: row.gap_closed)


def evaluation_report(evaluation: Evaluation, *, controls: bool = True) -> Report:
    """Lay out one table per data set, then the summary over all of them.

    Args:
        evaluation: the record.
        controls: with the rows of controls.
    """
    if not controls:
        evaluation = without_controls(evaluation)
    over = summary_of(evaluation)
    tables = [_dataset_table(evaluation, one) for one in evaluation.datasets]
    rows = evaluation.summary
    if len(evaluation.datasets) > 1:
        title = f"{over}: mean accuracy in %"
        tables.append(accuracy_table(title, rows, SHOWN_ACCURACY, notes=evaluation.notes))
    combined = [row for row in rows if row.kind in RIVALS]
    gain = f"{over}: gain over the best single backbone (on test), in points"
    tables += [
        accuracy_table(gain, combined, GAIN),
        accuracy_table(f"{over}: share of the oracle's gain reached, in %", combined, GAP_CLOSED),
    ]
    for name, facts in further(evaluation).items():
        title = f"{over}: {facts.title}{f' in {facts.unit}' * bool(facts.unit)}"
        measured = [row for row in rows if row.measures[name] is not None]
        shown = Shown.measure(name, facts)
        if measured:  # a method that only some of the data sets have is in no summary
            tables.append(accuracy_table(f"{title}, {facts.better} is better", measured, shown))
    if evaluation.methods:
        tables.append(_used_table(evaluation))
    known = [one for one in evaluation.datasets if one.published]
    if known:
        tables.append(_published_table(known))
    return Report(tuple(tables), explanations(evaluation))


def summary_of(evaluation: Evaluation) -> str:
    """Spell what the summary is over."""
    several = len(evaluation.datasets)
    return f"summary over {several} data sets" if several > 1 else "summary"


def _dataset_table(evaluation: Evaluation, one: DatasetEvaluation) -> Table:
    title = (
        f"{one.dataset}: accuracy in % on {count(one.samples, f'{evaluation.split} image')} of "
        f"{count(one.classes, 'class')}, {evaluation.head} heads"
    )
    notes = (f"best single: {one.best_single}", *one.notes)
    return accuracy_table(title, one.rows, SHOWN_ACCURACY, notes=notes)


def accuracy_table(
    title: str,
    rows: Sequence[Row],
    shown: Shown,
    *,
    notes: tuple[str, ...] = (),
    sections: Sections | None = None,
) -> Table:
    """Lay out rows by method and what they were fitted on; mark what is level with the best."""
    columns = sorted({row.drawn for row in rows})
    filled = []
    for heading, wanted in sections or SECTIONS:
        by_method: dict[str, dict[Labels, Row]] = {}
        for row in rows:
            if wanted(row):
                by_method.setdefault(row.method, {})[row.drawn] = row
        lines = []
        for method, cells in by_method.items():
            spelled = [
                _cell(cells[column], shown) if column in cells else Cell("") for column in columns
            ]
            lines.append(Line(LABELS.get(method, method), tuple(spelled)))
        if lines:
            filled.append(Section(heading, tuple(lines)))
    labels = [Cell(str(max(r.labels for r in rows if r.drawn == column))) for column in columns]
    filled.append(Section("", (Line("labels used", tuple(labels)),)))
    return Table(title, tuple(column.heading for column in columns), tuple(filled), notes)


def _cell(row: Row, shown: Shown) -> Cell:
    value = shown.of(row)
    return Cell(shown.spell(value), spread=shown.spread(row), best=shown.level in row.level)


def _used_table(evaluation: Evaluation) -> Table:
    """Say of every method what it learnt from, and what its settings were selected on."""
    rows: dict[str, list[Row]] = {}
    for row in evaluation.summary:
        if row.method in evaluation.methods:
            rows.setdefault(row.method, []).append(row)
    lines = [
        Line(
            method,
            (
                Cell(_labels_used(its)),
                Cell(_unlabelled_used(its, evaluation)),
                Cell(evaluation.methods[method].selected_on),
            ),
        )
        for method, its in rows.items()
    ]
    return Table(
        "what each method used",
        ("labels", "unlabelled images", "settings selected on"),
        (Section("", tuple(lines)),),
        tuple(f"{name}: {evaluation.methods[name].meaning}" for name in rows),
    )


def _labels_used(rows: Sequence[Row]) -> str:
    drawn = [row for row in rows if row.drawn.kind != "none"]
    if not drawn:
        return "none"
    few, many = min(row.labels for row in drawn), max(row.labels for row in drawn)
    ways = dict.fromkeys(HOW_DRAWN[row.drawn.kind] for row in drawn)
    return f"{few if few == many else f'{few} to {many}'}, {' or '.join(ways)}"


def _unlabelled_used(rows: Sequence[Row], evaluation: Evaluation) -> str:
    if any(row.kind == "transductive" for row in rows):
        return f"the {evaluation.split} images themselves"
    most = max(row.unlabelled for row in rows)
    return (
        f"{most} of train{f' of {evaluation.fitted_on}' * bool(evaluation.fitted_on)}"
        if most
        else "none"
    )


HOW_DRAWN: Mapping[LabelKind, str] = {
    "none": "none",
    "shots": "k per class",
    "count": "at random",
    "holdout": "stratified",
    "all": "all",
}


def _published_table(datasets: Sequence[DatasetEvaluation]) -> Table:
    """Lay out each backbone's zero-shot accuracy beside the published one; nothing is averaged."""
    sections = tuple(
        Section(
            f"{one.dataset} ({MEASURED_BY[one.published[0].metric]})",
            tuple(
                Line(
                    each.backbone,
                    (
                        Cell(percent(each.ours)),
                        Cell(percent(each.published)),
                        Cell(points(each.difference)),
                        Cell("suspicious" if each.suspicious else ""),
                    ),
                )
                for each in one.published
            ),
        )
        for one in datasets
    )
    return Table(
        "zero-shot accuracy in % beside the published one",
        ("ours", "published", "difference", "remark"),
        sections,
        (PUBLISHED_NOTE, *(note for one in datasets for note in _published_notes(one))),
    )


def _published_notes(one: DatasetEvaluation) -> list[str]:
    """Say which differences are to be expected, and what is behind those that are not."""
    theirs = one.published[0].published_samples
    notes = []
    if one.samples != theirs:
        notes.append(
            f"{one.dataset}: ours are measured on {one.samples} test images, the published ones on "
            f"{theirs}: other test rows, so the two need not agree."
        )
    suspicious = [each.backbone for each in one.published if each.suspicious]
    if suspicious:
        rows = "" if one.samples != theirs else "; other test rows of the same number"
        notes.append(
            f"{one.dataset}: suspicious, more than 2 points apart: {', '.join(suspicious)}. Likely "
            f"causes: other prompts or class names; class names in another order than the labels"
            f"{rows}. Look with `{command('doctor', one.dataset)}`."
        )
    return notes


MEASURED_BY = {"accuracy": "accuracy", "class-mean-accuracy": "mean over classes"}

LABELS = {BEST_SINGLE: "best single (on test)", ORACLE: "oracle"}

SECTIONS: Sections = (
    ("backbones alone", lambda row: row.kind == "backbone"),
    ("read off the test labels", lambda row: row.kind == "reference"),
    (
        "combined without labels",
        lambda row: row.kind == "method" and row.drawn.kind == "none" and not row.unlabelled,
    ),
    (
        "combined without labels, with unlabelled images of train",
        lambda row: row.kind == "method" and row.drawn.kind == "none" and row.unlabelled > 0,
    ),
    (
        "combined with labels",
        lambda row: row.kind == "method" and row.drawn.kind != "none" and not row.unlabelled,
    ),
    (
        "combined with labels and unlabelled images of train",
        lambda row: row.kind == "method" and row.drawn.kind != "none" and row.unlabelled > 0,
    ),
    ("controls", lambda row: row.kind == "control"),
    (READ_TEST, lambda row: row.kind == "transductive"),
)
