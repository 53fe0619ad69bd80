"""The logit store and the combined store: round trips and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest
from stores_examples import (
    BACKBONES,
    CLASS_NAMES,
    combined_store,
    labels_of,
    logit_store,
    quick_disk,  # noqa: F401  (a fixture)
    same,
    sample_ids,
)

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores import _h5, combined, logits
from clipnlc.stores._h5 import reading
from clipnlc.stores.combined import add_combinations, read_combined, read_combined_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import (
    SplitColumns,
    SplitLogits,
    open_logits,
    read_class_names,
    read_logit_header,
    read_logits,
    read_split,
    read_split_columns,
    write_logits,
)


@pytest.fixture
def path(tmp_path):
    return Layout(tmp_path).logits("cub", "linear", "RN50")


@pytest.fixture
def run(tmp_path):
    return Layout(tmp_path).combined("cub", "linear", "4-shots-seed-0")


def test_logits_come_back_bit_for_bit(path):
    store = logit_store()
    digest = write_logits(path, store)
    assert same(read_logits(path), replace(store, digest=digest))
    header = read_logit_header(path)
    assert (header.key, header.digest, header.classes) == (store.key, digest, 3)
    assert header.rows == {"test": 6, "train": 6}
    assert header.facts == store.facts


def test_two_classes_may_have_one_name(path, run):
    # ImageNet has two missiles and two pairs of sunglasses.
    names = ("missile", "cat", "missile")
    write_logits(path, replace(logit_store(), class_names=names))
    assert read_logits(path).class_names == read_split(path, "test")[1] == names
    add_combinations(run, replace(combined_store(), class_names=names))
    assert read_combined(run).class_names == names


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


def test_combinations_come_back_bit_for_bit(run):
    store = combined_store()
    digest = add_combinations(run, store)
    assert same(read_combined(run), replace(store, digest=digest))
    header = read_combined_header(run)
    assert header.keys == {n: c.key for n, c in store.combinations.items()}
    assert header.facts["log-avg"] == {"labels": 9}
    assert (header.rows, header.digest) == (6, digest)


def test_adding_a_combiner_keeps_those_that_fit(run):
    inputs = {"cub/logits/linear/RN50.h5": "00"}
    add_combinations(run, combined_store(("log-avg", "vote-1"), inputs=inputs))
    before = read_combined(run).combinations
    digest = add_combinations(run, combined_store(("nlc",), inputs=inputs))
    after = read_combined(run)
    assert sorted(after.combinations) == ["log-avg", "nlc", "vote-1"]
    assert all(same(after.combinations[name], before[name]) for name in before)
    whole = run.with_name("whole.h5")
    add_combinations(whole, combined_store(("nlc", "vote-1", "log-avg"), inputs=inputs))
    assert run.read_bytes() == whole.read_bytes()
    assert after.digest == digest


def test_a_combiner_written_anew_replaces_the_old(run):
    add_combinations(run, combined_store())
    new = combined_store(("log-avg",))
    changed = replace(new.combinations["log-avg"], key=Key.of({"seed": 1}))
    add_combinations(run, replace(new, combinations={"log-avg": changed}))
    assert read_combined_header(run).keys["log-avg"] == Key.of({"seed": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_id": tuple("abcdef")},
        {"backbones": BACKBONES[::-1]},
        {"class_names": CLASS_NAMES[::-1]},
        {"combinations": combined_store(("nlc",), inputs={"a": "2", "b": "1"}).combinations},
    ],
)
def test_combiners_that_no_longer_fit_are_dropped(run, changes):
    add_combinations(run, combined_store(("log-avg",), inputs={"a": "1"}))
    new = combined_store(("nlc",), inputs={"a": "1", "b": "1"})
    add_combinations(run, replace(new, **changes))
    assert sorted(read_combined(run).combinations) == ["nlc"]


def test_a_combiner_that_names_fewer_inputs_still_fits(run):
    add_combinations(run, combined_store(("log-avg",), inputs={"logits": "1"}))
    add_combinations(run, combined_store(("nlc",), inputs={"logits": "1", "features": "2"}))
    add_combinations(run, combined_store(("conf",), inputs={"logits": "1"}))
    assert sorted(read_combined(run).combinations) == ["conf", "log-avg", "nlc"]


def test_what_a_combiner_gave_is_checked(run):
    store = combined_store(("log-avg",))
    wrong = replace(store.combinations["log-avg"], weights=np.full((6, 2), np.nan, np.float32))
    with pytest.raises(StoreError, match=r"log-avg weights hold NaN or infinity in row 0"):
        add_combinations(run, replace(store, combinations={"log-avg": wrong}))
    wide = replace(store.combinations["log-avg"], weights=np.ones((6, 3), np.float32))
    with pytest.raises(StoreError, match="3 columns of log-avg weights, 2 expected columns"):
        add_combinations(run, replace(store, combinations={"log-avg": wide}))
    short = replace(store.combinations["log-avg"], weights=np.ones((5, 2), np.float32))
    with pytest.raises(StoreError, match="6 sample ids, 5 rows of log-avg weights"):
        add_combinations(run, replace(store, combinations={"log-avg": short}))


def test_a_combiner_gives_one_thing():
    with pytest.raises(AssertionError, match="either weights or scores"):
        combined.Combination(Key.of({}), {}, {})


@pytest.mark.parametrize("given", [(), ("weights", "scores")])
def test_a_sealed_combined_file_of_another_writer_is_checked(run, given):
    arrays = {"weights": np.ones((6, 2), np.float32), "scores": np.ones((6, 3), np.float32)}
    datasets = {
        "sample_id": sample_ids(6),
        "backbones": BACKBONES,
        "class_names": CLASS_NAMES,
        "combiners/nlc/learnt/a_": np.ones(2),
        **{f"combiners/nlc/{what}": arrays[what] for what in given},
    }
    groups = {"combiners/nlc": {"key": "{}", "facts": "{}"}}
    _h5.write_sealed(run, combined.FORMAT, attributes={}, datasets=datasets, groups=groups)
    with pytest.raises(StoreError, match="of 'nlc', expected one of them; delete the file and run"):
        read_combined(run)


# Parts of a split ------------------------------------------------------------------------------


def test_columns_of_a_split_are_read_without_its_logits(path, monkeypatch):
    store = logit_store()
    write_logits(path, store)
    read = []
    load = reading._read_dataset
    monkeypatch.setattr(reading, "_read_dataset", lambda f, n, e: read.append(n) or load(f, n, e))
    columns = read_split_columns(path, "train")
    train = store.splits["train"]
    assert same(columns, SplitColumns(train.labels, train.sample_id, CLASS_NAMES))
    assert read_class_names(path) == CLASS_NAMES
    assert not any("logits" in name or "test" in name for name in read)
    with pytest.raises(MissingStageError, match="holds no split 'val', only test, train"):
        read_split_columns(path, "val")


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
