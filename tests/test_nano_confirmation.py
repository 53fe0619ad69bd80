"""The confirmation split of the nano sets: fresh images, as recorded. No model is run on them."""

import hashlib
import io
import json
from collections import Counter
from functools import cache

import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipnlc import datasets
from clipnlc.datasets import nano
from clipnlc.datasets.nano.sets import SETS, WITHOUT_CONFIRMATION
from clipnlc.errors import DataError

RECORD = json.loads((nano.CONFIRMATION_FOLDER / "data.json").read_text("utf-8"))
DEFINITIONS = {definition.key: definition for definition in SETS}
RENDERED = ("colors", "counts", "patterns", "shapes")


def pixels(file):
    """Every row of a parquet file: identifier, and the digest of its pixels."""
    rows = pq.read_table(file, columns=["id", "image"]).to_pylist()
    images = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows]
    return [
        (row["id"], hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        for row, image in zip(rows, images, strict=True)
    ]


@cache
def fresh(key):
    (file,) = (nano.CONFIRMATION_FOLDER / key).glob("*.parquet")
    return pixels(file)


@cache
def known():
    """The pixels of every image of train and test, of all sets."""
    return {digest for file in nano.FOLDER.glob("*/*.parquet") for _, digest in pixels(file)}


def test_seven_sets_have_one_and_the_record_says_why_three_have_none():
    with_one = {definition.key for definition in SETS if definition.confirmation}
    assert set(nano.confirmed()) == with_one == set(RECORD["sets"])
    assert RECORD["without"] == WITHOUT_CONFIRMATION
    assert with_one | set(WITHOUT_CONFIRMATION) == set(nano.KEYS)
    assert not with_one & set(WITHOUT_CONFIRMATION)


def test_it_is_small():
    files = [path for path in nano.CONFIRMATION_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000


@pytest.mark.parametrize("key", nano.confirmed())
class TestEachSplit:
    def test_the_file_is_the_one_that_was_recorded(self, key):
        (file,) = (nano.CONFIRMATION_FOLDER / key).glob("*.parquet")
        digest = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        assert digest == RECORD["sets"][key]["file"]
        card = json.loads((file.parent / "dataset.json").read_text("utf-8"))
        facts = RECORD["sets"][key]
        assert (card["digest"], card["rows"]) == (facts["digest"], {"confirmation": facts["rows"]})

    def test_no_image_is_in_train_or_test_of_any_set_or_there_twice(self, key):
        digests = {digest for _, digest in fresh(key)}
        assert len(digests) == len(fresh(key)) == RECORD["sets"][key]["rows"]
        assert not digests & known()

    def test_identifiers_are_new(self, key):
        names = {name for name, _ in fresh(key)}
        assert len(names) == len(fresh(key))
        for file in (nano.FOLDER / key).glob("*.parquet"):
            assert not names & set(pq.read_table(file, columns=["id"])["id"].to_pylist())

    def test_it_opens_as_a_split_with_the_classes_of_the_set(self, key):
        found = datasets.open_dataset(key)
        split = found.open("confirmation")
        assert (split.name, len(split)) == ("confirmation", found.expected_rows("confirmation"))
        assert split.class_names == DEFINITIONS[key].class_names == found.open("train").class_names
        counts = Counter(split.labels.tolist())
        assert set(counts) == set(range(len(split.class_names)))
        assert len(set(counts.values())) == 1

    def test_no_list_of_splits_shows_it(self, key):
        assert datasets.open_dataset(key).split_names() == ("train", "test")


def test_a_set_without_one_says_which_have_one():
    with pytest.raises(
        DataError, match=r"emoji_kind has no confirmation split.*choose among colors"
    ):
        datasets.open_dataset("emoji_kind").open("confirmation")


def test_digits_are_those_that_scikit_learn_does_not_have():
    assert all(name.startswith("optdigits-tra-") for name, _ in fresh("digits"))


def test_fashion_has_the_rows_that_follow_those_of_test():
    names = pq.read_table(nano.FOLDER / "fashion/test.parquet")["id"].to_pylist()
    tested = {int(name.removeprefix("t10k-")) for name in names}
    rows = {int(name.removeprefix("t10k-")) for name, _ in fresh("fashion")}
    assert not rows & tested
    assert sorted(tested | rows)[:1500] == list(range(1500))


@pytest.mark.parametrize("key", RENDERED)
def test_rendered_splits_are_drawn_again_to_the_recorded_digest(key, tmp_path):
    digest = hashlib.blake2b(digest_size=16)
    for row in DEFINITIONS[key].confirmation(tmp_path):
        digest.update(row.pixels.tobytes())
        digest.update(json.dumps([row.identifier, str(row.label), row.part]).encode())
    assert RECORD["sets"][key]["left_out"] == {"copies": 0, "like_train": 0}
    assert digest.hexdigest() == RECORD["sets"][key]["digest"]
