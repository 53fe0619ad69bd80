"""Folders in the layouts that people have: read for what they are, or refused by name."""

import json
import os
import shutil

import pytest
from datasets_on_disk import png, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from clipnlc.datasets import tree
from clipnlc.datasets.source import open_split, splits
from clipnlc.errors import DataError


def make(root, *names):
    for i, name in enumerate(names):
        put(root / name, png(i))
    return root


def labelled(split):
    return {
        sample: split.class_names[label]
        for sample, label in zip(split.sample_id, split.labels, strict=True)
    }


def read(root, **options):
    """Return {split: {sample: class}} and the notes."""
    found = {name: open_split(root, name, **options) for name in splits(root)}
    return {name: labelled(one) for name, one in found.items()}, [
        note for one in found.values() for note in one.notes
    ]


TWO = [f"{split}/{name}/0.png" for split in ("train", "test") for name in ("cat", "dog")]


@pytest.mark.parametrize(
    "above",
    ["archive", "archive/archive", "images", "data/raw/v2", "test"],
)
def test_folders_around_the_data_set_are_passed(tmp_path, above):
    make(tmp_path, *(f"{above}/{name}" for name in TWO))
    put(tmp_path / "README.txt", b"hello")
    put(tmp_path / "__MACOSX" / above / "._0.png", b"junk")
    found, notes = read(tmp_path)
    assert found["train"] == {
        f"{above}/train/cat/0.png": "cat",
        f"{above}/train/dog/0.png": "dog",
    }
    assert f"the data set was read below {above}/" in notes


def test_the_only_folder_is_around_the_classes_and_no_class(tmp_path):
    found, notes = read(make(tmp_path, "flowers/rose/0.png", "flowers/tulip/0.png"))
    assert found == {"all": {"flowers/rose/0.png": "rose", "flowers/tulip/0.png": "tulip"}}
    assert "the data set was read below flowers/" in notes


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("train_images", "test_images"),
        ("Training", "Testing"),
        ("images_train", "images_test"),
        ("TrainImages", "TestImages"),
        ("trainset", "testset"),
        ("Train Data", "Test Data"),
        ("seg_train", "seg_test"),
        ("train2017", "test2017"),
        ("fruits-training", "fruits-test"),
    ],
)
def test_split_folders_are_known_by_the_words_of_people(tmp_path, train, test):
    make(tmp_path, *(f"{split}/{name}/0.png" for split in (train, test) for name in "ab"))
    found, notes = read(tmp_path)
    assert found == {
        split: {f"{word}/{name}/0.png": name for name in "ab"}
        for split, word in (("train", train), ("test", test))
    }
    if train.casefold() != "training":
        assert any(f"{train} as train" in note for note in notes)


def test_a_split_folder_may_hold_itself(tmp_path):
    names = ("seg_train/seg_train/a/0.png", "seg_train/seg_train/b/0.png")
    make(tmp_path, *names, "seg_test/seg_test/a/0.png", "seg_test/seg_test/b/0.png")
    found, notes = read(tmp_path)
    assert list(found["train"].values()) == list(found["test"].values()) == ["a", "b"]
    assert "split train was read below seg_train/seg_train/" in notes


def test_classes_above_splits(tmp_path):
    make(tmp_path, *(f"{name}/{split}/0.png" for split in ("train", "test") for name in "ab"))
    found, notes = read(tmp_path)
    assert found["test"] == {"a/test/0.png": "a", "b/test/0.png": "b"}
    assert "folders were read as class/split/image (a/train/0.png)" in [
        note.replace("(a/train)", "(a/train/0.png)") for note in notes
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["images/0.png", "images/1.png"], r"lie in one folder \(images\)"),
        (["cat/0.png", "cat/1.png"], r"lie in one folder \(cat\), which says nothing"),
        (["a/b/c/0.png"], r"lie in one folder \(c\)"),
        (["train/images/0.png", "test/images/0.png"], r"images holds 1 image but is not called"),
        (["train/train/0.png", "test/test/0.png"], r"is not called like a class"),
        (
            ["train_images/0.png", "test_images/0.png"],
            r"directly in the split folder .*test_images \(0.png\)",
        ),
        (["images/0.png", "masks/0.png"], r"images holds 1 image but is not called like a class"),
        (["train/a/0.png", "train/b/0.png", "val/images/0.png"], r"val/images holds 1 image"),
        (["JPEGImages/0.png", "Annotations/0.png"], r"JPEGImages holds 1 image"),
        (["images_001/0.png", "images_002/0.png"], r"images_001 holds 1 image"),
        (["photo/cat/0.png", "photo/dog/0.png", "sketch/cat/0.png"], r"the classes may be either"),
        (["animals/cat/0.png", "plants/oak/0.png"], r"\(animals/cat, plants/oak\), so the classes"),
        (
            [f"{s}/{w}/{n}/0.png" for s in ("train", "test") for w, n in ("ab", "ac", "de", "df")],
            r"\(test/a/b, test/a/c, train/a/b and 1 more\)",
        ),
        (["train/cold/blue/0.png", "test/cold/red/0.png", "test/x/0.png"], r"may be either"),
        (["photo/train/cat/0.png", "art/train/cat/0.png"], r"a split folder with more folders"),
        (["0.png", "1.png"], r"in no class folder \(0.png, 1.png\); expected split/class/image"),
    ],
)
def test_what_could_mean_two_things_is_refused_with_what_was_seen(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        splits(tmp_path)


def test_folders_below_a_class_are_said(tmp_path):
    make(tmp_path, "cat/0.png", "dog/1.png", "dog/big/brown/0.png", "emu/images/0.png")
    found, notes = read(tmp_path)
    assert list(found["all"].values()) == ["cat", "dog", "dog", "emu"]
    said = "images in folders below a class were read as of that class: dog/big, emu/images"
    assert said in notes


def test_a_class_without_images_beside_the_only_other_is_no_reason_to_go_down(tmp_path):
    make(tmp_path, "cat/a/0.png", "cat/b/0.png")
    put(tmp_path / "dog/0.heic", b"heic")
    with pytest.raises(
        DataError, match=r"one folder \(cat\).*no class was made of dog \(1 .heic\)"
    ):
        splits(tmp_path)


# Nothing is lost without a word -------------------------------------------------------------------


def test_images_are_read_by_what_this_pillow_reads(tmp_path):
    for suffix, kind in ((".avif", "avif"), (".jp2", "jpg_2000")):
        if not features.check(kind):
            pytest.skip(f"Pillow without {kind}")
        (tmp_path / "test/cat").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"test/cat/0{suffix}")
    opened = open_split(tmp_path, "test")
    assert opened.sample_id == ("test/cat/0.avif", "test/cat/0.jp2")
    assert [sample.image().size for sample in opened.read()] == [(8, 8), (8, 8)]


@pytest.fixture
def no_avif(monkeypatch):
    def forget():
        tree.image_suffixes.cache_clear()
        tree.unreadable_suffixes.cache_clear()

    with monkeypatch.context() as patched:
        patched.setattr(features, "check", lambda name: name != "avif")
        forget()
        yield
    forget()


@pytest.mark.usefixtures("no_avif")
def test_without_its_plugin_a_kind_is_named_and_not_read(tmp_path):
    make(tmp_path, "test/cat/0.png", "test/cat/1.avif")
    note = "1 image of a kind that cannot be read left out (1 .avif): convert to .jpg or .png"
    assert note in open_split(tmp_path, "test").notes


def test_class_folders_without_an_image_that_can_be_read_are_named(tmp_path):
    make(tmp_path, *TWO, "test/emu/0.png")
    put(tmp_path / "train/emu/0.heic", b"heic")
    put(tmp_path / "train/fox/a/notes.txt", b"text")
    (tmp_path / "train/gnu").mkdir()
    (tmp_path / "val").mkdir()
    notes = open_split(tmp_path, "train").notes
    assert (
        "3 folders hold no image that can be read, so no class was made of "
        "train/emu (1 .heic), train/fox (1 .txt), train/gnu (empty)"
    ) in notes
    assert (
        "1 image of a kind that cannot be read left out (1 .heic): convert to .jpg or .png" in notes
    )
    assert "1 file that is no image was ignored (1 .txt)" in notes
    assert "split train has no image of 1 of 3 classes: 'emu'" in notes
    assert "split folders without an image that can be read: val" in notes


def test_class_folders_above_splits_without_an_image_are_named(tmp_path):
    make(tmp_path, *(f"{name}/{split}/0.png" for split in ("train", "test") for name in "ab"))
    put(tmp_path / "c/train/0.heic", b"heic")
    assert any("so no class was made of c (1 .heic)" in note for note in read(tmp_path)[1])


@pytest.mark.parametrize(
    ("one", "two"), [("Cat", "cat"), ("black cat", "black_cat"), ("cat ", "cat"), ("ﬁg", "fig")]
)
def test_class_names_that_are_hardly_told_apart_are_said(tmp_path, one, two):
    make(tmp_path, f"{one}/0.png", f"{two}/1.png")
    notes = open_split(tmp_path, "all").notes
    assert any("case, white space or Unicode form at most" in note for note in notes)


def test_folders_that_differ_in_unicode_form_are_one_class_and_said(tmp_path):
    make(tmp_path, "caf\u00e9/0.png", "cafe\u0301/1.png", "bar/2.png")
    opened = open_split(tmp_path, "all")
    assert opened.class_names == ("bar", "caf\u00e9")
    assert any("2 folders differ in Unicode form only" in note for note in opened.notes)


# Tables -------------------------------------------------------------------------------------------


def table(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


PATHS = ("images/0.png", "images/1.png", "images/2.png")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("labels.csv", ("file,label", "images/0.png,cat", "images/1.png,dog", "images/2.png,cat")),
        ("x.csv", ("Filename;Class", "0.png;cat", "1.png;dog", "2.png;cat")),
        ("labels.tsv", ("path\tcategory", "0.png\tcat", "1.png\tdog", "2.png\tcat")),
        ("train_x.csv", ("", "id,label", "0,cat", "1,dog", "2,cat")),
        ("l.csv", ("image_id,x,label", "0,7,cat", "1,7,dog", "2,7,cat")),
        ("l.csv", (r"\Images Path\,label".replace("\\", '"'), "./images/0.png,cat")),
        ("l.csv", ("file_name,class_id,class", "0.png,3,cat", "1.png,4,dog", "2.png,3,cat")),
        ("metadata.jsonl", ()),
        ("images/metadata.csv", ("file_name,label", "0.png,cat", "1.png,dog", "2.png,cat")),
    ],
)
def test_a_table_labels_the_images_of_a_folder(tmp_path, name, lines):
    make(tmp_path, *PATHS)
    labels = dict(zip(PATHS, ("cat", "dog", "cat"), strict=True))
    if name.endswith("jsonl"):
        lines = [json.dumps({"file_name": f, "label": n}) for f, n in labels.items()]
    if len(lines) == 2:
        labels = {PATHS[0]: "cat"}
    table(tmp_path / name, *lines, encoding="utf-8-sig")
    found, notes = read(tmp_path)
    assert found == {"all": labels}
    assert any(note.startswith(f"labels are from {name} (columns ") for note in notes)
    assert not any("ignored" in note for note in notes)
    unlisted = [
        note for note in notes if note == "2 images that no table gives a label were left out"
    ]
    assert len(unlisted) == (len(labels) == 1)


def test_splits_are_from_a_column_the_tables_names_or_the_folders(tmp_path):
    want = {
        "train": {"images/0.png": "cat"},
        "test": {"images/1.png": "dog", "images/2.png": "cat"},
    }
    make(tmp_path / "a", *PATHS)
    table(
        tmp_path / "a/l.csv",
        "file,label,split",
        "0.png,cat,Training",
        "1.png,dog,test",
        "2.png,cat,test",
    )
    assert read(tmp_path / "a")[0] == want
    make(tmp_path / "b", *PATHS)
    table(tmp_path / "b/train.csv", "id,label", "0.png,cat")
    table(tmp_path / "b/test_labels.csv", "id,label", "1.png,dog", "2.png,cat")
    table(
        tmp_path / "b/metadata.csv",
        "file_name,label",
        *(f"{p},{n}" for p, n in zip(PATHS, ("cat", "dog", "cat"), strict=True)),
    )
    table(tmp_path / "b/sample_submission.csv", "id,label", "1.png,0", "2.png,0")
    assert read(tmp_path / "b")[0] == want
    make(tmp_path / "c", "train/0.png", "test/1.png", "test/2.png")
    table(tmp_path / "c/l.csv", "file,label", "train/0.png,cat", "1.png,dog", "test/2.png,cat")
    found = read(tmp_path / "c")[0]
    assert {s: list(f.values()) for s, f in found.items()} == {
        "train": ["cat"],
        "test": ["dog", "cat"],
    }
    make(tmp_path / "d", "train/0.png", "test/0.png")
    for split, name in (("train", "cat"), ("test", "dog")):
        table(tmp_path / "d" / split / "metadata.csv", "file_name,label", f"0.png,{name}")
    assert read(tmp_path / "d")[0] == {
        "train": {"train/0.png": "cat"},
        "test": {"test/0.png": "dog"},
    }


def test_names_that_are_alike_in_two_splits_go_to_the_tables_own(tmp_path):
    make(tmp_path, "train/1.png", "test/1.png", "train/2.png")
    table(tmp_path / "train.csv", "id,label", "1,cat", "2,dog")
    found, notes = read(tmp_path)
    assert found == {"train": {"train/1.png": "cat", "train/2.png": "dog"}}
    assert "1 image that no table gives a label was left out" in notes
    table(tmp_path / "labels.csv", "id,label", "1,cat", "2,dog")
    (tmp_path / "train.csv").unlink()
    with pytest.raises(
        DataError, match=r"labels.csv, line 2: '1' may be train/1.png, test/1.png|test/1.png, train"
    ):
        splits(tmp_path)


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
    make(tmp_path, *PATHS)
    table(tmp_path / "l.csv", "file,label", "0.png,cat", "1.png,", "2.png,  ")
    found, notes = read(tmp_path)
    assert found == {"all": {"images/0.png": "cat"}}
    (note,) = (one for one in notes if one.startswith("2 rows of l.csv without a label"))
    assert ": left out with their images (--labels FILE keeps them" in note


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,label", "0.png,cat", "7.png,dog"), r"l.csv, line 3: '7.png' is no image below"),
        (("file,label", "0.png,cat", "", "7.png,dog"), r"l.csv, line 4: '7.png' is no image"),
        (("file,label", "0.png,cat", "1.png,black, white"), r"line 3: 3 cells under 2 columns"),
        (("file,label", "0.png,cat", "0.png,dog"), r"line 3: .*is 'dog', but 'cat' in .*line 2"),
        (("file,label,split", "0.png,cat,train", "0.png,cat,test"), r"in split test, but in train"),
        (("file,label,split", "0.png,cat,train", "1.png,cat,"), r"line 3: column 'split' is blank"),
        (("file,label", "0.png,cat", "1.png,-1"), r"line 3: label -1 marks unlabelled images"),
        (("file,file", "0.png,cat"), r"two columns called 'file'"),
        (("id,dx", "0,cat"), r"no column that is called like labels \(dx\).*--label-column"),
        (("file,label,class", "0.png,cat,dog"), r"several columns of labels \(label, class\)"),
        (("images/0.png,cat", "images/1.png,dog"), r"has no header; write the names"),
        (("file,label", "9.png,cat"), r"'9.png' in column 'file' is no image below"),
        (("file,label", '0.png,"cat', "1.png,dog"), r"l.csv, line 2: .*fix the line"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(tmp_path, lines, message):
    make(tmp_path, *PATHS)
    table(tmp_path / "l.csv", *lines)
    with pytest.raises(DataError, match=message):
        splits(tmp_path)


def test_a_table_that_is_not_text_or_json_is_refused_by_name(tmp_path):
    make(tmp_path, *PATHS)
    (tmp_path / "l.csv").write_bytes("file,label\n0.png,größe\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"cannot read .*l.csv: .*save it as UTF-8"):
        splits(tmp_path)
    (tmp_path / "l.csv").unlink()
    table(tmp_path / "metadata.jsonl", '{"file_name": "images/0.png", "label": "cat"}', "{")
    with pytest.raises(DataError, match=r"metadata.jsonl, line 2: .*expected JSON"):
        splits(tmp_path)


def test_a_column_can_be_named(tmp_path):
    make(tmp_path, *PATHS)
    table(tmp_path / "l.csv", "photo,dx", "0.png,pug", "1.png,husky", "2.png,pug")
    assert splits(tmp_path, label_column="dx") == ("all",)
    opened = open_split(tmp_path, "all", label_column="dx")
    assert list(labelled(opened).values()) == ["pug", "husky", "pug"]
    with pytest.raises(DataError, match=r"has no column 'race', only photo, dx"):
        open_split(tmp_path, "all", label_column="race")


def test_numbers_need_names_and_words_may_have_a_list(tmp_path):
    make(tmp_path / "n", *PATHS)
    table(tmp_path / "n/l.csv", "file,label", "0.png,0", "1.png,2", "2.png,0")
    with pytest.raises(DataError, match=r"bare numbers without class names"):
        open_split(tmp_path / "n", "all")
    names = tmp_path / "names.txt"
    names.write_text("dog\nbird\ncat\n")
    opened = open_split(tmp_path / "n", "all", class_names_file=names)
    assert (opened.class_names, opened.labels.tolist()) == (("dog", "bird", "cat"), [0, 2, 0])
    names.write_text("dog\ncat\n")
    with pytest.raises(DataError, match=r"l.csv, line 3 has label 2, but .* has 2 class names"):
        open_split(tmp_path / "n", "all", class_names_file=names)
    make(tmp_path / "w", *PATHS)
    table(tmp_path / "w/l.csv", "file,label", "0.png,dog", "1.png,cat", "2.png,dog")
    names.write_text("dog\nbird\ncat\n")
    opened = open_split(tmp_path / "w", "all", class_names_file=names)
    assert (opened.class_names, opened.labels.tolist()) == (("dog", "bird", "cat"), [0, 2, 0])
    names.write_text("dog\nbird\nlion\n")
    with pytest.raises(DataError, match=r"l.csv, line 3: 'cat' is no class of .*names.txt"):
        open_split(tmp_path / "w", "all", class_names_file=names)


def test_a_table_adds_to_class_folders_and_must_agree(tmp_path):
    make(tmp_path, "train/cat/0.png", "train/dog/1.png", "test/2.png", "test/3.png")
    found, notes = read(tmp_path)
    assert list(found) == ["train"]
    assert "split folder test has no class folders: its 2 images without labels left out" in notes
    table(tmp_path / "test.csv", "file,label", "2.png,dog", "3.png,cat")
    assert read(tmp_path)[0]["test"] == {"test/2.png": "dog", "test/3.png": "cat"}
    table(tmp_path / "test.csv", "file,label", "2.png,dog", "3.png,cow")
    with pytest.raises(
        DataError, match=r"test.csv, line 3: there is no class folder 'cow' \(cat, d"
    ):
        splits(tmp_path)
    (tmp_path / "test.csv").unlink()
    table(tmp_path / "all.csv", "file,label", "train/cat/0.png,dog", "train/dog/1.png,dog")
    with pytest.raises(DataError, match=r"all.csv, line 3: .* is 'dog', but lies in class folder"):
        splits(tmp_path)


def test_tables_divide_class_folders(tmp_path):
    make(tmp_path, "cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png")
    table(tmp_path / "train.csv", ",Filename,Label,ClassName", "0,cat/0.png,0,c", "1,dog/2.png,1,d")
    table(tmp_path / "test.csv", ",Filename,Label,ClassName", "0,cat/1.png,0,c", "1,dog/3.png,1,d")
    assert read(tmp_path)[0] == {
        "train": {"cat/0.png": "cat", "dog/2.png": "dog"},
        "test": {"cat/1.png": "cat", "dog/3.png": "dog"},
    }


def test_tables_about_something_else_change_nothing(tmp_path):
    make(tmp_path, *TWO)
    table(tmp_path / "names.csv", "id,class", "0,cat", "1,dog")
    table(tmp_path / "sizes.csv", "file,width", "train/cat/0.png,7")
    table(tmp_path / "predictions.csv", "file,label", "train/cat/0.png,dog")
    table(tmp_path / "broken.csv", "file,label", '"train')
    table(tmp_path / "typos.csv", "file,label", "train/cat/0.png,cat", "train/kat/1.png,cat")
    found, notes = read(tmp_path)
    assert found["train"] == {"train/cat/0.png": "cat", "train/dog/0.png": "dog"}
    assert not any(note.startswith("labels are") for note in notes)


CELL = st.sampled_from(
    [
        "images/0.png",
        "1",
        "2.png",
        "cat",
        "dog",
        "",
        "-1",
        "9" * 30,
        '"',
        "\x00",
        "\x1b[2J",
        "é",
        "../",
        "/",
        ".",
    ]
) | st.text(max_size=5)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    header=st.lists(st.sampled_from(["file", "label", "split", "id", "class", "x"]), max_size=4),
    rows=st.lists(st.lists(CELL, max_size=4), max_size=4),
    form=st.sampled_from([".csv", ".tsv", ".jsonl", "train.csv"]),
    quoted=st.booleans(),
)
def test_any_table_is_read_or_refused_in_one_line(tmp_path, header, rows, form, quoted):
    root = tmp_path / "data"
    shutil.rmtree(root, ignore_errors=True)
    make(root, *PATHS)
    if form.endswith("jsonl"):
        lines = [json.dumps(dict(zip(header, row, strict=False))) for row in rows]
    else:
        spell = json.dumps if quoted else str
        lines = [",".join(header), *(",".join(map(spell, row)) for row in rows)]
    (root / f"labels{form}").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        said = [name for split in splits(root) for name in open_split(root, split).class_names]
        assert said
    except DataError as error:
        said = [str(error)]
    assert all(text.isprintable() for text in said)


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, '{"file_name": "images/0.png", "label": ' + "9" * 5000 + "}", "null", '"x"'],
)
def test_json_that_is_no_row_is_refused_with_its_line(tmp_path, line):
    make(tmp_path, *PATHS)
    table(tmp_path / "metadata.jsonl", '{"file_name": "images/1.png", "label": "cat"}', line)
    with pytest.raises(DataError, match=r"metadata.jsonl, line 2: "):
        splits(tmp_path)


def test_a_named_pipe_is_no_table(tmp_path):
    make(tmp_path, *PATHS)
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(DataError, match=r"labels.csv is no regular file; remove it"):
        splits(tmp_path)


def test_nothing_that_can_be_read_is_refused_with_what_lies_there(tmp_path):
    put(tmp_path / "a/cat/0.heic", b"heic")
    with pytest.raises(DataError, match=r"no image that can be read in .*but 1 .heic; convert"):
        splits(tmp_path / "a")
    put(tmp_path / "b/archive.zip", b"zip")
    with pytest.raises(DataError, match=r"no images in .*b, but 1 .zip; unpack them"):
        splits(tmp_path / "b")
    put(tmp_path / "c/notes/x.txt", b"text")
    with pytest.raises(DataError, match=r"no images in .*but it holds notes/, 1 .txt"):
        splits(tmp_path / "c")


def test_a_table_beside_its_images_below_other_folders(tmp_path):
    make(tmp_path, *(f"archive/archive/{name}" for name in PATHS))
    table(tmp_path / "archive/archive/Labels.CSV", "ID,Class", "0,cat", "1,dog", "2,cat")
    found, notes = read(tmp_path)
    assert list(found["all"].values()) == ["cat", "dog", "cat"]
    assert "labels are from archive/archive/Labels.CSV (columns ID, Class)" in notes
