"""Records laid out as tables, before they are shown anywhere.

Shares become per cent with one decimal; differences of shares become points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clipnlc.commands import command
from clipnlc.labels import Labels
from clipnlc.measures import Direction, Facts, Unit
from clipnlc.reports.record import (
    BEST_SINGLE,
    ORACLE,
    DatasetEvaluation,
    Diversity,
    DiversityReport,
    Evaluation,
    Row,
)
from clipnlc.wording import count

UNDEFINED = "-"


@dataclass(frozen=True)
class Cell:
    """One value as text; `spread` is half its interval, `best` marks the best of its column."""

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
    """Tables in reading order, and what must be known to read them."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]


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


# Evaluation ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """One number of a row, how it is spelled, and which direction is better.

    Attributes:
        spread: whether the interval of the accuracy belongs to it.
    """

    of: Callable[[Row], float | None]
    spell: Callable[[float | None], str] = percent
    better: Direction = "higher"
    spread: bool = False

    @classmethod
    def measure(cls, name: str, facts: Facts) -> "Shown":
        """Return a measure of the record."""
        return cls(lambda row: row.measures[name], SPELLED[facts.unit], facts.better)


SPELLED: Mapping[Unit, Callable[[float | None], str]] = {
    "%": percent,
    "nats": decimal,
    "": decimal,
}
ACCURACY = "accuracy"
"""The measure that rows also hold seed by seed; it has tables of its own."""

SHOWN_ACCURACY = Shown(lambda row: row.accuracy, spread=True)
GAIN = Shown(lambda row: row.gain, points)
GAP_CLOSED = Shown(lambda row: row.gap_closed)

RIVALS = ("method", "control")
"""Who can be the best of a column: whatever did not need the test labels to be chosen."""


def evaluation_report(evaluation: Evaluation) -> Report:
    """Lay out one table per data set, then the summary over all of them."""
    several = len(evaluation.datasets) > 1
    over = f"summary over {len(evaluation.datasets)} data sets" if several else "summary"
    tables = [_dataset_table(evaluation, one) for one in evaluation.datasets]
    rows = evaluation.summary
    if several:
        title = f"{over}: mean accuracy in %"
        tables.append(_table(title, rows, SHOWN_ACCURACY, notes=evaluation.notes))
    combined = [row for row in rows if row.kind in RIVALS]
    tables += [
        _table(f"{over}: gain over the best single backbone (on test), in points", combined, GAIN),
        _table(f"{over}: share of the oracle's gain reached, in %", combined, GAP_CLOSED),
    ]
    for name, facts in further(evaluation).items():
        title = f"{over}: {facts.title}{f' in {facts.unit}' * bool(facts.unit)}"
        measured = [row for row in rows if row.measures[name] is not None]
        tables.append(
            _table(f"{title}, {facts.better} is better", measured, Shown.measure(name, facts))
        )
    known = [one for one in evaluation.datasets if one.published]
    if known:
        tables.append(_published_table(known))
    return Report(tuple(tables), _explanations(evaluation))


def further(evaluation: Evaluation) -> dict[str, Facts]:
    """Return the facts of every measure but the accuracy, in the order of the tables."""
    return {name: facts for name, facts in evaluation.measures.items() if name != ACCURACY}


def _dataset_table(evaluation: Evaluation, one: DatasetEvaluation) -> Table:
    title = (
        f"{one.dataset}: accuracy in % on {count(one.samples, f'{evaluation.split} image')} of "
        f"{count(one.classes, 'class')}, {evaluation.head} heads"
    )
    notes = (f"best single: {one.best_single}", *one.notes)
    return _table(title, one.rows, SHOWN_ACCURACY, notes=notes)


def _table(
    title: str,
    rows: Sequence[Row],
    shown: Shown,
    *,
    notes: tuple[str, ...] = (),
) -> Table:
    """Lay out rows by method and what they were fitted on; mark the best that needed no test label."""
    columns = sorted({row.drawn for row in rows})
    best = {}
    for column in columns:
        values = [
            value
            for row in rows
            for value in [shown.of(row)]
            if row.drawn == column and row.kind in RIVALS and value is not None
        ]
        if values:
            best[column] = min(values) if shown.better == "lower" else max(values)
    sections = []
    for heading, wanted in SECTIONS:
        by_method: dict[str, dict[Labels, Row]] = {}
        for row in rows:
            if wanted(row):
                by_method.setdefault(row.method, {})[row.drawn] = row
        lines = []
        for method, cells in by_method.items():
            spelled = [
                _cell(cells[column], shown, best.get(column)) if column in cells else Cell("")
                for column in columns
            ]
            lines.append(Line(LABELS.get(method, method), tuple(spelled)))
        if lines:
            sections.append(Section(heading, tuple(lines)))
    labels = [Cell(str(max(r.labels for r in rows if r.drawn == column))) for column in columns]
    sections.append(Section("", (Line("labels used", tuple(labels)),)))
    return Table(title, tuple(column.heading for column in columns), tuple(sections), notes)


def _cell(row: Row, shown: Shown, best: float | None) -> Cell:
    value = shown.of(row)
    half = (row.high - row.low) / 2 if row.low is not None and row.high is not None else None
    return Cell(
        shown.spell(value),
        spread=percent(half) if shown.spread and half is not None else "",
        best=row.kind in RIVALS and value is not None and value == best,
    )


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

SECTIONS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("backbones alone", lambda row: row.kind == "backbone"),
    ("read off the test labels", lambda row: row.kind == "reference"),
    (
        "combined without labels",
        lambda row: row.kind == "method" and row.drawn.kind == "none",
    ),
    ("combined with labels", lambda row: row.kind == "method" and row.drawn.kind != "none"),
    ("controls", lambda row: row.kind == "control"),
)


PUBLISHED_NOTE = (
    "published: from open_clip's results table, measured by others with CLIP_benchmark's prompts; "
    "in no average here."
)
BEST_SINGLE_NOTE = (
    "best single (on test): the most accurate backbone of each data set, chosen with the very "
    "labels it is measured on, as in the NLC paper; no one can choose so well beforehand."
)
ORACLE_NOTE = (
    "oracle: right where any backbone is right; a bound for picking one backbone per image."
)
CONTROLS_NOTE = (
    "controls: nlc-shuffled reads another image's features, nlc-constant reads none, static is one "
    "weight per backbone; a gain that they show too is not owed to looking at the image."
)
SHOTS_NOTE = (
    "shots: labelled images per class, drawn from the training split anew for each seed; "
    "labels used: all classes (and data sets) together."
)
ASSUMED_NOTE = (
    "country211 is in the summary: the NLC paper speaks of 21 data sets and names 20, and this one "
    "as the 21st is our assumption."
)


def _explanations(evaluation: Evaluation) -> tuple[str, ...]:
    seeds = sorted({len(r.seeds) for r in evaluation.summary if r.drawn.kind != "none"})
    kinds = {r.interval for one in evaluation.datasets for r in one.rows}
    counted = " or ".join(str(count) for count in seeds)
    notes = [BEST_SINGLE_NOTE, ORACLE_NOTE]
    if any(row.kind == "control" for row in evaluation.summary):
        notes.append(CONTROLS_NOTE)
    if seeds:
        draws = f"{counted} seed{'' if seeds == [1] else 's'}"
        notes.append(f"{SHOTS_NOTE} Mean over {draws}.")
    if "seeds" in kinds:
        notes.append("± with labels: half the 95 % interval over the seeds (Student's t).")
    if "samples" in kinds:
        notes.append(
            "± without labels: half the 95 % interval over the test images (Wilson), "
            "on single data sets."
        )
    notes += [f"{facts.title}: {facts.meaning}." for facts in further(evaluation).values()]
    if len(evaluation.datasets) > 1 and "country211" in (d.dataset for d in evaluation.datasets):
        notes.append(ASSUMED_NOTE)
    if evaluation.head != "zero-shot":
        notes.append(
            f"The {evaluation.head} heads were fitted on labels that are not counted here."
        )
    notes.append("Bold or starred: best of its column among all that never saw a test label.")
    return tuple(notes)


# Diversity -------------------------------------------------------------------------------------


def diversity_report(report: DiversityReport) -> Report:
    """Lay out one line per data set and their mean, and the correlations with NLC's gain."""
    several = len(report.datasets) > 1
    lines = [_diversity_line(one, report.measures) for one in report.datasets]
    sections = [Section("", tuple(lines))]
    if several:
        sections.append(Section("", (_diversity_line(report.mean, report.measures),)))
    table = Table(
        f"diversity of {count(len(report.backbones), 'backbone')} on {report.split} images, "
        f"{report.head} heads",
        (
            "right for some %",
            "best single %",
            "oracle %",
            "oracle gain",
            *(facts.heading or facts.title for facts in report.measures.values()),
        ),
        tuple(sections),
        tuple(f"{one.dataset}: {note}" for one in report.datasets for note in one.notes),
    )
    tables = (table, _correlations(report)) if report.correlations else (table,)
    return Report(tables, (*DIVERSITY_NOTES, _pairs_note(report.measures)))


READ: Mapping[Direction, str] = {"higher": "high is diverse", "lower": "low is diverse"}
"""What the direction of a pairwise measure means."""

DIVERSITY_NOTES = (
    (
        "right for some: share of images that some backbones, but not all, get right: what there "
        "is to win or lose by choosing among them."
    ),
    (
        "oracle gain: points from the best single backbone (chosen on test) to the oracle, which "
        "is right where any backbone is."
    ),
)


def _pairs_note(measures: Mapping[str, Facts]) -> str:
    meanings = [
        f"{facts.heading or facts.title}: {facts.meaning} ({READ[facts.better]})"
        for facts in measures.values()
    ]
    return f"The other columns are means over pairs of backbones. {'; '.join(meanings)}."


def _diversity_line(one: Diversity, measures: Mapping[str, Facts]) -> Line:
    shares = (percent(one.right_for_some), percent(one.best_single), percent(one.oracle))
    pairs = (one.pair_means[name] for name in measures)
    spelled = (UNDEFINED if mean is None else f"{mean + 0.0:.2f}" for mean in pairs)
    cells = (*shares, points(one.oracle_gain), *spelled)
    return Line(one.dataset, tuple(Cell(text) for text in cells))


def _correlations(report: DiversityReport) -> Table:
    settings = dict.fromkeys(one.drawn for one in report.correlations)
    by_measure: dict[str, list[Cell]] = {}
    for one in report.correlations:
        text = UNDEFINED if one.rho is None else f"{one.rho + 0.0:.2f}"
        by_measure.setdefault(one.measure.replace("-", " "), []).append(Cell(text))
    lines = tuple(Line(measure, tuple(cells)) for measure, cells in by_measure.items())
    datasets = report.correlations[0].datasets
    return Table(
        f"Spearman's rank correlation with NLC's gain over {datasets} data sets",
        tuple(setting.heading for setting in settings),
        (Section("", lines),),
    )
