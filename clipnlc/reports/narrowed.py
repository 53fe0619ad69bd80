"""Records with fewer rows, for a reader who asked about some of them."""

from collections.abc import Callable
from dataclasses import replace

from clipnlc.labels import Labels
from clipnlc.reports.record import Comparison, Evaluation, Row


def without_controls(evaluation: Evaluation) -> Evaluation:
    """Leave out the rows of controls."""
    return _with_rows(evaluation, lambda row: row.kind != "control")


def drawn_as(
    record: Evaluation | Comparison, kept: Callable[[Labels], bool]
) -> Evaluation | Comparison:
    """Keep the rows without labels, and those whose labels were drawn as asked.

    Args:
        record: of an evaluation or a comparison.
        kept: says of labels that were drawn whether their rows are kept.
    """

    def asked(labels: Labels) -> bool:
        return labels.kind == "none" or kept(labels)

    if isinstance(record, Evaluation):
        return _with_rows(record, lambda row: asked(row.drawn))
    return replace(
        record,
        datasets=tuple(
            replace(one, rows=tuple(row for row in one.rows if asked(row.column)))
            for one in record.datasets
        ),
        summary=tuple(row for row in record.summary if asked(row.column)),
    )


def _with_rows(evaluation: Evaluation, kept: Callable[[Row], bool]) -> Evaluation:
    return replace(
        evaluation,
        datasets=tuple(
            replace(one, rows=tuple(filter(kept, one.rows))) for one in evaluation.datasets
        ),
        summary=tuple(filter(kept, evaluation.summary)),
    )
