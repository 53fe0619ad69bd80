"""The logit store: round trips and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from stores_examples import (
    CLASS_NAMES,
    labels_of,
    logit_store,
    quick_disk,  # noqa: F401  (a fixture)
    same,
    sample_ids,
)

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores import _h5, logits
from clipnlc.stores._h5 import reading
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import (
    LogitFit,
    SplitColumns,
    SplitLogits,
    open_logits,
    read_class_names,
    read_logit_fit,
    read_logit_header,
    read_logits,
    read_split,
    write_logits,
)


@pytest.fixture
def path(tmp_path):
    return Layout(tmp_path).logits("cub", "linear", "RN50")


def test_logits_come_back_bit_for_bit(path):
    store = logit_store()
    digest = write_logits(path, store)
    assert same(read_logits(path), replace(store, digest=digest))
    header = read_logit_header(path)
    assert (header.key, header.digest, header.classes) == (store.key, digest, 3)
    assert header.rows == {"test": 6, "train": 6}
    assert header.facts == store.facts


def test_two_classes_may_have_one_name(path):
    # ImageNet has two missiles and two pairs of sunglasses.
    names = ("missile", "cat", "missile")
    write_logits(path, replace(logit_store(), class_names=names))
    assert read_logits(path).class_names == read_split(path, "test")[1] == names


def test_one_split_is_read_alone(path, monkeypatch):
    store = logit_store()
    write_logits(path, store)
    read = []
    load = reading._read_dataset
    monkeypatch.setattr(reading, "_read_dataset", lambda f, n, e: read.append(n) or load(f, n, e))
    split, class_names = read_split(path, "train")
    assert same(split, store.splits["train"])
    assert class_names == CLASS_NAMES
    assert {name.split("/")[0] for name in read} == {"class_names", "splits"}
    assert not any("test" in name for name in read)


def test_a_split_with_an_odd_name_comes_back(path):
    split = logit_store().splits["test"]
    write_logits(path, replace(logit_store(), splits={"train[:10%]/a": split}, learnt={}, facts={}))
    store = read_logits(path)
    assert list(store.splits) == ["train[:10%]/a"]
    assert (store.learnt, store.facts) == ({}, {})
    assert same(read_split(path, "train[:10%]/a")[0], split)


def test_a_missing_file_or_split_names_the_stage_that_makes_it(path):
    with pytest.raises(
        MissingStageError, match=r"run `clipnlc train-heads --dataset cub .*` first"
    ):
        read_split(path, "test")
    write_logits(path, logit_store())
    with pytest.raises(MissingStageError, match="no split 'val', only test, train; run `clipnlc"):
        read_split(path, "val")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(path, value):
    store = logit_store()
    store.splits["test"].logits[3, 2] = value
    with pytest.raises(
        StoreError, match=r"test logits hold NaN or infinity in row 3 \('cat/3.png'\)"
    ):
        write_logits(path, store)
    assert not path.exists()


def test_labels_and_widths_are_checked(path):
    split = SplitLogits(np.ones((2, 3), np.float32), np.array([0, 3]), ("a", "b"))
    with pytest.raises(StoreError, match=r"row 1 \('b'\) has label 3"):
        write_logits(path, replace(logit_store(), splits={"test": split}))
    split = SplitLogits(np.ones((2, 2), np.float32), np.array([0, 1]), ("a", "b"))
    with pytest.raises(StoreError, match="3 classes, 2 logits per row"):
        write_logits(path, replace(logit_store(), splits={"test": split}))


def test_learnt_values_that_are_no_numbers_are_refused(path):
    with pytest.raises(StoreError, match="learnt array 'weight_' holds something other"):
        write_logits(path, replace(logit_store(), learnt={"weight_": np.array([np.nan])}))


@pytest.mark.parametrize(
    ("datasets", "attributes", "problem"),
    [
        (
            {"splits/test/logits": np.full((6, 3), np.nan, np.float32)},
            {},
            "NaN or infinity in row 0",
        ),
        ({"splits/test/labels": labels_of(5)}, {}, "6 logits, 5 labels"),
        ({"learnt/name": ("a",)}, {}, "learnt array 'name'"),
        ({}, {"logits": "probabilities"}, "logits are not 'scaled'"),
        ({}, {"facts": '{"a": null}'}, "a fact that is no number or word"),
    ],
)
def test_a_sealed_logit_file_of_another_writer_is_checked(path, datasets, attributes, problem):
    good = {
        "class_names": CLASS_NAMES,
        "splits/test/logits": np.ones((6, 3), np.float32),
        "splits/test/labels": labels_of(6),
        "splits/test/sample_id": sample_ids(6),
    }
    attributes = {"key": "{}", "facts": "{}", "logits": "scaled", **attributes}
    _h5.write_sealed(path, logits.FORMAT, attributes=attributes, datasets=good | datasets)
    with pytest.raises(
        StoreError, match=f"{problem}.*; delete the file and run `clipnlc train-heads"
    ):
        read_logits(path)


def test_what_a_head_learnt_is_read_without_its_logits(path, monkeypatch):
    store = logit_store()
    digest = write_logits(path, store)
    read = []
    load = reading._read_dataset
    monkeypatch.setattr(reading, "_read_dataset", lambda f, n, e: read.append(n) or load(f, n, e))
    assert same(read_logit_fit(path), LogitFit(store.key, store.learnt, CLASS_NAMES, digest))
    assert {name.split("/")[0] for name in read} == {"class_names", "learnt"}


# Parts of a split ------------------------------------------------------------------------------


def test_columns_of_a_split_are_read_without_its_logits(path, monkeypatch):
    store = logit_store()
    write_logits(path, store)
    read = []
    load = reading._read_dataset
    monkeypatch.setattr(reading, "_read_dataset", lambda f, n, e: read.append(n) or load(f, n, e))
    with open_logits(path, "train") as file:
        columns = file.columns()
    train = store.splits["train"]
    assert same(columns, SplitColumns(train.labels, train.sample_id, CLASS_NAMES))
    assert read_class_names(path) == CLASS_NAMES
    assert not any("logits" in name or "test" in name for name in read)
    missing = pytest.raises(MissingStageError, match="holds no split 'val', only test, train")
    with missing, open_logits(path, "val"):
        pass


def test_a_splits_digest_depends_on_that_split_and_the_classes_alone(path):
    def digests(**changes):
        write_logits(path, replace(logit_store(), **changes))
        return read_logit_header(path).split_digests

    plain = digests()
    test, train = (logit_store().splits[name] for name in ("test", "train"))
    assert plain["test"] != plain["train"]
    other = replace(test, logits=test.logits + 1)
    assert digests(splits={"test": other, "train": train})["train"] == plain["train"]
    assert digests(splits={"train": train}, facts={}, learnt={})["train"] == plain["train"]
    for part in (
        replace(train, logits=train.logits + 1),
        replace(train, labels=train.labels[::-1].copy()),
        replace(train, sample_id=train.sample_id[::-1]),
    ):
        found = digests(splits={"test": test, "train": part})
        assert found["test"] == plain["test"]
        assert found["train"] != plain["train"]
    assert digests(class_names=("cat", "wolf", "Käfer"))["train"] != plain["train"]


def test_logits_of_another_writer_are_checked_in_the_rows_that_are_read(path, monkeypatch):
    monkeypatch.setattr(logits.checks, "check_finite", lambda *_args: None)
    store = logit_store()
    store.splits["test"].logits[4, 1] = np.nan
    write_logits(path, store)
    monkeypatch.undo()
    with open_logits(path, "test") as file:
        assert np.isfinite(file.read(np.array([5, 0, 3]))).all()
        assert len(next(file.blocks(4))) == 4
        for read in (lambda: file.read(np.array([5, 4])), lambda: list(file.blocks(4))):
            with pytest.raises(
                StoreError, match="test logits hold NaN or infinity in row 4; delete"
            ):
                read()
