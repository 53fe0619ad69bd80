"""Paths of a store: safe, reversible, and telling which command makes the file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipnlc.errors import StoreError
from clipnlc.stores.layout import LONGEST_PART, Layout, as_part, from_part, locate, shard_path

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16)


@given(NAMES)
def test_every_name_is_one_safe_part_and_comes_back(name):
    part = as_part(name)
    assert from_part(part) == name
    assert Path(part).name == part
    assert not part.startswith(".")
    assert part.isascii()
    assert part.isprintable()


@given(NAMES, NAMES, NAMES)
def test_names_come_back_from_paths(dataset, split, backbone):
    layout = Layout(Path("store"))
    location = locate(layout.features(dataset, split, backbone))
    assert location is not None
    assert (location.dataset, location.split, location.backbone) == (dataset, split, backbone)
    shard = locate(shard_path(layout.features(dataset, split, backbone), 0, 5))
    assert shard is not None
    assert (shard.kind, shard.backbone) == ("shards", backbone)


@pytest.mark.parametrize("name", ["", "x" * (LONGEST_PART + 1)])
def test_names_that_fit_no_file_name_are_refused(name):
    with pytest.raises(StoreError, match="give it a shorter name"):
        as_part(name)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("features/test/RN50.openai.h5", "clipnlc extract --dataset cub --backbones RN50.openai"),
        ("logits/zero-shot/RN50.h5", "clipnlc extract --dataset cub --backbones RN50"),
        ("logits/linear/RN50.h5", "clipnlc train-heads --dataset cub"),
        ("combined/linear/no-labels.h5", "clipnlc train-nlc --dataset cub --head linear"),
    ],
)
def test_a_path_names_its_command(path, command):
    location = locate(Path("store/cub") / path)
    assert location is not None
    assert location.command == command


@pytest.mark.parametrize(
    "path", ["x.h5", "store/cub/records/x/y.h5", "store/cub/logits/linear/x.json"]
)
def test_other_paths_are_no_place_of_a_store(path):
    assert locate(Path(path)) is None


def test_listings_name_what_is_there(tmp_path):
    layout = Layout(tmp_path)
    assert layout.datasets() == ()
    for path in (
        layout.features("cub", "test", "hf-hub:timm/ViT"),
        layout.features("cub", "train", "RN50@weights.pt"),
        layout.logits("cub", "linear", "RN50"),
        layout.combined("./photos", "linear", "no-labels"),
        tmp_path / ".hidden" / "x.h5",
    ):
        path.parent.mkdir(parents=True)
        path.touch()
    assert layout.datasets() == ("./photos", "cub")
    assert layout.splits("cub") == ("test", "train")
    assert layout.backbones("cub", "test") == ("hf-hub:timm/ViT",)
    assert layout.backbones("cub", "val") == ()
    assert layout.heads("cub") == ("linear",)
    assert layout.logit_backbones("cub", "linear") == ("RN50",)
    assert layout.runs("./photos", "linear") == ("no-labels",)
    assert layout.relative(layout.logits("cub", "linear", "RN50")) == "cub/logits/linear/RN50.h5"
