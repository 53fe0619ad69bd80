"""`evaluate --against`: paired differences and tests, against scipy, and what is left behind."""

import csv
import io
import json

import numpy as np
import pytest
from evaluation_examples import (
    MEMBERS_NAME,
    SEEDS,
    logits_and_labels,
    nlc,
    sample_ids,
    write_example,
)
from scipy import stats
from test_reports import printed

from clipnlc.combiners.votes import Vote1
from clipnlc.ensemble import Ensemble
from clipnlc.errors import StoreError, UnknownNameError
from clipnlc.labels import Labels
from clipnlc.reports.comparison_tables import comparison_report
from clipnlc.reports.files import comparison_from_json, to_json
from clipnlc.reports.record import Compared, Comparison
from clipnlc.reports.spreadsheet import comparison_csv
from clipnlc.runs.records import comparison_path, verify_record
from clipnlc.stages.evaluate import compare, evaluate
from clipnlc.stores.layout import Layout

NAMES = ("digits", "emoji", "flags")


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Layout:
    return write_example(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def comparison(example) -> Comparison:
    return compare(store=example.root, against="log-avg")


def find(rows: tuple[Compared, ...], method: str, shots: int = 0) -> Compared:
    column = Labels.shots(shots) if shots else Labels.none()
    (found,) = [r for r in rows if r.method == method and r.column == column]
    return found


def hits(layout: Layout, dataset: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who is right: the average, votes, and NLC at one shot by seed."""
    logits, labels = logits_and_labels(layout, dataset)
    votes = Vote1().combine(Ensemble(logits.astype(np.float32), (), sample_ids(len(labels))))
    fitted = [nlc(layout, dataset, 1, seed)[0].argmax(axis=1) == labels for seed in SEEDS]
    return logits.mean(0).argmax(1) == labels, votes.argmax(1) == labels, np.array(fitted)


def test_over_data_sets_it_is_a_paired_t_interval_and_a_signed_rank_test(example, comparison):
    everyone = [hits(example, name) for name in NAMES]
    differences = [fitted.mean() - average.mean() for average, _, fitted in everyone]
    found = find(comparison.summary, "nlc", shots=1)
    mean = np.mean(differences)
    low, high = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem(differences))
    assert found.difference == pytest.approx(mean, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert (found.interval, found.mcnemar) == ("data-sets", ())
    assert found.signed_rank == stats.wilcoxon(differences).pvalue
    ours = [r.signed_rank for r in comparison.summary if r.column == Labels.shots(1)]
    assert len(ours) == 2  # nlc and static; the votes need no label, and nor does the average
    assert found.holm == pytest.approx(min(1.0, 2 * min(ours), 2 * found.signed_rank), abs=0.3)
    assert "the least p-value of the signed-rank test is 0.250" in comparison.notes[0]


def test_single_fits_are_tested_by_mcnemar_seed_by_seed_and_never_pooled(example, comparison):
    for number, name in enumerate(NAMES):
        average, votes, fitted = hits(example, name)
        rows = comparison.datasets[number].rows

        def p(one, other):
            wins, losses = (one & ~other).sum(), (other & ~one).sum()
            return stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0

        assert find(rows, "vote-1").mcnemar == pytest.approx((p(votes, average),))
        found = find(rows, "nlc", shots=1)
        assert found.mcnemar == pytest.approx(tuple(p(each, average) for each in fitted))
        assert found.difference == pytest.approx(fitted.mean() - average.mean())
        assert found.low < found.difference < found.high
        assert find(rows, "nlc", shots=4).interval == "not-estimable"
    tables = {t.title: t for t in comparison_report(comparison).tables}
    tests = tables["digits: p-value of McNemar's test of two single fits"]
    assert [line.name for s in tests.sections for line in s.lines] == ["vote-1"]


def test_a_method_without_labels_is_compared_at_every_number_of_labels(example):
    found = compare(store=example.root, against="nlc", baselines=["log-avg", "controls"])
    assert [(r.method, r.column.amount) for r in found.summary] == [
        *(("log-avg", 1), ("static", 1), ("log-avg", 4), ("static", 4)),
    ]
    assert {r.drawn.kind for r in found.summary if r.method == "log-avg"} == {"none"}
    turned = compare(store=example.root, against="log-avg", baselines=["nlc"])
    assert find(turned.summary, "nlc", 1).difference == pytest.approx(
        -find(found.summary, "log-avg", 1).difference
    )


def test_what_was_not_measured_is_refused(example):
    with pytest.raises(
        UnknownNameError, match=r"unknown method among those measured 'nlx'; did you"
    ):
        compare(store=example.root, against="nlx")
    with pytest.raises(UnknownNameError, match="among those measured 'gac'"):
        compare(store=example.root, against="nlc", baselines=["gac"])


def test_its_record_is_read_back_checked_and_the_same_twice(example, comparison):
    path = comparison_path(example, "zero-shot", MEMBERS_NAME, "log-avg")
    compare(store=example.root, against="log-avg")
    before = path.read_bytes()
    assert comparison_from_json(before, where=str(path)) == comparison
    assert compare(store=example.root, against="log-avg") == comparison
    assert path.read_bytes() == before
    assert verify_record(example, path) is None
    path.write_text(path.read_text().replace('"log-avg"', '"vote-1"', 1))
    with pytest.raises(
        StoreError, match=r"was altered.* run `clipnlc evaluate --against log-avg --store .*` again"
    ):
        verify_record(example, path)
    path.unlink()
    tree = json.loads(to_json(comparison))
    assert (tree["format"], tree["format-version"]) == ("clipnlc-comparison", 1)


def test_it_is_shown_and_written_as_csv(comparison):
    text = printed(comparison_report(comparison, each=False))
    assert "mean difference from log-avg, over 3 data sets, in points of accuracy" in text
    assert "p-value of the signed-rank test" in text
    assert "digits" not in text
    assert "static" not in printed(comparison_report(comparison, controls=False))
    assert "±?" in printed(comparison_report(comparison))
    lines = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    rows = [r for one in comparison.datasets for r in one.rows]
    assert len(lines) == len(rows) + len(comparison.summary)
    (line,) = [
        each
        for each in lines
        if (each["dataset"], each["method"], each["column_amount"]) == ("flags", "nlc", "1")
    ]
    assert line["against"] == "log-avg"
    assert len(line["mcnemar"].split()) == 3
    assert lines[-1]["dataset"] == "(all)"


def test_differences_agree_with_the_rows_of_the_evaluation(example, comparison):
    rows = {(r.method, r.drawn): r.accuracy for r in evaluate(store=example.root).summary}
    for r in comparison.summary:
        expected = rows[r.method, r.drawn] - rows["log-avg", Labels.none()]
        assert r.difference == pytest.approx(expected, abs=1e-12)
