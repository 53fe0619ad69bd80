"""`benchmarks/methods.py`: one table of the records of several heads; every cell says something."""

import csv
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import environment
from reports_examples import BASE, EVALUATION, FITTED
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc.combiners import COMBINERS
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.runs.members import members_name
from clipnlc.runs.records import evaluation_path, save_record
from clipnlc.stores.layout import Layout

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "methods.py"
BACKBONES = ("nano-RN50", "nano-ViT-B-32")
TENTH, HELD = Labels.holdout(0.1), Labels.holdout(1.0)


@pytest.fixture
def methods(monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("methods", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "methods", module)
    spec.loader.exec_module(module)
    return module


def row(method, drawn, accuracy):
    fitted = replace(FITTED, method=method, drawn=drawn, accuracy=accuracy)
    if drawn.kind != "none":
        return fitted
    return replace(BASE, method=method, kind="method", accuracy=accuracy)


def rows(head):
    """Rows as `evaluate` has them for the fits of `make methods`."""
    once, few = Labels.none(), Labels.shots(1)
    if head == "zero-shot":
        best = replace(BASE, method="oracle", kind="reference", accuracy=0.9)
        found = (
            ("log-avg", once, 0.61),
            ("nlc", few, 0.62),
            ("nlc", TENTH, 0.68),
            ("gp", few, 0.63),
        )
        return (best, *(row(*one) for one in found))
    if HEADS.get(head).needs_teacher:
        return (row("log-avg", once, 0.69), row("log-avg", few, 0.7))
    if not HEADS.get(head).per_draw and HEADS.get(head).needs_labels:
        return (row("log-avg", once, 0.64), row("nlc", HELD, 0.65))
    return (row("log-avg", few, 0.66), row("nlc", few, 0.67))


@pytest.fixture
def store(methods, tmp_path):
    layout = Layout(tmp_path)
    for head in methods.COMPARED:
        datasets = tuple(
            replace(one, dataset=name, best_single=BACKBONES[0], rows=rows(head))
            for one, name in zip(EVALUATION.datasets, ("colors", "digits"), strict=True)
        )
        record = replace(
            EVALUATION, head=head, backbones=BACKBONES, datasets=datasets, summary=rows(head)
        )
        save_record(layout, evaluation_path(layout, head, members_name(BACKBONES)), record)
    return tmp_path


def run(methods, monkeypatch, store, dataset="colors,digits"):
    words = ["methods.py", "--store", str(store), "--dataset", dataset]
    monkeypatch.setattr(sys, "argv", [*words, "--backbones", ",".join(BACKBONES)])
    methods.main()


def test_a_number_or_a_reason_in_every_cell(methods, store, monkeypatch, capsys):
    run(methods, monkeypatch, store)
    text = (store / "methods.md").read_text("utf-8")
    assert capsys.readouterr().out == text + "\n"
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert table[0] == ["head", "method", "no labels", "1 shot", "10 % held", "100 % held"]
    found = {(head, method): cells for head, method, *cells in table[2:]}
    assert found["zero-shot", "oracle"] == ["90.0", "g", "g", "g"]
    assert found["zero-shot", "log-avg"] == ["61.0", "b", "b", "e"]
    assert found["zero-shot", "nlc"] == ["a", "62.0", "68.0", "e"]
    assert found["zero-shot", "static"] == ["a", "f", "f", "e"]  # all combiners, fitted or not
    assert found["rla", "log-avg"] == ["c", "66.0", "e", "e"]
    # Linear heads have read the labels of train, though this combiner has not.
    assert found["linear", "log-avg"] == ["c", "d", "e", "64.0"]
    assert found["linear", "nlc"] == ["c", "d", "e", "65.0"]
    # Students of a teacher that has seen no label, or these; combiners on top learn nothing.
    assert found["distilled", "log-avg"] == ["69.0", "70.0", "e", "e"]
    assert len(found) == 1 + len(tuple(COMBINERS)) + (len(methods.COMPARED) - 2) * 2 + 1
    letters = {cell for cells in found.values() for cell in cells if not cell[0].isdigit()}
    assert letters == set("abcdefg")
    assert all(f"\n- {letter}: {methods.REASONS[letter]}\n" in text for letter in letters)
    with (store / "methods.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 4 * len(found)
    assert all(bool(cell["accuracy"]) != bool(cell["reason"]) for cell in cells)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "no record of tip-adapter heads at "),
        ({"datasets": ("cub", "digits")}, "is of cub, digits, expected colors, digits; run "),
        ({"split": "val"}, "was measured on another split, "),
        ({"versions": {"python": "4"}}, "was measured on .* other versions of packages than "),
    ],
)
def test_records_that_do_not_go_together_are_refused(methods, store, monkeypatch, change, said):
    layout = Layout(store)
    path = evaluation_path(layout, "tip-adapter", members_name(BACKBONES))
    record = methods.read_evaluation(layout, path)
    path.unlink()
    if "datasets" in change:
        renamed = zip(record.datasets, change["datasets"], strict=True)
        change = {"datasets": tuple(replace(one, dataset=name) for one, name in renamed)}
    if change:
        save_record(layout, path, replace(record, **change))
    with pytest.raises(SystemExit, match=f"error: .*{said}.*`make methods`"):
        run(methods, monkeypatch, store)


@pytest.mark.long
def test_the_chain_runs_and_then_is_cached(methods, tmp_path):
    words = [f"--old-file={sys.prefix}/.ready", "methods", f"VENV={sys.prefix}"]
    words += [f"STORE={tmp_path}", "DATASETS=colors,digits", f"BACKBONES={','.join(BACKBONES)}"]
    words += ["SEEDS=2", "SHOTS=1,2", "CROPS=2", "EXTRACT_OPTIONS=--limit 100"]

    def said():
        done = subprocess.run(
            ["make", *words],
            cwd=SCRIPT.parent.parent,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first, table = said(), (tmp_path / "methods.csv").read_bytes()
    assert "colors/train~crop-1: 100 images" in first
    rows = list(csv.DictReader(table.decode().splitlines()))
    lacking = {row["reason"] for row in rows if "not fitted" in row["reason"]}
    assert not lacking, "a cell that the chain should have filled"
    assert {row["head"] for row in rows if row["accuracy"]} == set(methods.COMPARED)
    features = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    said()
    assert (tmp_path / "methods.csv").read_bytes() == table
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} == features
