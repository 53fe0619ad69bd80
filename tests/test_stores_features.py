"""The feature store: shards, merging, and what it refuses."""

import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores_examples import (
    CLASS_NAMES,
    KEY,
    feature_rows,
    labels_of,
    quick_disk,  # noqa: F401  (a fixture)
    sample_ids,
    write_features,
)

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores import _h5, features
from clipnlc.stores._h5 import reading
from clipnlc.stores.feature_writing import write_features as write_arrays
from clipnlc.stores.features import (
    open_features,
    read_feature_columns,
    read_feature_header,
    read_features,
)
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout, shards_of
from clipnlc.stores.shards import (
    Shard,
    merge_shards,
    missing_ranges,
    read_shard,
    sealed_ranges,
    shard_files,
    write_shard,
)

IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@pytest.fixture
def path(tmp_path):
    return Layout(tmp_path).features("cub", "test", "RN50.openai")


def shard(start, stop, **changes):
    fields = {
        "features": feature_rows(stop)[start:],
        "labels": labels_of(stop)[start:],
        "sample_id": sample_ids(stop)[start:],
    }
    return Shard(start, stop, **(fields | changes))


def merge(path, rows, key=KEY, **changes):
    texts = np.eye(3, dtype=np.float32)
    settings = {"class_names": CLASS_NAMES, "texts": texts, "logit_scale": 100.0}
    return merge_shards(path, key, rows=rows, **(settings | changes))


@settings(max_examples=12, deadline=None)
@given(
    ids=st.lists(IDS, unique=True, min_size=1, max_size=12).map(tuple),
    names=st.lists(IDS, min_size=1, max_size=4).map(tuple),  # ImageNet has names that repeat
    dtype=st.sampled_from([np.float32, np.float16]),
    scale_and_bias=st.tuples(st.floats(1e-3, 1e6), st.floats(-100, 100)),
    data=st.data(),
)
def test_what_is_written_is_read_bit_for_bit_however_it_was_cut(
    ids, names, dtype, scale_and_bias, data
):
    rows = len(ids)
    scale, bias = scale_and_bias
    values = feature_rows(rows, dim=5, dtype=dtype)
    labels = np.arange(rows) % len(names)
    texts = feature_rows(len(names), dim=5)
    cut = data.draw(st.sets(st.integers(1, rows - 1)) if rows > 1 else st.just(set()))
    written = []
    with tempfile.TemporaryDirectory() as directory:
        for cuts in (sorted(cut), []):
            path = Path(directory) / f"{len(cuts)}" / "x.h5"
            for start, stop in itertools.pairwise([0, *cuts, rows]):
                part = slice(start, stop)
                write_shard(path, KEY, Shard(start, stop, values[part], labels[part], ids[part]))
            digest = merge(
                path, rows, class_names=names, texts=texts, logit_scale=scale, logit_bias=bias
            )
            store = read_features(path)
            written.append(path.read_bytes())
    assert store.features.dtype == dtype
    assert store.features.tobytes() == values.tobytes()
    assert store.texts.tobytes() == texts.tobytes()
    assert np.array_equal(store.labels, labels)
    assert (store.sample_id, store.class_names) == (ids, names)
    assert (store.logit_scale, store.logit_bias) == (scale, bias)
    assert (store.key, store.skipped, store.digest) == (KEY, (), digest)
    assert written[0] == written[1]


def test_the_bytes_do_not_depend_on_the_time(tmp_path):
    write_features(tmp_path / "a.h5", feature_rows(6))
    time.sleep(1.1)  # HDF5 counts seconds
    write_features(tmp_path / "b.h5", feature_rows(6), cuts=(1, 2, 5))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_extraction_goes_on_where_it_stopped(path):
    assert missing_ranges(path, KEY, 10, 4) == [(0, 4), (4, 8), (8, 10)]
    write_shard(path, KEY, shard(4, 8))
    write_shard(path, Key.of({"precision": "fp16"}), shard(0, 4))
    assert sealed_ranges(path, KEY) == [(4, 8)]
    assert missing_ranges(path, KEY, 10, 3) == [(0, 3), (3, 4), (8, 10)]
    for start, stop in missing_ranges(path, KEY, 10, 3):
        write_shard(path, KEY, shard(start, stop))
    assert missing_ranges(path, KEY, 10, 3) == []
    merge(path, 10)
    assert read_features(path).sample_id == sample_ids(10)
    assert not shards_of(path).exists()


def test_skipped_samples_take_a_place_but_no_row(path):
    skipped = (("broken.png", "cannot identify image file"),)
    write_shard(path, KEY, shard(0, 3))
    ids = sample_ids(5)[3:]
    rest = Shard(3, 6, feature_rows(2), labels_of(2), ids, skipped)
    write_shard(path, KEY, rest)
    assert read_shard(shard_files(path)[1]).skipped == skipped
    merge(path, 6)
    store = read_features(path)
    assert store.skipped == skipped
    assert len(store.features) == 5
    header = read_feature_header(path)
    assert (header.rows, header.dim, header.classes, header.skipped) == (5, 3, 3, 1)
    assert (header.key, header.digest) == (KEY, store.digest)


def test_the_header_is_read_without_the_features(path, monkeypatch):
    write_features(path, feature_rows(6))
    monkeypatch.setattr(reading, "_read_dataset", None)
    assert read_feature_header(path).rows == 6


def test_the_merge_holds_one_shard_in_memory(path, monkeypatch):
    for start in range(0, 12, 3):
        write_shard(path, KEY, shard(start, start + 3))
    largest = []
    allocate = np.ascontiguousarray
    monkeypatch.setattr(
        np, "ascontiguousarray", lambda a, *r: largest.append(len(a)) or allocate(a, *r)
    )
    merge(path, 12)
    assert largest == [3, 3, 3, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_are_refused(path, value):
    values = feature_rows(6)
    values[4, 1] = value
    with pytest.raises(StoreError, match=r"NaN or infinity in row 4 \('dog/4.png'\).*--precision"):
        write_shard(path, KEY, shard(0, 6, features=values))
    assert not shards_of(path).exists()


def test_rows_of_zeros_are_refused(path):
    values = feature_rows(6)
    values[2] = 0
    with pytest.raises(StoreError, match=r"all zero in row 2 \('Käfer/2.png'\)"):
        write_shard(path, KEY, shard(0, 6, features=values))


def test_labels_without_a_class_are_refused(path):
    write_shard(path, KEY, shard(0, 3, labels=np.array([0, 3, 1])))
    with pytest.raises(StoreError, match=r"row 1 \('dog/1.png'\) has label 3, but there are 3"):
        merge(path, 3)
    assert not path.exists()


def test_a_sample_that_stands_twice_is_refused(path):
    with pytest.raises(StoreError, match="sample_id 'a' is repeated, in rows 0 and 2"):
        write_shard(path, KEY, shard(0, 3, sample_id=("a", "b", "a")))
    write_shard(path, KEY, shard(0, 2, sample_id=("a", "b")))
    write_shard(path, KEY, shard(2, 4, sample_id=("c", "b")))
    with pytest.raises(StoreError, match="sample_id 'b' is repeated, in rows 1 and 3"):
        merge(path, 4)


def test_a_sample_id_that_is_no_text_is_refused(path):
    ids = ("a", "b\udcff.png", "c")
    with pytest.raises(StoreError, match=r"'b\\udcff.png' in row 1 is not text in UTF-8"):
        write_shard(path, KEY, shard(0, 3, sample_id=ids))


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ([(0, 2), (4, 6)], "rows 2 to 4 of 6 are not sealed; run `clipnlc extract --dataset cub"),
        ([(0, 2)], "rows 2 to 6 of 6 are not sealed"),
        ([], "rows 0 to 6 of 6 are not sealed"),
        ([(0, 4), (2, 6)], "rows 2 to 4 of 6 are sealed twice; delete .*shards and run"),
        ([(0, 6), (6, 9)], "rows 6 to 9 of 6 are sealed twice"),
    ],
)
def test_shards_must_tile_the_samples(path, ranges, problem):
    for start, stop in ranges:
        write_shard(path, KEY, shard(start, stop))
    with pytest.raises(StoreError, match=problem):
        merge(path, 6)
    assert len(shard_files(path)) == len(ranges)


def test_a_renamed_shard_is_refused(path):
    write_shard(path, KEY, shard(0, 3))
    (file,) = shard_files(path)
    file.rename(file.with_name("000000003-000000006.h5"))
    with pytest.raises(StoreError, match="holds rows 0 to 3, not those of its name"):
        sealed_ranges(path, KEY)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"logit_scale": float("inf")}, "logit scale is inf"),
        ({"logit_scale": 0.0}, "logit scale is 0.0"),
        ({"texts": np.zeros((3, 3), np.float32)}, r"texts are all zero in row 0 \('cat'\)"),
        ({"class_names": ("cat", "dog", "a\0b")}, "class name 'a.x00b' in row 2 is not text"),
    ],
)
def test_classes_that_give_no_logits_are_refused(path, changes, problem):
    write_shard(path, KEY, shard(0, 3))
    with pytest.raises(StoreError, match=problem):
        merge(path, 3, **changes)


def test_a_missing_file_names_the_stage_that_makes_it(path):
    command = (
        "no features of RN50.openai on cub/test.*run `clipnlc extract --dataset cub --backbones"
    )
    for read in (read_features, read_feature_header):
        with pytest.raises(MissingStageError, match=command):
            read(path)


GOOD = {
    "features": feature_rows(3),
    "labels": labels_of(3),
    "sample_id": sample_ids(3),
    "class_names": CLASS_NAMES,
    "texts": np.eye(3, dtype=np.float32),
    "skipped/sample_id": (),
    "skipped/reason": (),
}
NUMBERS = {"logit_scale": 100.0, "logit_bias": 0.0}
NAN_ROW = np.float32([[1, 1, 1], [1, np.nan, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    ("datasets", "attributes", "problem"),
    [
        ({"features": NAN_ROW}, {}, r"NaN or infinity in row 1 \('dog/1.png'\)"),
        ({"features": np.zeros((3, 3), np.float32)}, {}, "all zero in row 0"),
        ({"features": feature_rows(3).astype(float)}, {}, "no 2-dimensional array 'features' of"),
        ({"features": feature_rows(2)}, {}, "2 features, 3 labels"),
        ({"features": feature_rows(3, dim=4)}, {}, "4 features, 3 texts"),
        ({"labels": np.array([0, 1, 9])}, {}, "label 9"),
        ({"labels": np.float32([0, 1, 2])}, {}, "no 1-dimensional array 'labels'"),
        ({"sample_id": ("a", "b", "a")}, {}, "is repeated"),
        ({"sample_id": np.arange(3)}, {}, "no list of strings 'sample_id'"),
        ({"texts": np.ones((2, 3), np.float32)}, {}, "3 class names, 2 texts"),
        ({"skipped/reason": ("why",)}, {}, "no reason for each skipped sample"),
        ({}, {"logit_scale": -1.0}, "logit scale is -1.0"),
        ({}, {"logit_scale": "100"}, "no attribute @logit_scale of type float"),
        ({}, {"key": "[]"}, "no JSON object in attribute @key"),
        ({}, {"key": "{"}, "no JSON object in attribute @key"),
        ({}, {"key": '{"inputs": 1}'}, "no key in attribute @key"),
        ({}, {"key": '{"inputs": {"a": 1}}'}, "inputs name 'a'"),
    ],
)
def test_a_sealed_file_of_another_writer_is_checked_all_the_same(
    path, datasets, attributes, problem
):
    _h5.write_sealed(
        path,
        features.FORMAT,
        attributes={"key": "{}", **NUMBERS, **attributes},
        datasets={**GOOD, **datasets},
    )
    with pytest.raises(StoreError, match=f"{problem}.*; delete the file and run `clipnlc extract"):
        read_features(path)


@pytest.mark.parametrize("absent", sorted(GOOD))
def test_a_sealed_file_that_lacks_an_array_is_refused(path, absent):
    rest = {name: array for name, array in GOOD.items() if name != absent}
    _h5.write_sealed(path, features.FORMAT, attributes={"key": "{}", **NUMBERS}, datasets=rest)
    with pytest.raises(StoreError, match=f"has no .*'{absent}'"):
        read_features(path)


@pytest.mark.parametrize(
    ("value", "problem"), [(np.nan, "hold NaN or infinity"), (0, "are all zero")]
)
def test_features_of_another_writer_are_checked_in_the_rows_that_are_read(
    path, monkeypatch, value, problem
):
    values = feature_rows(6)
    values[4] = value
    for check in ("check_finite", "check_not_zero"):
        monkeypatch.setattr(features.checks, check, lambda *_args: None)
    write_features(path, values)
    monkeypatch.undo()
    with open_features(path) as file:
        assert np.array_equal(file.read(np.array([5, 0, 3])), values[[5, 0, 3]])
        assert np.array_equal(next(file.blocks(4)), values[:4])
        for read in (lambda: file.read(np.array([5, 4])), lambda: list(file.blocks(4))):
            with pytest.raises(StoreError, match=f"features {problem} in row 4; delete"):
                read()


FIVE = {"labels": labels_of(5), "sample_id": sample_ids(5), "class_names": CLASS_NAMES}


class TestWithoutTexts:
    """Features of a backbone that embeds no texts, and of one that gives logits alone."""

    @pytest.mark.parametrize("dim", [3, 0])
    def test_are_read_as_written_whole_and_by_rows(self, path, dim):
        values = feature_rows(5, dim=dim)
        digest = write_arrays(path, KEY, features=values, **FIVE)
        store, header = read_features(path), read_feature_header(path)
        assert (store.texts, store.logit_scale, store.logit_bias) == (None, None, 0.0)
        assert (header.has_texts, header.dim, header.rows) == (False, dim, 5)
        assert store.digest == header.digest == digest
        np.testing.assert_array_equal(store.features, values)
        assert read_feature_columns(path).sample_id == sample_ids(5)
        with open_features(path) as file:
            np.testing.assert_array_equal(file.read(np.array([4, 1])), values[[4, 1]])
            np.testing.assert_array_equal(np.concatenate(list(file.blocks(2))), values)
        assert reading.read_header(path, features.FORMAT).attribute("format-version", int) == 3

    @pytest.mark.parametrize("dim", [3, 0])
    def test_shards_of_them_merge_to_the_same_bytes(self, path, dim):
        values = feature_rows(5, dim=dim)
        write_arrays(path, KEY, features=values, **FIVE)
        before = path.read_bytes()
        for start, stop in ((0, 2), (2, 5)):
            write_shard(path, KEY, shard(start, stop, features=values[start:stop]))
        merge(path, 5, texts=None, logit_scale=None)
        assert path.read_bytes() == before

    def test_with_texts_the_bytes_are_those_of_version_2(self, path):
        write_features(path, feature_rows(5))
        before = path.read_bytes()
        texts = {"texts": np.eye(3, dtype=np.float32), "logit_scale": 100.0}
        write_arrays(path, KEY, features=feature_rows(5), **FIVE, **texts)
        assert path.read_bytes() == before
        assert reading.read_header(path, features.FORMAT).attribute("format-version", int) == 2
        assert read_feature_header(path).has_texts

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"logit_scale": 100.0}, "it has no texts, and its logit scale is 100.0"),
            ({"logit_bias": 1.0}, "it has no texts, and its logit scale is None"),
            ({"texts": np.eye(3, dtype=np.float32)}, "it has texts, and its logit scale is None"),
            ({"texts": np.eye(2, 3, dtype=np.float32)}, "3 class names, 2 texts"),
            ({"texts": np.eye(3, 4, dtype=np.float32)}, "3 features, 4 texts"),
            ({"labels": np.array([0, 1, 9, 0, 1])}, "label 9"),
            ({"labels": labels_of(4)}, "5 features, 4 labels"),
            ({"features": np.zeros((5, 3), np.float32)}, "all zero in row 0"),
            ({"content": np.zeros((4, 16), np.uint8)}, "4 digests of images"),
        ],
    )
    def test_halves_are_not_written(self, path, changes, problem):
        given = {"features": feature_rows(5), **FIVE, **changes}
        with pytest.raises(StoreError, match=f"not written: .*{problem}"):
            write_arrays(path, KEY, **given)
        assert not path.exists()

    def test_texts_without_a_scale_are_refused_when_read(self, path):
        _h5.write_sealed(path, features.FORMAT, attributes={"key": "{}"}, datasets=GOOD, version=3)
        with pytest.raises(StoreError, match="no attribute @logit_scale of type float"):
            read_features(path)
