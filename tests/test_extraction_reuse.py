"""Images that were embedded before: their rows are copied, whatever else has changed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from command_line import good
from datasets_on_disk import png, put, write_table
from extracting import BOTH, check_same_features, extracted, run, write_images
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.datasets.source import open_split
from clipnlc.extraction import crew
from clipnlc.extraction.request import Request
from clipnlc.stages.extract import Watch
from clipnlc.stages.plan import plan
from clipnlc.stores import shards
from clipnlc.stores.features import read_features
from clipnlc.stores.key import differences
from clipnlc.stores.layout import Layout

RESNET, VIT = BOTH


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "many", train=3, test=41)


@pytest.fixture
def forwards(monkeypatch):
    """The images of every forward from now on, by backbone; loads of a backbone under `loads`."""
    seen = {"loads": 0}
    forward, create = LoadedBackbone.forward, LoadedBackbone.__init__

    def counting(self, images):
        seen[self.name] = seen.get(self.name, 0) + len(images)
        return forward(self, images)

    def loading(self, *arguments, **settings):
        seen["loads"] += 1
        create(self, *arguments, **settings)

    monkeypatch.setattr(LoadedBackbone, "forward", counting)
    monkeypatch.setattr(LoadedBackbone, "__init__", loading)
    return seen


def features(store, split="test", backbone=RESNET, dataset="many"):
    return read_features(Layout(store).features(dataset, split, backbone))


def check_fresh(store, data, fresh, backbones=BOTH, **settings):
    """Check that every feature file is what an extraction into an empty store gives."""
    run(fresh, data, backbones, **settings)
    check_same_features(store, fresh)


def add(root):
    put(root / "test" / "dog" / "0005a.png", png(999, size=(20, 20)))


def remove(root):
    (root / "test" / "dog" / "0004.png").unlink()


def rename(root):
    image = root / "test" / "dog" / "0004.png"
    image.rename(image.with_name("zebra.png"))


def relabel(root):
    (root / "test" / "dog" / "0004.png").rename(root / "test" / "cat" / "0004.png")


def rename_class(root):
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / "hound")


def change(root):
    put(root / "test" / "dog" / "0004.png", png(998, size=(20, 20)))


def repeat(root):
    """Add a copy of an image that is there: nothing new to embed."""
    image = root / "test" / "dog" / "0004.png"
    put(root / "test" / "cat" / "copy.png", image.read_bytes())


def all_of_these(root):
    for edit in (add, remove, rename_class):
        edit(root)
    put(root / "test" / "cat" / "0000.png", png(998, size=(20, 20)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        (add, 1, 42),
        (remove, 0, 40),
        (rename, 0, 41),
        (relabel, 0, 41),
        (rename_class, 0, 41),
        (change, 1, 41),
        (repeat, 0, 42),
        (all_of_these, 2, 41),
    ],
)
def test_only_images_that_were_not_there_are_embedded(tmp_path, data, forwards, case):
    edit, embedded, rows = case
    run(tmp_path / "store", data, batch_size=8)
    edit(data)
    forwards.clear()
    forwards["loads"] = 0
    outcomes = run(tmp_path / "store", data, batch_size=8)
    assert {name: forwards.get(name, 0) for name in BOTH} == dict.fromkeys(BOTH, embedded)
    assert [(o.rows, o.copied) for o in outcomes if o.split == "test"] == [
        (rows, rows - embedded)
    ] * 2
    check_fresh(tmp_path / "store", data, tmp_path / "fresh", batch_size=8)
    assert [o.cached for o in run(tmp_path / "store", data)] == [True] * 4


def test_without_new_images_or_classes_no_backbone_is_loaded(tmp_path, data, forwards):
    run(tmp_path / "store", data)
    remove(data)
    forwards["loads"] = 0
    run(tmp_path / "store", data)
    assert forwards["loads"] == 0


def test_tables_too(tmp_path, forwards):
    root = tmp_path / "many"
    images = [png(i) for i in range(9)]
    for split, count in (("train", 3), ("test", 8)):
        write_table(root / f"{split}.parquet", images[:count], (["cat", "dog"] * 5)[:count])
    run(tmp_path / "store", root)
    write_table(root / "test.parquet", [images[8], *images[:8]], ["cat", *["cat", "dog"] * 4])
    forwards.clear()
    forwards["loads"] = 0
    run(tmp_path / "store", root)
    assert {name: forwards.get(name, 0) for name in BOTH} == dict.fromkeys(BOTH, 1)
    check_fresh(tmp_path / "store", root, tmp_path / "fresh")


def test_a_folder_and_what_reads_it_agree_on_the_digests(tmp_path, data):
    run(tmp_path / "store", data, [RESNET])
    found = features(tmp_path / "store").content
    np.testing.assert_array_equal(found, open_split(data, "test").image_digests)


def test_more_of_a_limited_split(tmp_path, data, forwards):
    run(tmp_path / "store", data, [RESNET], limit=10)
    forwards.clear()
    forwards["loads"] = 0
    run(tmp_path / "store", data, [RESNET])
    assert forwards[RESNET] == 31
    check_fresh(tmp_path / "store", data, tmp_path / "fresh", [RESNET])


def test_each_backbone_copies_what_it_has(tmp_path, data, forwards):
    """One has the features, another those of ten images, a third none."""
    run(tmp_path / "store", data, ["nano-RN50"])
    run(tmp_path / "store", data, ["nano-ViT-B-16"], limit=10)
    add(data)
    forwards.clear()
    forwards["loads"] = 0
    every = [*BOTH, "nano-ViT-B-32"]
    outcomes = run(tmp_path / "store", data, every, split=["test"])
    assert [forwards[name] for name in every] == [1, 32, 42]
    assert [o.copied for o in outcomes] == [41, 10, 0]


def test_unreadable_images_are_tried_again(tmp_path, data, forwards):
    broken = put(data / "test" / "dog" / "broken.png", b"no image")
    run(tmp_path / "store", data, [RESNET], on_bad_image="skip")
    add(data)
    put(data / "test" / "cat" / "broken too.png", b"no image either")
    forwards.clear()
    forwards["loads"] = 0
    run(tmp_path / "store", data, [RESNET], on_bad_image="skip")
    assert forwards[RESNET] == 1
    assert len(features(tmp_path / "store").skipped) == 2
    check_fresh(tmp_path / "store", data, tmp_path / "fresh", [RESNET], on_bad_image="skip")
    broken.write_bytes(png(7))
    (data / "test" / "cat" / "broken too.png").unlink()
    run(tmp_path / "store", data, [RESNET])
    check_fresh(tmp_path / "store", data, tmp_path / "again", [RESNET])


@pytest.mark.parametrize("rows", [None, (0, None)])
def test_a_file_without_digests_is_embedded_again(tmp_path, data, forwards, monkeypatch, rows):
    """A file of an older version: all it holds is read, and nothing is copied from it."""
    write = shards.write_shard
    monkeypatch.setattr(
        shards, "write_shard", lambda path, key, s: write(path, key, replace(s, content=None))
    )
    run(tmp_path / "store", data, [RESNET], split=["test"])
    assert features(tmp_path / "store").content is None
    monkeypatch.setattr(shards, "write_shard", write)
    add(data)
    forwards.clear()
    forwards["loads"] = 0
    run(tmp_path / "store", data, [RESNET], split=["test"], rows=rows)
    assert forwards[RESNET] == 42
    assert features(tmp_path / "store").content is not None


def test_new_prompts_keep_the_digests(tmp_path, data, forwards):
    run(tmp_path / "store", data, [RESNET])
    templates = put(tmp_path / "templates.txt", b"a drawing of a {c}\n")
    run(tmp_path / "store", data, [RESNET], templates=templates)
    add(data)
    forwards.clear()
    forwards["loads"] = 0
    run(tmp_path / "store", data, [RESNET], templates=templates)
    assert forwards[RESNET] == 1


def test_other_settings_copy_nothing(tmp_path, data, forwards):
    run(tmp_path / "store", data, [RESNET], split=["test"])
    forwards.clear()
    forwards["loads"] = 0
    run(tmp_path / "store", data, [RESNET], split=["test"], precision="bf16")
    assert forwards[RESNET] == 41


def test_an_interrupted_run_goes_on(tmp_path, data, forwards, monkeypatch):
    monkeypatch.setattr(crew, "SHARD_ROWS", 8)
    run(tmp_path / "store", data, [RESNET], batch_size=4)
    for number in range(12):
        put(data / "test" / "dog" / f"{number:02}a.png", png(900 + number, size=(20, 20)))

    def stop(now):
        if now.done >= 46:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path / "store", data, [RESNET], batch_size=4, watch=Watch(progress=stop))
    path = Layout(tmp_path / "store").features("many", "test", RESNET)
    assert len(features(tmp_path / "store").sample_id) == 41  # the old file, still whole
    sealed = [shards.read_shard(file) for file in shards.shard_files(path)]
    embedded = [s for s in sealed for name in s.sample_id if name.endswith("a.png")]
    assert 0 < len(embedded) < 12
    forwards.clear()
    forwards["loads"] = 0
    seen = []
    watch = Watch(progress=lambda now: seen.append((now.began_at, now.done, now.total)))
    run(tmp_path / "store", data, [RESNET], batch_size=4, watch=watch)
    left = 12 - len(embedded)
    assert forwards[RESNET] == left
    assert (seen[0][0], seen[-1]) == (53 - left, (53 - left, 53, 53))
    check_fresh(tmp_path / "store", data, tmp_path / "fresh", [RESNET])


@pytest.mark.slow
def test_workers_copy_too(tmp_path, data):
    store = tmp_path / "store"
    extracted(store, data)
    add(data)
    facts = extracted(store, data, devices=["cpu", "cpu"])
    _, done, total, _, _, embedded = facts["seen"][-1]
    assert (done, total, embedded) == (42, 42, dict.fromkeys(BOTH, 1))
    check_fresh(store, data, tmp_path / "fresh")


def test_rows_by_several_workers(tmp_path, data, forwards):
    run(tmp_path / "store", data, split=["train", "test"])
    add(data)
    forwards.clear()
    forwards["loads"] = 0
    for rows in ((20, None), (0, 20)):
        run(tmp_path / "store", data, split=["test"], rows=rows)
    assert {name: forwards.get(name, 0) for name in BOTH} == dict.fromkeys(BOTH, 1)
    check_fresh(tmp_path / "store", data, tmp_path / "fresh")


def test_a_plan_knows(tmp_path, data):
    run(tmp_path / "store", data, [RESNET])
    add(data)
    request = Request(store=tmp_path / "store", dataset=[str(data)], backbones=list(BOTH))
    found = plan(request, probe=False)
    assert [(s.split, s.images, dict(s.copied)) for s in found.splits] == [
        ("train", 3, {VIT: 0}),
        ("test", 42, {RESNET: 41, VIT: 0}),
    ]
    assert {b.backbone: b.images for b in found.backbones} == {RESNET: 1, VIT: 45}


def test_the_command_says_it(tmp_path, data, here):
    command = ["extract", "--dataset", data, "--backbones", ",".join(BOTH)]
    command += ["--store", tmp_path / "store"]
    good(*command, "--quiet", by=here)
    add(data)
    out = good(*command, by=here)
    assert (
        "many/test: 42 images, 2 backbones extracted (41 unchanged images not embedded again)\n"
        in out
    )
    assert "embedded 1 image in" in out
    remove(data)
    found = json.loads(good(*command, "--plan", "--json", by=here))
    assert found["splits"][1]["copied"] == dict.fromkeys(BOTH, 41)
    found = json.loads(good(*command, "--json", by=here))
    assert [o["copied"] for o in found] == [0, 0, 41, 41]


def test_the_key_is_that_of_a_fresh_extraction(tmp_path, data):
    run(tmp_path / "store", data, [RESNET])
    add(data)
    run(tmp_path / "store", data, [RESNET])
    run(tmp_path / "fresh", data, [RESNET])
    keys = [features(tmp_path / name).key for name in ("store", "fresh")]
    assert differences(*keys) == []
