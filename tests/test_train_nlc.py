"""train-nlc: what it opens, what stays cached, and ensembles of different members side by side."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_examples import BACKBONES, write_backbones
from stores_examples import quick_disk, write_features  # noqa: F401  (a fixture)

from clipnlc.combiners import COMBINERS
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.labels import Labels
from clipnlc.reports.record import Evaluation
from clipnlc.runs.members import members_name
from clipnlc.runs.records import evaluation_path
from clipnlc.stages import train_nlc as stage
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_nlc import FittedRun, train_nlc
from clipnlc.stages.verify import verify
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fit_header, read_fits
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits
from clipnlc.stores.status import store_status

COMBINERS_USED = ("log-avg", "vote-1", "static", "nlc")
SETTINGS = {"nlc": {"steps": 5}}


def train(layout: Layout, *, shots: tuple[int, ...] = (1, 2), **options) -> list[FittedRun]:
    asked = {"combiners": COMBINERS_USED, "seeds": (0, 1), "settings": SETTINGS, **options}
    return train_nlc(store=layout.root, labels=[Labels.shots(k) for k in shots], **asked)


def files(layout: Layout, family: str) -> dict[str, bytes]:
    found = layout.root.glob(f"*/{family}/**/*.h5")
    return {layout.relative(path): path.read_bytes() for path in sorted(found)}


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout(tmp_path / "store")
    write_backbones(layout, "digits")
    return layout


def cached(runs: list[FittedRun]) -> bool:
    return not any(run.combiners for run in runs)


# What is opened ----------------------------------------------------------------------------------


def test_fits_hold_what_was_learnt_and_nothing_else(layout):
    runs = train(layout)
    assert [(run.which.name, run.labels) for run in runs] == [
        ("no-labels", 0),
        ("1-shots-seed-0", 4),
        ("1-shots-seed-1", 4),
        ("2-shots-seed-0", 8),
        ("2-shots-seed-1", 8),
    ]
    members = members_name(BACKBONES)
    for run in runs:
        store = read_fits(layout.fits("digits", "zero-shot", members, run.which.name))
        assert store.backbones == tuple(sorted(BACKBONES))
        assert store.class_names == ("class 0", "class 1", "class 2", "class 3")
        assert set(store.fits) == set(run.combiners)
        for name, fit in store.fits.items():
            combiner = COMBINERS.get(name)
            assert set(fit.learnt) == set(combiner.learnt)
            assert fit.facts["drawn"] == run.which.name
            assert fit.facts["labels"] == run.labels
            parts = {place.partition("#")[2] for place in fit.key.inputs}
            expected = {"train"} if combiner.learnt else set()
            assert parts == (expected | {""} if combiner.needs_features else expected)
    assert not files(layout, "given")
    assert cached(train(layout))


def test_what_another_process_has_written_meanwhile_is_cached(layout, monkeypatch):
    draw = stage._draw

    def draw_while_another_finishes(*arguments):
        monkeypatch.setattr(stage, "_draw", draw)
        train(layout)
        return draw(*arguments)

    monkeypatch.setattr(stage, "_draw", draw_while_another_finishes)
    runs = train(layout)
    assert len(runs) == 5
    whole = files(layout, "fits")
    assert cached(train(layout))
    assert files(layout, "fits") == whole


def without_test(layout: Layout) -> None:
    """Take the test split away from everything."""
    for backbone in BACKBONES:
        layout.features("digits", "test", backbone).unlink()
        path = layout.logits("digits", "zero-shot", backbone)
        store = read_logits(path)
        write_logits(path, replace(store, splits={"train": store.splits["train"]}))


def test_a_data_set_of_train_alone_gives_the_same_fits(layout, tmp_path):
    train(layout)
    whole = files(layout, "fits")
    other = Layout(shutil.copytree(layout.root, tmp_path / "other"))
    shutil.rmtree(other.dataset("digits") / "fits")
    without_test(other)
    train(other)
    assert files(other, "fits") == whole
    with pytest.raises(MissingStageError, match="holds no split 'test', only train"):
        evaluate(store=other.root)


def test_other_class_names_leave_no_fit_cached(layout):
    before = train(layout, combiners=("log-avg",))
    for backbone in BACKBONES:
        path = layout.logits("digits", "zero-shot", backbone)
        store = read_logits(path)
        write_logits(path, replace(store, class_names=("a", "b", "c", "d")))
    (run,) = train(layout, combiners=("log-avg",))
    assert run.combiners == ("log-avg",)
    assert len(before) == 1
    path = layout.fits("digits", "zero-shot", members_name(BACKBONES), "no-labels")
    assert read_fits(path).class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize("name", ["nlc", "nlc-shuffled"])
def test_features_that_have_gone_name_the_command(layout, name):
    train(layout, combiners=(name,))
    layout.features("digits", "test", BACKBONES[0]).unlink()
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract --dataset digits"):
        evaluate(store=layout.root)


def test_too_few_shots_are_refused_where_strict_though_cached(layout):
    train(layout, shots=(64,), combiners=("static",))
    with pytest.raises(DataError, match="fewer than 64 shots; lower --shots"):
        train(layout, shots=(64,), combiners=("static",), strict_shots=True)


def test_test_features_that_are_garbage_are_not_noticed(layout):
    for backbone in BACKBONES:
        layout.features("digits", "test", backbone).write_bytes(b"garbage")
    assert not cached(train(layout))
    assert cached(train(layout))


def test_other_test_images_leave_every_fit_cached(layout):
    train(layout)
    before = files(layout, "fits")
    for backbone in BACKBONES:
        path = layout.features("digits", "test", backbone)
        held = read_features(path)
        write_features(
            path,
            held.features + 1,
            labels=held.labels,
            sample_id=held.sample_id,
            class_names=held.class_names,
        )
        path = layout.logits("digits", "zero-shot", backbone)
        store = read_logits(path)
        changed = replace(store.splits["test"], logits=-store.splits["test"].logits)
        write_logits(path, replace(store, splits={**store.splits, "test": changed}))
    assert cached(train(layout))
    assert files(layout, "fits") == before


@pytest.mark.parametrize("what", ["logits", "features"])
def test_other_training_images_leave_none_that_saw_them(what, layout):
    train(layout)
    backbone = BACKBONES[0]
    if what == "logits":
        path = layout.logits("digits", "zero-shot", backbone)
        store = read_logits(path)
        changed = replace(store.splits["train"], logits=store.splits["train"].logits / 2)
        write_logits(path, replace(store, splits={**store.splits, "train": changed}))
        remade = {"static", "nlc"}
    else:
        path = layout.features("digits", "train", backbone)
        held = read_features(path)
        write_features(
            path,
            held.features[:, ::-1].copy(),
            labels=held.labels,
            sample_id=held.sample_id,
            class_names=held.class_names,
        )
        remade = {"nlc"}
    for run in train(layout):
        assert set(run.combiners) == (remade if run.which.kind == "shots" else set())


# Members -----------------------------------------------------------------------------------------

TWO = BACKBONES[:2]


@pytest.fixture
def both(layout) -> Layout:
    """Fits of all three backbones, and of two of them."""
    train(layout)
    train(layout, shots=(1,), backbones=TWO)
    return layout


def fits_of(layout: Layout, backbones: tuple[str, ...]) -> dict[str, bytes]:
    at = f"/fits/zero-shot/{members_name(backbones)}/"
    return {name: data for name, data in files(layout, "fits").items() if at in name}


def test_a_subset_leaves_the_whole_ensembles_runs(layout):
    train(layout)
    whole = fits_of(layout, BACKBONES)
    first = evaluate(store=layout.root)
    record = evaluation_path(layout, "zero-shot", members_name(BACKBONES), dataset="digits")
    written = record.read_bytes()
    train(layout, shots=(1,), backbones=TWO)
    assert fits_of(layout, BACKBONES) == whole
    assert len(fits_of(layout, TWO)) == 3
    few = evaluate(store=layout.root, backbones=TWO[::-1])
    assert few.backbones == tuple(sorted(TWO))
    assert {row.drawn.amount for row in few.summary} == {0, 1}
    assert record.read_bytes() == written
    assert evaluate(store=layout.root) == first
    assert cached(train(layout))
    assert not any(row.stale or row.why for row in store_status(layout.root))


def test_without_a_choice_the_whole_ensemble_is_taken(both):
    found = evaluate(store=both.root)
    assert found.backbones == tuple(sorted(BACKBONES))
    assert {row.drawn.amount for row in found.summary} == {0, 1, 2}
    every = evaluate(store=both.root, backbones=BACKBONES[::-1])
    assert every == found


def test_the_only_ensemble_is_taken(layout):
    train(layout, shots=(1,), backbones=TWO)
    assert evaluate(store=layout.root).backbones == tuple(sorted(TWO))


def test_of_several_without_the_whole_one_must_be_named(both):
    """The repetition of a user's day: a subset, another subset, and no word of which."""
    train(both, shots=(1,), backbones=BACKBONES[1:])
    shutil.rmtree(both.dataset("digits") / "fits" / "zero-shot" / members_name(BACKBONES))
    with pytest.raises(
        StoreError,
        match=r"holds fits of 2 ensembles on zero-shot logits of digits, none of them of every "
        r"backbone: nano-RN50,nano-ViT-B-32; nano-ViT-B-16,nano-ViT-B-32; name one with --backb",
    ):
        evaluate(store=both.root)
    assert evaluate(store=both.root, backbones=TWO).backbones == tuple(sorted(TWO))


def test_an_ensemble_without_fits_names_the_command(both):
    with pytest.raises(
        MissingStageError,
        match=r"holds no fits of nano-RN50 on zero-shot logits of digits; run `clipnlc train-nlc "
        r"--dataset digits --head zero-shot --backbones nano-RN50 --store",
    ):
        evaluate(store=both.root, backbones=["nano-RN50"])


def test_data_sets_with_other_ensembles_are_not_averaged(both):
    write_backbones(both, "emoji", seed=1, backbones=TWO)
    train(both, dataset=["emoji"])
    with pytest.raises(StoreError, match=r"expected one ensemble: name its backbones with --backb"):
        evaluate(store=both.root)
    found: Evaluation = evaluate(store=both.root, backbones=TWO)
    assert [one.dataset for one in found.datasets] == ["digits", "emoji"]


def test_the_same_accuracies_whatever_lies_beside(both, tmp_path):
    alone = Layout(tmp_path / "alone")
    write_backbones(alone, "digits")
    train(alone, shots=(1,), backbones=TWO)
    one, two = (evaluate(store=each.root, backbones=TWO) for each in (both, alone))
    assert one == two


def test_every_file_is_verified(both):
    evaluate(store=both.root)
    found = verify(store=both.root)
    assert (found.damage, found.unverified) == ([], [])
    assert found.files >= len(files(both, "fits")) + len(files(both, "given"))


def test_a_header_names_the_members(both):
    for backbones in (TWO, BACKBONES):
        for name in fits_of(both, backbones):
            assert read_fit_header(Path(both.root / name)).backbones == tuple(sorted(backbones))


def test_the_seed_is_that_of_the_run(both):
    header = read_fits(
        both.fits("digits", "zero-shot", members_name(BACKBONES), "2-shots-seed-1")
    ).fits["nlc"]
    assert header.key.fields["settings"]["seed"] == 1
    assert np.isfinite(header.learnt["temperature_"]).all()
