"""Records of diversity laid out as tables."""

from collections.abc import Mapping

from clipnlc.measures import Direction, Facts
from clipnlc.reports.record import Diversity, DiversityReport
from clipnlc.reports.tables import (
    UNDEFINED,
    Cell,
    Line,
    Report,
    Section,
    Table,
    percent,
    points,
)
from clipnlc.wording import count


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
