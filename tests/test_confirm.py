"""`benchmarks/confirm.py`: what it refuses, and a trial of it on a few images of test."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipnlc.errors import DataError
from clipnlc.extraction.request import Request
from clipnlc.labels import Labels
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.extract import extract
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.layout import Layout

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "confirm.py"
BACKBONES = ["nano-RN50", "nano-ViT-B-32"]
IMAGES = 24


@pytest.fixture
def confirm(monkeypatch, tmp_path):
    """The script as a module, in a git work tree of its own."""
    spec = importlib.util.spec_from_file_location("confirm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "confirm", module)
    spec.loader.exec_module(module)
    root = tmp_path / "tree"
    root.mkdir()
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a", "--allow-empty"],
    ):
        subprocess.run(["git", "-C", root, *words], check=True)
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module.clipnlc, "__file__", str(root / "clipnlc" / "__init__.py"))
    return module


def run(*words):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)


def test_what_is_not_committed_is_refused_before_anything_is_read(confirm, tmp_path):
    (confirm.ROOT / "claim.md").write_text("better than all")
    with pytest.raises(DataError, match=r"not committed: \?\? claim.md; commit settings"):
        confirm.confirm(tmp_path / "no-store", None, tmp_path / "result")
    (confirm.ROOT / "claim.md").unlink()
    assert len(confirm.committed()) == 40


def test_a_package_from_elsewhere_is_refused(confirm, monkeypatch):
    monkeypatch.setattr(confirm.clipnlc, "__file__", "/elsewhere/clipnlc/__init__.py")
    with pytest.raises(DataError, match="clipnlc is imported from /elsewhere/clipnlc, expected"):
        confirm.committed()


def test_a_second_reading_is_refused(confirm, tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(DataError, match="was read already, and only once"):
        confirm.confirm(tmp_path / "no-store", None, tmp_path / "result")


def test_a_reading_of_a_part_is_refused():
    done = run("--dataset", "colors")
    assert done.returncode == 2
    assert "the split is read as a whole" in done.stderr


@pytest.mark.slow
def test_a_trial_gives_what_evaluate_gives_on_the_same_images_and_leaves_the_store(tmp_path):
    store, out = tmp_path / "store", tmp_path / "trial"
    limit = {"train": 48, "test": IMAGES}
    extract(Request(store=store, dataset=["colors"], backbones=BACKBONES, limit=limit))
    few = {"labels": [Labels.none(), Labels.shots(2)], "seeds": (0, 1)}
    train_nlc(store=store, combiners=["log-avg", "vote-1", "static"], **few)
    words = ["--dataset", "colors", "--backbones", ",".join(BACKBONES)]
    done = run("--store", store, "--out", out, "--trial", IMAGES, *words)
    assert done.stderr == ""
    assert done.stdout.split() == [f"{out}{suffix}" for suffix in (".csv", ".npz", ".json")]
    with Path(f"{out}.csv").open() as file:
        rows = list(csv.DictReader(file))
    (table,) = evaluate(store=store).datasets
    expected = {
        (row.method, row.drawn.setting.name.removesuffix("-seed-0"), str(seed)): accuracy
        for row in table.rows
        if row.kind != "reference"
        for seed, accuracy in zip(row.seeds, row.accuracies, strict=True)
    }
    found = {(r["combiner"], r["labels"], r["seed"]): float(r["accuracy"]) for r in rows}
    assert found == pytest.approx(expected, abs=1e-6)
    assert {r["combiner"] for r in rows if not r["nll"]} == {"vote-1"}
    predicted = np.load(f"{out}.npz", allow_pickle=False)
    truth = predicted["colors/zero-shot/truth"]
    right = predicted["colors/zero-shot/2-shots-seed-1/static"] == truth
    assert right.mean() == pytest.approx(expected["static", "2-shots", "1"])
    assert json.loads(Path(f"{out}.json").read_text())["trial"] == IMAGES
    assert Layout(store).splits("colors") == ("test", "train")
