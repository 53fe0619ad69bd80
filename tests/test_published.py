"""The published zero-shot accuracies that ship with the package."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from clipnlc.backbones import GROUPS
from clipnlc.datasets import published
from clipnlc.datasets.published import published_accuracy, published_digest
from clipnlc.metrics import METRICS

FILE = Path(published.__file__).with_name("published.csv")
ROWS = list(csv.DictReader(FILE.read_text("utf-8").splitlines()))


def test_nine_backbones_on_25_data_sets_each_once():
    pairs = Counter((row["backbone"], row["dataset"]) for row in ROWS)
    assert set(pairs.values()) == {1}
    assert len(pairs) == len({b for b, _ in pairs}) * len({d for _, d in pairs}) == 9 * 25
    for row in ROWS:
        assert 0 < float(row["zero_shot"]) < 1
    for dataset in {row["dataset"] for row in ROWS}:
        agreed = {(r["metric"], r["test_images"]) for r in ROWS if r["dataset"] == dataset}
        assert len(agreed) == 1


def test_every_row_is_found_under_our_name_of_its_backbone():
    for row in ROWS:
        found = published_accuracy(row["dataset"], f"{row['backbone']}.openai")
        assert found is not None
        assert (found.accuracy, found.samples) == (
            float(row["zero_shot"]),
            int(row["test_images"]),
        )
        assert found.metric in METRICS
    assert {f"{row['backbone']}.openai" for row in ROWS} == set(GROUPS["all"])


@pytest.mark.parametrize(
    ("dataset", "backbone", "accuracy", "metric"),
    [  # as open_clip's results table prints them
        ("imagenet", "ViT-L-14-336.openai", 0.7656, "accuracy"),
        ("pcam", "ViT-B-16.openai", 0.5072, "accuracy"),
        ("caltech101", "RN50x64.openai", 0.9026, "class-mean-accuracy"),
    ],
)
def test_some_numbers_are_as_published(dataset, backbone, accuracy, metric):
    found = published_accuracy(dataset, backbone)
    assert found is not None
    assert (found.accuracy, found.metric) == (accuracy, metric)


def test_other_weights_and_the_nano_family_have_no_published_number():
    for dataset, backbone in (
        ("cifar10", "RN50.yfcc15m"),
        ("cifar10", "nano-RN50"),
        ("digits", "RN50.openai"),
    ):
        assert published_accuracy(dataset, backbone) is None


def test_other_numbers_have_another_digest(monkeypatch, tmp_path):
    changed = tmp_path / "published.csv"
    changed.write_text(FILE.read_text("utf-8").replace("0.7157", "0.7158"), "utf-8")
    before = published_digest()
    monkeypatch.setattr(published, "_FILE", changed)
    published_digest.cache_clear()
    try:
        assert published_digest() != before
    finally:
        published_digest.cache_clear()
