"""The outcome of one fit in a few sentences: how accurate, how sure, and against which backbone."""

from clipnlc.reports.record import BEST_SINGLE, DatasetEvaluation, Evaluation, Row
from clipnlc.reports.tables import percent, points
from clipnlc.wording import count


def outcome(evaluation: Evaluation, method: str) -> tuple[str, ...]:
    """Say how accurate a method is on one data set, fitted on the most labels that it has.

    Args:
        evaluation: of one data set.
        method: one of its rows.
    """
    (one,) = evaluation.datasets
    row = max((row for row in one.rows if row.method == method), key=lambda row: row.drawn)
    said = _accuracy(row, one, evaluation.split)
    if len(evaluation.backbones) == 1 and not row.labels:
        return (said,)  # the backbone itself
    return said, _gain(row, one, evaluation)


def _accuracy(row: Row, one: DatasetEvaluation, split: str) -> str:
    labels = f"fitted on {count(row.labels, 'label')}" if row.labels else "without labels"
    said = (
        f"{row.method}, {labels}: {percent(row.accuracy)} % of "
        f"{count(one.samples, f'{split} image')} right"
    )
    if row.low is None or row.high is None:
        return said
    return f"{said}, 95 % interval {percent(row.low)} to {percent(row.high)} %"


def _gain(row: Row, one: DatasetEvaluation, evaluation: Evaluation) -> str:
    best = next(row for row in one.rows if row.method == BEST_SINGLE)
    alone = len(evaluation.backbones) == 1
    which = "that backbone alone" if alone else "the best single backbone"
    chosen = "" if alone else f", chosen on {evaluation.split}"
    said = (
        f"that is {points(row.gain)} points over {which} without labels ({one.best_single}, "
        f"{percent(best.accuracy)} %{chosen})"
    )
    if row.gain_low is None or row.gain_high is None:
        return said
    level = row.gain_low <= 0 <= row.gain_high
    bounds = f"95 % interval {points(row.gain_low)} to {points(row.gain_high)}"
    return f"{said}, {bounds}{': they may be level' if level else ''}"
