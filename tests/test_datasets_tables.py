"""Parquet, saved folders and tars: columns, labels, empty cells, names, shard order."""

import base64
import json
import os

import datasets as hf
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_on_disk import hf_dataset, png, put, write, write_table, write_tar, write_tars

from clipnlc.datasets.columns import label_values
from clipnlc.datasets.source import open_split, splits
from clipnlc.errors import DataError

IMAGES = [png(i) for i in range(4)]


@pytest.fixture(autouse=True)
def hf_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def table(root, label, image=IMAGES, split="test", **columns):
    write_table(root / f"{split}.parquet", image, label, **columns)
    return root


# --- labels


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["dog", "ant", "dog", "bee"], ("ant", "bee", "dog"), [2, 0, 2, 1]),
        ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
    ],
)
def test_words_and_booleans_are_numbered_by_their_sorted_values(tmp_path, labels, names, numbers):
    opened = open_split(table(tmp_path / "set", labels), "test")
    assert (opened.class_names, opened.labels.tolist()) == (names, numbers)


def test_words_are_numbered_over_all_splits(tmp_path):
    root = table(tmp_path / "set", ["dog"] * 4)
    table(root, ["cat", "dog", "eel", "cat"], split="train")
    opened = open_split(root, "test")
    assert (opened.class_names, opened.labels.tolist()) == (("cat", "dog", "eel"), [1] * 4)
    assert "split test has no image of 2 of 3 classes: 'cat', 'eel'" in opened.notes


def test_class_lists_that_differ_between_splits_are_matched_by_name(tmp_path):
    def rows(names, labels):
        return hf.Dataset.from_dict(
            {"image": [{"bytes": b, "path": None} for b in IMAGES], "label": labels},
            features=hf.Features(
                {"image": hf.Image(decode=False), "label": hf.ClassLabel(names=names)}
            ),
        )

    both = hf.DatasetDict(train=rows(["cat", "dog"], [0, 1, 0, 1]), test=rows(["dog"], [0] * 4))
    both.save_to_disk(tmp_path / "set")
    opened = open_split(tmp_path / "set", "test")
    assert (opened.class_names, opened.labels.tolist()) == (("cat", "dog"), [1] * 4)
    assert "splits list other classes; labels were matched by name" in opened.notes


def test_numbers_without_names_ask_for_names(tmp_path):
    root = table(tmp_path / "set", [0, 2, 1, 0])
    with pytest.raises(DataError, match=r"bare numbers without class names; .*--class-names FILE"):
        open_split(root, "test")
    names = put(tmp_path / "names.txt", b"a\nb\n")
    with pytest.raises(
        DataError, match=r"row 1 \(test:1\) of .* has label 2, but .*names.txt has 2 class names"
    ):
        open_split(root, "test", class_names_file=names)
    put(names, b"a\nb\nc\n")
    assert open_split(root, "test", class_names_file=names).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1, 0, 0], r"row 1 \(test:1\) of .* has label -1, which marks unlabelled data"),
        ([0, 1, None, 0], r"row 2 \(test:2\) of .* has no label in column 'label'"),
        (["a", None, "b", "a"], r"row 1 \(test:1\) of .* has no label"),
        ([0.5, 1.0, 0.0, 1.0], r"label column 'label' of .* holds double; expected one integer"),
        ([[0], [1], [0, 1], []], r"label column 'label' of .* holds list<.*; expected one integer"),
    ],
)
def test_labels_that_cannot_be_used_name_the_row(tmp_path, labels, message):
    with pytest.raises(DataError, match=message):
        open_split(table(tmp_path / "set", labels), "test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_words_in_one_split_and_numbers_in_another_are_refused(tmp_path, split):
    root = table(tmp_path / "set", ["dog", "ant", "dog", "bee"], split="train")
    hf_dataset("test").to_parquet(root / "test.parquet")
    with pytest.raises(DataError, match=r"column 'label' of .* holds (string|int64) in split"):
        open_split(root, split)


def test_labels_of_another_split_that_are_neither_are_refused(tmp_path):
    root = table(tmp_path / "set", [["dog"], ["ant"], [], []], split="train")
    table(root, ["dog", "ant", "dog", "bee"])
    with pytest.raises(DataError, match=r"holds string in split test and list<.* in another"):
        open_split(root, "test")


def rewritten(root, features, **columns):
    """Write a parquet file whose metadata claims these features."""
    rows = pa.table({"image": IMAGES, "label": [0, 1, 0, 1], **columns})
    text = features if isinstance(features, str) else json.dumps({"info": {"features": features}})
    root.mkdir(exist_ok=True)
    pq.write_table(rows.replace_schema_metadata({"huggingface": text}), root / "test.parquet")
    return root


CLASS = {"_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("", "the `huggingface` metadata of .* is damaged"),
        ("{", "the `huggingface` metadata of .* is damaged"),
        ("[" * 100_000, "the `huggingface` metadata of .* is damaged"),
        ("7", "the `huggingface` metadata of .* is damaged"),
        ("[]", "the `huggingface` metadata of .* is damaged"),
        ('{"info": []}', "the `huggingface` metadata of .* is damaged"),
        ('{"info": {"features": [1]}}', "the `huggingface` metadata of .* is damaged"),
        ({"label": CLASS}, "the labels of .* are bare numbers without class names; give"),
        ({"label": {**CLASS, "names": None}}, "bare numbers without class names"),
        (
            {"label": {**CLASS, "names": []}},
            "row 1 of .* has label 1, but .* has only 0 class names",
        ),
        (
            {"label": {**CLASS, "names": ["a"]}},
            "row 1 of .* has label 1, but .* only 1 class names",
        ),
        (
            {"label": {**CLASS, "names": "ab"}},
            "the class names of column 'label' of .* are ab; expec",
        ),
        ({"label": {**CLASS, "names": ["a", 7]}}, r"are \['a', 7\]; expected a list of words"),
        ({"label": {**CLASS, "names": ["a", "a"]}}, "has two classes called 'a'"),
        (
            {"label": {**CLASS, "names": ["a", "b\0"]}},
            r"class 1 of .* is called 'b\\x00', which has a",
        ),
        (
            {"label": {**CLASS, "names": ["\ud800", "b"]}},
            r"class 0 of .* is called '\\ud800', which",
        ),
    ],
)
def test_damaged_features_are_refused(tmp_path, features, message):
    with pytest.raises(DataError, match=message):
        open_split(rewritten(tmp_path / "set", features), "test")


@pytest.mark.parametrize("features", [{}, None, {"label": 7, "other": {"_type": []}}])
def test_features_that_say_nothing_are_passed_over(tmp_path, features):
    root = rewritten(tmp_path / "set", features)
    put(root / "classnames.txt", b"a\nb\n")
    assert [s.data for s in open_split(root, "test").read()] == IMAGES


def test_columns_that_share_a_name_are_refused(tmp_path):
    rows = pa.table([IMAGES, ["a"] * 4, ["b"] * 4], names=["image", "label", "label"])
    path = tmp_path / "test.parquet"
    pq.write_table(rows, path)
    with pytest.raises(DataError, match="has two columns called 'label'; rename one of them"):
        open_split(path, "test")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "b", "c\0", "d"]}, r"sample 2 of .* is called 'c\\x00', which has a NUL"),
        ({"label": pa.array([2**63 + 5, 0, 0, 0], pa.uint64())}, "has label -"),
        ({"label": pa.array([[1], [2], [1], [2]])}, "expected one integer, word or boolean a row"),
        ({"image": pa.array([{"bytes": 7}] * 4)}, "holds struct<bytes: int64>, not image files"),
        ({"image": pa.array([{"bytes": "x"}] * 4)}, "holds struct<bytes: string>, not image files"),
    ],
)
def test_columns_of_wrong_types_are_refused(tmp_path, columns, message):
    given = {"image": IMAGES, "label": ["a", "b"] * 2, **columns}
    pq.write_table(pa.table(given), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=message):
        open_split(tmp_path, "test", image_column="image")


def test_what_is_no_utf_8_is_refused(tmp_path):
    wrong = pa.array([b"a", b"\xff", b"a", b"b"]).view(pa.string())
    for column, others in (("label", {}), ("id", {"label": ["a"] * 4})):
        rows = pa.table({"image": IMAGES, **others, column: wrong})
        pq.write_table(rows, tmp_path / "test.parquet")
        with pytest.raises(DataError, match=f"column '{column}' of .* has a cell that is no UTF-8"):
            open_split(tmp_path, "test")


def test_a_missing_member_of_a_dictionary_is_no_class(tmp_path):
    words = pa.DictionaryArray.from_arrays([0, 1, 0, 1], pa.array(["a", None]))
    with pytest.raises(DataError, match=r"row 1 of x has nothing in column 'label'; fill"):
        label_values(pa.chunked_array([words]), "x", "label", str)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"image": IMAGES}, r"row 4 \(1:0\) of .* has no label in column 'label'"),
        ({"image": IMAGES, "label": [0, 1, 0, 1]}, "differ in columns label: "),
        ({"image": IMAGES, "label": [["a"]] * 4}, "differ in columns label: "),
        ({"label": ["a"] * 4}, "as parquet: "),
        ({"image": [1, 2, 3, 4], "label": ["a"] * 4}, "as parquet: "),
    ],
)
def test_unlike_parquet_files_of_one_split_are_refused(tmp_path, second, message):
    pq.write_table(pa.table({"image": IMAGES, "label": ["a", "b"] * 2}), tmp_path / "0.parquet")
    pq.write_table(pa.table(second), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=message):
        list(open_split(tmp_path, "all").read())


def test_a_cell_that_is_repeated_in_a_message_is_cut(tmp_path):
    cells = [base64.b64encode(image * 100).decode() for image in IMAGES]
    opened = open_split(table(tmp_path / "set", ["a", "b", "a", "b"], cells), "test")
    with pytest.raises(
        DataError, match=r"holds only a path \(iVBOR.*\.\.\. \(\d+ chars\)\)"
    ) as found:
        next(opened.read())
    assert len(str(found.value)) < 500


# --- image cells


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([IMAGES[0], None, IMAGES[2], IMAGES[3]], r"row 1 \(test:1\) of .* holds no image"),
        (["a.png", "b.png", "c.png", "d.png"], r"row 0 \(test:0\) .* holds only a path \(a.png\)"),
        (
            [{"bytes": IMAGES[0], "path": None}] * 3 + [{"bytes": None, "path": "d.png"}],
            r"row 3 \(test:3\) .* holds only a path \(d.png\) in column 'image'; store the image",
        ),
    ],
)
def test_cells_without_image_bytes_name_the_row(tmp_path, cells, message):
    opened = open_split(table(tmp_path / "set", ["a", "b", "a", "b"], cells), "test")
    with pytest.raises(DataError, match=message):
        next(opened.read(2, 3))


def test_columns_are_found_by_name_or_asked_for(tmp_path):
    path = tmp_path / "set" / "test.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"scan": IMAGES, "grade": ["a", "b", "a", "b"]}), path)
    with pytest.raises(
        DataError,
        match=r"has no image column; its columns are scan, grade: choose one with --image-column",
    ):
        open_split(path.parent, "test")
    with pytest.raises(DataError, match=r"has no label column; .*--label-column"):
        open_split(path.parent, "test", image_column="scan")
    with pytest.raises(DataError, match=r"has no column 'x'; its columns are scan, grade"):
        open_split(path.parent, "test", image_column="scan", label_column="x")
    opened = open_split(path.parent, "test", image_column="scan", label_column="grade")
    assert [s.data for s in opened.read()] == IMAGES


def test_a_column_of_another_type_is_no_image_column(tmp_path):
    root = table(tmp_path / "set", ["a"] * 4, size=[1, 2, 3, 4])
    with pytest.raises(DataError, match=r"column 'size' of .* holds int64, not image files"):
        open_split(root, "test", image_column="size")


def test_several_image_columns_are_not_guessed_between(tmp_path):
    two = hf_dataset("test").rename_column("image", "left")
    two = two.add_column("right", two["left"]).cast_column("right", hf.Image(decode=False))
    two.save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"has several image columns \(left, right\)"):
        open_split(tmp_path / "set", "all")
    assert len(open_split(tmp_path / "set", "all", image_column="right")) == 8


# --- names of samples


def test_an_id_column_names_samples_when_it_is_unique(tmp_path):
    named = open_split(table(tmp_path / "a", ["x"] * 4, id=[7, 5, 9, 1]), "test")
    assert named.sample_id == ("7", "5", "9", "1")
    repeated = open_split(table(tmp_path / "b", ["x"] * 4, id=["p", "q", "p", "r"]), "test")
    assert repeated.sample_id == ("test:0", "test:1", "test:2", "test:3")
    assert "column 'id' is not unique, so samples are named by row" in repeated.notes


def test_rows_of_several_files_are_named_by_file(tmp_path):
    for shard in (10, 9):
        path = tmp_path / "set" / "data" / f"test-{shard}-of-11.parquet"
        write_table(path, IMAGES[:2], ["a", "b"])
    assert open_split(tmp_path / "set", "test").sample_id == (
        "data/test-9-of-11:0",
        "data/test-9-of-11:1",
        "data/test-10-of-11:0",
        "data/test-10-of-11:1",
    )


# --- layouts


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train-0.parquet", "test-0.parquet"], ("train", "test")),
        (["data/validation-00000-of-00001.parquet"], ("val",)),
        (["plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"], ("train", "test")),
        (["default/test/0000.parquet", "default/train/0000.parquet"], ("train", "test")),
        (["blur-00000-of-00001.parquet", "test.parquet"], ("test", "blur")),
        (["part.parquet", "more.parquet", ".hidden.parquet", ".cache/test.parquet"], ("all",)),
    ],
)  # fmt: skip
def test_split_names_are_read_off_file_names(tmp_path, files, expected):
    for name in files:
        write_table(tmp_path / "set" / name, IMAGES[:1], ["a"])
    assert splits(tmp_path / "set") == expected


def test_one_split_in_two_places_is_refused(tmp_path):
    for name in ("large/test.parquet", "small/test.parquet"):
        write_table(tmp_path / "set" / name, IMAGES[:1], ["a"])
    with pytest.raises(DataError, match=r"split 'test' of .* lies in 'large' and in 'small'"):
        splits(tmp_path / "set")


def test_a_split_without_rows_is_refused(tmp_path):
    root = table(tmp_path / "set", pa.array([], pa.string()), pa.array([], pa.binary()))
    with pytest.raises(DataError, match=r"split 'test' of .* holds no images"):
        open_split(root, "test")


def test_a_damaged_file_is_one_line(tmp_path):
    put(tmp_path / "p" / "test.parquet", b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"cannot read .*test.parquet: .*; copy the file again"):
        open_split(tmp_path / "p", "test")
    put(tmp_path / "t" / "test.tar", b"x" * 2000)
    with pytest.raises(
        DataError, match=r"datasets cannot read test.tar of .* as webdataset: "
    ) as e:
        open_split(tmp_path / "t", "test")
    assert "\n" not in str(e.value)
    root = write("saved-dict", tmp_path / "s")
    next((root / "test").glob("*.arrow")).unlink()
    with pytest.raises(
        DataError,
        match=r"cannot read .*\.arrow: No such file .*; save the data set again with save_to_disk",
    ):
        open_split(root, "test")


def test_parquet_files_that_disagree_are_refused(tmp_path):
    for i, names in enumerate((["a", "b"], ["b", "a"])):
        path = tmp_path / "set" / f"test-{i}.parquet"
        path.parent.mkdir(exist_ok=True)
        hf.Dataset.from_dict(
            {"image": [{"bytes": b, "path": None} for b in IMAGES], "label": [0, 1, 0, 1]},
            features=hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=names)}),
        ).to_parquet(path)
    with pytest.raises(DataError, match=r"differ in their features"):
        open_split(tmp_path / "set", "test")


def test_a_single_saved_dataset_opens_and_keeps_no_cached_files(tmp_path):
    hf_dataset("test").save_to_disk(tmp_path / "set")
    put(tmp_path / "set" / "cache-123.arrow", b"left by a map()")
    assert splits(tmp_path / "set") == ("all",)
    opened = open_split(tmp_path / "set", "all")
    assert opened.sample_id[:2] == ("all:0", "all:1")
    assert opened.class_names == ("cat", "dog", "test tube")


# --- tars


def shard(root, name, *rows):
    return write_tar(
        root / name, [(f"{key}.{ext}", data) for key, files in rows for ext, data in files.items()]
    )


def row(i, label=b"0", ext="png"):
    return (f"s{i}", {"cls": label, ext: png(i)})


def test_one_tar_beside_nshards_and_class_names(tmp_path):
    write_tars(tmp_path / "set")
    opened = open_split(tmp_path / "set", "test")
    assert opened.class_names == ("cat", "dog", "test_tube")  # verbatim: it is a list of names
    assert opened.sample_id[0] == "s0000000"


def test_class_names_beside_tars_keep_blank_lines_and_are_counted(tmp_path):
    shard(tmp_path, "test/0.tar", row(0, b"0"), row(1, b"2"))
    put(tmp_path / "classnames.txt", b"near\n\nfar\n")
    assert open_split(tmp_path, "test").class_names == ("near", "", "far")
    put(tmp_path / "classnames.txt", b"near\nfar")
    with pytest.raises(
        DataError, match=r"row 1 \(s1\) of .* has label 2, .*the list beside the data has 2 class"
    ):
        open_split(tmp_path, "test")


def test_tars_are_read_in_numeric_order(tmp_path):
    for i in (0, 1, 2, 10, 11):
        shard(tmp_path, f"test/{i}.tar", row(i))
    put(tmp_path / "classnames.txt", b"a")
    assert open_split(tmp_path, "test").sample_id == ("s0", "s1", "s2", "s10", "s11")


def test_keys_repeated_in_other_tars_get_the_tars_name(tmp_path):
    for i in (0, 1):
        shard(tmp_path, f"test/{i}.tar", row(0), row(1))
    put(tmp_path / "classnames.txt", b"a")
    assert open_split(tmp_path, "test").sample_id == (
        "test/0/s0",
        "test/0/s1",
        "test/1/s0",
        "test/1/s1",
    )
    shard(tmp_path, "test/1.tar", row(0), row(1), row(0))
    with pytest.raises(DataError, match=r"the key test/1/s0 comes twice in the tars"):
        open_split(tmp_path, "test")


def test_keys_with_dots_are_read_or_refused_but_never_merged(tmp_path):
    put(tmp_path / "same" / "classnames.txt", b"a")
    shard(
        tmp_path / "same",
        "test/0.tar",
        *((f"i{i}.v2", {"cls": b"0", "png": png(i)}) for i in range(2)),
    )
    opened = open_split(tmp_path / "same", "test")
    assert [s.data for s in opened.read()] == [png(0), png(1)]
    put(tmp_path / "other" / "classnames.txt", b"a")
    shard(
        tmp_path / "other",
        "test/0.tar",
        *((f"i{i}.v{i}", {"cls": b"0", "png": png(i)}) for i in range(3)),
    )
    with pytest.raises(DataError, match=r"datasets cannot read test/0.tar of .* as webdataset"):
        open_split(tmp_path / "other", "test")
    put(tmp_path / "one" / "classnames.txt", b"a")
    shard(
        tmp_path / "one",
        "test/0.tar",
        *((f"photo.{i}", {"cls": b"0", "png": png(i)}) for i in range(3)),
    )
    with pytest.raises(DataError, match=r"has several image columns \(0.png, 1.png, 2.png\)"):
        open_split(tmp_path / "one", "test")


def test_an_extension_that_changes_is_an_error_not_an_empty_image(tmp_path):
    put(tmp_path / "classnames.txt", b"a")
    late = [row(i, ext="png" if i < 6 else "webp") for i in range(8)]
    shard(tmp_path, "test/0.tar", *late)
    with pytest.raises(DataError, match=r"row 6 \(s6\) of .* holds no image in column 'png'"):
        open_split(tmp_path, "test")
    shard(tmp_path, "test/0.tar", row(0), row(1, ext="webp"))
    with pytest.raises(DataError, match=r"as webdataset: .*don't share the same prefix"):
        open_split(tmp_path, "test")


def test_train_and_test_tars_may_differ_in_extension(tmp_path):
    put(tmp_path / "classnames.txt", b"a")
    shard(tmp_path, "train/0.tar", row(0, ext="webp"))
    shard(tmp_path, "test/0.tar", row(1, ext="png"))
    assert [len(list(open_split(tmp_path, s).read())) for s in ("train", "test")] == [1, 1]


def test_a_sample_without_label_is_named(tmp_path):
    put(tmp_path / "classnames.txt", b"a")
    shard(tmp_path, "test/0.tar", *(row(i) for i in range(6)), ("s6", {"png": png(6)}))
    with pytest.raises(DataError, match=r"row 6 \(s6\) of .* has no label in column 'cls'"):
        open_split(tmp_path, "test")


@pytest.mark.parametrize("digits", [30, 5000])
def test_labels_of_many_digits_are_refused(tmp_path, digits):
    put(tmp_path / "classnames.txt", b"a")
    shard(tmp_path, "test/0.tar", row(0), row(1, b"9" * digits))
    with pytest.raises(DataError, match=r"cannot read test/0.tar of .* as webdataset: "):
        open_split(tmp_path, "test")


def test_tars_of_one_split_with_other_members_are_refused(tmp_path):
    put(tmp_path / "classnames.txt", b"a")
    shard(tmp_path, "test/0.tar", *(row(i) for i in range(6)))
    shard(
        tmp_path, "test/1.tar", *((f"s{i}", {"txt": b"words", "json": b"{}"}) for i in range(6, 9))
    )
    with pytest.raises(DataError, match=r"test/0.tar of .* as webdataset: |has no label|no image"):
        list(open_split(tmp_path, "test").read())


STATES = [
    ("dataset_dict.json", b"7", "it holds 7"),
    ("dataset_dict.json", b"{}", "splits is None"),
    ("dataset_dict.json", b"[" * 100_000, "dataset_dict.json"),
    ("dataset_dict.json", b'{"splits": [7]}', r"splits is \[7\]"),
    ("dataset_dict.json", b'{"splits": ["../test"]}', "splits is"),
    ("dataset_dict.json", b'{"splits": ["test", "gone"]}', "gone/state.json: No such file"),
    ("test/state.json", b"{}", "_data_files is None"),
    ("test/state.json", b'{"_data_files": [7]}', r"_data_files is \[7\]"),
    ("test/state.json", b'{"_data_files": [{"filename": "../x"}]}', "_data_files is"),
    ("test/state.json", b'{"_data_files": [{"filename": "x"}]}', "x: No such file"),
    ("test/dataset_info.json", b"[]", r"it holds \[\]"),
    ("test/dataset_info.json", b"[" * 100_000, "dataset_info.json"),
    ("test/dataset_info.json", b'{"features": {"label": {"_type": "Nothing"}}}', ""),
    ("test/dataset_info.json", b'{"features": {"label": {"_type": "ClassLabel"}}}', ""),
]


@pytest.mark.parametrize(("file", "content", "message"), STATES)
def test_damaged_files_of_a_saved_folder_are_refused(tmp_path, file, content, message):
    root = write("saved-dict", tmp_path / "set")
    put(root / file, content)
    with pytest.raises(
        DataError, match=f"cannot read .*{message}.*; save .* again with save_to_disk"
    ):
        open_split(root, "test")


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_pipe_in_a_saved_folder_is_refused(tmp_path, name):
    root = write("saved-dict", tmp_path / "set")
    (root / "test" / name).unlink()
    os.mkfifo(root / "test" / name)
    with pytest.raises(DataError, match=f"cannot read .*{name}: a named pipe, not a regular file"):
        open_split(root, "test")


def test_labels_that_are_no_integers_are_refused(tmp_path):
    put(tmp_path / "classnames.txt", b"a")
    shard(tmp_path, "test/0.tar", row(0, b"cat"))
    with pytest.raises(DataError, match=r"as webdataset: invalid literal for int"):
        open_split(tmp_path, "test")


def test_a_read_makes_nothing_anew_that_grows_with_the_rows(tmp_path, monkeypatch):
    opened = open_split(table(tmp_path / "set", ["ant", "bee", "ant", "bee"]), "test")
    first = next(iter(opened.read(0, 1))).data
    for change in ("select_columns", "with_format", "cast_column", "select"):
        monkeypatch.setattr(hf.Dataset, change, lambda *_: pytest.fail("a data set made anew"))
    assert [sample.data for sample in opened.read()] == IMAGES
    assert first == IMAGES[0]
