"""`benchmarks/device.sh` on a CPU with tiny sizes: it prints its tables, and what it could not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "device.sh"


def measured(out, *options):
    """Return the lines of a run with one architecture, two photos and few rows of the heads."""
    sizes = ("--architectures", "ViT-B-32", "--batch", "1", "--images", "2", "--rows", "256")
    done = subprocess.run(
        ["sh", SCRIPT, "--device", "cpu", *sizes, *options, "--out", out],
        env=environment(PYTHON=sys.executable),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(out.read_text("utf-8"))
    return out.read_text("utf-8").splitlines()


@pytest.mark.slow
def test_every_part_is_measured(tmp_path):
    lines = measured(tmp_path / "tables.md", "--seconds", "300")
    assert lines[0].startswith("device cpu")
    headings = [line for line in lines if line.startswith("|---")]
    assert len(headings) == 4  # forwards, extract, compiled, heads
    for column in (
        "clipnlc / bare",
        "forwards wait for pixels",
        "compiled / bare",
        "numpy / torch",
    ):
        assert any(column in line for line in lines), column
    assert not [line for line in lines if line.startswith("not run") and "half" not in line]


@pytest.mark.slow
def test_it_names_what_it_did_not_run(tmp_path):
    lines = measured(tmp_path / "tables.md", "--seconds", "0.01")
    assert [line for line in lines if line.startswith("not run") and "half" not in line] == [
        "not run: forwards of ViT-B-32: out of time",
        "not run: extract with 1 backbone: out of time",
        "not run: compiled forwards of ViT-B-32: out of time",
    ]


def test_it_can_be_run():
    assert os.access(SCRIPT, os.X_OK)
