"""evaluate's measures: every row of METRICS is in every output."""

import csv
import io

import numpy as np
import pytest
from evaluation_examples import (
    MEMBERS,
    SEEDS,
    logits_and_labels,
    nlc,
    record_path,
    row,
    write_dataset,
    write_example,
)
from scipy.special import softmax

from clipnlc.measures import Block, Measure
from clipnlc.metrics import METRICS
from clipnlc.reports.files import evaluation_from_json
from clipnlc.reports.markdown import markdown
from clipnlc.reports.record import Evaluation
from clipnlc.reports.spreadsheet import evaluation_csv
from clipnlc.reports.tables import evaluation_report
from clipnlc.reports.terminal import console, show
from clipnlc.stages.evaluate import evaluate
from clipnlc.stores.layout import Layout


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Layout:
    return write_example(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def evaluation(example) -> Evaluation:
    return evaluate(store=example.root)


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout(tmp_path)
    write_dataset(layout, "digits")
    return layout


def share_of_sure_rows(block: Block) -> np.ndarray:
    """A new measure: 1 where the probability is above one half."""
    return (block.probs.max(axis=1, keepdims=True) > 0.5).astype(np.float64)


def test_a_new_measure_is_one_row_and_appears_everywhere(layout, monkeypatch):
    first = evaluate(store=layout.root)
    new = Measure(
        title="share of sure rows",
        unit="%",
        better="higher",
        bounds=(0.0, 1.0),
        meaning="rows with a class above one half",
        each=f"{__name__}:share_of_sure_rows",
    )
    monkeypatch.setitem(METRICS.table, "sure", new)
    found = evaluate(store=layout.root)  # the record that is there lacks it, so it is made anew
    logits, _ = logits_and_labels(layout, "digits")
    probs = softmax(logits[0], axis=1).max(axis=1)
    backbone = row(found.summary, MEMBERS[0])
    assert "sure" not in first.measures
    assert backbone.measures["sure"] == (probs > 0.5).mean()
    assert row(found.summary, "oracle").measures["sure"] is None

    path = record_path(layout.root, "digits")
    assert evaluation_from_json(path.read_text(), where=str(path)).measures["sure"] == new.facts
    lines = list(csv.DictReader(io.StringIO(evaluation_csv(found))))
    shown = next(line for line in lines if line["method"] == MEMBERS[0])
    assert float(shown["sure"]) == backbone.measures["sure"]
    report = evaluation_report(found)
    title = "summary: share of sure rows in %, higher is better"
    assert f"### {title}" in markdown(report)
    table = next(table for table in report.tables if table.title == title)
    cells = {line.name: line.cells for section in table.sections for line in section.lines}
    assert cells[MEMBERS[0]][0].text == f"{100 * backbone.measures['sure']:.1f}"
    to = console()
    with to.capture() as captured:
        show(report, to)
    assert title in captured.get()
    assert "share of sure rows: rows with a class above one half." in captured.get()


def test_every_measure_of_one_data_set_agrees_with_its_function(example, evaluation):
    digits = evaluation.datasets[0]
    pairs = [nlc(example, "digits", 4, seed) for seed in SEEDS]
    found = row(digits.rows, "nlc", shots=4)
    assert list(found.measures) == list(evaluation.measures) == list(METRICS)
    for name in METRICS:
        expected = np.mean([METRICS.get(name)(scores, labels) for scores, labels in pairs])
        assert found.measures[name] == pytest.approx(expected, abs=1e-6)
    assert found.measures["accuracy"] == found.accuracy
    oracle = row(digits.rows, "oracle")
    known = {name for name, value in oracle.measures.items() if value is not None}
    assert known == {"accuracy", "class-mean-accuracy"}  # it has no probabilities
    assert oracle.measures["accuracy"] == oracle.accuracy


def test_the_summary_averages_what_is_not_pooled(evaluation):
    found = row(evaluation.summary, "nlc", shots=1)
    alone = [row(one.rows, "nlc", shots=1) for one in evaluation.datasets]
    for name in METRICS:
        mean = np.mean([its.measures[name] for its in alone])
        pooled = METRICS.get(name).pooled
        assert (found.measures[name] == pytest.approx(mean, abs=1e-12)) != pooled


def test_one_pool_hides_what_each_set_has():
    """Too sure on one set and too little on another: right on average, wrong on both."""
    sure = {
        right: np.stack([np.full(20, 0.72), np.arange(20) < right], axis=1) for right in (8, 20)
    }
    labels = np.zeros(20, dtype=int)
    pooled, own = METRICS.get("calibration-error"), METRICS.get("own-calibration-error")
    both = np.concatenate(list(sure.values()))
    assert pooled.sum_up(both, np.zeros(40, dtype=int)) == pytest.approx(0.02)
    each = [own.sum_up(values, labels) for values in sure.values()]
    assert each == pytest.approx([0.32, 0.28])
    assert (pooled.pooled, own.pooled) == (True, False)
