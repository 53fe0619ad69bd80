"""One backbone that learns from an ensemble, from photos to predictions, by real commands."""

import json
import re

import pytest
from command_line import good, refusal, run, write_photos

from clipnlc.runs.exported import open_exported


@pytest.mark.slow
def test_a_student_predicts_with_its_backbone_alone(tmp_path):
    write_photos(tmp_path / "photos")
    store = ["--store", "s"]

    def done(*line):
        return good(*line, *store, cwd=tmp_path)

    done("extract", "-d", "photos", "-b", "nano-RN50,nano-ViT-B-16")
    line = ["--head", "distilled", "--backbones", "nano-RN50", "--shots", "0,2", "--seeds", 1]
    refused = refusal("train-heads", *line, *store, cwd=tmp_path)
    cure = "clipnlc train-nlc --dataset photos --combiners balanced,balanced-gp --shots 2 --seeds 1"
    assert f"run `{cure} --store s` first" in refused
    done(*cure.split()[1:])
    said = done("train-heads", *line)
    assert "photos: 1 head trained without labels, on 24 images each" in said
    assert "of 24 images whose labels were not read" in said
    following = "train-nlc --head distilled --shots 0,2 --seeds 1 --combiners parameter-free"
    assert f"next: clipnlc {following} --backbones nano-RN50 --store s" in said
    refused = refusal("train-nlc", "--head", "distilled", "--shots", 0, *store, cwd=tmp_path)
    assert "gp learns, and the teacher of the head distilled has seen" in refused
    done(*following.split(), "--backbones", "nano-RN50")
    refused = refusal(
        *("export", "--head", "distilled", "--shots", 0, "--out", "small"), *store, cwd=tmp_path
    )
    assert "gp learns, and on distilled heads only" in refused
    table = json.loads(done("evaluate", "--head", "distilled", "--json"))["datasets"][0]["rows"]
    accuracy = {(row["method"], row["drawn"]["kind"]): row["accuracy"] for row in table}
    for drawn in ("none", "shots"):  # the mean of one is that one
        assert accuracy["log-avg", drawn] == accuracy["nano-RN50", drawn]
    assert {row["unlabelled"] for row in table if row["method"] in ("log-avg", "nano-RN50")} == {24}
    said = " ".join(done("evaluate", "--head", "distilled").split())
    assert ", with unlabelled images of train: " in said
    assert "The distilled heads learnt the answers of a teacher" in said
    one = ["--head", "distilled", "--combiner", "log-avg", "--backbones", "nano-RN50"]
    done("export", *one, "--shots", 0, "--out", "small")
    assert open_exported(tmp_path / "small").backbones == ("nano-RN50",)
    card = (tmp_path / "small" / "README.md").read_text("utf-8")
    assert "- labels of the teacher: none" in card
    assert "the heads learnt: balanced of nano-RN50, nano-ViT-B-16\n" in card
    assert re.search(r"heads: distilled \(seed 0, sigma [1-9]\d* \(chosen\)\)\n", card)
    lines = good("predict", "photos/test", "--from", "small", "--json", cwd=tmp_path).splitlines()
    answers = [json.loads(line) for line in lines]
    assert len(answers) == 36
    from_store = done("predict", "photos/test", *one, "--shots", 0, "--dataset", "photos", "--json")
    assert [json.loads(line) for line in from_store.splitlines()] == answers
    assert run("export", *one, "--shots", 4, "--out", "other", *store, cwd=tmp_path).code == 2
