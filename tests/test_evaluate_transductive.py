"""Methods that read the test images themselves stand apart, and are nobody's rivals."""

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_examples import write_dataset
from test_reports import printed

from clipnlc.combiners import COMBINERS, USUAL
from clipnlc.combiners.catalogue import catalogue
from clipnlc.errors import DataError, UnknownNameError
from clipnlc.labels import Labels
from clipnlc.reports.answer import answer
from clipnlc.reports.files import evaluation_from_json, to_json
from clipnlc.reports.record import Evaluation
from clipnlc.reports.tables import evaluation_report
from clipnlc.stages.evaluate import compare, evaluate
from clipnlc.stages.export import export
from clipnlc.stages.predict import require_row_wise
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.layout import Layout

APART = ("conf-ot", "sota-transport")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("store")
    for seed, name in enumerate(("digits", "emoji")):
        write_dataset(Layout(root), name, seed=seed)
    names = (*APART, "log-avg", "static")
    train_nlc(store=root, combiners=names, labels=[Labels.shots(4)], seeds=(0, 1))
    return root


@pytest.fixture(scope="module")
def evaluation(store) -> Evaluation:
    return evaluate(store=store)


def test_their_rows_carry_the_mark_and_are_level_with_nobody(evaluation):
    rows = [row for row in evaluation.summary if row.method in APART]
    assert [(row.method, row.kind, row.drawn.kind) for row in rows] == [
        (name, "transductive", "none") for name in APART
    ]
    assert all(row.level == () and row.gain_low is not None for row in rows)
    assert {evaluation.methods[name].learns_from for name in APART} == {("test",)}
    assert evaluation_from_json(to_json(evaluation), where="x.json") == evaluation


def test_tables_set_them_apart_and_say_so(evaluation):
    # As if they were far better than all others: they are told as the best nowhere.
    rows = tuple(
        replace(row, accuracy=0.999) if row.kind == "transductive" else row
        for row in evaluation.summary
    )
    better = replace(evaluation, summary=rows)
    full = evaluation_report(better)
    for table in full.tables[:3]:
        last = [section for section in table.sections if section.title][-1]
        assert last.title == "read the test images themselves"
        assert [line.name for line in last.lines] == list(APART)
        assert not any(cell.best for line in last.lines for cell in line.cells)
    assert "comparable with no other row" in " ".join(full.notes)
    used = next(table for table in full.tables if table.title == "what each method used")
    cells = {line.name: line.cells[1].text for line in used.sections[0].lines}
    assert (cells["conf-ot"], cells["log-avg"]) == ("the test images themselves", "none")
    gains = next(table for table in full.tables if "gain over the best" in table.title)
    assert not {line.name for s in gains.sections for line in s.lines} & {*APART}
    short = answer(better)
    assert not any(name in line for line in short.headline for name in APART)
    text = " ".join(printed(short).split())
    assert "99.9" not in text
    why = "(comparable with no row: they read the test images themselves)"
    assert f"conf-ot, sota-transport {why}, all other measures" in text


def test_they_are_compared_with_nothing(store):
    found = compare(store=store, against="static")
    assert {row.method for row in found.summary} == {"log-avg", "vote-1", "nlc"}
    for against, baselines in (("conf-ot", []), ("static", ["sota-transport"])):
        with pytest.raises(DataError, match="reads the test images themselves, so a difference"):
            compare(store=store, against=against, baselines=baselines)
    with pytest.raises(DataError, match="conf-ot reads the test images themselves"):
        compare(store=store, against="static", baselines=["transductive"])
    with pytest.raises(UnknownNameError, match="among those measured") as unknown:
        compare(store=store, against="conf")
    assert not [name for name in APART if name in str(unknown.value)]


def test_they_neither_answer_for_one_photo_nor_are_fitted_unasked(store, tmp_path):
    with pytest.raises(DataError, match="conf-ot reads all images that it predicts together, so"):
        require_row_wise("conf-ot")
    with pytest.raises(DataError, match=r"conf-ot reads all images .* an export answers for one"):
        export(store=store, dataset="digits", combiner="conf-ot", out=tmp_path / "out")
    assert not {*COMBINERS.resolve(USUAL)} & {*APART, *COMBINERS.groups["rivals"]}
    assert {entry.name for entry in catalogue() if entry.reads_test} == {*APART}
