"""evaluate --fitted-on: the fits of one data set, applied to another with some of its classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation_examples import BACKBONES
from stores_examples import quick_disk, write_features, zero_shot_logits  # noqa: F401  (a fixture)

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.labels import Labels
from clipnlc.reports.record import Row
from clipnlc.runs.members import members_name
from clipnlc.runs.records import evaluation_path
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stages.verify import verify
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fits
from clipnlc.stores.given import read_given
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import LogitStore, SplitLogits, write_logits
from clipnlc.stores.status import store_status

MEMBERS = tuple(sorted(BACKBONES))
SOURCE = ("pear", "fig", "apple", "plum")  # not in order
TARGET = ("kiwi", "plum", "apple", "lime", "pear")  # no fig; two that the source does not know
DIM = 6


def features_of(labels: np.ndarray, names: tuple[str, ...], random, backbone: int) -> np.ndarray:
    """Draw features around a centre for each class's name."""
    centres = np.stack(
        [np.random.default_rng([backbone, *name.encode()]).normal(size=DIM) for name in names]
    )
    noise = random.normal(size=(len(labels), DIM))
    return (centres[labels] + noise).astype(np.float32)


def texts_of(names: tuple[str, ...], backbone: int) -> np.ndarray:
    centres = [np.random.default_rng([backbone, *name.encode()]).normal(size=DIM) for name in names]
    texts = np.stack(centres) + np.random.default_rng(backbone).normal(size=(len(names), DIM)) / 2
    return (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)


def write(layout: Layout, dataset: str, names: tuple[str, ...], *, rows: int, seed: int) -> None:
    """Write features and zero-shot logits of train and test, as extract leaves them."""
    random = np.random.default_rng(seed)
    for number, backbone in enumerate(MEMBERS):
        splits, inputs = {}, {}
        texts = texts_of(names, number)
        for split, count in (("train", 8 * len(names)), ("test", rows)):
            labels = np.arange(count) % len(names)
            ids = tuple(f"{split}/{row}.png" for row in range(count))
            features = features_of(labels, names, random, number)
            path = layout.features(dataset, split, backbone)
            inputs[layout.relative(path)] = write_features(
                path, features, labels=labels, sample_id=ids, class_names=names, texts=texts
            )
            logits = zero_shot_logits(features, texts)
            splits[split] = SplitLogits(logits, labels, ids)
        write_logits(
            layout.logits(dataset, "zero-shot", backbone),
            LogitStore(splits, names, Key.of({"inputs": inputs}), {}, {}),
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("elsewhere") / "store")
    write(layout, "fruit", SOURCE, rows=40, seed=0)
    write(layout, "market", TARGET, rows=53, seed=1)
    write(layout, "again", SOURCE[::-1], rows=41, seed=2)
    train_nlc(
        store=layout.root,
        dataset=["fruit"],
        combiners=["log-avg", "vote-1", "static", "nlc"],
        labels=[Labels.shots(4)],
        seeds=(0, 1),
        settings={"nlc": {"steps": 20, "learning_rate": 0.02}},
    )
    return layout


@pytest.fixture
def layout(made, tmp_path) -> Layout:
    """A copy that a test may spoil."""
    return Layout(Path(shutil.copytree(made.root, tmp_path / "store")))


def row(rows: tuple[Row, ...], method: str) -> Row:
    (found,) = [r for r in rows if r.method == method]
    return found


def scaled(layout: Layout, dataset: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Compute the source's zero-shot logits of a test split in numpy, in float64."""
    logits = []
    for backbone in MEMBERS:
        source = read_features(layout.features("fruit", "train", backbone))
        target = read_features(layout.features(dataset, "test", backbone))
        unit = target.features.astype(float)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        logits.append(100 * unit @ source.texts.astype(float).T)
    return np.stack(logits), target.labels, target.class_names


def test_accuracies_agree_with_an_independent_computation(layout):
    found = evaluate(store=layout.root, datasets=["market"], fitted_on="fruit")
    (one,) = found.datasets
    logits, labels, names = scaled(layout, "market")
    shared = [SOURCE.index(name) for name in TARGET if name in SOURCE]
    known = np.array([TARGET[label] in SOURCE for label in labels])
    wanted = np.array([TARGET[label] for label in labels[known]])
    few = logits[:, known][:, :, shared]
    answers = np.array([SOURCE[column] for column in shared])
    assert (one.samples, one.classes) == (known.sum(), 3)
    assert names == TARGET

    def accuracy(scores: np.ndarray) -> float:
        return float((answers[scores.argmax(axis=1)] == wanted).mean())

    for backbone, its in zip(MEMBERS, few, strict=True):
        assert row(one.rows, backbone).accuracy == accuracy(its)
    right = answers[few.argmax(axis=2)] == wanted
    assert row(one.rows, "oracle").accuracy == right.any(axis=0).mean()
    assert row(one.rows, "log-avg").accuracy == accuracy(few.mean(axis=0))
    for seed, found_accuracy in enumerate(row(one.rows, "static").accuracies):
        fits = read_fits(
            layout.fits("fruit", "zero-shot", members_name(MEMBERS), f"4-shots-seed-{seed}")
        )
        weights = fits.fits["static"].learnt["weight_"]
        assert fits.backbones == MEMBERS
        assert found_accuracy == accuracy(np.tensordot(weights, few, axes=1))
        given = read_given(
            layout.given(
                "market",
                "test",
                source="fruit",
                head="zero-shot",
                members=members_name(MEMBERS),
                run=f"4-shots-seed-{seed}",
            )
        )
        scores = np.einsum("bsc,sb->sc", few, given.given["nlc"].weights)
        assert row(one.rows, "nlc").accuracies[seed] == accuracy(scores)
        assert len(given.sample_id) == known.sum()


def test_images_of_unknown_classes_are_left_out_and_counted(layout):
    (one,) = evaluate(store=layout.root, datasets=["market"], fitted_on="fruit").datasets
    unknown = 11 + 10  # of 53 images in five classes, the first three have eleven
    assert one.samples == 53 - unknown
    note = f"{unknown} images of 2 classes that fruit does not have were left out: kiwi, lime."
    assert note in one.notes
    (same,) = evaluate(store=layout.root, datasets=["again"], fitted_on="fruit").datasets
    assert same.samples == 41
    assert not any("left out" in note for note in same.notes)


def test_the_same_classes_in_another_order_are_matched_by_name(layout):
    (one,) = evaluate(store=layout.root, datasets=["again"], fitted_on="fruit").datasets
    logits, labels, names = scaled(layout, "again")
    wanted = np.array([names[label] for label in labels])
    answers = np.array(SOURCE)[logits.mean(axis=0).argmax(axis=1)]
    assert row(one.rows, "log-avg").accuracy == (answers == wanted).mean()
    assert (one.samples, one.classes) == (41, 4)


def test_on_its_own_features_a_fit_gives_what_it_gives_on_its_own_logits(layout):
    """The same photos under another name: the heads make the logits again."""
    for backbone in BACKBONES:
        shown = read_features(layout.features("fruit", "test", backbone))
        write_features(
            layout.features("copy", "test", backbone),
            shown.features,
            key=Key.of({}),
            labels=shown.labels,
            sample_id=shown.sample_id,
            class_names=shown.class_names,
            texts=shown.texts,
        )
    own = evaluate(store=layout.root, datasets=["fruit"])
    copy = evaluate(store=layout.root, datasets=["copy"], fitted_on="fruit")
    for one, other in zip(own.summary, copy.summary, strict=True):
        assert one.accuracies == other.accuracies
        assert one.measures == pytest.approx(other.measures, abs=1e-6)


def test_several_targets_and_the_default(layout):
    found = evaluate(store=layout.root, fitted_on="fruit")
    assert [one.dataset for one in found.datasets] == ["again", "market"]
    assert found.fitted_on == "fruit"
    both = evaluate(store=layout.root, datasets=["market", "again"], fitted_on="fruit")
    assert both == found
    members = members_name(MEMBERS)
    for dataset in (None, "again", "market"):
        assert evaluation_path(
            layout, "zero-shot", members, dataset=dataset, fitted_on="fruit"
        ).is_file()
        assert not evaluation_path(layout, "zero-shot", members, dataset=dataset).exists()
    assert not verify(store=layout.root).damage
    assert not any(row.stale or row.why for row in store_status(layout.root))


def test_what_was_given_is_kept_and_made_anew_with_its_inputs(layout):
    def again() -> tuple[object, list[object]]:
        calls: list[object] = []
        found = evaluate(
            store=layout.root,
            datasets=["market"],
            fitted_on="fruit",
            on_progress=lambda *at: calls.append(at),
        )
        return found, calls

    first, _ = again()
    assert again() == (first, [])
    path = layout.features("market", "test", MEMBERS[0])
    held = read_features(path)
    write_features(
        path,
        held.features[::-1].copy(),
        labels=held.labels,
        sample_id=held.sample_id,
        class_names=held.class_names,
        texts=held.texts,
    )
    assert any(row.stale for row in store_status(layout.root) if row.kind == "given")
    second, calls = again()
    assert second != first
    assert calls
    # The target's own logits are older than its features now, but nothing reads them.
    assert not [row for row in store_status(layout.root) if row.stale and row.kind == "given"]


def test_the_targets_own_texts_and_logits_do_not_matter(layout):
    first = evaluate(store=layout.root, datasets=["market"], fitted_on="fruit")
    shutil.rmtree(layout.dataset("market") / "logits")
    shutil.rmtree(layout.dataset("market") / "features" / "train")
    assert evaluate(store=layout.root, datasets=["market"], fitted_on="fruit") == first


def test_sets_that_share_no_class_are_refused(layout):
    write(layout, "tools", ("saw", "axe", "awl", "hoe"), rows=12, seed=3)
    with pytest.raises(
        StoreError,
        match=r"tools and fruit share no class name \(saw, axe, awl, … against apple, fig, pear, "
        r"…\); expected the same names, in any order: .*--class-names",
    ):
        evaluate(store=layout.root, datasets=["tools"], fitted_on="fruit")


def test_what_is_missing_names_the_command(layout):
    with pytest.raises(MissingStageError, match=r"no fits on zero-shot logits of market; run `cl"):
        evaluate(store=layout.root, datasets=["fruit"], fitted_on="market")
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract --dataset birds"):
        evaluate(store=layout.root, datasets=["birds"], fitted_on="fruit")


def test_by_default_only_what_shares_a_class_is_evaluated(layout):
    write(layout, "tools", ("saw", "axe"), rows=10, seed=3)
    found = evaluate(store=layout.root, fitted_on="fruit")
    assert [each.dataset for each in found.datasets] == ["again", "market"]
    with pytest.raises(MissingStageError, match=r"and a class of tools; run `clipnlc extract"):
        evaluate(store=layout.root, fitted_on="tools")


def test_a_split_without_an_image_of_a_known_class_is_refused(layout):
    for backbone in MEMBERS:
        path = layout.features("market", "test", backbone)
        held = read_features(path)
        of = np.flatnonzero(held.labels == TARGET.index("kiwi"))
        write_features(
            path,
            held.features[of],
            labels=held.labels[of],
            sample_id=tuple(held.sample_id[row] for row in of),
            class_names=held.class_names,
            texts=held.texts,
        )
    with pytest.raises(StoreError, match="no image of market/test is of a class that fruit has"):
        evaluate(store=layout.root, datasets=["market"], fitted_on="fruit")


def test_targets_whose_backbones_saw_other_images_are_refused(layout):
    path = layout.features("market", "test", MEMBERS[1])
    held = read_features(path)
    write_features(
        path,
        held.features,
        labels=held.labels,
        sample_id=held.sample_id[::-1],
        class_names=held.class_names,
        texts=held.texts,
    )
    with pytest.raises(StoreError, match=r"are not aligned: sample_id of row 0"):
        evaluate(store=layout.root, datasets=["market"], fitted_on="fruit")


def test_a_stale_source_is_refused(layout):
    path = layout.logits("fruit", "zero-shot", MEMBERS[0])
    write(layout, "fruit", SOURCE, rows=40, seed=9)
    assert path.is_file()
    with pytest.raises(StoreError, match=r"stale: .* run `clipnlc train-nlc --dataset fruit"):
        evaluate(store=layout.root, datasets=["market"], fitted_on="fruit")


def test_a_subset_of_rows_is_a_subset_of_what_is_given(layout):
    """Row by row: fewer images leave the others' values as they were."""
    members = members_name(MEMBERS)

    def given(dataset: str):
        evaluate(store=layout.root, datasets=[dataset], fitted_on="fruit")
        return read_given(
            layout.given(
                dataset,
                "test",
                source="fruit",
                head="zero-shot",
                members=members,
                run="4-shots-seed-0",
            )
        )

    whole = given("again")
    for backbone in MEMBERS:
        held = read_features(layout.features("again", "test", backbone))
        write_features(
            layout.features("few", "test", backbone),
            held.features[::3],
            labels=held.labels[::3],
            sample_id=held.sample_id[::3],
            class_names=held.class_names,
            texts=held.texts,
        )
    few = given("few")
    assert few.sample_id == whole.sample_id[::3]
    assert set(few.given) == {"static", "nlc"}
    for name, each in few.given.items():
        np.testing.assert_allclose(each.weights, whole.given[name].weights[::3], atol=1e-6)
        for measure, values in each.values.items():
            expected = whole.given[name].values[measure][::3]
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
