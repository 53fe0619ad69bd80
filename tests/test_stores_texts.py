"""The text store: what it keeps, what it refuses, and what its name depends on."""

import numpy as np
import pytest

from clipnlc.digests import content_digest
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stages.verify import verify
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout, locate
from clipnlc.stores.texts import TextStore, read_texts, text_key, write_texts

IMAGES = {
    "backbone": "RN50@weights.pt",
    "weights": "abc",
    "precision": "fp32",
    "preprocessing": {"size": [224, 224]},
    "split": "test",
    "content": "c0",
    "samples": 10,
}
NAMES = ("cat", "dog", "Käfer")
CLASSES = {"labels": "f0", "names": content_digest(NAMES), "templates": ["a {c}"]}


def key_of(images=None, classes=None):
    return text_key(
        Key.of({"images": IMAGES | (images or {}), "classes": CLASSES | (classes or {})})
    )


def store_of(**changes):
    given = {
        "texts": np.eye(3, 4, dtype=np.float32),
        "class_names": NAMES,
        "logit_scale": 100.0,
        "logit_bias": -10.0,
        "key": key_of(),
    }
    return TextStore(**(given | changes))


@pytest.fixture
def path(tmp_path):
    return Layout(tmp_path).texts("RN50@weights.pt", key_of())


def test_round_trip(path):
    digest = write_texts(path, store_of())
    found = read_texts(path)
    assert found.texts.tobytes() == store_of().texts.tobytes()
    assert found.class_names == ("cat", "dog", "Käfer")
    assert (found.logit_scale, found.logit_bias) == (100.0, -10.0)
    assert found.key == key_of()
    again = path.parents[2] / "elsewhere" / path.relative_to(path.parents[2])
    assert write_texts(again, store_of()) == digest
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "same",
    [{"split": "train"}, {"content": "c1"}, {"samples": 11}, {"preprocessing": {"size": [1, 1]}}],
)
def test_images_do_not_change_the_texts(same):
    assert key_of(images=same) == key_of()


def test_labels_do_not_change_the_texts():
    assert key_of(classes={"labels": "f1"}) == key_of()


@pytest.mark.parametrize(
    ("images", "classes"),
    [
        ({"backbone": "RN101.openai"}, {}),
        ({"weights": "abd"}, {}),
        ({"precision": "fp16"}, {}),
        ({}, {"names": "n1"}),
        ({}, {"templates": ["a {c}", "the {c}"]}),
    ],
)
def test_everything_else_does(images, classes):
    assert key_of(images, classes) != key_of()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": np.full((3, 4), np.nan, np.float32)}, "not written.*texts.*NaN"),
        ({"texts": np.zeros((3, 4), np.float32)}, "not written.*zero"),
        ({"logit_scale": float("inf")}, "not written.*logit scale is inf"),
        ({"logit_scale": -1.0}, "not written.*logit scale is -1"),
        ({"logit_bias": float("nan")}, "not written.*logit bias nan"),
    ],
)
def test_refuses_what_no_logit_can_be_made_of(path, changes, message):
    with pytest.raises(StoreError, match=message):
        write_texts(path, store_of(**changes))
    assert not path.exists()


def test_texts_and_names_that_do_not_fit(path):
    write_texts(path, store_of(class_names=("cat", "dog", "owl")))
    with pytest.raises(StoreError, match=r"its class names have the digest .* its key names"):
        read_texts(path)
    write_texts(path, store_of())
    good = path.read_bytes()
    path.write_bytes(good[:-40])
    with pytest.raises(StoreError, match=r"damaged.*delete the file and run `clipnlc extract"):
        read_texts(path)


def test_missing(path):
    with pytest.raises(MissingStageError, match=r"no texts of RN50@weights.pt: .*clipnlc extract"):
        read_texts(path)


def test_verify_reads_them(tmp_path, path):
    write_texts(path, store_of())
    assert str(locate(path)) == "texts of RN50@weights.pt"
    assert verify(store=tmp_path).damage == []
    data = bytearray(path.read_bytes())
    data[data.index(store_of().texts.tobytes())] ^= 1
    path.write_bytes(data)
    (damage,) = verify(store=tmp_path).damage
    assert damage.path == path


def test_a_backbone_without_texts_has_class_names_alone(path):
    write_texts(path, store_of(texts=None, logit_scale=None, logit_bias=0.0))
    found = read_texts(path)
    assert (found.texts, found.logit_scale, found.logit_bias) == (None, None, 0.0)
    assert found.class_names == NAMES
    assert not verify(store=path.parents[2]).damage
    with pytest.raises(StoreError, match=r"it has no texts, and its logit scale is 100\.0"):
        write_texts(path, store_of(texts=None))
