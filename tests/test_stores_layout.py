"""Paths of a store: safe, reversible, and telling which command makes the file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipnlc.errors import StoreError
from clipnlc.stores.layout import (
    LONGEST_PART,
    Layout,
    Location,
    as_part,
    from_part,
    locate,
    shard_path,
)

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


@given(st.tuples(*[NAMES] * 6))
def test_names_of_runs_come_back_from_paths(names):
    dataset, source, head, members, run, split = names
    layout = Layout(Path("a/store"))
    fits = locate(layout.fits(dataset, head, members, run))
    assert fits == Location(layout.root, "fits", dataset, head=head, members=members, run=run)
    given_there = layout.given(dataset, split, source=source, head=head, members=members, run=run)
    assert locate(given_there) == Location(
        layout.root,
        "given",
        dataset,
        split=split,
        head=head,
        run=run,
        members=members,
        source=source,
    )
    logits = locate(layout.logits(dataset, head, split, run))
    assert logits == Location(layout.root, "logits", dataset, head=head, backbone=split, run=run)
    old = locate(layout.combined(dataset, head, run))
    assert old == Location(layout.root, "combined", dataset, head=head, run=run)


@pytest.mark.parametrize("name", ["", "x" * (LONGEST_PART + 1)])
def test_names_that_fit_no_file_name_are_refused(name):
    with pytest.raises(StoreError, match="give it a shorter name"):
        as_part(name)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("features/test/RN50.openai.h5", "clipnlc extract --dataset cub --backbones RN50.openai"),
        ("logits/zero-shot/RN50.h5", "clipnlc extract --dataset cub --backbones RN50"),
        ("logits/linear/RN50.h5", "clipnlc train-heads --dataset cub --head linear"),
        (
            "logits/tip/4-shots-seed-1/RN50.h5",
            "clipnlc train-heads --dataset cub --head tip --shots 4 --seeds 2",
        ),
        ("fits/linear/all/no-labels.h5", "clipnlc train-nlc --dataset cub --head linear"),
        ("given/cub/linear/all/no-labels/test.h5", "clipnlc evaluate --dataset cub --head linear"),
        (
            "given/birds/linear/all/no-labels/test.h5",
            "clipnlc evaluate --fitted-on birds --dataset cub --head linear",
        ),
        ("combined/linear/no-labels.h5", "clipnlc train-nlc --dataset cub --head linear"),
    ],
)
def test_a_path_names_its_command(path, command):
    location = locate(Path("clipnlc-store/cub") / path)
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
        layout.logits("cub", "tip", "RN50", "4-shots-seed-0"),
        layout.fits("./photos", "linear", "nano", "no-labels"),
        layout.given(
            "birds", "test", source="./photos", head="linear", members="nano", run="no-labels"
        ),
        layout.combined("old", "linear", "1-shots-seed-0"),
        tmp_path / ".hidden" / "x.h5",
    ):
        path.parent.mkdir(parents=True)
        path.touch()
    assert layout.datasets() == ("./photos", "birds", "cub", "old")
    assert layout.splits("cub") == ("test", "train")
    assert layout.backbones("cub", "test") == ("hf-hub:timm/ViT",)
    assert layout.backbones("cub", "val") == ()
    assert layout.logit_backbones("cub", "linear") == ("RN50",)
    assert layout.logit_backbones("cub", "tip") == ()
    assert layout.members("./photos", "linear") == ("nano",)
    assert layout.members("cub", "linear") == ()
    assert layout.runs("./photos", "linear", "nano") == ("no-labels",)
    assert layout.combined_runs("old", "linear") == ("1-shots-seed-0",)
    assert layout.combined_runs("./photos", "linear") == ()
    assert layout.relative(layout.logits("cub", "linear", "RN50")) == "cub/logits/linear/RN50.h5"


def test_commands_name_a_store_that_is_not_the_default():
    location = locate(Path("my store/cub/fits/linear/all/no-labels.h5"))
    assert location is not None
    assert location.command.endswith("--head linear --store 'my store'")
