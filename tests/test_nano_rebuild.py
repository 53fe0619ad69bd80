"""The nano data and one nano backbone, rebuilt from the public packages they came from.

Minutes of computing, and a network: only `make test-long` runs these.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clipnlc.backbones import nano
from clipnlc.stages.nano_data import nano_data
from clipnlc.stages.pretrain import pretrain

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
BACKBONE = "nano-RN50"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    out = tmp_path_factory.mktemp("nano")
    return out, nano_data(out=out / "data", packages=out / "packages")


def test_the_data_is_as_shipped(rebuilt):
    _, parts = rebuilt
    assert len(parts) == 19
    assert [part.name for part in parts if not part.as_shipped] == []


def test_a_backbone_reaches_its_recorded_accuracy_within_a_point(rebuilt):
    out, _ = rebuilt
    recipe = json.loads(nano.RECIPE.read_text("utf-8"))[BACKBONE]
    pretrain(
        data=out / "data" / "corpus.parquet",
        backbone=BACKBONE,
        out=out / "weights",
        steps=recipe["steps"],
    )
    compare = [sys.executable, ROOT / "benchmarks" / "nano_accuracy.py"]
    done = subprocess.run([*compare, "--weights", out / "weights"], check=False)
    assert done.returncode == 0
