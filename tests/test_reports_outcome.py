"""The outcome of one fit in sentences."""

from dataclasses import replace

from reports_examples import DIGITS, EVALUATION, FITTED, ROWS

from clipnlc.labels import Labels
from clipnlc.reports.outcome import outcome

ONE = replace(EVALUATION, datasets=(DIGITS,))


def test_the_fit_on_most_labels_is_told_with_its_bounds_and_its_gain():
    most = replace(
        FITTED, drawn=Labels.all(), labels=99, accuracy=0.7, low=0.61, high=0.78, gain=0.1,
        gain_low=-0.02, gain_high=0.2,
    )  # fmt: skip
    shown = replace(EVALUATION, datasets=(replace(DIGITS, rows=(*ROWS, most)),))
    assert outcome(shown, FITTED.method) == (
        "nlc, fitted on 99 labels: 70.0 % of 100 test images right, 95 % interval 61.0 to 78.0 %",
        (
            "that is +10.0 points over the best single backbone without labels (b, 60.0 %, chosen on "
            "test), 95 % interval -2.0 to +20.0: they may be level"
        ),
    )


def test_what_has_no_interval_claims_none():
    assert outcome(ONE, "nlc") == (
        "nlc, fitted on 99 labels: 71.0 % of 100 test images right",
        (
            "that is +11.0 points over the best single backbone without labels (b, 60.0 %, chosen on "
            "test)"
        ),
    )
    without = outcome(ONE, "log-avg")
    assert without[0].startswith("log-avg, without labels: 65.0 % of 100 test images right")
    alone = replace(ONE, backbones=("b",))
    assert len(outcome(alone, "log-avg")) == 1
    assert outcome(alone, "nlc")[1].startswith("that is +11.0 points over that backbone alone with")
