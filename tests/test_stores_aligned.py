"""Several stores opened together hold the same samples, labels and classes, or say where not."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from stores_examples import (
    BACKBONES,
    CLASS_NAMES,
    feature_rows,
    logit_store,
    quick_disk,  # noqa: F401  (a fixture)
    sample_ids,
    write_features,
    write_store,
)

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores.aligned import open_ensemble, open_split
from clipnlc.stores.key import Key
from clipnlc.stores.logits import LogitStore, SplitLogits, read_logits, write_logits


@pytest.fixture
def layout(tmp_path):
    return write_store(tmp_path)


def paths(layout, *, reverse=False):
    backbones = BACKBONES[::-1] if reverse else BACKBONES
    logits = {b: layout.logits("cub", "linear", b) for b in backbones}
    features = {b: layout.features("cub", "test", b) for b in backbones}
    return logits, features


@pytest.mark.parametrize("reverse", [False, True])
def test_backbones_come_in_the_order_asked_for(layout, reverse):
    logits, features = paths(layout, reverse=reverse)
    ensemble, labels, class_names = open_ensemble(logits, features, "test")
    assert ensemble.logits.shape == (2, 6, 3)
    for row, path in enumerate(logits.values()):
        assert np.array_equal(ensemble.logits[row], read_logits(path).splits["test"].logits)
    assert [block.shape[1] for block in ensemble.features] == ([4, 3] if reverse else [3, 4])
    assert ensemble.sample_id == sample_ids(6)
    for path in logits.values():
        assert np.array_equal(read_logits(path).splits["test"].labels, labels)
    assert class_names == CLASS_NAMES


def test_without_features_the_ensemble_holds_none(layout):
    assert open_ensemble(paths(layout)[0], {}, "train").ensemble.features == ()


def test_half_precision_features_come_as_float32(layout):
    logits, features = paths(layout)
    halves = feature_rows(6, dtype=np.float16)
    write_features(features[BACKBONES[0]], halves)
    ensemble = open_ensemble(logits, features, "test").ensemble
    assert ensemble.features[0].dtype == np.float32
    assert np.array_equal(ensemble.features[0], halves)


def rewrite(path, **changes):
    store = read_logits(path)
    test = store.splits["test"]
    columns = {"logits": test.logits, "labels": test.labels, "sample_id": test.sample_id}
    class_names = changes.pop("class_names", store.class_names)
    split = SplitLogits(**(columns | changes))
    write_logits(path, replace(store, splits={"test": split}, class_names=class_names))


SWAPPED = (*sample_ids(6)[:2], sample_ids(6)[3], sample_ids(6)[2], *sample_ids(6)[4:])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (
            {"sample_id": SWAPPED},
            "sample_id of row 2 is 'Käfer/2.png' in the first and 'cat/3.png' in the second",
        ),
        (
            {"labels": np.array([0, 1, 2, 0, 2, 2])},
            r"label of row 4 \('dog/4.png'\) is 1 in the first and 2 in",
        ),
        (
            {"class_names": ("cat", "wolf", "Käfer")},
            "class 1 is 'dog' in the first and 'wolf' in the",
        ),
    ],
)
def test_the_first_row_that_differs_is_named(layout, changes, difference):
    logits, _ = paths(layout)
    first, second = logits.values()
    rewrite(second, **changes)
    backbones = "RN50.openai,ViT-B-32.openai"
    cure = f"run `clipnlc extract --dataset cub --backbones {backbones} --store {layout.root}`"
    with pytest.raises(StoreError, match=f"{difference}.*{cure}") as caught:
        open_ensemble(logits, {}, "test")
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_shorter_store_is_told_apart(layout):
    logits, _ = paths(layout)
    short = logit_store(5)
    write_logits(logits[BACKBONES[1]], short)
    with pytest.raises(
        StoreError, match=r"sample_id of row 5 is 'Käfer/5.png' in the first and absent"
    ):
        open_ensemble(logits, {}, "test")


def test_features_with_other_labels_or_classes_are_refused(layout):
    logits, features = paths(layout)
    second, rows = features[BACKBONES[1]], feature_rows(6, dim=4)
    write_features(second, rows, sample_id=SWAPPED)
    with pytest.raises(
        StoreError, match=r"label of row 2 \('Käfer/2.png'\) is 2 in the first and 0"
    ):
        open_ensemble(logits, features, "test")
    write_features(second, rows, class_names=("cat", "wolf", "Käfer"))
    with pytest.raises(StoreError, match=r"class 1 is 'dog' in the first and 'wolf' in the second"):
        open_ensemble(logits, features, "test")


def test_features_of_more_samples_in_another_order_are_found_by_sample_id(layout):
    logits, features = paths(layout)
    more = feature_rows(9, dim=4, dtype=np.float16)
    order = np.array([8, 3, 1, 7, 0, 5, 2, 6, 4])
    sample_id = tuple(np.array(sample_ids(9))[order])
    write_features(features[BACKBONES[1]], more[order], labels=order % 3, sample_id=sample_id)
    first, second = open_ensemble(logits, features, "test").ensemble.features
    assert np.array_equal(first, feature_rows(6))
    assert second.dtype == np.float32
    assert np.array_equal(second, more[:6])


def test_a_sample_without_features_is_named(layout):
    logits, features = paths(layout)
    write_features(features[BACKBONES[1]], feature_rows(4, dim=4))
    said = (
        r"ViT-B-32.openai.h5 has no sample 'dog/4.png', which .*RN50.openai.h5 has; .* run `clipnlc"
    )
    with pytest.raises(StoreError, match=said):
        open_ensemble(logits, features, "test")


@pytest.mark.parametrize("rows", [[4, 0, 4, 5], [], slice(2, 5), slice(None)])
@pytest.mark.parametrize("classes", [None, [2, 0, 1], [1]])
def test_any_rows_and_classes_are_those_of_the_whole(layout, rows, classes):
    logits, features = paths(layout)
    whole = open_ensemble(logits, features, "test").ensemble
    index = rows if isinstance(rows, slice) else np.array(rows, np.int64)
    columns = None if classes is None else np.array(classes)
    with open_split(logits, features, "test") as split:
        found = split.ensemble(index, features=True, classes=columns)
        assert split.ensemble(index, features=False).features == ()
    wanted = slice(None) if classes is None else columns
    assert np.array_equal(found.logits, whole.logits[:, index][..., wanted])
    for one, two in zip(found.features, whole.features, strict=True):
        assert np.array_equal(one, two[index])
    assert found.sample_id == tuple(np.array(whole.sample_id)[index])
    assert found.backbones == split.backbones == BACKBONES
    assert found.class_names == tuple(np.array(CLASS_NAMES)[wanted])


def test_only_the_rows_asked_for_are_allocated(tmp_path):
    """One backbone of 60 MB is never whole in memory: reading it all would take as much."""
    rows, classes, wanted = 60_000, 250, 5_000
    values = np.random.default_rng(0).normal(size=(rows, classes)).astype(np.float32)
    names = tuple(f"class {c}" for c in range(classes))
    ids = tuple(f"{row}.png" for row in range(rows))
    split = SplitLogits(values, np.arange(rows) % classes, ids)
    path = tmp_path / "cub" / "logits" / "zero-shot" / "RN50.h5"
    write_logits(path, LogitStore({"train": split}, names, Key.of({}), {}, {}))
    drawn = np.random.default_rng(1).permutation(rows)[:wanted]
    with open_split({"RN50": path}, {}, "train") as opened:
        tracemalloc.start()
        found = opened.ensemble(drawn, features=False, classes=np.arange(classes)[::-1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert np.array_equal(found.logits[0], values[drawn][:, ::-1])
    assert peak < found.logits.nbytes + 20e6


def test_a_missing_backbone_names_its_stage(layout):
    logits, _ = paths(layout)
    logits["RN101.openai"] = layout.logits("cub", "linear", "RN101.openai")
    with pytest.raises(MissingStageError, match=r"no linear logits of RN101.openai on cub"):
        open_ensemble(logits, {}, "test")
