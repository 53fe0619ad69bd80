"""A fit that leaves its store: the same bits elsewhere, and refusal of whatever was altered."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml
from command_line import BACKBONES, environment, good, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import clipnlc
from clipnlc.api import encoded
from clipnlc.combiners import COMBINERS
from clipnlc.datasets.images import load as load_image
from clipnlc.digests import with_digest
from clipnlc.errors import BackboneError, DataError, MissingStageError, StoreError, UnknownNameError
from clipnlc.export import Measurement
from clipnlc.labels import Labels
from clipnlc.reports.card import model_card
from clipnlc.reports.files import evaluation_from_json
from clipnlc.runs.exported import export_of, open_exported
from clipnlc.runs.fitted import apply
from clipnlc.runs.predictor import open_predictor
from clipnlc.stages.export import export as stage
from clipnlc.stores import export as folder_format
from clipnlc.stores.export import ARRAYS, CARD, DESCRIPTION, read_export, write_export
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

USABLE = tuple(name for name in COMBINERS if COMBINERS.get(name).row_wise)
SHOTS = Labels.shots(2, seed=1)


@pytest.fixture(scope="module")
def store(first_fitted, tmp_path_factory):
    """A store of three classes of photos, measured; not to be changed."""
    root = shutil.copytree(first_fitted, tmp_path_factory.mktemp("measured") / "store")
    good("evaluate", "--store", root)
    return root


NLC = ("--combiner", "nlc")


def export(**asked):
    """Export NLC's fit, unless another is asked for."""
    return stage(**{"combiner": "nlc", **asked})


@pytest.fixture(scope="module")
def first_folder(store, tmp_path_factory):
    """NLC on two shots, exported."""
    folder = tmp_path_factory.mktemp("exported") / "pets"
    export(store=store, out=folder, dataset="photos", which=SHOTS)
    return folder


@pytest.fixture
def folder(first_folder, tmp_path):
    """The same, to be changed at will."""
    return shutil.copytree(first_folder, tmp_path / "pets")


def predictor_of(store, combiner="nlc", which=SHOTS):
    return open_predictor(Layout(store), "photos", head="zero-shot", combiner=combiner, which=which)


def scores_of(predictor, store):
    """Apply a predictor to the features of test."""
    layout = Layout(store)
    stored = [read_features(layout.features("photos", "test", b)) for b in predictor.backbones]
    ensemble = predictor.heads.ensemble([s.features for s in stored], stored[0].sample_id)
    return apply(predictor.fitted, ensemble).combined(ensemble)


def same(one, two):
    """Tell whether two values hold the same bits."""
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(two) and same(vars(one), vars(two))
    return one == two


def described(folder):
    return json.loads((folder / DESCRIPTION).read_text("utf-8"))


def describe(folder, tree):
    """Write a description with a digest that fits, as whoever means harm would."""
    said = {name: value for name, value in tree.items() if name != "digest"}
    (folder / DESCRIPTION).write_text(json.dumps(with_digest(said)), "utf-8")


def replace_arrays(folder, arrays, *, metadata=None):
    """Write other arrays, described as they are."""
    data = safetensors.numpy.save(arrays, metadata)
    (folder / ARRAYS).write_bytes(data)
    tree = described(folder)
    tree["arrays"] = {
        "bytes": len(data),
        "blake2b": folder_format._digest(data),
        "tensors": {name: folder_format._facts_of(array) for name, array in arrays.items()},
    }
    describe(folder, tree)


def arrays_of(folder):
    return safetensors.numpy.load((folder / ARRAYS).read_bytes())


# The same bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("combiner", USABLE)
def test_what_was_learnt_comes_back_bit_for_bit(combiner, store, tmp_path):
    made = export_of(predictor_of(store, combiner), ())
    assert write_export(tmp_path / "out", made, card="")
    read = read_export(tmp_path / "out")
    assert same(vars(read), vars(made))
    assert read.fit.combiner == combiner
    assert {h.backbone for h in read.heads} == {"nano-RN50", "nano-ViT-B-16"}


@pytest.mark.slow
@pytest.mark.parametrize("combiner", USABLE)
def test_an_export_gives_the_same_bits_as_the_store(combiner, store, tmp_path):
    which = SHOTS if COMBINERS.get(combiner).learns_from_labels() else None
    export(store=store, out=tmp_path / "out", combiner=combiner, which=which)
    here, there = predictor_of(store, combiner), open_exported(tmp_path / "out")
    assert same(scores_of(there, store), scores_of(here, store))
    assert there.identities == here.identities
    assert (there.dataset, there.templates) == (here.dataset, here.templates)
    assert there.fitted.labels == here.fitted.labels


ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
from clipnlc.runs.exported import open_exported
from clipnlc.runs.fitted import apply

predictor = open_exported(Path(sys.argv[1]))
features = [np.load(file) for file in sys.argv[2:]]
ensemble = predictor.heads.ensemble(features, [str(row) for row in range(len(features[0]))])
sys.stdout.buffer.write(apply(predictor.fitted, ensemble).combined(ensemble).tobytes())
"""


def test_the_store_is_not_needed(store, tmp_path):
    mine = shutil.copytree(store, tmp_path / "store")
    good("export", *NLC, "--shots", 2, "--seed", 1, "--out", tmp_path / "pets", "--store", mine)
    predictor = predictor_of(mine)
    expected = scores_of(predictor, mine)
    files = []
    for backbone in predictor.backbones:
        files.append(tmp_path / f"{backbone}.npy")
        path = Layout(mine).features("photos", "test", backbone)
        np.save(files[-1], read_features(path).features)
    shutil.rmtree(mine)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "pets").rename(tmp_path / "far" / "cats and dogs")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "../cats and dogs", *files],
        cwd=tmp_path / "far" / "away",
        env=environment(PYTHONPATH=str(Path(folder_format.__file__).parents[2])),
        capture_output=True,
        check=True,
    )
    assert done.stdout == expected.tobytes()


def test_a_trained_head_is_exported(extracted, tmp_path):
    at = ("--store", extracted)
    good("train-heads", "--epochs", 2, *at)
    good("train-nlc", "--head", "linear", "--holdout", 1, "--seeds", 1, "--combiners", "gac", *at)
    options = ("--head", "linear", "--combiner", "gac", "--holdout", 1)
    good("export", *options, "--out", tmp_path / "out", *at)
    read = read_export(tmp_path / "out")
    assert (read.head, read.fit.labels) == ("linear", Labels.holdout(1.0))
    assert read.heads[0].settings["epochs"] == 2
    assert open_exported(tmp_path / "out").heads.heads[0].epochs_ == 2


# Altered ---------------------------------------------------------------------------------------


def test_any_flipped_byte_is_refused(folder):
    for name in (DESCRIPTION, ARRAYS):
        path = folder / name
        good_bytes = path.read_bytes()
        step = 7 if name == DESCRIPTION else 97
        # Every byte of the header of the arrays too.
        for place in [*range(0, len(good_bytes), step), *range(900 * (name == ARRAYS))]:
            bad = bytearray(good_bytes)
            bad[place] ^= 1 << (place % 8)
            path.write_bytes(bad)
            with pytest.raises(StoreError, match=rf"{name}|update clipnlc"):
                read_export(folder)
        path.write_bytes(good_bytes)
    read_export(folder)


@pytest.mark.parametrize("name", [DESCRIPTION, ARRAYS])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_refused(name, share, folder):
    path = folder / name
    os.truncate(path, int(path.stat().st_size * share))
    expected = "is no description" if name == DESCRIPTION else "bytes, ensemble.json says"
    with pytest.raises(StoreError, match=expected):
        read_export(folder)


ENVELOPE = {
    "no JSON": (b"pets", "is no description"),
    "a list": (b"[]", "is no description"),
    "a number": (b"3", "is no description"),
    "deeply nested": (b"[" * 100_000, "is no description"),
    "deeply nested but whole": (b'{"a":' * 90_000 + b"1" + b"}" * 90_000, "is no description"),
    "no Unicode": (b'{"format": "\xff"}', "is no description"),
    "a large number": (b'{"format": ' + b"9" * 5000 + b"}", "is no description"),
    "another format": (b'{"format": "clipnlc-fits", "format-version": 1}', "has format 'clipnlc-f"),
    "version true": (b'{"format": "clipnlc-ensemble", "format-version": "1"}', "version '1'"),
    "newer": (b'{"format": "clipnlc-ensemble", "format-version": 2}', "update clipnlc$"),
    "no digest": (b'{"format": "clipnlc-ensemble", "format-version": 1}', "was altered"),
    "infinite": (b'{"format": "clipnlc-ensemble", "format-version": 1, "a": 1e999}', "no descrip"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
}


@pytest.mark.parametrize("case", ENVELOPE)
def test_what_is_no_description_is_refused(case, folder):
    text, expected = ENVELOPE[case]
    (folder / DESCRIPTION).write_bytes(text)
    with pytest.raises(StoreError, match=expected):
        open_exported(folder)


def test_a_name_that_stands_twice_is_refused(folder):
    text = (folder / DESCRIPTION).read_text("utf-8")
    (folder / DESCRIPTION).write_text(text.replace("{", '{"dataset": "others",', 1), "utf-8")
    with pytest.raises(StoreError, match="a name is repeated"):
        read_export(folder)


def test_a_large_description_is_not_read(folder, monkeypatch):
    os.truncate(folder / DESCRIPTION, 17 * 2**20)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(StoreError, match=r"has 17825792 bytes, expected at most 16777216"):
        read_export(folder)


@pytest.mark.parametrize("name", [DESCRIPTION, ARRAYS])
def test_only_regular_files_are_read(name, folder, tmp_path):
    path = folder / name
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=f"{name} is missing"):
        read_export(folder)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=f"{name} is a link"):
        read_export(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match=f"{name} is not a regular file"):
        read_export(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=f"{name} is not a regular file"):
        read_export(folder)


def test_a_pointer_to_large_files_is_named(folder):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 69536\n"
    (folder / ARRAYS).write_bytes(pointer)
    with pytest.raises(StoreError, match=r"safetensors is a Git LFS pointer.*run `git lfs pull`"):
        read_export(folder)


def test_no_folder(tmp_path):
    with pytest.raises(MissingStageError, match=r"does not exist; expected a folder"):
        open_exported(tmp_path / "nothing")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MissingStageError, match=r"is a file; expected a folder"):
        open_exported(tmp_path / "file")
    with pytest.raises(StoreError, match=r"ensemble.json is missing"):
        open_exported(tmp_path)


# Hostile: everything described as it is, and wrong ---------------------------------------------

WEIGHT = "heads/0/weight_"


def with_nan(arrays):
    arrays[WEIGHT] = arrays[WEIGHT].copy()
    arrays[WEIGHT][0, 0] = math.nan


HOSTILE_ARRAYS = {
    "not finite": (with_nan, "something other than finite numbers"),
    "true or false": (lambda a: a.update({WEIGHT: a[WEIGHT] > 0}), "other than finite numbers"),
    "empty": (lambda a: a.update({WEIGHT: np.zeros((0, 2**60), np.float32)}), "is empty"),
    "missing": (lambda a: a.pop(WEIGHT), "does not fit together"),
    "another one": (lambda a: a.update({"combiner/more_": np.ones(2)}), "does not fit together"),
    "of no head": (lambda a: a.update({"heads/2/weight_": np.ones(2)}), "there are arrays heads/2"),
    "a path": (lambda a: a.update({"heads/../../x": np.ones(2)}), "is of no head"),
    "a deeper path": (lambda a: a.update({"heads/0/a/b": np.ones(2)}), "is of no head"),
    "a number twice": (lambda a: a.update({"heads/00/x": np.ones(2)}), "is of no head"),
    "no name": (lambda a: a.update({"combiner/": np.ones(2)}), "is of no head"),
    "other classes": (lambda a: a.update({WEIGHT: np.ones((5, 64), np.float32)}), "not fit togeth"),
    "other width": (lambda a: a.update({WEIGHT: np.ones((3, 9), np.float32)}), "does not fit"),
    "one axis": (lambda a: a.update({WEIGHT: np.ones(3, np.float32)}), "does not fit together"),
    "too large numbers": (
        lambda a: a.update({WEIGHT: np.full((3, 64), 3e38, np.float32)}),
        "does not give 3 finite logits",
    ),
    "fewer backbones": (
        lambda a: a.update({"combiner/temperature_": np.ones(3)}),
        "does not fit together",
    ),
}


@pytest.mark.parametrize("case", HOSTILE_ARRAYS)
def test_other_arrays_are_refused(case, folder):
    change, expected = HOSTILE_ARRAYS[case]
    arrays = arrays_of(folder)
    change(arrays)
    replace_arrays(folder, arrays)
    with pytest.raises(StoreError, match=expected):
        open_exported(folder)


def test_arrays_that_are_not_described_are_refused(folder):
    tree = described(folder)
    del tree["arrays"]["tensors"][WEIGHT]
    describe(folder, tree)
    with pytest.raises(StoreError, match=r"'heads/0/weight_' is in it and not in ensemble"):
        read_export(folder)
    tree["arrays"]["tensors"][WEIGHT] = {"dtype": "float32", "shape": [3, 65], "blake2b": ""}
    describe(folder, tree)
    with pytest.raises(StoreError, match=r"is float32 \[3, 64\] and ensemble.json says otherwise"):
        read_export(folder)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"],
)
def test_what_is_no_safetensors_is_refused(data, folder):
    (folder / ARRAYS).write_bytes(data)
    tree = described(folder)
    tree["arrays"] |= {"bytes": len(data), "blake2b": folder_format._digest(data)}
    describe(folder, tree)
    with pytest.raises(StoreError, match="is no safetensors file"):
        read_export(folder)


def at(tree, *path):
    for part in path:
        tree = tree[part]
    return tree


HOSTILE = {
    "unknown combiner": (("combiner",), "name", "later", "install the package that has it"),
    "unknown head": ((), "head", "moe", "needs the head 'moe'.*update clipnlc"),
    "not row-wise": (("combiner",), "name", "nlc-shuffled", "looks at other images"),
    "unknown setting": (("combiner", "settings"), "depth", 3, "does not take these settings"),
    "setting of a wrong type": (("combiner", "settings"), "input_scale", "x", "does not fit tog"),
    "unknown word": (("combiner", "settings"), "start", "x", "unknown start 'x'"),
    "no labels": (("combiner",), "labels", "some", "does not name a draw of labels"),
    "labels out of range": (("combiner",), "labels", "0-shots-seed-0", "whole numbers from 1"),
    "a fact": (("combiner", "facts"), "labels", [1], "neither number nor text"),
    "other backbones": (("combiner",), "backbones", ["a", "b"], "does not fit together"),
    "other classes": (("combiner",), "classes", ["a", "b", "c"], "lacks 'a'"),
    "fewer classes": ((), "classes", ["blue", "green"], "does not give 2 finite logits"),
    "no classes": ((), "classes", [], "classes are not a list of texts"),
    "a class that is no text": ((), "classes", ["a", 1], "classes are not a list of texts"),
    "no backbones": ((), "backbones", [], "there are no backbones"),
    "not a list": ((), "backbones", {"0": 1}, "backbones is of type dict, expected list"),
    "a backbone that is no object": ((), "backbones", [1, 2], "are not a list of objects"),
    "a backbone twice": (("backbones", 0), "name", "nano-ViT-B-16", "none twice"),
    "an identity without weights": (
        ("backbones", 0, "identity"),
        "weights",
        None,
        "weights is of type NoneType",
    ),
    "negative size": (("arrays",), "bytes", -1, "ensemble.json says -1"),
    "large size": (("arrays",), "bytes", 10**30, "ensemble.json says 1000"),
    "measured too well": ((), "measured", [{"images": 5}], "it lacks 'low'"),
    "a lie": (("measured", 0), "accuracy", 1.5, "accuracy on 36 images is 1.5"),
    "true images": (("measured", 0), "images", True, "images is of type bool"),
    "no truth": ((), "keeps_features", 1, "keeps_features is of type int, expected bool"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_another_description_is_refused(case, folder):
    path, name, value, expected = HOSTILE[case]
    tree = described(folder)
    at(tree, *path)[name] = value
    describe(folder, tree)
    with pytest.raises(StoreError, match=expected) as refused:
        open_exported(folder)
    assert "\n" not in str(refused.value)


def places(tree, above=()):
    """Every place of a JSON value."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in members:
        yield (*above, name)
        if isinstance(value, dict | list):
            yield from places(value, (*above, name))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.sampled_from([10**40, 1e300, -0.0, "nlc", "gac", "static", "linear", "all-labels-seed-0"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=3,
)


@pytest.mark.parametrize("honest", [True, False])
@given(data=st.data())
def test_one_value_replaced_is_refused_or_read(honest, first_folder, data, tmp_path_factory):
    tree = described(first_folder)
    *path, name = data.draw(st.sampled_from(list(places(tree))))
    before, value = at(tree, *path)[name], data.draw(VALUES)
    at(tree, *path)[name] = value
    folder = tmp_path_factory.mktemp("replaced")
    shutil.copy(first_folder / ARRAYS, folder)
    if honest:  # the digest is that of before
        if math.inf in (value, -value if isinstance(value, float) else 0):
            return
        (folder / DESCRIPTION).write_text(json.dumps(tree), "utf-8")
    else:
        try:
            describe(folder, tree)
        except ValueError:
            return
    try:
        predictor = open_exported(folder)
    except StoreError as refused:
        assert "\n" not in str(refused)  # noqa: PT017  (either way is right)
        return
    if honest:
        assert json.dumps(value) == json.dumps(before)
    assert predictor.backbones


# What --out may be -----------------------------------------------------------------------------


def test_the_same_export_is_cached(folder, store):
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    assert export(store=store, out=folder, dataset="photos", which=SHOTS).cached
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()} == before


def test_another_fit_is_replaced_only_by_force(folder, store):
    one = {"store": store, "out": folder, "which": Labels.shots(1, seed=0)}
    with pytest.raises(StoreError, match="holds the export of another fit; give --force"):
        export(**one)
    assert read_export(folder).fit.labels == SHOTS
    assert not export(**one, force=True).cached
    assert read_export(folder).fit.labels == Labels.shots(1, seed=0)
    assert sorted(p.name for p in folder.parent.iterdir() if "pets" in p.name) == ["pets"]


def test_a_damaged_export_is_replaced_only_by_force(folder, store):
    (folder / ARRAYS).write_bytes(b"")
    one = {"store": store, "out": folder, "which": SHOTS}
    with pytest.raises(StoreError, match=r"an export that cannot be read .*; give --force"):
        export(**one)
    export(**one, force=True)
    assert open_exported(folder).fitted.labels == SHOTS


def test_the_same_fit_measured_since_is_replaced(folder, store):
    unmeasured = replace(read_export(folder), measured=())
    assert write_export(folder, unmeasured, card="old")
    assert not export(store=store, out=folder, which=SHOTS).cached
    assert read_export(folder).measured
    assert (folder / CARD).read_text("utf-8") != "old"


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_that_is_no_export_is_refused(force, store, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.jpg").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(mine)
    for out, expected in (
        (mine, r"is no export: it holds photo.jpg and no ensemble.json"),
        (mine / "photo.jpg", r"is a file; give --out"),
        (tmp_path / "link", r"is a link; give --out"),
        (mine / "photo.jpg" / "below", r"cannot write .*below: .*; give another --out"),
    ):
        with pytest.raises(StoreError, match=expected):
            export(store=store, out=out, which=SHOTS, force=force)
    assert [p.read_bytes() for p in mine.iterdir()] == [b"mine"]


def test_other_files_in_an_export_are_never_removed(folder, store):
    (folder / ".git").mkdir()
    with pytest.raises(StoreError, match=r"holds .git besides an export"):
        export(store=store, out=folder, which=Labels.shots(1), force=True)
    assert read_export(folder).fit.labels == SHOTS
    assert export(store=store, out=folder, which=SHOTS).cached


def test_an_empty_folder_becomes_the_export(store, tmp_path):
    (tmp_path / "empty").mkdir()
    assert not export(store=store, out=tmp_path / "empty", which=SHOTS).cached
    assert read_export(tmp_path / "empty").fit.labels == SHOTS


@pytest.mark.parametrize("call", range(1, 12))
def test_a_killed_export_leaves_nothing(call, store, tmp_path, monkeypatch):
    """Whichever file operation fails, the folder is complete, absent, or the one before."""
    made = export_of(predictor_of(store), ())
    other = export_of(predictor_of(store, "gac"), ())
    out = tmp_path / "out"
    write_export(out, other, card="")
    calls = 0

    def failing(real):
        def once(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError(28, "No space left on device")
            return real(*arguments, **named)

        return once

    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "write_bytes")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    try:
        write_export(out, made, card="", force=True)
    except StoreError as refused:
        assert "free some space" in str(refused)  # noqa: PT017  (the last calls all succeed)
        assert read_export(out).fit.combiner in ("gac", "nlc")
    else:
        assert read_export(out).fit.combiner == "nlc"
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# Which fit -------------------------------------------------------------------------------------


def test_which_fit_is_asked_for(store, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        DataError, match=r"several amounts of labels \(1 shot, 2 shots\); give one with"
    ):
        export(store=store, out=out)
    with pytest.raises(MissingStageError, match=r"holds no fit of nlc at 16 per class"):
        export(store=store, out=out, which=Labels.shots(16))
    with pytest.raises(DataError, match="nlc-shuffled looks at other images"):
        export(store=store, out=out, combiner="nlc-shuffled", which=SHOTS)
    with pytest.raises(UnknownNameError, match=r"unknown combiner 'ncl'.*did you mean 'nlc'"):
        export(store=store, out=out, combiner="ncl", which=SHOTS)
    assert not out.exists()


def test_one_of_several_data_sets_must_be_named(fitted, tmp_path):
    shutil.copytree(fitted / "photos", fitted / "pictures")
    with pytest.raises(
        DataError, match=r"of several data sets \(photos, pictures\); give one with"
    ):
        export(store=fitted, out=tmp_path / "out", which=SHOTS)


# The card --------------------------------------------------------------------------------------


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_says_what_the_record_says(folder, store):
    (path,) = (store / "photos" / "records").glob("evaluate-*.json")
    record = evaluation_from_json(path.read_bytes(), where="")
    (row,) = [r for r in record.datasets[0].rows if r.method == "nlc" and r.drawn == SHOTS.setting]
    accuracy = row.accuracies[row.seeds.index(SHOTS.seed)]
    header = header_of((folder / CARD).read_text("utf-8"))
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": accuracy}]
    assert result["dataset"] == {"name": "photos", "type": "photos", "split": "test"}
    assert header["library_name"] == "clipnlc"
    assert header["pipeline_tag"] == result["task"]["type"] == "image-classification"
    text = (folder / CARD).read_text("utf-8")
    assert f"| photos | test | 36 | {100 * accuracy:.1f} |" in text
    (measured,) = read_export(folder).measured
    assert (measured.accuracy, measured.images) == (accuracy, record.datasets[0].samples)
    assert "contain no features of images" in text
    assert "6 images (at 2 per class), drawn with seed 1" in text
    assert "clipnlc predict photos --from pets" in text


def test_a_control_measured_differently_is_not_taken_for_it(store, tmp_path):
    """Every fit has its own accuracy in its card, of its own seed."""
    (path,) = (store / "photos" / "records").glob("evaluate-*.json")
    rows = evaluation_from_json(path.read_bytes(), where="").datasets[0].rows
    seen = set()
    for row in rows:
        if row.method not in ("log-avg", "static", "gp", "nlc", "nlc-constant"):
            continue
        for seed, accuracy in zip(row.seeds, row.accuracies, strict=True):
            which = replace(row.drawn, seed=seed)
            out = tmp_path / f"{row.method}-{which.name}"
            found = export(store=store, out=out, combiner=row.method, which=which)
            assert [one.accuracy for one in found.measured] == [accuracy]
            seen.add(accuracy)
    assert len(seen) > 1


def test_what_was_not_measured_is_said(fitted, tmp_path, here):
    out = tmp_path / "out"
    said = good("export", *NLC, "--shots", 1, "--out", out, "--store", fitted, by=here)
    assert (
        f"note: its accuracy was not measured; run `clipnlc evaluate --dataset photos --store {fitted}`"
        in said
    )
    text = (out / CARD).read_text("utf-8")
    assert "Not measured." in text
    assert "model-index" not in header_of(text)
    good("evaluate", "--store", fitted, by=here)
    again = good("export", *NLC, "--shots", 1, "--out", out, "--store", fitted, by=here)
    assert "% right of 36 images of photos/test" in again
    assert "note:" not in again
    # A fit made anew is not the one that was measured.
    (fits,) = (fitted / "photos" / "fits").rglob("1-shots-seed-0.h5")
    fits.unlink()
    line = ("train-nlc", "--shots", 1, "--seeds", 1, "--combiners", "nlc")
    good(*line, "--store", fitted, by=here)
    later = good("export", *NLC, "--shots", 1, "--out", out, "--store", fitted, by=here)
    assert "note: its accuracy was not measured" in later


def test_other_data_sets_that_were_measured_are_listed(store, photos, tmp_path):
    mine = shutil.copytree(store, tmp_path / "store")
    like = ("--backbones", BACKBONES, "--store", mine)
    good("extract", "--dataset", photos, "--name", "sketches", *like)
    good("evaluate", "--fitted-on", "photos", "--dataset", "sketches", "--store", mine)
    found = export(store=mine, out=tmp_path / "out", dataset="photos", which=SHOTS)
    assert [one.dataset for one in found.measured] == ["photos", "sketches"]
    results = header_of((tmp_path / "out" / CARD).read_text("utf-8"))["model-index"][0]["results"]
    assert [one["dataset"]["name"] for one in results] == ["photos", "sketches"]


NAMES = st.text(max_size=12) | st.sampled_from(
    ["a: b", "---", "# x", "|", "`x`", "a\nb", "\x00\x7f\u2028", "\U0001f600", "yes", "<b>", "~"]
)


@given(name=NAMES, classes=st.lists(NAMES, min_size=1, max_size=60), accuracy=st.floats(0, 1))
def test_the_header_is_yaml_whatever_the_names(first_folder, name, classes, accuracy):
    made = read_export(first_folder)
    measured = (Measurement(name, name, 5, accuracy, 0.0, 1.0),)
    odd = replace(made, dataset=name, class_names=tuple(classes), measured=measured)
    card = model_card(odd, folder=name, base_models={"RN50.openai": "timm/resnet50_clip.openai"})
    header = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"] == {"name": name, "type": name, "split": name}
    assert result["metrics"] == [{"type": "accuracy", "value": accuracy}]
    assert header["base_model"] == ["timm/resnet50_clip.openai"]
    classes_line = card.split("## Classes\n\n")[1].split("\n")
    assert classes_line[1:3] == ["", "## How it was fitted"]
    assert ("more, which" in classes_line[0]) == (len(classes) > 50)


def test_features_that_are_kept_are_said(first_folder):
    made = replace(read_export(first_folder), keeps_features=True, probabilistic=False)
    card = model_card(made, folder="pets", base_models={})
    assert "contain features of images that it was fitted on" in card
    assert "gives scores and no probabilities" in card
    assert "base_model" not in header_of(card)


def test_a_learner_that_keeps_features_is_exported_as_such(store, monkeypatch):
    predictor = predictor_of(store)
    assert not export_of(predictor, ()).keeps_features
    monkeypatch.setattr(COMBINERS.get("nlc"), "keeps_features", True)
    assert export_of(predictor, ()).keeps_features


# The command -----------------------------------------------------------------------------------


def test_the_command(store, tmp_path, here):
    out = tmp_path / "my pets"
    line = ("export", *NLC, "--dataset", "photos", "--shots", 2, "--out", out, "--store", store)
    said = good(*line, by=here)
    start = f"{out}: nlc of 2 backbones on photos, 2-shots-seed-0, 3 classes: "
    assert re.match(rf"{re.escape(start)}\d+ kB written\n", said)
    assert said.endswith(f"next: clipnlc predict PHOTOS --from '{out}'\n")
    assert "classes: cached\n" in good(*line, by=here)
    assert good(*line, "--quiet", by=here) == ""
    told = json.loads(good(*line, "--json", by=here))
    assert (told["cached"], told["classes"], told["run"]) == (True, 3, "2-shots-seed-0")
    assert told["measured"][0]["dataset"] == "photos"
    said = refusal(*line, "--combiner", "gac", by=here)
    assert "holds the export of another fit" in said
    more = refusal("export", "--shots", "1,2", "--out", out, "--store", store, by=here)
    assert "give one number: one fit is used" in more


def test_the_only_fit_need_not_be_named(extracted, tmp_path):
    at = ("--store", extracted)
    good("train-nlc", "--shots", 1, "--seeds", 2, "--combiners", "static", *at)
    export(store=extracted, out=tmp_path / "out", combiner="static", seed=1)
    assert read_export(tmp_path / "out").fit.labels == Labels.shots(1, seed=1)


def test_the_page_names_every_field(folder):
    page = (Path(__file__).parents[1] / "docs/formats/ensemble.md").read_text("utf-8")
    tree = described(folder)
    nested = ("combiner", "arrays")
    names = [*tree, *tree["backbones"][0], *tree["measured"][0], *tree["arrays"]["tensors"][WEIGHT]]
    names += [name for one in nested for name in tree[one]]
    for name in (*names, folder_format.FORMAT, DESCRIPTION, ARRAYS, CARD):
        assert f"`{name}`" in page, name


# In Python -------------------------------------------------------------------------------------


def files_of(photos):
    return sorted((photos / "test").rglob("*.png"))


def test_the_command_predicts_from_the_folder_as_from_the_store(store, folder, photos, here):
    fit = (*NLC, "--shots", 2, "--seed", 1, "--store", store)
    expected = good("predict", photos / "test", "--json", *fit, by=here)
    given = good("predict", photos / "test", "--json", "--from", folder, by=here)
    assert given == expected
    assert given.count("\n") == 36


def test_python_predicts_as_the_command(folder, photos, here):
    lines = good("predict", photos / "test", "--json", "--from", folder, by=here).splitlines()
    expected = [json.loads(line) for line in lines]
    ensemble = clipnlc.load(folder)
    assert ensemble.class_names == ("blue", "green", "red")
    assert ensemble.backbones == ("nano-RN50", "nano-ViT-B-16")
    assert "fitted at 2 per class on photos: 3 classes" in ensemble.describe()
    files = files_of(photos)
    images = [Image.open(file) for file in files]
    arrays = [np.asarray(image) for image in images]
    mixed = [files[0], images[1], arrays[2], str(files[3])]
    for several in (files, images, arrays, iter(files), mixed):
        found = ensemble.predict(several)
        wanted = expected[: len(found)]
        assert [one.answer for one in found] == [one["class"] for one in wanted]
        probabilities = [one["probability"] for one in wanted]
        # The last bits of features depend on how many images go through a model together.
        exact = len(found) == len(expected)
        close = probabilities if exact else pytest.approx(probabilities, abs=1e-6)
        assert [one.probability for one in found] == close
    assert [str(one.file) for one in found] == [
        str(files[0]),
        "image 1",
        "image 2",
        str(files[3]),
    ]
    assert ensemble.predict([]) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_images_in_memory_keep_their_pixels(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.info |= {"transparency": 3, "compression": "jpeg", "dpi": (1, 1)}
    again = load_image(encoded(image))
    assert again.mode == mode
    assert again.tobytes() == image.tobytes()
    assert again.convert("RGB").tobytes() == image.convert("RGB").tobytes()


def test_images_in_memory_of_16_bits_are_scaled():
    values = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    again = np.asarray(load_image(encoded(Image.fromarray(values))))
    np.testing.assert_array_equal(again, values >> 8)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_images_in_memory_without_a_range_are_refused(mode):
    with pytest.raises(DataError, match="nothing says which values are black and white"):
        load_image(encoded(Image.new(mode, (7, 5))))


def test_a_mode_that_no_file_has_becomes_rgb():
    image = Image.new("RGB", (3, 2), (9, 80, 200)).convert("HSV")
    assert load_image(encoded(image)).tobytes() == image.convert("RGB").tobytes()


WRONG_IMAGES = {
    "one path": ("photo.jpg", "images is one str; give a list"),
    "floats": ([np.zeros((4, 4, 3))], r"image 0 is an array of float64 \[4, 4, 3\]; expected"),
    "grey": ([np.zeros((4, 4), np.uint8)], r"image 0 is an array of uint8 \[4, 4\]"),
    "nothing": ([np.zeros((0, 4, 3), np.uint8)], r"an array of uint8 \[0, 4, 3\]"),
    "no file": (["nowhere.jpg"], r"cannot use nowhere.jpg: No such file"),
    "bytes": ([b"photo"], "image 0 is of type bytes"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_what_is_no_image_is_refused(case, folder):
    images, expected = WRONG_IMAGES[case]
    with pytest.raises(DataError, match=expected):
        clipnlc.load(folder).predict(images)


def test_other_weights_and_another_preprocessing_are_refused(folder, photos, here):
    for path, value, expected in (
        (("weights",), "0" * 64, "other are the weights"),
        (
            ("preprocessing", "interpolation"),
            "bilinear",
            r"the preprocessing \(interpolation bilinear there, bicubic here\)",
        ),
    ):
        tree = described(folder)
        at(tree, "backbones", 1, "identity", *path[:-1])[path[-1]] = value
        describe(folder, tree)
        with pytest.raises(BackboneError, match=expected):
            clipnlc.load(folder).predict(files_of(photos)[:1])
        assert re.search(expected, refusal("predict", photos, "--from", folder, by=here))


def test_importing_clipnlc_is_light():
    script = (
        "import sys, clipnlc; print(sorted({'numpy', 'torch', 'PIL', 'h5py'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
