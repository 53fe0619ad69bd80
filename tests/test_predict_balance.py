"""`predict --balance`: class names and photos alone, balanced over all photos."""

import csv
import json
import shutil

import numpy as np
import pytest
from command_line import BACKBONES
from PIL import Image

from clipnlc import backbones as backbone_names
from clipnlc.combiners.balanced import Balanced
from clipnlc.datasets.photos import list_photos
from clipnlc.ensemble import by_name
from clipnlc.extraction.models import Models
from clipnlc.extraction.photos import stream_photos
from clipnlc.stages.predict import zero_shot

NAMES = ("red", "green", "blue")
ASKED = ("--classes", ",".join(NAMES), "--backbones", BACKBONES)


@pytest.fixture
def many(tmp_path):
    """Twenty noisy photos of the three classes, and one that is broken."""
    random = np.random.default_rng(0)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20):
        pixels = random.integers(0, 90, (40, 40, 3), dtype=np.uint8)
        pixels[..., number % 3] += 160
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "05b.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    return folder


def answers(out):
    return [json.loads(line) for line in out.splitlines()]


def test_the_answers_are_those_of_the_combiner_on_all_photos(here, many):
    found = answers(here("predict", many, *ASKED, "--balance", "--json", "--batch-size", 3).out)
    backbones = sorted(backbone_names.resolve(BACKBONES, None), key=lambda each: each.name)
    models = Models("cpu", "fp32")
    plain = zero_shot(NAMES, templates=("a photo of a {c}",), backbones=backbones, models=models)
    blocks = list(stream_photos(list_photos([str(many)]), models, backbones))
    features = [np.concatenate(each) for each in zip(*(b.features for b in blocks), strict=True)]
    files = [file for block in blocks for file in block.files]
    order = by_name(NAMES)
    pool = plain.heads.ensemble(features, [str(file) for file in files], classes=order)
    scores = Balanced().fit(pool.rows([]), np.empty(0, dtype=np.int64), pool).combine(pool)
    assert [each["file"] for each in found] == [str(file) for file in files]
    assert [each["class"] for each in found] == [pool.class_names[c] for c in scores.argmax(axis=1)]
    assert all(each["balanced"] is True for each in found)


def test_it_says_what_is_assumed_and_lists_what_is_broken(here, many, tmp_path):
    ended = here("predict", many, *ASKED, "--balance", "--csv", tmp_path / "out.csv")
    assert "taken to be of all classes about equally" in ended.err
    assert "cannot use" in ended.err
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert {row["balanced"] for row in rows} == {"true"}


def test_too_few_photos_are_refused(here, many):
    for photo in sorted(many.glob("*.png"))[10:]:
        photo.unlink()
    ended = here("predict", many, *ASKED, "--balance")
    assert ended.code == 2
    assert "9 photos say too little of how 3 classes are balanced; give at least 16" in ended.err
    shutil.rmtree(many)
    many.mkdir()
    assert "no images among" in here("predict", many, *ASKED, "--balance").err


def test_a_fit_is_not_balanced_again(here, many):
    ended = here("predict", many, *ASKED, "--balance", "--combiner", "conf")
    assert ended.code == 2
    assert "--balance learns from the photos" in ended.err
