"""Several stores opened together hold the same samples, labels and classes, or say where not."""

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
from clipnlc.stores.aligned import open_aligned_logits, open_ensemble
from clipnlc.stores.logits import SplitLogits, read_logits, write_logits


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
    labels, class_names, sample_id, stacked = open_aligned_logits(logits, "test")
    assert stacked.shape == (2, 6, 3)
    for row, path in enumerate(logits.values()):
        assert np.array_equal(stacked[row], read_logits(path).splits["test"].logits)
    ensemble, ensemble_labels, ensemble_names = open_ensemble(logits, features, "test")
    assert np.array_equal(ensemble.logits, stacked)
    assert [block.shape[1] for block in ensemble.features] == ([4, 3] if reverse else [3, 4])
    assert ensemble.sample_id == sample_id == sample_ids(6)
    assert np.array_equal(ensemble_labels, labels)
    assert ensemble_names == class_names == CLASS_NAMES


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
    cure = "run `clipnlc extract --dataset cub --backbones RN50.openai,ViT-B-32.openai`"
    with pytest.raises(StoreError, match=f"{difference}.*{cure}") as caught:
        open_aligned_logits(logits, "test")
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_shorter_store_is_told_apart(layout):
    logits, _ = paths(layout)
    short = logit_store(5)
    write_logits(logits[BACKBONES[1]], short)
    with pytest.raises(
        StoreError, match=r"sample_id of row 5 is 'Käfer/5.png' in the first and absent"
    ):
        open_aligned_logits(logits, "test")


def test_features_of_other_samples_are_refused(layout):
    logits, features = paths(layout)
    write_features(features[BACKBONES[1]], feature_rows(6, dim=4), sample_id=SWAPPED)
    with pytest.raises(StoreError, match=r"sample_id of row 2 is 'Käfer/2.png' in the first"):
        open_ensemble(logits, features, "test")


def test_a_missing_backbone_names_its_stage(layout):
    logits, _ = paths(layout)
    logits["RN101.openai"] = layout.logits("cub", "linear", "RN101.openai")
    with pytest.raises(MissingStageError, match=r"no linear logits of RN101.openai on cub"):
        open_aligned_logits(logits, "test")
