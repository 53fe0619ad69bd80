"""`make reproduce SUITE=paper`, from end to end, on small local copies of the 21 data sets."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment
from hub_on_disk import write_all

from clipnlc import datasets

ROOT = Path(__file__).parents[1]
BACKBONES = "nano-RN50,nano-ViT-B-16"
ALL = datasets.group("all")
FEW = ("caltech101", "country211")  # of 21; `make test-long` runs them all


def reproduce(store, source, *more):
    """Run the trial; return what it said."""
    ready = f"{sys.prefix}/.ready"
    command = ["make", f"--old-file={ready}", "reproduce", "SUITE=paper", "LIMIT=8"]
    command += [f"VENV={sys.prefix}", f"STORE={store}", f"SOURCE={source}"]
    command += [f"BACKBONES={BACKBONES}", "EXTRACT_OPTIONS=--accept-different-data", *more]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        pytest.param(FEW, [f"DATASETS={','.join(FEW)}"], marks=pytest.mark.slow, id="two"),
        pytest.param(ALL, [], marks=pytest.mark.long, id="all"),
    ],
)
def test_the_chain_runs_and_then_is_cached(tmp_path, keys, more):
    source, store = tmp_path / "copies", tmp_path / "store"
    write_all(source, rows=24, keys=keys)
    said = reproduce(store, source, *more)
    assert f"{len(keys)} data sets" in said
    assert "our assumption" in said
    assert "published" not in said, "nothing is published of nano backbones"
    few, linear = rows(store / "results.csv"), rows(store / "results-linear.csv")
    for found in (few, linear):
        assert {row["dataset"] for row in found} >= set(keys)
        assert {"nlc", "oracle", "log-avg", "super-learner"} <= {row["method"] for row in found}
    assert {row["drawn_kind"] for row in few} == {"none", "shots", "holdout"}
    assert {row["drawn_kind"] for row in linear} == {"none", "holdout"}
    again = reproduce(store, source, *more)
    extracted = re.findall(r"^[\w-]+/\w+: 8 images, (.*)$", again, re.MULTILINE)
    assert len(extracted) >= 2 * len(keys)
    assert set(extracted) == {"2 backbones cached"}
