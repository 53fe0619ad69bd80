"""Heads that are fitted on the combiners' own few labels: what each file holds, and who reads it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from command_line import good, refusal
from heads_examples import write_fruit
from stores_examples import quick_disk, write_features  # noqa: F401  (a fixture for all tests)

from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.heads import HEADS
from clipnlc.heads.base import normalise
from clipnlc.heads.cross_fitting import cross_fitted_logits, folds_of
from clipnlc.heads.labelled_rows import LabelledRows
from clipnlc.heads.zero_shot import ZeroShotHead
from clipnlc.labels import Labels
from clipnlc.reports.record import BEST_SINGLE
from clipnlc.runs.finding import find_runs
from clipnlc.runs.fitted import apply
from clipnlc.runs.heads import open_heads
from clipnlc.runs.members import members_name
from clipnlc.runs.predictor import open_predictor
from clipnlc.runs.targets import stored_target
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.export import export
from clipnlc.stages.train_heads import train_heads
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stages.verify import verify
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fit_header, read_fits
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits
from clipnlc.stores.status import store_status

BACKBONES = ("nano-RN50", "nano-ViT-B-32")
MEMBERS = members_name(BACKBONES)
COMBINERS = ("log-avg", "static", "balanced", "nlc")
QUICK = {"steps": 20}
FEW = (Labels.shots(1), Labels.shots(4))


@pytest.fixture
def layout(tmp_path) -> Layout:
    """A store with features and zero-shot logits of two backbones."""
    layout = Layout(tmp_path / "store")
    for backbone in BACKBONES:
        write_fruit(layout, backbone)
    return layout


def heads(layout, *, labels=FEW, seeds=(0, 1), settings=QUICK, **more):
    return train_heads(
        store=layout.root, head="rla", labels=labels, seeds=seeds, settings=settings, **more
    )


def combiners(layout, *, labels=FEW, seeds=(0, 1), **more):
    return train_nlc(
        store=layout.root,
        **{
            "head": "rla",
            "combiners": COMBINERS,
            "settings": {"nlc": {"steps": 5}},
            **more,
            "labels": labels,
            "seeds": seeds,
        },
    )


def drawn_rows(layout, which, backbone=BACKBONES[0]):
    train = read_features(layout.features("fruit", "train", backbone))
    rows = which.draw(train.labels, train.sample_id, classes=len(train.class_names)).rows
    seen = LabelledRows(
        features=train.features[rows],
        labels=train.labels[rows],
        sample_id=tuple(train.sample_id[row] for row in rows),
        texts=train.texts,
        logit_scale=train.logit_scale,
    )
    return train, rows, seen


class TestFolds:
    def test_k_of_every_class_leave_one_of_every_class_out(self):
        labels = np.repeat([2, 0, 1], 3)
        fold = folds_of(labels, [f"{i}" for i in range(9)])
        for number in range(3):
            assert sorted(labels[fold == number]) == [0, 1, 2]

    @pytest.mark.parametrize(
        ("counts", "single", "folds"),
        [((1,) * 12, 5, 5), ((1,) * 12, 50, 12), ((8,) * 3, 5, 5), ((1, 2, 9), 5, 5), ((1,), 5, 1)],
    )
    def test_how_many(self, counts, single, folds):
        labels = np.repeat(np.arange(len(counts)), counts)
        fold = folds_of(labels, [f"{i}" for i in range(len(labels))], single=single)
        sizes = np.bincount(fold)
        assert len(sizes) == folds
        assert sizes.max() - sizes.min() <= 1

    def test_neither_rows_nor_classes_have_an_order(self):
        random = np.random.default_rng(0)
        labels, names = random.integers(0, 5, 40), [f"{i}" for i in range(40)]
        fold = folds_of(labels, names, seed=3)
        order, renamed = random.permutation(40), np.array([3, 1, 4, 0, 2])
        again = folds_of(renamed[labels[order]], [names[i] for i in order], seed=3)
        np.testing.assert_array_equal(again, fold[order])


class TestTrainHeads:
    def test_a_row_is_answered_by_a_head_that_has_not_seen_it(self, layout):
        trained = heads(layout)
        assert [t.run.name for t in trained[:4]] == [
            "1-shots-seed-0",
            "4-shots-seed-0",
            "1-shots-seed-1",
            "4-shots-seed-1",
        ]
        for which in (Labels.shots(4, seed=1), Labels.shots(1, seed=1)):
            train, rows, seen = drawn_rows(layout, which)
            found = read_logits(layout.logits("fruit", "rla", BACKBONES[0], which.name))
            assert list(found.splits) == ["cross-fitted", "holdout", "test"]
            crossed = found.splits["cross-fitted"]
            assert crossed.sample_id == seen.sample_id
            np.testing.assert_array_equal(crossed.labels, seen.labels)
            fold = folds_of(seen.labels, seen.sample_id, seed=1)
            for number in np.unique(fold):
                held, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
                head = seen.take(kept).fit(HEADS.get("rla")(seed=1, **QUICK))
                logits = head.logits(seen.features[held])
                np.testing.assert_array_equal(crossed.logits[held], logits)
            whole = seen.fit(HEADS.get("rla")(seed=1, **QUICK))
            rest = np.setdiff1d(np.arange(len(train.labels)), rows)
            np.testing.assert_array_equal(
                found.splits["holdout"].logits, whole.logits(train.features[rest])
            )
            test = read_features(layout.features("fruit", "test", BACKBONES[0]))
            np.testing.assert_array_equal(found.splits["test"].logits, whole.logits(test.features))

    def test_a_single_row_is_left_to_the_zero_shot_head(self, layout):
        _, _, seen = drawn_rows(layout, Labels.count(1))
        found = cross_fitted_logits(lambda: HEADS.get("rla")(**QUICK), seen, seed=0)
        zero_shot = seen.fit(ZeroShotHead()).logits(seen.features)
        np.testing.assert_array_equal(found, zero_shot)

    def test_cached_and_resumed(self, layout):
        first = heads(layout)
        layout.logits("fruit", "rla", BACKBONES[1], "4-shots-seed-1").unlink()
        again = heads(layout)
        assert [t.cached for t in again].count(False) == 1
        assert [replace(t, cached=False) for t in again] == first
        changed = heads(layout, settings={"steps": 21}, labels=FEW[:1], seeds=(0,))
        assert changed[0].changed == ("settings.steps: 20 -> 21",)

    def test_few_labels_are_the_default(self, layout):
        trained = train_heads(store=layout.root, head="rla", settings=QUICK, seeds=(0,))
        assert [t.run for t in trained[:6]] == list(Labels.few())


@pytest.mark.parametrize(
    ("head", "settings"), [("linear-few", {"epochs": 2}), ("class-mean-few", {})]
)
def test_heads_of_train_on_few_labels_instead(layout, head, settings):
    which, backbone = Labels.shots(4, seed=1), BACKBONES[0]
    given = {"store": layout.root, "head": head, "labels": [which], "seeds": (1,)}
    train_heads(**given, settings=settings)
    _, _, seen = drawn_rows(layout, which)
    found = read_logits(layout.logits("fruit", head, backbone, which.name))
    fold = folds_of(seen.labels, seen.sample_id, single=HEADS.get(head).most_folds, seed=1)
    for row in range(len(seen.labels)):
        # Whatever its label was, its logits are the same.
        other = replace(seen, labels=np.where(np.arange(12) == row, 2, seen.labels))
        kept = np.flatnonzero(fold != fold[row])
        fitted = other.take(kept).fit(HEADS.get(head)(seed=1, **settings))
        expected = fitted.logits(seen.features[[row]])[0]
        np.testing.assert_array_equal(found.splits["cross-fitted"].logits[row], expected)
    train_nlc(**given, combiners=["log-avg", "static"])
    fits = read_fit_header(layout.fits("fruit", head, MEMBERS, which.name))
    assert any("#cross-fitted" in name for name in fits.keys["static"].inputs)
    evaluation = evaluate(store=layout.root, head=head)
    rows = [r for r in evaluation.summary if r.kind in ("method", "control")]
    assert {(r.method, r.drawn, r.labels) for r in rows} == {
        ("log-avg", Labels.shots(4), 12),
        ("static", Labels.shots(4), 12),
    }
    # The road by a hold-out has nothing of it, nor the other way round.
    with pytest.raises(MissingStageError, match=r"no linear logits|train-heads --dataset fruit"):
        train_nlc(store=layout.root, head="linear", labels=[Labels.holdout(1.0)], seeds=(0,))


class TestCrops:
    def test_keys_are_means_over_the_crops_that_there_are(self, layout):
        backbone, which = BACKBONES[0], Labels.shots(2)

        def fitted():
            (trained,) = train_heads(
                store=layout.root,
                head="tip-adapter",
                backbones=[backbone],
                labels=[which],
                seeds=(0,),
            )
            path = layout.logits("fruit", "tip-adapter", backbone, which.name)
            return trained, read_logits(path)

        train, rows, seen = drawn_rows(layout, which)
        trained, found = fitted()
        assert trained.facts["crops"] == found.key.fields["crops"] == 0
        np.testing.assert_allclose(found.learnt["keys_"], normalise(seen.features), rtol=1e-6)
        crops = []
        for number in (0, 1):
            features = train.features + np.float32(number + 1)
            self.crop(layout, number, [backbone], features)
            crops.append(normalise(features[rows]))
        trained, found = fitted()
        assert trained.changed[0] == "crops: 0 -> 2"
        assert trained.facts["crops"] == 2
        keys = normalise(crops[0] + crops[1])
        np.testing.assert_allclose(found.learnt["keys_"], keys, rtol=1e-5, atol=1e-6)
        # Rows are asked by their own features, without their keys.
        fold = folds_of(seen.labels, seen.sample_id)
        crossed = found.splits["cross-fitted"].logits
        for held in (np.flatnonzero(fold == number) for number in (0, 1)):
            kept = replace(seen, views=keys).take(np.setdiff1d(np.arange(6), held))
            head = kept.fit(HEADS.get("tip-adapter")())
            logits = head.logits(seen.features[held])
            np.testing.assert_allclose(crossed[held], logits, rtol=1e-5, atol=1e-5)
        assert fitted()[0].cached

    def test_crops_of_other_images_are_refused(self, layout):
        train = read_features(layout.features("fruit", "train", BACKBONES[0]))
        self.crop(layout, 0, BACKBONES, train.features[:50])
        with pytest.raises(StoreError, match=r"train~crop-0/nano-RN50\.h5 are not aligned"):
            train_heads(store=layout.root, head="tip-adapter", labels=FEW, seeds=(0,))
        self.crop(layout, 0, BACKBONES, content="others")
        made_otherwise = (
            r"train~crop-0/nano-RN50\.h5 is not made of the same images, or not alike, as the "
            r"features of fruit/train \(content: fruit -> others\); expected crops of the same "
            r"images: run `clipnlc extract --dataset fruit --backbones nano-RN50 --crops 1 .*`, or, "
            r"to do without crops, delete .*/fruit/features/train~crop-\*"
        )
        with pytest.raises(StoreError, match=made_otherwise):
            train_heads(store=layout.root, head="tip-adapter", labels=FEW, seeds=(0,))

    def test_crops_of_some_backbones_or_of_some_numbers_are_refused(self, layout):
        self.crop(layout, 0, BACKBONES)
        self.crop(layout, 2, BACKBONES[:1])
        lacking = (
            r"holds 3 crops of the images of fruit/train, and nano-RN50 lacks crop 1; expected every "
            r"crop of every backbone: run `clipnlc extract --dataset fruit --backbones "
            rf"{','.join(BACKBONES)} --crops 3"
        )
        with pytest.raises(StoreError, match=lacking):
            train_heads(store=layout.root, head="tip-adapter", labels=FEW, seeds=(0,))
        # A head that takes no crops does not look at them.
        assert heads(layout, labels=FEW[:1], seeds=(0,))

    @staticmethod
    def crop(layout, number, backbones, features=None, **images):
        for backbone in backbones:
            train = read_features(layout.features("fruit", "train", backbone))
            fields = train.key.fields
            fields["images"] |= {
                "split": f"train~crop-{number}",
                "view": {"crop": number},
                **images,
            }
            rows = train.features if features is None else features
            write_features(
                layout.features("fruit", f"train~crop-{number}", backbone),
                rows,
                key=Key.of(fields),
                labels=train.labels[: len(rows)],
                sample_id=train.sample_id[: len(rows)],
                class_names=train.class_names,
            )

    def test_one_label_per_class_leaves_each_own_key_out(self, layout):
        _, _, seen = drawn_rows(layout, Labels.shots(1))
        found = cross_fitted_logits(HEADS.get("tip-adapter"), seen, seed=0)
        for row in range(3):
            others = np.setdiff1d(np.arange(3), [row])
            head = seen.take(others).fit(HEADS.get("tip-adapter")())
            np.testing.assert_array_equal(found[row : row + 1], head.logits(seen.features[[row]]))


class TestTrainNlc:
    def test_fits_on_cross_fitted_logits_alone(self, layout):
        heads(layout)
        runs = combiners(layout)
        assert [r.which.name for r in runs] == [
            "1-shots-seed-0",
            "1-shots-seed-1",
            "4-shots-seed-0",
            "4-shots-seed-1",
        ]
        assert [r.labels for r in runs] == [3, 3, 12, 12]
        before = fits(layout, "4-shots-seed-0")
        # Other logits of rows that the heads were fitted on, or of test, change nothing.
        for backbone in BACKBONES:
            path = layout.logits("fruit", "rla", backbone, "4-shots-seed-0")
            store = read_logits(path)
            test = replace(store.splits["test"], logits=store.splits["test"].logits + 1)
            write_logits(path, replace(store, splits={**store.splits, "test": test}))
        assert not any(r.combiners for r in combiners(layout))
        crossed = store.splits["cross-fitted"]
        other = replace(crossed, logits=np.roll(crossed.logits, 1, axis=0))
        write_logits(path, replace(store, splits={**store.splits, "cross-fitted": other}))
        refitted = combiners(layout)
        assert [set(r.combiners) for r in refitted] == [set()] * 2 + [
            {"static", "balanced", "nlc"},
            set(),
        ]
        after = fits(layout, "4-shots-seed-0")
        assert before["static"].learnt.keys() == after["static"].learnt.keys()
        assert any(
            not np.array_equal(array, after["static"].learnt[name])
            for name, array in before["static"].learnt.items()
        )
        for name in ("static", "nlc", "log-avg"):
            assert after[name].facts["labels"] == 12
        inputs = {name: set(fit.key.inputs) for name, fit in after.items()}
        own = {f"fruit/logits/rla/4-shots-seed-0/{b}.h5#" for b in BACKBONES}
        assert inputs["static"] == {f"{path}cross-fitted" for path in own}
        assert inputs["balanced"] == inputs["static"] | {f"{path}holdout" for path in own}
        assert inputs["log-avg"] == set()

    def test_balanced_reads_the_rows_that_were_not_drawn(self, layout):
        heads(layout, labels=[Labels.shots(4), Labels.all()], seeds=(0,))
        combiners(
            layout, labels=[Labels.shots(4), Labels.all()], seeds=(0,), combiners=["balanced"]
        )
        assert fits(layout, "4-shots-seed-0")["balanced"].facts["unlabelled"] == 48
        assert fits(layout, "all-labels-seed-0")["balanced"].facts["unlabelled"] == 60

    def test_missing_heads_are_named_with_their_command(self, layout):
        with pytest.raises(MissingStageError, match=r"no rla logits; run `clipnlc train-heads --h"):
            combiners(layout)
        heads(layout, labels=[Labels.shots(1)], seeds=(0,))
        cure = (
            "no rla logits of fruit at 1 per class \\(seed 1\\); run `clipnlc train-heads --dataset "
            f"fruit --head rla --backbones {','.join(BACKBONES)} --shots 1,4 --seeds 2 --store"
        )
        with pytest.raises(MissingStageError, match=cure):
            combiners(layout)

    def test_without_labels_there_is_nothing_to_fit(self, layout):
        heads(layout, seeds=(0,))
        with pytest.raises(DataError, match="the head rla is fitted for each draw of labels"):
            combiners(layout, labels=[Labels.none()])


def fits(layout, run):
    return read_fits(layout.fits("fruit", "rla", MEMBERS, run)).fits


class TestEvaluate:
    def test_every_run_is_applied_to_its_own_logits(self, layout):
        heads(layout)
        combiners(layout)
        found = evaluate(store=layout.root, head="rla")
        (one,) = found.datasets
        labels = read_features(layout.features("fruit", "test", BACKBONES[0])).labels
        rows = {(r.method, r.drawn): r for r in one.rows}
        for which in FEW:
            own = [
                [
                    read_logits(layout.logits("fruit", "rla", b, replace(which, seed=s).name))
                    .splits["test"]
                    .logits
                    for b in BACKBONES
                ]
                for s in (0, 1)
            ]
            for number, backbone in enumerate(BACKBONES):
                right = [(each[number].argmax(axis=1) == labels).mean() for each in own]
                assert rows[backbone, which].accuracies == tuple(right)
                assert rows[backbone, which].labels == 3 * which.amount
            right = [
                (np.mean(each, axis=0, dtype=float).argmax(axis=1) == labels).mean() for each in own
            ]
            assert rows["log-avg", which].accuracies == pytest.approx(tuple(right))
            assert rows["log-avg", which].labels == 3 * which.amount
            assert rows["nlc", which].gain == pytest.approx(
                rows["nlc", which].accuracy - rows[BEST_SINGLE, Labels.none()].accuracy
            )
        zero_shot = [
            read_logits(layout.logits("fruit", "zero-shot", b)).splits["test"].logits
            for b in BACKBONES
        ]
        best = max((z.argmax(axis=1) == labels).mean() for z in zero_shot)
        assert rows[BEST_SINGLE, Labels.none()].accuracy == best
        assert not any(r.drawn == Labels.none() for r in one.rows if r.method == "log-avg")
        assert evaluate(store=layout.root, head="rla") == found
        assert not verify(store=layout.root).damage
        assert not [row for row in store_status(layout.root) if row.stale or not row.complete]

    def test_stale_heads_are_refused(self, layout):
        heads(layout)
        combiners(layout)
        write_fruit(layout, BACKBONES[0], seed=1, logits=False)
        cure = (
            "run `clipnlc train-heads --dataset fruit --head rla --backbones nano-RN50 --shots 1,4 "
            "--seeds 2"
        )
        with pytest.raises(StoreError, match=cure):
            evaluate(store=layout.root, head="rla")

    def test_fits_of_other_heads_than_there_are_now_are_refused(self, layout):
        heads(layout)
        combiners(layout)
        heads(layout, settings={"steps": 5}, labels=[Labels.shots(4)], seeds=(1,))
        with pytest.raises(
            StoreError, match=r"4-shots-seed-1\.h5 is stale: .*cross-fitted has cha"
        ):
            evaluate(store=layout.root, head="rla")
        combiners(layout)
        evaluate(store=layout.root, head="rla")

    def test_fitted_on_another_data_set(self, layout):
        heads(layout)
        combiners(layout)
        for backbone in BACKBONES:
            write_fruit(layout, backbone, dataset="market", seed=5)
        found = evaluate(store=layout.root, head="rla", fitted_on="fruit", datasets=["market"])
        logits = []
        for backbone in BACKBONES:
            learnt = read_logits(layout.logits("fruit", "rla", backbone, "4-shots-seed-0"))
            head = HEADS.get("rla").rebuild(learnt.key.fields["settings"], learnt.learnt)
            market = read_features(layout.features("market", "test", backbone))
            logits.append(head.logits(market.features))
        right = (np.mean(logits, axis=0, dtype=float).argmax(axis=1) == market.labels).mean()
        (row,) = [r for r in found.datasets[0].rows if (r.method, r.drawn) == ("log-avg", FEW[1])]
        assert row.accuracies[0] == pytest.approx(right)

    def test_diversity_is_of_heads_that_are_fitted_once(self, layout):
        heads(layout)
        with pytest.raises(DataError, match="the head rla is fitted for each draw of labels by"):
            diversity(store=layout.root, head="rla")


class TestPredictor:
    @pytest.mark.parametrize("combiner", ["log-avg", "nlc"])
    def test_opens_the_heads_of_the_run(self, layout, combiner):
        heads(layout)
        combiners(layout)
        which = Labels.shots(4, seed=1)
        predictor = open_predictor(
            layout, "fruit", head="rla", combiner=combiner, which=which, backbones=None
        )
        test = [read_features(layout.features("fruit", "test", b)) for b in BACKBONES]
        ensemble = predictor.heads.ensemble([t.features for t in test], test[0].sample_id)
        assert predictor.fitted.labels == which
        with stored_target(
            layout, "fruit", "test", head="rla", backbones=BACKBONES, run=which.name
        ) as target:
            stored = target.read(np.arange(len(test[0].labels)), True)
        given, expected = (
            apply(predictor.fitted, each).combined(each) for each in (ensemble, stored)
        )
        order = [ensemble.class_names.index(name) for name in stored.class_names]
        np.testing.assert_array_equal(given[:, order], expected)

    def test_export_needs_to_know_which_labels(self, layout, tmp_path):
        heads(layout)
        combiners(layout)
        with pytest.raises(DataError, match="for several amounts of labels"):
            export(store=layout.root, out=tmp_path / "out", head="rla", combiner="log-avg")
        done = export(
            store=layout.root,
            out=tmp_path / "out",
            head="rla",
            combiner="log-avg",
            which=Labels.shots(4),
        )
        assert done.run == "4-shots-seed-0"
        assert find_runs(layout, "fruit", "rla").backbones == done.backbones


@pytest.mark.parametrize("head", ["tip-adapter", "tip-adapter-f"])
def test_tip_adapter_goes_the_same_way(layout, head):
    train_heads(store=layout.root, head=head, labels=FEW, seeds=(0,))
    combiners(layout, head=head, seeds=(0,), combiners=["log-avg", "static"])
    (one,) = evaluate(store=layout.root, head=head).datasets
    assert {(r.method, r.drawn) for r in one.rows} >= {
        (method, which) for method in ("log-avg", "static", *BACKBONES) for which in FEW
    }
    test = read_features(layout.features("fruit", "test", BACKBONES[0]))
    heads = open_heads(layout, "fruit", head, BACKBONES[:1], "4-shots-seed-0")
    stored = read_logits(layout.logits("fruit", head, BACKBONES[0], "4-shots-seed-0"))
    again = heads.ensemble([test.features[3:8]], test.sample_id[3:8]).logits[0]
    np.testing.assert_array_equal(again, stored.splits["test"].logits[3:8])


def test_the_commands_lead_from_one_to_the_next(layout, here):
    store = ["--store", layout.root]
    line = ["--head", "rla", "--shots", "1,2", "--seeds", 2]
    said = good("train-heads", *line, *store, by=here)
    assert "fruit: 4 heads trained at 1 per class, on 3 images each; of 57 held-out" in said
    assert f"next: clipnlc train-nlc --head rla --shots 1,2 --seeds 2 --store {layout.root}" in said
    said = good("train-nlc", *line, "--combiners", "log-avg,static", *store, by=here)
    assert f"next: clipnlc evaluate --head rla --store {layout.root}" in said
    said = good("evaluate", "--head", "rla", *store, by=here)
    assert "were fitted on the same labels as what combines them" in " ".join(said.split())
    assert "next:" not in said
    said = good("evaluate", "--head", "rla", "--against", "log-avg", *store, by=here)
    assert "static" in said
    said = good("train-heads", "--head", "rla", "--count", 7, "--seeds", 1, *store, by=here)
    assert f"next: clipnlc train-nlc --head rla --count 7 --seeds 1 --store {layout.root}" in said
    line = ["--head", "rla", "--count", 7, "--seeds", 1, "--combiners", "log-avg"]
    good("train-nlc", *line, *store, by=here)
    line = ["--head", "rla", "--holdout", 0.5, "--seeds", 1]
    refused = refusal("train-nlc", *line, *store, by=here)
    assert f"--holdout 0.5 --seeds 1 --store {layout.root}` first" in refused
    said = good("train-heads", *line, *store, by=here)
    assert "fruit: 2 heads trained on a hold-out of 50 %, on 30 images each" in said
    good("train-nlc", *line, "--combiners", "log-avg", *store, by=here)
    status = json.loads(good("status", "--json", *store, by=here))
    assert not [row for row in status if row["stale"] or not row["complete"]]
    refused = refusal("diversity", "--head", "rla", *store, by=here)
    assert "choose --head zero-shot or linear" in refused
