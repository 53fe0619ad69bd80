"""The answer of an evaluation: what it says, and that it is short."""

from dataclasses import replace

from reports_examples import DIGITS, EVALUATION, FITTED, ROWS
from test_reports import printed

from clipnlc.labels import Labels
from clipnlc.reports.answer import answer
from clipnlc.reports.record import Evaluation, Method, Row


def shown(evaluation: Evaluation, **options) -> str:
    return printed(answer(evaluation, **options))


def large() -> Evaluation:
    """Thirty methods, two of them recommended, six numbers of shots and four of random labels."""
    drawn = [Labels.shots(k) for k in (1, 2, 4, 8, 16, 32)]
    drawn += [Labels.count(k) for k in (50, 100, 200, 400)]
    rows: list[Row] = [*ROWS[:4]]
    methods = {}
    for number in range(30):
        name = {0: "recommended-labels-only", 1: "recommended-with-pool"}.get(number, f"m{number}")
        pool = number % 5 == 1
        methods[name] = Method("x", ("labels",), "nothing", recommended=number < 2)
        kind = "control" if number > 25 else "method"
        for place, labels in enumerate([*([Labels.none()] if pool else []), *drawn]):
            accuracy = 0.7 + (number * 7 + place * 11) % 30 / 1000
            row = replace(FITTED, method=name, kind=kind, drawn=labels, accuracy=accuracy)
            row = replace(row, unlabelled=5000 * pool, gain_low=-0.011, gain_high=0.132)
            rows.append(replace(row, interval="not-estimable") if place > 7 else row)
    apart = replace(ROWS[0], method="conf-ot", kind="transductive", accuracy=0.9, level=())
    rows += [apart, replace(apart, method="sota-transport")]
    sets = tuple(replace(DIGITS, dataset=f"set {n}", rows=()) for n in range(20))
    sets = (*sets, replace(DIGITS, dataset="country211", rows=()))
    return replace(EVALUATION, datasets=sets, summary=tuple(rows), methods=methods, head="linear")


def test_the_answer_has_at_most_forty_lines_of_eighty_columns():
    text = shown(large())
    lines = [line.rstrip() for line in text.rstrip().split("\n")]
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 36  # the command says where the rest is in three more
    assert "…" not in text
    for words in ("recommended-labels-only", "400", "our assumption", "linear heads"):
        assert words in " ".join(text.split())


def test_the_headline_says_what_is_best_and_how_sure_that_is():
    level = replace(FITTED, method="gac", accuracy=0.7)
    rows = tuple(replace(r, gain_low=0.05, gain_high=0.17) for r in (*ROWS[:6], level))
    text = " ".join(shown(replace(EVALUATION, summary=rows)).split())
    assert text.startswith(
        "Share of test images that are right, mean over 2 data sets; in brackets points from the "
        "best single backbone (chosen on test), and their 95 % interval: "
        "- without labels: log-avg 65.0 % (+5.0, +5.0 to +17.0) "
        "- at 1 per class: nlc 71.0 % (+11.0, +5.0 to +17.0); not separable from it: gac "
    )
    clear = (*ROWS[:6], replace(level, level=()))
    text = " ".join(shown(replace(EVALUATION, summary=clear)).split())
    assert "nlc 71.0 % (+11.0); better than gac" in text


def test_a_recommended_method_is_told_even_where_another_is_better():
    methods = {**EVALUATION.methods, "gac": Method("x", ("labels",), "nothing", recommended=True)}
    behind = replace(FITTED, method="gac", accuracy=0.65, level=())
    text = shown(replace(EVALUATION, summary=(*ROWS[:6], behind), methods=methods))
    said = "- at 1 per class: gac 65.0 % (+11.0); nlc is better, 71.0 %"
    assert said in " ".join(text.split())


def test_controls_may_be_left_out_of_the_answer():
    assert " static " in shown(EVALUATION)
    assert "static" not in shown(EVALUATION, controls=False)


def test_what_a_data_set_lacks_is_said_to_be_in_no_mean():
    assert "In no mean" not in shown(EVALUATION)
    gone = next(row for row in EVALUATION.summary if row.kind == "method")
    summary = tuple(row for row in EVALUATION.summary if row != gone)
    said = " ".join(shown(replace(EVALUATION, summary=summary)).split())
    lacking = f"{gone.method} {gone.drawn.phrase}"
    assert f"In no mean, since not every data set has them: {lacking}." in said


def test_one_data_set_is_named():
    alone = replace(EVALUATION, datasets=(DIGITS,), summary=ROWS)
    assert "that are right, digits; in brackets" in " ".join(shown(alone).split())
