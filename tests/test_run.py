"""`clipnlc run`: from a folder of photos to a fitted ensemble, a table and an answer."""

import json
import re

import pytest
from command_line import BACKBONES, contents, good, refusal
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


def test_photos_without_labels_get_answers_and_no_accuracy(split, tmp_path, here):
    (tmp_path / "flat").mkdir()
    for file in split.rglob("*.png"):
        (tmp_path / f"flat/{file.parent.name}-{file.parent.parent.name}-{file.name}").write_bytes(
            file.read_bytes()
        )
    refused = refusal("run", "flat", *ONE, by=here)
    assert 'for photos without labels give --classes "cat,dog"' in refused
    said = good("run", "flat", "--classes", "cat,dog", *ONE, by=here)
    lines = said.splitlines()
    assert lines[0] == "flat: 36 photos, taken without labels (--classes), 2 class names"
    assert "no accuracy is claimed" in said
    assert "%" not in said
    alone = good("predict", "flat", "--classes", "cat,dog", "--balance", *ONE, "--json", by=here)
    table = {line.split("\t")[0]: line.split("\t")[1] for line in lines if "\t" in line}
    assert table == {one["file"]: one["class"] for one in map(json.loads, alone.splitlines())}
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    few = good(
        *("run", "flat", "--classes", "names.txt", *ONE, "--csv", "a.csv", "--quiet"), by=here
    )
    assert few == ""
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 37
    for words in (["--test-share", 0.3], ["--class-names", "names.txt"]):
        said = refusal("run", "flat", "--classes", "cat,dog", *words, *ONE, by=here)
        assert "--classes takes the photos to have no labels" in said


def test_a_few_labels_are_fitted_on_and_judged_by_themselves(split, tmp_path, here):
    (tmp_path / "flat").mkdir()
    rows = ["file,label"]
    for number, file in enumerate(sorted(split.rglob("*.png"))):
        (tmp_path / f"flat/{number}.png").write_bytes(file.read_bytes())
        rows.append(f"{number}.png,{file.parent.name if number % 3 == 0 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    line = ("run", "flat", "--labels", "labels.csv", *ONE)
    said = good(*line, by=here)
    assert "flat/unlabelled: 24 images" in said
    assert re.search(
        r"^balanced-gp, fitted on 12 labels: about [\d.]+ % of the 24 other photos right, 95 % interval "
        r"[\d.]+ to [\d.]+ % \(cross-fitted on the same 12 labels\)$",
        said,
        re.MULTILINE,
    )
    assert "not known to be a random draw" in said
    estimate = json.loads(good(*line, "--json", by=here))["estimate"]
    assert (estimate["count"], estimate["others"], estimate["drawn"]) == (12, 24, False)
    divided = good(*line, "--test-share", 0.5, "--name", "divided", by=here)
    assert re.search(r"% of [4-8] test images right", divided)
    assert "divided/unlabelled: 24 images" in divided
