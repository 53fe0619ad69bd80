"""Records as CSV for spreadsheets and data frames: one line per number or row, nothing rounded."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from clipnlc.reports.record import (
    Compared,
    Comparison,
    DiversityReport,
    Evaluation,
    Published,
    Row,
)

SUMMARY = "(all)"  # in place of a data set; no store can hold one of this name by accident

_ROW = tuple(field.name for field in fields(Row) if field.name not in ("drawn", "measures"))
_KEYS = ("method", "kind")
_PUBLISHED = tuple(field.name for field in fields(Published) if field.name != "backbone")


def evaluation_csv(evaluation: Evaluation) -> str:
    """Write every row of every data set, then the summary under the data set `(all)`.

    Columns: `dataset`, `method` and `kind`; `drawn_kind` and `drawn_amount`, the labels that were
    drawn; the other fields of `record.Row`; one per further measure of the record; the fields of
    `record.Published`, which are filled for a backbone with a published number. Rates are shares;
    seeds and accuracies are separated by spaces; what is undefined is empty.
    """
    published = {
        (one.dataset, each.backbone): {name: getattr(each, name) for name in _PUBLISHED}
        for one in evaluation.datasets
        for each in one.published
    }
    rows = [(one.dataset, row) for one in evaluation.datasets for row in one.rows]
    rows += [(SUMMARY, row) for row in evaluation.summary]
    further = [name for name in evaluation.measures if name not in _ROW]
    drawn = ("drawn_kind", "drawn_amount")
    columns = (*_KEYS, *drawn, *(name for name in _ROW if name not in _KEYS), *further)
    return _written(
        ("dataset", *columns, *_PUBLISHED),
        (
            {
                "dataset": dataset,
                **_spelled(row, further),
                **published.get((dataset, row.method), {}),
            }
            for dataset, row in rows
        ),
    )


def comparison_csv(comparison: Comparison) -> str:
    """Write every comparison on each data set, then those over all under the data set `(all)`.

    Columns: `dataset` and `against`; `drawn_kind` and `drawn_amount`, what the method was fitted on;
    `column_kind` and `column_amount`, the labels that the two are compared at; the other fields of
    `record.Compared`. Differences are of shares; several values are separated by spaces; what is
    undefined is empty.
    """
    rows = [(one.dataset, row) for one in comparison.datasets for row in one.rows]
    rows += [(SUMMARY, row) for row in comparison.summary]
    plain = [f.name for f in fields(Compared) if f.name not in ("drawn", "column")]
    labels = ("drawn_kind", "drawn_amount", "column_kind", "column_amount")
    return _written(
        ("dataset", "against", *plain[:2], *labels, *plain[2:]),
        (
            {
                "dataset": dataset,
                "against": comparison.against,
                "drawn_kind": row.drawn.kind,
                "drawn_amount": row.drawn.amount,
                "column_kind": row.column.kind,
                "column_amount": row.column.amount,
                **{name: _joined(getattr(row, name)) for name in plain},
            }
            for dataset, row in rows
        ),
    )


def diversity_csv(report: DiversityReport) -> str:
    """Write every entry of every matrix; columns `dataset,measure,backbone,other,value`.

    Measures of the whole ensemble, and accuracies, leave `backbone` or `other` empty. The mean is
    under the data set `(all)`.
    """
    lines: list[dict[str, object]] = []
    for dataset, one in [*((d.dataset, d) for d in report.datasets), (SUMMARY, report.mean)]:

        def add(measure: str, value: float | None, *pair: str, dataset: str = dataset) -> None:
            backbone, other = (*pair, "", "")[:2]
            lines.append(
                {
                    "dataset": dataset,
                    "measure": measure,
                    "backbone": backbone,
                    "other": other,
                    "value": "" if value is None else value,
                }
            )

        add("right-for-some", one.right_for_some)
        add("best-single", one.best_single)
        add("oracle", one.oracle)
        add("oracle-gain", one.oracle_gain)
        for name, accuracy in zip(report.backbones, one.accuracies, strict=True):
            add("accuracy", accuracy, name)
        for measure, matrix in one.matrices.items():
            for name, values in zip(report.backbones, matrix, strict=True):
                for other, value in zip(report.backbones, values, strict=True):
                    add(measure, value, name, other)
    return _written(("dataset", "measure", "backbone", "other", "value"), lines)


def _spelled(row: Row, further: Sequence[str]) -> dict[str, object]:
    values = {
        "drawn_kind": row.drawn.kind,
        "drawn_amount": row.drawn.amount,
        **{name: getattr(row, name) for name in _ROW},
        **{name: row.measures[name] for name in further},
    }
    return {name: _joined(value) for name, value in values.items()}


def _joined(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


def _written(columns: Iterable[str], lines: Iterable[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
