"""evaluate: what the fits give is kept, small, and made anew where something changed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from evaluation_examples import given_path, record_path, write_dataset

from clipnlc.metrics import METRICS
from clipnlc.stages.evaluate import evaluate
from clipnlc.stores.given import read_given
from clipnlc.stores.layout import Layout


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout(tmp_path)
    write_dataset(layout, "digits")
    return layout


def all_given(layout: Layout) -> dict[str, bytes]:
    paths = sorted(layout.root.glob("*/given/**/*.h5"))
    return {layout.relative(path): path.read_bytes() for path in paths}


def test_scores_are_kept_where_they_are_asked_for(layout):
    first = evaluate(store=layout.root)
    path = given_path(layout, "digits", "no-labels")
    without = read_given(path)
    assert without.given["vote-1"].scores is None
    assert evaluate(store=layout.root, keep_scores=True) == first
    kept = read_given(path)
    assert kept.given["vote-1"].scores.shape == (60, 4)
    assert kept.given["log-avg"].scores is None  # its weights say as much in less
    values, before = kept.given["vote-1"].values, without.given["vote-1"].values
    assert all(np.array_equal(values[name], before[name]) for name in METRICS)
    written = all_given(layout)
    assert evaluate(store=layout.root) == first
    assert all_given(layout) == written  # scores that were kept do no harm


def test_a_new_measure_makes_what_is_given_anew(layout, monkeypatch):
    evaluate(store=layout.root)
    before = all_given(layout)
    new = replace(METRICS.get("brier"), title="again")
    monkeypatch.setitem(METRICS.table, "again", new)
    calls = []
    evaluate(store=layout.root, on_progress=lambda *at: calls.append(at))
    assert calls
    after = all_given(layout)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)
    given = read_given(given_path(layout, "digits", "4-shots-seed-1")).given["nlc"]
    assert np.array_equal(given.values["again"], given.values["brier"])


def test_only_what_is_lacking_is_applied(layout):
    evaluate(store=layout.root)
    before = all_given(layout)
    lost = given_path(layout, "digits", "4-shots-seed-1")
    lost.unlink()
    for record in layout.root.rglob("evaluate-*.json"):
        record.unlink()
    times = {name: (layout.root / name).stat().st_mtime_ns for name in all_given(layout)}
    evaluate(store=layout.root)
    assert all_given(layout) == before
    assert times == {name: (layout.root / name).stat().st_mtime_ns for name in times}


@pytest.mark.parametrize("rows", [1, 7])
def test_blocks_of_any_length_give_the_same_bytes(rows, layout, monkeypatch):
    evaluate(store=layout.root, keep_scores=True)
    record = record_path(layout.root, "digits")
    whole = record.read_bytes(), all_given(layout)
    record.unlink()
    shutil.rmtree(layout.dataset("digits") / "given")
    monkeypatch.setattr("clipnlc.runs.giving.BLOCK_ROWS", rows)
    evaluate(store=layout.root, keep_scores=True)
    assert (record.read_bytes(), all_given(layout)) == whole


def test_fits_that_need_more_memory_than_there_is_take_several_passes(layout, monkeypatch):
    evaluate(store=layout.root)
    whole = all_given(layout)
    shutil.rmtree(layout.dataset("digits") / "given")
    record_path(layout.root, "digits").unlink()
    monkeypatch.setattr("clipnlc.stages.evaluate.applying._TOGETHER", 10_000)
    calls = []
    evaluate(store=layout.root, on_progress=lambda *at: calls.append(at))
    assert len(calls) > 1
    assert calls[-1][1] == calls[-1][2]
    assert all_given(layout) == whole
