"""The accuracy of a fit on few labels from these labels: agrees with loops, covers, and is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from command_line import BACKBONES
from stores_examples import quick_disk, write_features  # noqa: F401  (a fixture for all tests)

from clipnlc.cli.estimates import accuracy_lines
from clipnlc.combiners import COMBINERS
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.labels import UNLABELLED, Labels, dealt_folds
from clipnlc.metrics.intervals import others_interval
from clipnlc.runs.cross_fitting import CrossFitted, cross_fit
from clipnlc.runs.members import members_name
from clipnlc.runs.records import cross_fit_path, read_cross_fit, verify_record
from clipnlc.stages.cross_fit import cross_fitted
from clipnlc.stages.export import export
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.aligned import open_ensemble
from clipnlc.stores.export import read_export
from clipnlc.stores.features import read_features
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits

ALL = Labels.all()


@pytest.fixture(scope="module")
def first_store(first_extracted, tmp_path_factory):
    root = shutil.copytree(first_extracted, tmp_path_factory.mktemp("cross-fit") / "store")
    train_nlc(store=root, labels=[ALL], seeds=[0], combiners=["gp", "balanced-gp", "nlc-shuffled"])
    return root


@pytest.fixture
def store(first_store, tmp_path):
    """A store of photos of three colours with fits on all labels of train, to be changed at will."""
    return shutil.copytree(first_store, tmp_path / "store")


def whole(store, split="train"):
    layout = Layout(store)
    names = layout.logit_backbones("photos", "zero-shot")
    return open_ensemble(
        {b: layout.logits("photos", "zero-shot", b) for b in names},
        {b: layout.features("photos", split, b) for b in names},
        split,
    )


def hard_ensemble(seed, rows=40, classes=3):
    """Two backbones that are right more often than not, with names; and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=rows)
    means = random.normal(size=(2, classes, 8))
    features = [2 * random.normal(size=(rows, 8)) + mean[labels] for mean in means]
    logits = [block @ mean.T / 2 for block, mean in zip(features, means, strict=True)]
    ensemble = Ensemble(
        logits=np.stack(logits).astype(np.float32),
        features=tuple(block.astype(np.float32) for block in features),
        sample_id=tuple(f"{number:02}.png" for number in range(rows)),
        backbones=("one", "two"),
        class_names=("ant", "bee", "cat")[:classes],
    )
    return ensemble, labels


@pytest.mark.parametrize("name", ["gp", "balanced-gp"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_image_is_answered_for_by_a_fit_without_its_label(name, seed):
    whole, truth = hard_ensemble(seed)
    ensemble, labels = whole.rows(range(25)), truth[:25]
    found = cross_fit(name, ensemble, labels, pool=whole, which=ALL, others=15, drawn=True)

    fold = dealt_folds(labels, ensemble.sample_id, 10, draw="cross-fit:0")
    right = 0
    for row in range(25):
        kept = [other for other in range(25) if fold[other] != fold[row]]
        combiner = COMBINERS.get(name)(seed=0)
        combiner.fit(ensemble.rows(kept), labels[kept], whole)
        right += int(combiner.combine(ensemble.rows([row])).argmax() == labels[row])
    assert 0.3 < right / 25 < 1
    assert found.accuracy == right / 25
    assert (found.count, found.folds, found.others) == (25, 10, 15)
    assert found.low < found.accuracy < found.high
    assert [count for count, _ in found.fewer] == [0, 6, 12]
    alone = ensemble.logits.astype(np.float64).mean(axis=0).argmax(axis=1)
    assert found.fewer[0][1] == pytest.approx((alone == labels).mean())


def test_an_image_is_not_answered_for_with_its_own_label():
    # By hand: two groups of equal images, but the last has the label of the other group. A fit on
    # it repeats it; a fit without it answers as its group, so 9 of 10 are right.
    group = np.repeat([0, 1], 5)
    features = np.eye(2, dtype=np.float32)[group] + np.float32(0.1)
    ensemble = Ensemble(
        logits=np.zeros((1, 10, 2), np.float32),
        features=(features,),
        sample_id=tuple("abcdefghij"),
        backbones=("one",),
        class_names=("ant", "bee"),
    )
    labels = np.array([0] * 5 + [1] * 4 + [0])
    found = cross_fit("gp", ensemble, labels, pool=ensemble, which=ALL, others=0, drawn=True)
    assert found.accuracy == 0.9


@pytest.mark.parametrize("name", ["gp", "balanced-gp"])
def test_a_fit_of_a_store_is_measured_on_its_own_labels(store, name):
    found = cross_fitted(store=store, dataset="photos", which=ALL, combiner=name)
    ensemble, labels, _ = whole(store)
    assert found == cross_fit(
        name, ensemble, labels, pool=ensemble, which=ALL, others=0, drawn=True
    )
    assert found.count == 24


def test_the_interval_is_the_exact_one_of_as_many_images_as_both_sides_are_worth():
    # By hand: 1 / (1/30 + 1/60) = 20 images, of which 15 right. The exact interval of 15 of 20, as
    # tables have it, is 0.509 to 0.913.
    found = others_interval(0.75, 30, 60)
    assert (round(found.low, 3), round(found.high, 3)) == (0.509, 0.913)
    exact = scipy.stats.binomtest(21, 30).proportion_ci(method="exact")
    found = others_interval(0.7, 30, None)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    worst, best = others_interval(0.0, 30, None), others_interval(1.0, 30, None)
    assert (worst.low, best.high) == (0.0, 1.0)
    assert worst.high == pytest.approx(1 - best.low) == pytest.approx(1 - 0.025 ** (1 / 30))


@pytest.mark.parametrize("others", [100, 300, 30_000])
@pytest.mark.parametrize("truth", [0.6, 0.9])
def test_the_interval_covers_the_accuracy_of_the_images_that_were_not_drawn(truth, others):
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        right = random.random(30 + others) < truth
        found = others_interval(right[:30].mean(), 30, others)
        covered += found.low <= right[30:].mean() <= found.high
    assert 0.94 <= covered / 2000 <= 0.995


def test_more_labels_narrow_the_interval_with_the_root_of_their_number():
    ensemble, labels = hard_ensemble(0)
    found = cross_fit(
        "gp", ensemble, labels, pool=ensemble, which=ALL, others=10**6, drawn=True, folds=2
    )
    now, later = found.with_labels(found.count), found.with_labels(4 * found.count)
    assert (now.low, now.high) == (found.low, found.high)
    assert (later.high - later.low) == pytest.approx((now.high - now.low) / 2, rel=0.1)


def test_images_without_labels_are_learnt_from_and_counted(store, tmp_path):
    root = shutil.copytree(store, tmp_path / "other")
    layout = Layout(root)
    for backbone in BACKBONES.split(","):
        read = read_features(layout.features("photos", "test", backbone))
        fields = read.key.fields
        fields["images"]["split"] = UNLABELLED
        write_features(
            layout.features("photos", UNLABELLED, backbone),
            read.features,
            key=Key.of(fields),
            labels=read.labels,
            sample_id=read.sample_id,
            class_names=read.class_names,
            texts=read.texts,
        )
        path = layout.logits("photos", "zero-shot", backbone)
        logits = read_logits(path)
        test = logits.splits["test"]
        write_logits(path, replace(logits, splits={**logits.splits, UNLABELLED: test}))
    before = cross_fitted(store=store, dataset="photos", which=ALL, combiner="balanced-gp")
    found = cross_fitted(
        store=root, dataset="photos", which=ALL, combiner="balanced-gp", drawn=False
    )
    assert (before.others, found.others) == (0, 36)
    assert (before.drawn, found.drawn) == (True, False)
    assert found.high - found.low > before.high - before.low


def test_what_cannot_be_cross_fitted_is_refused(store):
    with pytest.raises(
        MissingStageError, match=r"no fit of gp on 5 labels .*train-nlc .*--count 5"
    ):
        cross_fitted(store=store, dataset="photos", which=Labels.count(5), combiner="gp")
    with pytest.raises(DataError, match=r"was fitted on labels too.*zero-shot"):
        cross_fitted(store=store, dataset="photos", which=ALL, combiner="gp", head="linear")
    with pytest.raises(DataError, match="looks at other images"):
        cross_fitted(store=store, dataset="photos", which=ALL, combiner="nlc-shuffled")
    one = Labels.count(1)
    train_nlc(store=store, labels=[one], seeds=[0], combiners=["gp"])
    with pytest.raises(DataError, match=r"a single labelled image .* label more"):
        cross_fitted(store=store, dataset="photos", which=one, combiner="gp")


def test_it_is_recorded_and_the_card_of_an_export_says_how_it_was_obtained(store, tmp_path):
    found = cross_fitted(store=store, dataset="photos", which=ALL, combiner="gp")
    layout = Layout(store)
    names = layout.logit_backbones("photos", "zero-shot")
    place = cross_fit_path(
        layout, "zero-shot", members_name(names), "gp", ALL.name, dataset="photos"
    )
    bits = place.read_bytes()
    assert read_cross_fit(layout, place).accuracy == found.accuracy
    assert verify_record(layout, place) is None
    assert cross_fitted(store=store, dataset="photos", which=ALL, combiner="gp") == found
    assert place.read_bytes() == bits

    done = export(store=store, out=tmp_path / "one", combiner="gp", which=ALL)
    assert [one.estimate for one in done.measured] == ["cross-fitted"]
    card = (tmp_path / "one" / "README.md").read_text("utf-8")
    assert "cross-fitted: no image was held out" in card
    assert "These images are a random draw" in card
    assert "model-index" not in card  # which is for images that nothing was learnt from
    assert read_export(tmp_path / "one").measured == done.measured

    cross_fitted(store=store, dataset="photos", which=ALL, combiner="gp", drawn=False)
    done = export(store=store, out=tmp_path / "two", combiner="gp", which=ALL)
    assert [one.estimate for one in done.measured] == ["cross-fitted-chosen"]
    assert "were chosen and not drawn at random" in (tmp_path / "two" / "README.md").read_text()
    done = export(store=store, out=tmp_path / "three", combiner="balanced-gp", which=ALL)
    assert done.measured == ()  # of another fit nothing is known


def test_a_record_that_was_altered_or_moved_is_refused(store):
    cross_fitted(store=store, dataset="photos", which=ALL, combiner="gp")
    layout = Layout(store)
    (place,) = layout.records("photos").glob("cross-fit-*-of-gp.json")
    moved = place.with_name(place.name.replace("-of-gp", "-of-nlc"))
    shutil.copy(place, moved)
    with pytest.raises(StoreError, match=r"is misplaced: .*of-gp of photos; delete it"):
        verify_record(layout, moved)
    place.write_text(place.read_text("utf-8").replace('"count": 24', '"count": 25'), "utf-8")
    with pytest.raises(StoreError, match="was altered"):
        cross_fitted(store=store, dataset="photos", which=ALL, combiner="gp")


def test_what_is_said_of_it_holds_of_the_photos_it_is_for():
    found = CrossFitted(
        accuracy=0.7,
        low=0.506,
        high=0.853,
        count=30,
        folds=10,
        others=270,
        drawn=True,
        fewer=((0, 0.6), (15, 2 / 3)),
    )
    one, two, three = accuracy_lines(found)
    assert one == (
        "accuracy on the 270 other photos: about 70.0 % (95 % interval 50.6 to 85.3), cross-fitted on "
        "the 30 labels, a random draw"
    )
    assert two == "  fitted on fewer: 60.0 % with no label, 66.7 % with 15 labels; on all: 70.0 %"
    # By hand: 120 and the 180 others are worth 72 images, of which 50.4 right.
    low, high = scipy.stats.beta.ppf(0.025, 50.4, 22.6), scipy.stats.beta.ppf(0.975, 51.4, 21.6)
    assert three.startswith(
        f"  120 labels would narrow the interval to about {100 * low:.1f} to {100 * high:.1f}"
    )
    chosen, *more = accuracy_lines(replace(found, drawn=False))
    assert "they were chosen, not drawn, so it may not hold of the others" in chosen
    assert more == [two]
    assert (
        len(list(accuracy_lines(replace(found, others=90)))) == 2
    )  # with 120 labels there is no other photo
    assert "on photos of the same kind" in next(accuracy_lines(replace(found, others=0)))
