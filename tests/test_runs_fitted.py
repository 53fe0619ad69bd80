"""A fit is a value: stored, read back and applied anywhere, it gives the same bits."""

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores_examples import quick_disk  # noqa: F401  (a fixture)

from clipnlc.combiners import COMBINERS, Combiner, Weigher
from clipnlc.ensemble import Ensemble
from clipnlc.errors import StoreError
from clipnlc.labels import Labels
from clipnlc.metrics import METRICS
from clipnlc.runs import giving
from clipnlc.runs.fitted import Fitted, Given, apply, fit, match
from clipnlc.runs.giving import give
from clipnlc.runs.targets import Target
from clipnlc.stores.fits import Fit, FitStore, add_fits, read_fits
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.testing.combiners import example

SAMPLES = 31
NAMES = tuple(COMBINERS)
ROW_WISE = tuple(name for name in NAMES if COMBINERS.get(name).row_wise)
BLIND = tuple(name for name in NAMES if not COMBINERS.get(name).per_class)
OTHERS = tuple(name for name in NAMES if name not in ROW_WISE)

each_combiner = pytest.mark.parametrize("name", NAMES)
each_row_wise = pytest.mark.parametrize("name", ROW_WISE)


@functools.cache
def fitted(name: str) -> Fitted:
    ensemble, labels = example(seed=1)
    which = Labels.shots(8, seed=3) if COMBINERS.get(name).needs_labels else Labels.none()
    facts = {"drawn": which.name, "labels": len(labels), "labelled_samples": "ab"}
    return fit(name, ensemble, labels, which=which, facts=facts)


@functools.cache
def target() -> Ensemble:
    return example(SAMPLES, seed=2)[0]


@functools.cache
def directly(name: str) -> Given:
    return apply(fitted(name), target())


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> dict[str, Fitted]:
    """Every combiner's fit, written to one file and read back."""
    path = Layout(tmp_path_factory.mktemp("store")).fits("cub", "zero-shot", "four", "no-labels")
    fits = {
        name: Fit(
            Key.of({"combiner": name, "settings": dict(fitted(name).settings)}),
            fitted(name).learnt,
            fitted(name).facts,
        )
        for name in NAMES
    }
    first = fitted(NAMES[0])
    add_fits(path, FitStore(first.backbones, first.class_names, fits))
    store = read_fits(path)
    return {
        name: Fitted(
            name,
            fit.key.fields["settings"],
            fit.learnt,
            store.backbones,
            store.class_names,
            Labels.none(),
            fit.facts,
        )
        for name, fit in store.fits.items()
    }


def same_bits(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def assert_same(one: Given, other: Given) -> None:
    assert same_bits(one.weights, other.weights)
    assert same_bits(one.scores, other.scores)


def joined(parts: list[Given]) -> Given:
    together = [
        None
        if getattr(parts[0], what) is None
        else np.concatenate([getattr(p, what) for p in parts])
        for what in ("weights", "scores")
    ]
    return Given(*together)


def blocks(length: int) -> Iterator[Ensemble]:
    for start in range(0, SAMPLES, length):
        yield target().rows(range(start, min(start + length, SAMPLES)))


# Stored, read, applied ---------------------------------------------------------------------------


@each_combiner
def test_what_is_stored_gives_the_same_bits_when_it_is_applied_again(name, stored):
    assert_same(apply(stored[name], target()), directly(name))
    assert stored[name].settings == fitted(name).settings
    assert stored[name].facts == fitted(name).facts


@each_row_wise
@pytest.mark.parametrize("length", [1, 7, 512])
def test_any_block_of_rows_gives_the_same_bits(name, length, stored):
    parts = [apply(stored[name], block) for block in blocks(length)]
    assert_same(joined(parts), directly(name))
    scores = [p.combined(b) for p, b in zip(parts, blocks(length), strict=True)]
    assert same_bits(np.concatenate(scores), directly(name).combined(target()))


@settings(max_examples=60)
@given(st.sampled_from(ROW_WISE), st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=40))
def test_any_rows_in_any_order_give_the_same_bits(name, rows):
    found = apply(fitted(name), target().rows(rows))
    whole = directly(name)
    assert same_bits(found.weights, None if whole.weights is None else whole.weights[rows])
    assert same_bits(found.scores, None if whole.scores is None else whole.scores[rows])


@each_combiner
def test_a_fit_gives_weights_or_scores_and_agrees_with_its_combiner(name):
    given_ = directly(name)
    assert (given_.weights is None) != (given_.scores is None)
    assert (given_.weights is not None) == issubclass(COMBINERS.get(name), Weigher)
    ensemble, labels = example(seed=1)
    combiner = COMBINERS.get(name)(seed=fitted(name).labels.seed).fit(ensemble, labels)
    np.testing.assert_allclose(
        given_.combined(target()), combiner.combine(target()), rtol=0, atol=1e-9
    )


# By name -----------------------------------------------------------------------------------------

orders = st.tuples(st.permutations(range(4)), st.permutations(range(5)))


@settings(max_examples=60)
@given(st.sampled_from(NAMES), orders)
def test_backbones_and_classes_are_found_by_name(name, order):
    members, classes = order
    turned = target().members(members).classes(classes)
    found, whole = apply(fitted(name), turned), directly(name)
    if whole.weights is not None:
        assert same_bits(found.weights, whole.weights[:, members])
    else:
        assert same_bits(found.scores, whole.scores[:, classes])
    # Products are added in another order, so the last bits of these may differ.
    np.testing.assert_allclose(
        found.combined(turned), whole.combined(target())[:, classes], rtol=0, atol=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["nlc", "static", "c-conf", "vote-1"]), orders)
def test_a_fit_does_not_depend_on_the_order_of_names(name, order):
    members, classes = order
    ensemble, labels = example(seed=1)
    turned = ensemble.members(members).classes(classes)
    again = fit(name, turned, np.argsort(classes)[labels], which=fitted(name).labels)
    assert (again.backbones, again.class_names) == (
        fitted(name).backbones,
        fitted(name).class_names,
    )
    assert again.learnt.keys() == fitted(name).learnt.keys()
    for array, value in again.learnt.items():
        assert same_bits(value, fitted(name).learnt[array])


@each_combiner
@pytest.mark.parametrize(
    ("turned", "problem"),
    [
        (
            lambda e: replace(e, backbones=("north", "east", "south", "up")),
            "of 4 backbone names, and what it is applied to has 4: it lacks 'west'",
        ),
        (lambda e: e.members([0, 1]), "of 4 backbone names, .* has 2: it lacks 'south'"),
        (
            lambda e: replace(e, class_names=("pear", "fig", "apple", "plum", "kiwi")),
            "of 5 class names, and what it is applied to has 5: it lacks 'date'",
        ),
        (lambda e: e.classes([0, 1, 2, 3]), "of 5 class names, .* has 4: it lacks 'date'"),
        (lambda e: e.classes([0, 1, 2, 3, 4, 4]), "of 5 class names, .* has 6: it has"),
    ],
)
def test_what_has_other_names_is_refused(name, turned, problem):
    with pytest.raises(StoreError, match=f"the fit is {problem}.*; expected the same names"):
        apply(fitted(name), turned(target()))


@each_combiner
def test_arrays_without_names_are_refused(name):
    for without in ({"backbones": ()}, {"class_names": ()}):
        with pytest.raises(ValueError, match="no names of backbones and classes"):
            apply(fitted(name), replace(target(), **without))
        ensemble, labels = example(seed=1)
        with pytest.raises(ValueError, match="no names of backbones and classes"):
            fit(name, replace(ensemble, **without), labels, which=Labels.none())


def test_classes_of_one_name_keep_their_order():
    """ImageNet has two cranes: the bird and the machine."""
    names = ("crane", "ant", "crane", "bee", "elk")
    ensemble, labels = example(seed=1)
    named = replace(ensemble, class_names=names)
    made = fit("nlc", named, labels, which=Labels.shots(8, seed=3))
    assert made.class_names == ("ant", "bee", "crane", "crane", "elk")
    test = replace(target(), class_names=names)
    scores = apply(made, test).combined(test)
    # Another place for each, the birds still before the machines.
    order = [4, 0, 1, 2, 3]
    turned = test.classes(order)
    assert same_bits(apply(made, turned).combined(turned), scores[:, order])
    votes = fit("vote-1", named, labels, which=Labels.none())
    assert same_bits(
        apply(votes, turned).combined(turned), apply(votes, test).combined(test)[:, order]
    )
    assert match("class", made.class_names, names).tolist() == [1, 3, 0, 2, 4]
    with pytest.raises(StoreError, match="it has 'crane' besides"):
        match("class", ("crane",), ("crane", "crane"))


# Among some classes ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.sampled_from(BLIND), st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True))
def test_classes_that_cannot_be_are_as_if_they_were_not_there(name, among):
    kept = np.array(among)
    found = apply(fitted(name), target(), among=kept)
    few = target().classes(kept)
    names = tuple(name for name in fitted(name).class_names if name in few.class_names)
    smaller = replace(fitted(name), class_names=names)
    assert_same(found, apply(smaller, few))
    scores = found.combined(target(), among=kept)
    assert scores.shape == (SAMPLES, len(kept))
    assert same_bits(scores, apply(smaller, few).combined(few))


class Prior(Combiner):
    """Adds to the mean of the logits what it learns for each class."""

    needs_labels = True
    per_class = True
    learnt = ("prior_",)

    def _learn(self, ensemble, labels):
        self.prior_ = np.bincount(labels, minlength=ensemble.logits.shape[2]).astype(float)

    def _combine(self, ensemble):
        return ensemble.logits.mean(axis=0) + self.prior_


def test_what_is_learnt_class_by_class_is_masked_afterwards(monkeypatch):
    monkeypatch.setitem(COMBINERS.table, "prior", f"{__name__}:Prior")
    ensemble, labels = example(seed=1)
    made = fit("prior", ensemble, labels, which=Labels.all())
    whole = apply(made, target())
    kept = np.array([3, 1])
    assert same_bits(apply(made, target(), among=kept).scores, whole.scores[:, kept])
    counts = np.bincount(labels, minlength=5)
    np.testing.assert_allclose(whole.scores, target().logits.mean(axis=0) + counts)


# Built again -------------------------------------------------------------------------------------


@each_combiner
def test_other_settings_or_arrays_are_refused(name):
    for wrong in (
        replace(fitted(name), settings={**fitted(name).settings, "magic": 1}),
        replace(fitted(name), learnt={**fitted(name).learnt, "magic_": np.ones(1)}),
    ):
        with pytest.raises(
            StoreError, match=f"{name} cannot be built again: .*magic.*`clipnlc train-nlc --comb"
        ):
            apply(wrong, target())


def test_settings_travel():
    ensemble, labels = example(seed=1)
    made = fit("nlc", ensemble, labels, which=Labels.all(seed=5), settings={"steps": 3})
    assert made.settings["steps"] == 3
    assert made.settings["seed"] == made.combiner.seed == 5
    assert made.labels == Labels.all(seed=5)
    assert made.settings == made.combiner.settings()


# Given on a target -------------------------------------------------------------------------------


class Counting:
    """A target in memory that counts what is read of it."""

    def __init__(self, ensemble: Ensemble, labels: np.ndarray, among: np.ndarray | None = None):
        self.reads: list[tuple[int, bool]] = []
        names = ensemble.class_names

        def read(rows: np.ndarray, with_features: bool) -> Ensemble:  # noqa: FBT001  (as `Target.read`)
            self.reads.append((len(rows), with_features))
            found = ensemble.rows(rows)
            return found if with_features else found.with_features(())

        self.target = Target(
            dataset="cub",
            split="test",
            sample_id=ensemble.sample_id,
            labels=labels,
            class_names=names if among is None else tuple(names[c] for c in among),
            backbones=ensemble.backbones,
            logits={},
            features={},
            read=read,
            read_features=lambda: ensemble.features,
            among=among,
        )


@pytest.fixture
def counting() -> Counting:
    return Counting(*example(SAMPLES, seed=2))


@pytest.mark.parametrize("rows", [1, 7, 512])
def test_many_fits_are_given_in_blocks_what_each_gives_alone(rows, counting, monkeypatch):
    monkeypatch.setattr(giving, "BLOCK_ROWS", rows)
    fits = {name: fitted(name) for name in NAMES}
    found, alone = give(fits, counting.target, keep_scores=True)
    labels = counting.target.labels
    for name in NAMES:
        whole = directly(name)
        scores = whole.combined(target())
        assert same_bits(found[name].weights, whole.weights)
        assert same_bits(
            found[name].scores, None if whole.scores is None else scores.astype(np.float32)
        )
        assert found[name].predicted.tolist() == scores.argmax(axis=1).tolist()
        assert found[name].values.keys() == set(METRICS)
        accuracy = METRICS.get("accuracy").sum_up(found[name].values["accuracy"], labels)
        assert accuracy == (scores.argmax(axis=1) == labels).mean()
    for backbone, logits in zip(target().backbones, target().logits, strict=True):
        assert alone[backbone].predicted.tolist() == logits.argmax(axis=1).tolist()
    blocks = [(min(rows, SAMPLES - s), True) for s in range(0, SAMPLES, rows)]
    at_once = [COMBINERS.get(name) for name in NAMES if COMBINERS.get(name).reads_test]
    assert sorted(counting.reads) == sorted(
        blocks + [(SAMPLES, each.needs_features) for each in at_once]
    )


def test_scores_are_not_kept_unless_asked(counting):
    found, _ = give({"vote-1": fitted("vote-1")}, counting.target)
    assert found["vote-1"].scores is None
    assert found["vote-1"].weights is None
    assert found["vote-1"].values


def test_features_are_read_only_where_a_fit_needs_them(counting, monkeypatch):
    monkeypatch.setattr(giving, "BLOCK_ROWS", 20)
    give({n: fitted(n) for n in ("static", "vote-1", "nlc-constant")}, counting.target)
    assert counting.reads == [(20, False), (11, False)]


@pytest.mark.parametrize("name", OTHERS)
def test_a_fit_that_is_not_row_wise_sees_all_rows_at_once(name, counting, monkeypatch):
    monkeypatch.setattr(giving, "BLOCK_ROWS", 7)
    found, _ = give({name: fitted(name)}, counting.target)
    scores = directly(name).combined(target())
    if directly(name).weights is not None:
        assert same_bits(found[name].weights, directly(name).weights)
    np.testing.assert_array_equal(found[name].predicted, scores.argmax(axis=1))
    # Where only features are read, the logits stay on the disk.
    reads = COMBINERS.get(name).reads_logits
    assert max(rows for rows, _ in counting.reads) == (SAMPLES if reads else 7)


def test_classes_that_cannot_be_are_left_out_of_everything(monkeypatch):
    monkeypatch.setattr(giving, "BLOCK_ROWS", 7)
    ensemble, labels = example(SAMPLES, seed=2)
    kept = np.array([1, 2, 4])
    known = ensemble.rows(np.flatnonzero(np.isin(labels, kept)))
    labels = np.searchsorted(kept, labels[np.isin(labels, kept)])
    counting = Counting(known, labels, among=kept)
    found, alone = give({n: fitted(n) for n in NAMES}, counting.target, keep_scores=True)
    for name in NAMES:
        scores = apply(fitted(name), known, among=kept).combined(known, among=kept)
        assert found[name].predicted.tolist() == scores.argmax(axis=1).tolist()
    for backbone, logits in zip(known.backbones, known.logits, strict=True):
        assert alone[backbone].predicted.tolist() == logits[:, kept].argmax(axis=1).tolist()
