"""`clipnlc run`: from a folder of photos to a fitted ensemble, a table and an answer."""

import json
import re

import pytest
from command_line import BACKBONES, contents, good
from extracting import write_images

ONE = ("--backbones", "nano-RN50")
TWO = ("--backbones", BACKBONES)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("run") / "photos", train=24, test=12)


def test_split_folders_lead_to_a_table_and_an_answer(split, tmp_path, here):
    said = good("run", split, *TWO, by=here)
    lines = said.splitlines()
    assert lines[0] == f"{split}: class folders with a split (train, test)"
    assert re.search(r"^ balanced-gp +\d", said, re.MULTILINE)
    (answer,) = (line for line in lines if line.startswith("balanced-gp, fitted on 24 labels"))
    assert re.fullmatch(
        r"balanced-gp, fitted on 24 labels: [\d.]+ % of 12 test images right, "
        r"95 % interval [\d.]+ to [\d.]+ %",
        answer,
    )
    assert "the best single backbone without labels (nano-" in said
    assert lines[-2].startswith("next: clipnlc predict PHOTOS --dataset photos --combiner balanced")
    assert lines[-1].startswith("next: clipnlc export --out photos-ensemble --dataset photos ")
    made = contents(tmp_path / "clipnlc-store")
    again = good("run", split, *TWO, by=here)
    assert "2 backbones cached" in again
    assert again.splitlines()[-6:] == lines[-6:]
    assert contents(tmp_path / "clipnlc-store") == made
    ended = json.loads(good("run", split, *TWO, "--json", by=here))
    assert (ended["dataset"], ended["method"]) == ("photos", "balanced-gp")
    assert good("run", split, *TWO, "--quiet", by=here) == ""
    assert contents(tmp_path / "clipnlc-store") == made
