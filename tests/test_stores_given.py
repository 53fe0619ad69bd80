"""The given store: round trips, what stays beside, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores_examples import (
    BACKBONES,
    CLASS_NAMES,
    given_store,
    quick_disk,  # noqa: F401  (a fixture)
    same,
    sample_ids,
)

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores import _h5
from clipnlc.stores import given as given_files
from clipnlc.stores._h5 import reading
from clipnlc.stores.given import (
    GivenArrays,
    GivenStore,
    add_given,
    read_given,
    read_given_header,
)
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout


@pytest.fixture
def path(tmp_path):
    return Layout(tmp_path).given(
        "cub", "test", source="birds", head="linear", members="nano", run="4-shots-seed-0"
    )


def test_what_fits_give_comes_back_bit_for_bit(path):
    store = given_store()
    digest = add_given(path, store)
    assert same(read_given(path), replace(store, digest=digest))
    header = read_given_header(path)
    assert header.keys == {name: given.key for name, given in store.given.items()}
    assert (header.rows, header.digest) == (6, digest)


def test_the_header_needs_no_array(path, monkeypatch):
    add_given(path, given_store())
    monkeypatch.setattr(reading, "_read_dataset", None)
    assert read_given_header(path).rows == 6


@given(
    combiners=st.sets(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=6
    ),
    measures=st.sets(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=6
    ),
    widths=st.tuples(st.integers(0, 3), st.booleans(), st.booleans()),
)
def test_any_names_and_widths_come_back(tmp_path_factory, combiners, measures, widths):
    path = Layout(tmp_path_factory.mktemp("store")).given(
        "./photos", "test[:9]", source="a/b", head="linear", members="é", run="no-labels"
    )
    columns, weighs, scored = widths
    random = np.random.default_rng(0)
    each = GivenArrays(
        Key.of({}),
        {measure: random.normal(size=(6, columns)) for measure in measures},
        random.random((6, 2), np.float32) if weighs else None,
        random.random((6, 3), np.float32) if scored else None,
    )
    store = GivenStore(sample_ids(6), BACKBONES, CLASS_NAMES, dict.fromkeys(combiners, each))
    digest = add_given(path, store)
    assert same(read_given(path), replace(store, digest=digest))


def test_a_missing_file_names_the_stage_that_makes_it(path):
    for read in (read_given, read_given_header):
        with pytest.raises(
            MissingStageError,
            match=r"no what fits of nano on linear logits of birds give on cub/test, "
            r"4-shots-seed-0: .* is not there; run `clipnlc evaluate --fitted-on birds --dataset "
            r"cub --head linear",
        ):
            read(path)


# What stays beside -------------------------------------------------------------------------------


def test_adding_a_combiner_keeps_those_that_fit(path, tmp_path):
    inputs = {"cub/logits/linear/RN50.h5#test": "00"}
    add_given(path, given_store(("log-avg", "vote-1"), inputs=inputs))
    before = read_given(path).given
    add_given(path, given_store(("nlc",), inputs=inputs))
    after = read_given(path).given
    assert sorted(after) == ["log-avg", "nlc", "vote-1"]
    assert all(same(after[name], before[name]) for name in before)
    whole = tmp_path / "whole" / path.relative_to(tmp_path)
    add_given(whole, given_store(("nlc", "vote-1", "log-avg"), inputs=inputs))
    assert path.read_bytes() == whole.read_bytes()


def test_what_is_written_anew_replaces_the_old(path):
    add_given(path, given_store())
    without = replace(given_store(("vote-1",)).given["vote-1"], scores=None)
    add_given(path, replace(given_store(()), given={"vote-1": without}))
    found = read_given(path).given
    assert found["vote-1"].scores is None
    assert found["log-avg"].weights is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_id": tuple("abcdef")},
        {"backbones": BACKBONES[::-1]},
        {"class_names": CLASS_NAMES[::-1]},
        {"given": given_store(("nlc",), inputs={"a": "2", "b": "1"}).given},
    ],
)
def test_what_no_longer_fits_is_dropped(path, changes):
    add_given(path, given_store(("log-avg",), inputs={"a": "1"}))
    new = given_store(("nlc",), inputs={"a": "1", "b": "1"})
    add_given(path, replace(new, **changes))
    assert sorted(read_given(path).given) == ["nlc"]


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"weights": np.full((6, 2), np.nan, np.float32)},
            r"log-avg weights hold NaN or infinity in row 0 \('cat/0.png'\)",
        ),
        ({"weights": np.ones((6, 3), np.float32)}, "3 log-avg weights columns, 2 log-avg weights"),
        (
            {"values": {}, "weights": np.ones((5, 2), np.float32)},
            "6 sample ids, 5 rows of log-avg weights",
        ),
        ({"scores": np.ones((6, 2), np.float32)}, "2 log-avg scores columns, 3 log-avg scores"),
        (
            {"values": {"brier": np.ones((5, 1))}, "weights": None},
            "6 sample ids, 5 rows of log-avg values",
        ),
        (
            {"values": {"brier": np.full((6, 1), np.inf)}},
            "log-avg values hold NaN or infinity in row 0",
        ),
    ],
)
def test_what_a_fit_gave_is_checked(path, changes, problem):
    store = given_store(("log-avg",))
    wrong = replace(store.given["log-avg"], **changes)
    with pytest.raises(StoreError, match=f"not written: .*{problem}.*`clipnlc evaluate"):
        add_given(path, replace(store, given={"log-avg": wrong}))
    assert not path.exists()


@pytest.mark.parametrize(
    ("datasets", "columns", "problem"),
    [
        ({"weights": np.ones((6, 3), np.float32)}, '[["brier", 1]]', "3 nlc weights columns"),
        ({"weights": np.ones((6, 2))}, '[["brier", 1]]', "no 2-dimensional array '.*/weights'"),
        ({"values": np.ones(6)}, '[["brier", 1]]', "no 2-dimensional array '.*/values'"),
        ({"values": np.ones((5, 1))}, '[["brier", 1]]', "6 sample ids, 5 rows of nlc values"),
        ({}, '[["brier", 2]]', "has other columns than combiners/nlc names"),
        ({}, '[["brier"]]', "names no columns in combiners/nlc"),
        ({}, "brier", "names no columns in combiners/nlc"),
        ({}, "1", "names no columns in combiners/nlc"),
    ],
)
def test_a_sealed_file_of_another_writer_is_checked(path, datasets, columns, problem):
    arrays = {"values": np.ones((6, 1)), **datasets}
    good = {"sample_id": sample_ids(6), "backbones": BACKBONES, "class_names": CLASS_NAMES}
    _h5.write_sealed(
        path,
        given_files.FORMAT,
        attributes={},
        datasets=good | {f"combiners/nlc/{name}": array for name, array in arrays.items()},
        groups={"combiners/nlc": {"key": "{}", "columns": columns}},
    )
    with pytest.raises(StoreError, match=f"{problem}.*; delete the file and run `clipnlc evaluate"):
        read_given(path)


def test_samples_are_named_once(path):
    store = given_store()
    with pytest.raises(StoreError, match=r"not written: .*sample_id.*'cat/0.png'"):
        add_given(path, replace(store, sample_id=("cat/0.png", *store.sample_id[:-1])))


# Size --------------------------------------------------------------------------------------------


def test_what_is_given_on_fifty_thousand_images_of_a_thousand_classes_is_small():
    """Computed from shapes, as the measures of today need them."""
    from clipnlc.metrics import METRICS, sample_values  # noqa: PLC0415

    samples, backbones = 50_000, 9
    few = sample_values(np.eye(4, 1000), np.arange(4))
    values = {n: np.broadcast_to(few[n][:1], (samples, few[n].shape[1])) for n in METRICS}
    weights = np.broadcast_to(np.float32(0), (samples, backbones))
    weighed = GivenArrays(Key.of({}), values, weights)
    scored = GivenArrays(Key.of({}), values)
    scores = samples * 1000 * 4  # bytes of a matrix of scores
    assert sum(array.nbytes for array in weighed.arrays().values()) < scores / 25
    assert sum(array.nbytes for array in scored.arrays().values()) < scores / 40
