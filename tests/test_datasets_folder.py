"""Image folders: layouts that generic loaders get wrong, and what lies about in real ones."""

import os
import unicodedata

import pytest
from datasets_on_disk import png, put
from test_files import no_file

from clipnlc.datasets.source import open_split, splits
from clipnlc.errors import DataError


def make(root, *names):
    for i, name in enumerate(names):
        put(root / name, png(i))
    return root


def by_class(opened):
    return {
        i: opened.class_names[label]
        for i, label in zip(opened.sample_id, opened.labels, strict=True)
    }


def test_a_class_may_be_called_like_a_split(tmp_path):
    # CIFAR-100 has a class `train`.
    names = [f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("bus", "train") for i in "01"]
    make(tmp_path, *names)
    for split in ("train", "test"):
        opened = open_split(tmp_path, split)
        assert opened.class_names == ("bus", "train")
        assert opened.labels.tolist() == [0, 0, 1, 1]
        assert all(i.startswith(f"{split}/") for i in opened.sample_id)


def test_a_flat_folder_with_a_class_like_a_split_is_one_split(tmp_path):
    make(tmp_path, "train/0.png", "bus/0.png", "test_tube/0.png", "val/0.png")
    assert splits(tmp_path) == ("all",)
    assert open_split(tmp_path, "all").class_names == ("bus", "test tube", "train", "val")


NO_FILES = {
    "pipe": "a named pipe, not a regular file",
    "link to a pipe": "a named pipe, not a regular file",
    "link to a device": "a device, not a regular file",
    "socket": "a socket, not a regular file",
    "dangling link": "No such file or directory",
    "link loop": "Too many levels of symbolic links",
}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_by_name(tmp_path, kind, cached):
    root = make(tmp_path / "data", "test/cat/0.png", "test/dog/0.png")
    made = no_file(kind, tmp_path)
    made.rename(root / "test" / "dog" / "1.png")
    if kind == "link loop":
        (root / "test" / "dog" / "1.png").unlink()
        (root / "test" / "dog" / "1.png").symlink_to("1.png")
    with pytest.raises(
        DataError, match=f"cannot read {root}/test/dog/1.png: {NO_FILES[kind]}; restore the file"
    ):
        open_split(root, "test", hash_cache=tmp_path / "hashes" if cached else None)


def test_a_pipe_in_the_place_of_an_image_that_was_listed_is_refused(tmp_path):
    opened = open_split(make(tmp_path, "test/cat/0.png", "test/cat/1.png"), "test")
    (tmp_path / "test" / "cat" / "1.png").unlink()
    os.mkfifo(tmp_path / "test" / "cat" / "1.png")
    with pytest.raises(DataError, match=r"cannot read .*/cat/1.png: a named pipe, not a regular"):
        list(opened.read())


def test_links_to_themselves_that_are_no_images_are_left_out(tmp_path):
    root = make(tmp_path, "test/cat/0.png")
    for name in ("loop", "test/loop", "test/cat/loop"):
        (root / name).symlink_to((root / name).name)
    assert splits(root) == ("test",)
    assert len(open_split(root, "test")) == 1


@pytest.mark.parametrize("suffix", [".parquet", ".tar"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_a_table_that_is_no_file_is_refused_by_name(tmp_path, kind, suffix):
    place = tmp_path / "data" / f"test{suffix}"
    place.parent.mkdir()
    made = no_file(kind, tmp_path)
    made.rename(place)
    if kind == "link loop":
        place.unlink()
        place.symlink_to(place.name)
    with pytest.raises(DataError, match=f"cannot read {place}: .*{NO_FILES[kind]}"):
        open_split(place.parent, "test")


def test_one_class_only_is_labelled_and_said(tmp_path):
    opened = open_split(make(tmp_path, "test/cat/0.png", "test/cat/1.png"), "test")
    assert (opened.class_names, opened.labels.tolist()) == (("cat",), [0, 0])
    assert "there is only one class, 'cat': every prediction is right" in opened.notes


def test_images_at_differing_depth_keep_their_class(tmp_path):
    make(tmp_path, "test/cat/0.png", "test/dog/big/brown/0.png", "test/dog/1.png")
    assert by_class(open_split(tmp_path, "test")) == {
        "test/cat/0.png": "cat",
        "test/dog/1.png": "dog",
        "test/dog/big/brown/0.png": "dog",
    }


@pytest.mark.parametrize("word", ["val", "validation", "valid", "dev", "Validation"])
@pytest.mark.parametrize("asked", ["val", "validation", "valid", "VAL"])
def test_words_for_val_are_one_split(tmp_path, word, asked):
    make(tmp_path, "train/cat/0.png", f"{word}/cat/0.png")
    assert splits(tmp_path) == ("train", "val")
    assert open_split(tmp_path, asked).sample_id == (f"{word}/cat/0.png",)


def test_two_words_for_one_split_are_refused(tmp_path):
    make(tmp_path, "val/cat/0.png", "validation/cat/0.png")
    with pytest.raises(DataError, match=r"has both 'val' and 'validation', which are one split"):
        splits(tmp_path)


def test_numeric_class_folders_are_ordered_by_value_and_said(tmp_path):
    make(tmp_path, *(f"test/{c}/0.png" for c in ("10", "2", "0", "1")))
    opened = open_split(tmp_path, "test")
    assert opened.class_names == ("0", "1", "2", "10")
    assert any("give their names with --class-names FILE" in note for note in opened.notes)
    (tmp_path / "names.txt").write_text("zero\none\ntwo\nten\n")
    named = open_split(tmp_path, "test", class_names_file=tmp_path / "names.txt")
    assert by_class(named)["test/10/0.png"] == "ten"
    assert not any("--class-names" in note for note in named.notes)


def test_a_split_that_lacks_a_class_keeps_the_numbering(tmp_path):
    make(tmp_path, "train/cat/0.png", "train/dog/0.png", "test/dog/0.png")
    opened = open_split(tmp_path, "test")
    assert (opened.class_names, opened.labels.tolist()) == (("cat", "dog"), [1])
    assert opened.notes == ("split test has no image of 1 of 2 classes: 'cat'",)


def test_what_is_no_image_is_ignored_and_counted(tmp_path):
    make(tmp_path, "test/cat/0.png", "test/cat/1.JPEG", "test/cat/.hidden.png", "test/.git/x/0.png")
    for junk in ("test/cat/Thumbs.db", "test/.DS_Store", "test/cat/readme.txt", "classnames.txt"):
        put(tmp_path / junk, b"junk")
    opened = open_split(tmp_path, "test")
    assert opened.sample_id == ("test/cat/0.png", "test/cat/1.JPEG")
    assert "6 files that are not images were ignored (1 .db, 2 .txt, 3 hidden)" in opened.notes


def test_linked_files_and_folders_are_read_and_loops_end(tmp_path):
    store = make(tmp_path / "store", "a.png", "class/b.png")
    (tmp_path / "set/test/cat").mkdir(parents=True)
    (tmp_path / "set/test/cat/0.png").symlink_to(store / "a.png")
    (tmp_path / "set/test/dog").symlink_to(store / "class")
    (tmp_path / "set/test/cat/loop").symlink_to(tmp_path / "set/test")
    opened = open_split(tmp_path / "set", "test")
    assert [i for i in opened.sample_id if "loop" not in i] == ["test/cat/0.png", "test/dog/b.png"]
    assert next(opened.read()).data == png(0)


def test_a_dangling_link_names_the_file(tmp_path):
    make(tmp_path, "test/cat/0.png")
    (tmp_path / "test/cat/1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"cannot read .*test/cat/1.png: No such file"):
        open_split(tmp_path, "test")


def test_names_are_compared_after_unicode_normalisation(tmp_path):
    composed, split_up = (unicodedata.normalize(f, "café") for f in ("NFC", "NFD"))
    make(tmp_path, f"train/{composed}/é.png", f"test/{split_up}/é.png", "test/日本/0.png")
    opened = open_split(tmp_path, "test")
    assert opened.class_names == (composed, "日本")
    assert opened.sample_id == (f"test/{composed}/é.png", "test/日本/0.png")
    assert len(list(opened.read())) == 2


def test_names_that_become_equal_are_refused(tmp_path):
    make(tmp_path, *(f"test/cat/{unicodedata.normalize(f, 'é')}.png" for f in ("NFC", "NFD")))
    with pytest.raises(DataError, match=r"are both called test/cat/é.png"):
        open_split(tmp_path, "test")


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    make(tmp_path, "test/cat/0.png")
    os.rename(tmp_path / "test/cat/0.png", os.fsencode(tmp_path / "test/cat") + b"/\xff.png")  # noqa: PTH104
    with pytest.raises(DataError, match=r"not valid UTF-8: 'test/cat/\\udcff.png'; rename it"):
        open_split(tmp_path, "test")


def test_layouts_that_could_mean_two_things_are_refused(tmp_path):
    make(tmp_path / "a", "train/0.png", "test/0.png")
    with pytest.raises(DataError, match=r"lie directly in the split folder .*expected test/CLASS"):
        splits(tmp_path / "a")
    make(tmp_path / "b", "train/cat/0.png", "cat/0.png")
    with pytest.raises(DataError, match=r"both split folders \(train\) and others \(cat\)"):
        splits(tmp_path / "b")
    make(tmp_path / "c", "0.png", "1.png")
    with pytest.raises(DataError, match=r"the 2 images of .* lie in no class folder"):
        splits(tmp_path / "c")


def test_stray_images_are_left_out_and_counted(tmp_path):
    make(tmp_path, "preview.png", "test/cat/0.png", "test/1.png")
    opened = open_split(tmp_path, "test")
    assert opened.sample_id == ("test/cat/0.png",)
    assert "2 images outside any class folder were left out" in opened.notes


def test_a_file_that_goes_away_while_reading_is_named(tmp_path):
    opened = open_split(make(tmp_path, "test/cat/0.png"), "test")
    (tmp_path / "test/cat/0.png").unlink()
    with pytest.raises(DataError, match=r"cannot read .*test/cat/0.png: No such file"):
        list(opened.read())
