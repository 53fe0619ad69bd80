"""Every published data set, from copies in the formats of the repositories it is got from."""

import importlib.util
import re
import runpy
from pathlib import Path

import datasets as hf
import pytest
from datasets_on_disk import put, write_table
from hub_on_disk import class_names, names_told, shown, write_all, write_entry, write_folder

from clipnlc import datasets
from clipnlc.datasets import hub
from clipnlc.datasets.hub.classes import plain
from clipnlc.datasets.hub.entries import Entry
from clipnlc.errors import DataError, UnknownNameError

EVERY_SOURCE = [
    pytest.param(key, number, id=f"{key}-{source.id}")
    for key, entry in hub.entries().items()
    for number, source in enumerate(entry.sources)
]


@pytest.fixture(autouse=True)
def hf_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def copy_of(key, root, **options):
    return datasets.open_dataset(key, sources={key: root}, **options)


def assert_labels_follow_names(opened, key):
    names = class_names(key)
    assert opened.class_names == names
    for sample in opened.read():
        assert names[shown(sample.image())] == names[sample.label]
        assert shown(sample.image()) == sample.label


# --- the registry


def test_the_groups_are_the_papers_21_and_the_five_shifted_ones():
    assert len(datasets.resolve("all")) == 21
    assert {"cub", "cars", "country211", "imagenet"} <= set(datasets.resolve("all"))
    assert set(datasets.resolve("ood")) == {
        "imagenet-v2", "imagenet-r", "imagenet-a", "imagenet-sketch", "objectnet"
    }  # fmt: skip
    assert not set(datasets.resolve("all")) & set(datasets.resolve("nano"))


@pytest.mark.parametrize("key", hub.entries())
def test_an_entry_is_whole(key):
    entry = hub.entries()[key]
    assert entry.class_names is None or len(entry.class_names) == entry.classes
    for templates in (entry.templates, entry.templates_clip_benchmark or entry.templates):
        assert templates
        assert all("{c}" in template for template in templates)
    assert entry.licence
    assert entry.sources
    for source in entry.sources:
        assert source.revision is None or re.fullmatch("[0-9a-f]{40}", source.revision)
        assert source.splits.keys() <= {"train", "val", "test"}
        assert "test" in source.splits
        assert source.confidence
    if entry.class_names and not entry.wnids:
        assert len({plain(name) for name in entry.class_names}) == entry.classes


def test_imagenets_names_are_open_clips():
    # Read as a file: importing the package takes seconds.
    folder = Path(importlib.util.find_spec("open_clip").origin).parent
    of_open_clip = runpy.run_path(str(folder / "zero_shot_metadata.py"))
    entry = hub.entries()["imagenet"]
    assert entry.class_names == tuple(of_open_clip["IMAGENET_CLASSNAMES"])
    assert entry.templates == tuple(t("{c}") for t in of_open_clip["OPENAI_IMAGENET_TEMPLATES"])
    assert list(entry.wnids) == sorted(set(entry.wnids))
    for key in ("imagenet-r", "imagenet-a"):
        part = hub.entries()[key]
        assert list(part.wnids) == sorted(set(part.wnids))
        assert set(part.wnids) <= set(entry.wnids)
        of = dict(zip(entry.wnids, entry.class_names, strict=True))
        assert part.class_names == tuple(of[wnid] for wnid in part.wnids)
    # Two facts that anyone can look up: n01443537 is the goldfish, n02099601 the golden retriever.
    assert of["n01443537"] == "goldfish"
    assert of["n02099601"] == "Golden Retriever"


def test_prompt_sets():
    def templates(key, which):
        return datasets.open_dataset(key, prompts=which).templates

    assert templates("pcam", "openai") == ("this is a photo of {c}",)
    assert templates("pcam", "clip-benchmark")[0] == "a histopathology slide showing {c}"
    assert templates("cub", "clip-benchmark") == templates("cub", "openai")  # it has no CUB
    assert len(templates("imagenet", "openai")) == 80
    assert templates("imagenet-r", "simple") == templates("imagenet", "openai")[:1]
    assert templates("shapes", "simple") == templates("shapes", "openai")
    with pytest.raises(UnknownNameError, match=r"unknown prompt set 'best'; .*clip-benchmark"):
        templates("cub", "best")


# --- every entry, in every format


@pytest.mark.parametrize(("key", "number"), EVERY_SOURCE)
def test_a_copy_gives_the_right_names_in_the_right_order(tmp_path, key, number):
    source = hub.entries()[key].sources[number]
    root = write_entry(tmp_path / "copy", key, source=number)
    found = copy_of(key, root, accept_different_data=True)
    assert set(found.split_names()) == set(source.splits)
    for split in source.splits:
        opened = found.open(split)
        assert len(opened) == 8
        assert opened.name == split
        assert_labels_follow_names(opened, key)
        assert opened.origin["source"] == "local"
        if hub.entries()[key].rows(split):
            assert "8 rows where" in opened.origin["accepted"]
        assert sum("bare numbers" in note for note in opened.notes) == 0
    assert names_told(source) or source.labels == "index"


@pytest.mark.parametrize("key", hub.entries())
def test_a_wrong_row_count_is_refused(tmp_path, key):
    root = write_entry(tmp_path / "copy", key, splits=["test"])
    with pytest.raises(
        DataError,
        match=rf"split test of {key} from .* has 8 rows where [\d,or ]+ were expected.*--accept",
    ):
        copy_of(key, root).open("test")


def test_the_right_row_count_passes(tmp_path, monkeypatch):
    root = write_entry(tmp_path / "copy", "dtd")
    monkeypatch.setattr(Entry, "rows", lambda *_: frozenset({8, 9}))
    opened = copy_of("dtd", root).open("test")
    assert opened.origin == {"source": "local"}
    assert not any("accepted" in note for note in opened.notes)


def test_an_unknown_class_is_named(tmp_path):
    root = write_entry(tmp_path / "copy", "dtd", source=2)
    listed = (root / "classnames.txt").read_text().replace("dotted", "spotted", 1)
    put(root / "classnames.txt", listed.encode())
    with pytest.raises(
        DataError,
        match=r"calls a class 'spotted', which is none of the 47 of dtd \(1 of 47 are unknown\); .*--class-names",
    ):
        copy_of("dtd", root, accept_different_data=True).open("test")


def test_a_missing_class_is_a_difference(tmp_path):
    root = write_folder(tmp_path / "copy", "dtd", rows=4)
    with pytest.raises(DataError, match=r" 4 classes where 47 were expected; .*--accept-different"):
        copy_of("dtd", root).open("test")
    opened = copy_of("dtd", root, accept_different_data=True).open("test")
    assert opened.origin["accepted"] == (
        "4 rows where 1,880 were expected and 4 classes where 47 were expected"
    )
    assert f"accepted {opened.origin['accepted']}" in opened.notes
    assert_labels_follow_names(opened, "dtd")


def test_fewer_names_than_labels_is_no_difference_but_an_error(tmp_path):
    root = write_entry(tmp_path / "copy", "dtd", source=2)
    names = (root / "classnames.txt").read_text().split("\n")
    put(root / "classnames.txt", "\n".join(names[:-1]).encode())
    with pytest.raises(DataError, match=r"row 0 \(s0000000\) .* has label 46, .* are 46 classes"):
        copy_of("dtd", root, accept_different_data=True).open("test")


def test_two_classes_that_are_one_are_refused(tmp_path):
    root = write_entry(tmp_path / "copy", "eurosat", source=2)
    put(root / "classnames.txt", b"forest\nFOREST\n" + b"\n".join(b"river" for _ in range(8)))
    with pytest.raises(DataError, match=r"has 2 classes that would be 'forest' \(forest, FOREST\)"):
        copy_of("eurosat", root).open("test")


def test_bare_numbers_are_not_trusted_unless_the_registry_says_so(tmp_path):
    root = tmp_path / "copy"
    write_table(root / "test.parquet", [b"x"] * 3, [0, 1, 2])
    with pytest.raises(DataError, match=r"bare numbers, and their order is not known; .*--class-n"):
        copy_of("pets", root).open("test")
    opened = copy_of("imagenet", root, accept_different_data=True).open("test")
    assert opened.labels.tolist() == [0, 1, 2]
    write_table(root / "test.parquet", [b"x"] * 3, [0, 1, 1000])
    with pytest.raises(DataError, match=r"row 2 \(test:2\) .* has label 1000, but .* 1000 classes"):
        copy_of("imagenet", root, accept_different_data=True).open("test")


def test_names_given_by_the_user_take_the_place_of_matching(tmp_path):
    root = write_folder(tmp_path / "copy", "sst2", names=["boo", "hooray"])
    with pytest.raises(DataError, match=r"calls a class 'boo'"):
        copy_of("sst2", root, accept_different_data=True).open("test")
    names = put(tmp_path / "names.txt", b"boo = negative\nhooray = positive\n")
    opened = copy_of("sst2", root, accept_different_data=True).open("test", class_names_file=names)
    assert_labels_follow_names(opened, "sst2")


# --- copies in other forms


@pytest.mark.parametrize("key", ["caltech101", "eurosat", "pets", "mnist", "cub", "sun397"])
def test_an_image_folder_with_our_names(tmp_path, key):
    root = write_folder(tmp_path / "copy", key)
    assert_labels_follow_names(copy_of(key, root, accept_different_data=True).open("test"), key)


def test_imagenet_folders_named_by_wnid_and_split_val(tmp_path):
    wnids = hub.entries()["imagenet"].wnids
    root = write_folder(tmp_path / "copy", "imagenet", splits=["train", "val"], names=wnids)
    found = copy_of("imagenet", root, accept_different_data=True)
    assert found.split_names() == ("train", "test")
    opened = found.open("test")
    assert opened.sample_id[0].startswith("val/n0")
    assert_labels_follow_names(opened, "imagenet")


def test_numbered_folders_count_where_the_order_is_known(tmp_path):
    root = tmp_path / "copy"
    names = [str(i) for i in range(1000)]
    write_folder(root, "imagenet-v2", splits=["x"], names=names)
    opened = copy_of("imagenet-v2", root / "x", accept_different_data=True).open("test")
    assert_labels_follow_names(opened, "imagenet-v2")


def test_a_saved_copy(tmp_path):
    root = write_entry(tmp_path / "repo", "cifar100")
    files = {s: [str(p) for p in (root / "cifar100").glob(f"{s}-*")] for s in ("train", "test")}
    hf.load_dataset("parquet", data_files=files).save_to_disk(tmp_path / "copy")
    opened = copy_of("cifar100", tmp_path / "copy", accept_different_data=True).open("test")
    assert opened.kind == "saved"
    assert_labels_follow_names(opened, "cifar100")


def test_a_split_of_a_copy_that_the_registry_does_not_know_is_kept(tmp_path):
    root = write_folder(tmp_path / "copy", "dtd", splits=["train", "val", "test"])
    found = copy_of("dtd", root, accept_different_data=True)
    assert found.split_names() == ("train", "val", "test")
    # No source has it, so nobody knows how many rows it should have.
    assert found.open("val").origin["accepted"] == "8 classes where 47 were expected"
    with pytest.raises(DataError, match=r"no split 'blur' in .*copy; it has train, val, test"):
        found.open("blur")


def test_one_folder_serves_many_keys(tmp_path):
    root = write_all(tmp_path / "copies", keys=["cub", "dtd"])
    for key in ("cub", "dtd"):
        found = datasets.open_dataset(key, sources=root, accept_different_data=True)
        assert_labels_follow_names(found.open("test"), key)
    with pytest.raises(DataError, match=r"holds no subfolder named like a data set"):
        datasets.open_dataset("cub", sources=root / "cub")


def test_sources_that_cannot_be_meant_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"existing path in --source cub=PATH"):
        datasets.open_dataset("cub", sources={"cub": tmp_path / "no"})
    with pytest.raises(UnknownNameError, match=r"unknown dataset in --source 'cup'; did you mean"):
        datasets.open_dataset("cub", sources={"cup": tmp_path})


def test_what_is_known_before_anything_is_opened(tmp_path):
    found = datasets.open_dataset("dtd")
    assert found.split_names() == ("train", "test")
    assert (found.expected_rows("train"), found.expected_rows("test")) == (3760, 1880)
    assert found.expected_rows("blur") is None
    copy = copy_of("dtd", write_entry(tmp_path / "copy", "dtd", source=2))
    assert copy.expected_rows("train") == 1880  # as the source in the same format
    assert copy.download_bytes(["train", "test"]) == 0
    nano = datasets.open_dataset("emoji_kind")
    assert nano.expected_rows("test") == len(nano.open("test"))
    assert nano.download_bytes(["test"]) == 0
