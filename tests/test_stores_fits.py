"""The fit store: round trips, what stays beside, and what it refuses."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from stores_examples import (
    BACKBONES,
    CLASS_NAMES,
    fit_store,
    quick_disk,  # noqa: F401  (a fixture)
    same,
    sample_ids,
)

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores import _h5, combined, fits
from clipnlc.stores._h5 import reading
from clipnlc.stores.combined import read_combined
from clipnlc.stores.fits import FitStore, add_fits, read_fit_header, read_fits
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.verify import verify_file

V1 = Path(__file__).parent / "data" / "archives" / "v1" / "combined.h5"


@pytest.fixture
def run(tmp_path):
    return Layout(tmp_path).fits("cub", "linear", "nano", "4-shots-seed-0")


def without_digests(store: FitStore) -> FitStore:
    plain = {name: replace(fit, digest="") for name, fit in store.fits.items()}
    return replace(store, fits=plain, digest="")


def test_fits_come_back_bit_for_bit(run):
    store = fit_store()
    digest = add_fits(run, store)
    found = read_fits(run)
    assert found.digest == digest
    assert same(without_digests(found), store)
    header = read_fit_header(run)
    assert header.keys == {name: fit.key for name, fit in store.fits.items()}
    assert header.facts == {name: fit.facts for name, fit in store.fits.items()}
    assert header.digests == {name: fit.digest for name, fit in found.fits.items()}
    assert (header.backbones, header.digest) == (BACKBONES, digest)


@examples(
    combiners=st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1),
    learnt=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}_", fullmatch=True),
        st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(np.array),
    ),
    names=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
        min_size=1,
    ),
)
def test_any_names_come_back(tmp_path_factory, combiners, learnt, names):
    path = Layout(tmp_path_factory.mktemp("store")).fits("a/b", "linear", "é", "no-labels")
    # Some names are too long for a path; they are refused when they become one.
    combiners = {name for name in combiners if len(name.encode()) < 60}
    one = fit_store(("nlc",)).fits["nlc"]
    fits_of = {n: replace(one, learnt=learnt, key=Key.of({"combiner": n})) for n in combiners}
    store = FitStore(BACKBONES, tuple(names), fits_of)
    add_fits(path, store)
    assert same(without_digests(read_fits(path)), store)
    assert set(read_fit_header(path).keys) == combiners


def test_one_combiner_is_read_alone(run, monkeypatch):
    store = fit_store(("c-conf", "nlc", "nlc-constant"))
    learnt = {"weight_": np.eye(2)}
    store = replace(store, fits={n: replace(f, learnt=learnt) for n, f in store.fits.items()})
    add_fits(run, store)
    read = []
    load = reading._read_dataset
    monkeypatch.setattr(reading, "_read_dataset", lambda f, n, e: read.append(n) or load(f, n, e))
    assert list(read_fits(run, ["nlc"]).fits) == ["nlc"]
    assert set(read) == {"backbones", "class_names", "combiners/nlc/learnt/weight_"}
    assert list(read_fits(run, ["nlc", "no-such-fit"]).fits) == ["nlc"]
    assert read_fits(run, []).fits == {}


def test_two_classes_may_have_one_name(run):
    names = ("missile", "cat", "missile")
    add_fits(run, replace(fit_store(), class_names=names))
    assert read_fits(run).class_names == names


def test_a_missing_file_names_the_stage_that_makes_it(run):
    for read in (read_fits, read_fit_header):
        with pytest.raises(
            MissingStageError,
            match=r"no fits of nano on linear logits of cub, 4-shots-seed-0: .* is not there; "
            r"run `clipnlc train-nlc --dataset cub --head linear",
        ):
            read(run)


# What stays beside -------------------------------------------------------------------------------


def test_adding_a_combiner_keeps_those_that_fit(run, tmp_path):
    inputs = {"cub/logits/linear/RN50.h5#holdout": "00"}
    add_fits(run, fit_store(("log-avg", "nlc"), inputs=inputs))
    before = read_fits(run).fits
    digest = add_fits(run, fit_store(("gac",), inputs=inputs))
    after = read_fits(run)
    assert sorted(after.fits) == ["gac", "log-avg", "nlc"]
    assert all(same(after.fits[name], before[name]) for name in before)
    whole = tmp_path / "whole" / run.relative_to(tmp_path)
    add_fits(whole, fit_store(("gac", "nlc", "log-avg"), inputs=inputs))
    assert run.read_bytes() == whole.read_bytes()
    assert after.digest == digest


def test_a_combiner_written_anew_replaces_the_old(run):
    add_fits(run, fit_store())
    old = read_fit_header(run).digests
    new = fit_store(("log-avg",))
    changed = replace(new.fits["log-avg"], key=Key.of({"seed": 1}))
    add_fits(run, replace(new, fits={"log-avg": changed}))
    header = read_fit_header(run)
    assert header.keys["log-avg"] == Key.of({"seed": 1})
    assert header.digests["log-avg"] != old["log-avg"]
    assert header.digests["nlc"] == old["nlc"]


@pytest.mark.parametrize(
    "changes",
    [
        {"backbones": BACKBONES[::-1]},
        {"class_names": CLASS_NAMES[::-1]},
        {"fits": fit_store(("nlc",), inputs={"a": "2", "b": "1"}).fits},
    ],
)
def test_fits_that_no_longer_fit_are_dropped(run, changes):
    add_fits(run, fit_store(("log-avg",), inputs={"a": "1"}))
    new = fit_store(("nlc",), inputs={"a": "1", "b": "1"})
    add_fits(run, replace(new, **changes))
    assert sorted(read_fits(run).fits) == ["nlc"]


def test_a_fit_that_names_fewer_inputs_still_fits(run):
    add_fits(run, fit_store(("log-avg",), inputs={"logits": "1"}))
    add_fits(run, fit_store(("nlc",), inputs={"logits": "1", "features": "2"}))
    add_fits(run, fit_store(("conf",), inputs={"logits": "1"}))
    assert sorted(read_fits(run).fits) == ["conf", "log-avg", "nlc"]


def test_a_damaged_file_is_not_written_over(run):
    add_fits(run, fit_store())
    run.write_bytes(run.read_bytes()[:-500])
    left = run.read_bytes()
    with pytest.raises(StoreError, match="delete the file and run `clipnlc train-nlc"):
        add_fits(run, fit_store(("gac",)))
    assert run.read_bytes() == left


# A fit's own digest ------------------------------------------------------------------------------


def with_nlc(**changes) -> FitStore:
    store = fit_store()
    return replace(store, fits={**store.fits, "nlc": replace(store.fits["nlc"], **changes)})


@pytest.mark.parametrize(
    ("store", "changed"),
    [
        (with_nlc(learnt={"temperature_": np.array([1.0, 2.0 + 1e-15])}), {"nlc"}),
        (with_nlc(learnt={"weight_": np.array([1.0, 2.0])}), {"nlc"}),
        (with_nlc(facts={"drawn": "no-labels", "labels": 0}), {"nlc"}),
        (with_nlc(key=Key.of({"combiner": "nlc"})), {"nlc"}),
        (replace(fit_store(), class_names=("a", "b", "c")), {"nlc", "log-avg"}),
        (replace(fit_store(), backbones=("a", "b")), {"nlc", "log-avg"}),
        (fit_store(("log-avg", "nlc", "gac")), {"gac"}),
    ],
)
def test_a_digest_names_one_fit_and_the_order_its_arrays_follow(run, store, changed):
    other = run.with_name("other.h5")
    add_fits(run, fit_store())
    add_fits(other, store)
    one, two = read_fit_header(run).digests, read_fit_header(other).digests
    assert {name for name in two if one.get(name) != two[name]} == changed


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_learnt_values_that_are_no_numbers_are_refused(run, value):
    with pytest.raises(
        StoreError,
        match=r"4-shots-seed-0.h5 not written: its learnt array 'weight_' holds something other "
        r"than finite numbers; .*verify.*`clipnlc train-nlc --dataset cub --head linear",
    ):
        add_fits(run, with_nlc(learnt={"weight_": np.array([value])}))
    assert not run.exists()


def test_backbones_are_named_once(run):
    with pytest.raises(StoreError, match=r"not written: .*backbone.*RN50\.openai"):
        add_fits(run, replace(fit_store(), backbones=(BACKBONES[0], BACKBONES[0])))


@pytest.mark.parametrize(
    ("datasets", "attributes", "problem"),
    [
        ({"combiners/nlc/learnt/a_": ("word",)}, {}, "learnt array 'a_'"),
        ({"combiners/nlc/learnt/a_": np.array([np.nan])}, {}, "learnt array 'a_'"),
        ({"backbones": ("RN50", "RN50")}, {}, "breaks the format: .*'RN50'"),
        ({}, {"facts": '{"labels": null}'}, "a fact that is no number or word"),
        ({}, {"key": "[]"}, "has no JSON object in attribute combiners/nlc@key"),
    ],
)
def test_a_sealed_file_of_another_writer_is_checked(run, datasets, attributes, problem):
    good = {
        "backbones": BACKBONES,
        "class_names": CLASS_NAMES,
        "combiners/nlc/learnt/a_": np.ones(2),
    }
    groups = {"combiners/nlc": {"key": "{}", "facts": "{}", **attributes}}
    _h5.write_sealed(run, fits.FORMAT, attributes={}, datasets=good | datasets, groups=groups)
    with pytest.raises(StoreError, match=f"{problem}.*; delete the file and run `clipnlc train-n"):
        read_fits(run)


# Version 1 ---------------------------------------------------------------------------------------


@pytest.fixture
def old_run(tmp_path):
    path = Layout(tmp_path).combined("cub", "linear", "4-shots-seed-0")
    path.parent.mkdir(parents=True)
    return Path(shutil.copy(V1, path))


def test_a_run_of_version_1_is_read_without_what_it_gave(old_run, monkeypatch):
    old = read_combined(old_run)
    read = []
    load = reading._read_dataset
    monkeypatch.setattr(reading, "_read_dataset", lambda f, n, e: read.append(n) or load(f, n, e))
    store = read_fits(old_run)
    assert not {name.split("/")[-1] for name in read} & {"weights", "scores", "sample_id"}
    assert (store.backbones, store.class_names) == (old.backbones, old.class_names)
    for name, fit in store.fits.items():
        was = old.combinations[name]
        assert same(fit.learnt, was.learnt)
        assert fit.key == was.key
        # It did not say which labels in one word; its place does.
        assert fit.facts == {**was.facts, "drawn": "4-shots-seed-0"}
    header = read_fit_header(old_run)
    assert header.digests == {name: fit.digest for name, fit in store.fits.items()}
    assert len(set(header.digests.values())) == 2


def test_a_run_of_version_1_is_verified_whole(old_run):
    verify_file(old_run)
    data = bytearray(old_run.read_bytes())
    weights = read_combined(old_run).combinations["nlc"].weights.tobytes()
    data[data.index(weights) + 5] ^= 1
    old_run.write_bytes(data)
    assert read_fits(old_run).fits  # which reads no weights
    with pytest.raises(StoreError, match="checksum of 'combiners/nlc/weights' does not match"):
        verify_file(old_run)


def test_formats_do_not_stand_in_each_others_places(old_run, run):
    add_fits(run, fit_store())
    misplaced = Path(shutil.copy(run, old_run.with_name("no-labels.h5")))
    for reader in (read_fits, read_fit_header, read_combined):
        with pytest.raises(StoreError, match="has format 'clipnlc-fits', expected 'clipnlc-comb"):
            reader(misplaced)
    shutil.copy(old_run, run)
    with pytest.raises(StoreError, match="has format 'clipnlc-combined', expected 'clipnlc-fits'"):
        read_fits(run)


@pytest.mark.parametrize("given", [(), ("weights", "scores")])
def test_a_sealed_combined_file_of_another_writer_is_checked(old_run, given):
    arrays = {"weights": np.ones((6, 2), np.float32), "scores": np.ones((6, 3), np.float32)}
    datasets = {
        "sample_id": sample_ids(6),
        "backbones": BACKBONES,
        "class_names": CLASS_NAMES,
        "combiners/nlc/learnt/a_": np.ones(2),
        **{f"combiners/nlc/{what}": arrays[what] for what in given},
    }
    groups = {"combiners/nlc": {"key": "{}", "facts": "{}"}}
    _h5.write_sealed(old_run, combined.FORMAT, attributes={}, datasets=datasets, groups=groups)
    with pytest.raises(StoreError, match="of 'nlc', expected one of them; delete the file and run"):
        read_combined(old_run)
