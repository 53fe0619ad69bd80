"""The answer of an evaluation: a headline and one table with the fewest rows that tell it.

Everything else is in `clipnlc.reports.tables`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from clipnlc.labels import Labels
from clipnlc.reports.narrowed import without_controls
from clipnlc.reports.notes import ACCURACY, data_notes
from clipnlc.reports.record import GFLOPS, RIVALS, Evaluation, Row
from clipnlc.reports.tables import (
    READ_TEST,
    SHOWN_ACCURACY,
    Report,
    Sections,
    accuracy_table,
    percent,
    points,
    summary_of,
)
from clipnlc.wording import count, some

WIDTH: Final = 80
"""Columns that the answer fits into."""

KNOWN: Final = ("log-avg", "nlc")
"""Shown whatever else is: what needs nothing, and the paper's."""

MOST: Final = 5
"""Methods in the table, beside references and a control."""

SECTIONS: Final[Sections] = (
    ("read off the test labels", lambda row: row.kind == "reference"),
    ("methods", lambda row: row.kind == "method"),
    ("the best control", lambda row: row.kind == "control"),
)

_NAMES: Final = 24
_CELL: Final = 8
"""Characters that names and a column take."""

_WHOLE: Final = 0.9
"""Share of labels that two draws have in common from which on they are one."""


def answer(evaluation: Evaluation, *, controls: bool = True) -> Report:
    """Return the headline and the summary of an evaluation, in at most 80 columns and 40 lines.

    Args:
        evaluation: the record.
        controls: with the best of the controls.
    """
    if not controls:
        evaluation = without_controls(evaluation)
    rows = evaluation.summary
    columns = _columns(rows)
    methods = _methods(evaluation)
    kept = [
        replace(row, low=None, high=None, interval=None)
        for row in rows
        if row.drawn in columns and (row.kind == "reference" or row.method in methods)
    ]
    table = accuracy_table(
        f"{summary_of(evaluation)}: mean accuracy in %",
        kept,
        replace(SHOWN_ACCURACY, spread=lambda _row: ""),
        notes=(" ".join(_notes(evaluation, methods)),),
        sections=SECTIONS,
    )
    return Report((table,), (), tuple(_headline(evaluation)), WIDTH)


def _columns(rows: Sequence[Row]) -> list[Labels]:
    """Choose as many kinds of labels as fit, evenly, the first and the last among them."""
    every = sorted({row.drawn for row in rows})
    room = (WIDTH - _NAMES) // _CELL
    if len(every) <= room:
        return every
    return [every[i] for i in np.unique(np.linspace(0, len(every) - 1, room).round().astype(int))]


def _methods(evaluation: Evaluation) -> set[str]:
    """Choose the methods that tell the answer: recommended, well known, the best of any column, cheap."""
    rows = evaluation.summary
    chosen = [name for name, facts in evaluation.methods.items() if facts.recommended]
    chosen += [name for name in KNOWN if any(row.method == name for row in rows)]
    best = {
        (row.kind, row.drawn): row.method
        for row in sorted(rows, key=lambda row: (row.drawn, row.accuracy))
    }
    chosen += [method for (kind, _), method in reversed(best.items()) if kind == "method"]
    chosen += [row.method for row in rows if row.measures.get(GFLOPS) is not None]
    controls = [method for (kind, _), method in best.items() if kind == "control"]
    # What reads the test images is named below the table, in the line of one method.
    most = MOST - any(kind == "transductive" for kind, _ in best)
    return {*list(dict.fromkeys(chosen))[:most], *controls[-1:]}


def _headline(evaluation: Evaluation) -> Iterable[str]:
    """Say what is most accurate without labels and with most of them, and how sure that is."""
    sets, split = evaluation.datasets, evaluation.split
    over = f"mean over {len(sets)} data sets" if len(sets) > 1 else sets[0].dataset
    yield (
        f"Share of {split} images that are right, {over}; in brackets points from the best single "
        f"backbone (chosen on {split}), and their 95 % interval:"
    )
    rows = [row for row in evaluation.summary if row.kind == "method"]
    for column in _told(rows):
        its = [row for row in rows if row.drawn == column]
        preferred = [r for r in its if (m := evaluation.methods.get(r.method)) and m.recommended]
        for row in preferred or [max(its, key=lambda row: row.accuracy)]:
            yield f"- {_told_of(row, evaluation)}"


def _told(rows: Sequence[Row]) -> list[Labels]:
    """Choose the columns of the headline: no labels, and the most with intervals of gains."""
    free = sorted({row.drawn for row in rows if row.drawn.kind == "none"})
    drawn = sorted({row.drawn for row in rows if row.drawn.kind != "none"})
    differing = [
        column
        for column in drawn
        if all(
            r.gain_low is not None and r.shared is not None and r.shared < _WHOLE
            for r in rows
            if r.drawn == column
        )
    ]
    return [*free, *(differing or drawn)[-1:]]


def _told_of(row: Row, evaluation: Evaluation) -> str:
    """Say how accurate a row is, and who is level with it or better."""
    bounds = ""
    if row.gain_low is not None and row.gain_high is not None:
        bounds = f", {points(row.gain_low)} to {points(row.gain_high)}"
    # That it reads more than labels is no detail.
    pool = ", with unlabelled images of train" if row.unlabelled else ""
    said = (
        f"{row.drawn.phrase}{pool}: {row.method} {percent(row.accuracy)} % "
        f"({points(row.gain)}{bounds})"
    )
    rivals = [
        r
        for r in evaluation.summary
        if r.kind in RIVALS and r.drawn == row.drawn and r.method != row.method
    ]
    if not rivals:
        return said
    best = max(rivals, key=lambda r: r.accuracy)
    level = [r.method for r in rivals if ACCURACY in r.level]
    if ACCURACY not in row.level:
        return f"{said}; {best.method} is better, {percent(best.accuracy)} %"
    if not level:
        others = f"each of {len(rivals)} other methods" if len(rivals) > 1 else rivals[0].method
        return f"{said}; better than {others}"
    best_of_all = " from it" if row.accuracy >= best.accuracy else " from the best"
    return f"{said}; not separable{best_of_all}: {some(level)}"


def _notes(evaluation: Evaluation, methods: set[str]) -> Iterable[str]:
    rows = evaluation.summary
    halves = [(r.high - r.low) / 2 for r in rows if r.low is not None and r.high is not None]
    if halves:
        yield (
            f"95 % intervals of the rows: from ±{percent(min(halves))} to ±{percent(max(halves))}."
        )
    if any(row.level for row in rows):
        yield "*: not separable from the best of its column."
    alike = sorted({r.drawn for r in rows if r.interval == "not-estimable"})
    if alike:
        yield f"Draw variance not estimable: {some(column.heading for column in alike)}."
    reading = sorted({r.method for r in rows if r.unlabelled and r.method in methods})
    if reading:
        whose = evaluation.fitted_on or "the same data sets"
        yield f"Reads unlabelled train images of {whose} too: {some(reading)}."
    yield from _spent(evaluation)
    yield from data_notes(evaluation)
    yield from _left_out(evaluation)
    apart = list(dict.fromkeys(row.method for row in rows if row.kind == "transductive"))
    left = {row.method for row in rows if row.kind in RIVALS} - methods
    alone = {row.method for row in rows if row.kind == "backbone"}
    columns = sorted({row.drawn for row in rows})
    dropped = len(columns) - len(_columns(rows))
    parts = [
        *([count(len(left), "method")] if left else []),
        *([count(len(alone), "backbone")] if alone else []),
        *([count(dropped, "column")] if dropped else []),
        *([f"{some(apart)} (comparable with no row: they {READ_TEST})"] if apart else []),
    ]
    if parts:
        yield f"Not shown: {', '.join(parts)}, all other measures."


def _left_out(evaluation: Evaluation) -> Iterable[str]:
    """Say which methods have no mean, as one of the data sets lacks them."""
    meant = {(row.method, row.drawn) for row in evaluation.summary}
    each = [row for one in evaluation.datasets for row in one.rows if row.kind in RIVALS]
    lacking = {(row.drawn, row.method) for row in each} - {(d, m) for m, d in meant}
    if lacking:
        names = some(f"{method} {drawn.phrase}" for drawn, method in sorted(lacking))
        yield f"In no mean, since not every data set has them: {names}."


def _spent(evaluation: Evaluation) -> Iterable[str]:
    """Say what an image takes where a method need not compute every backbone."""
    if GFLOPS not in evaluation.measures:
        return
    taken: dict[str, list[float]] = {}
    for row in evaluation.summary:
        value = row.measures[GFLOPS]
        if value is not None:
            taken.setdefault(row.method, []).append(value)
    said = [
        f"{method} {min(values):.3g}" + f" to {max(values):.3g}" * (len(values) > 1)
        for method, values in taken.items()
    ]
    total = evaluation.measures[GFLOPS].bounds[1]
    if said:  # the summary lacks what only some of the data sets have
        yield f"GFLOPs of image towers per image, of {total:.3g} for all: {', '.join(said)}."
