"""Backbones with texts, without, and with logits alone in one ensemble: head `auto`."""

from dataclasses import replace

import numpy as np
import pytest
from command_line import good, refusal
from heads_examples import FRUIT, feature_key, write_fruit
from sklearn.linear_model import LogisticRegression
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests)

from clipnlc.combiners import COMBINERS
from clipnlc.ensemble import by_name
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.fitting import cross_entropy
from clipnlc.heads.auto import AutoHead
from clipnlc.heads.base import normalise
from clipnlc.heads.cross_fitting import folds_of
from clipnlc.heads.linear_cv import STRENGTHS
from clipnlc.heads.logistic import LogisticHead
from clipnlc.labels import Labels
from clipnlc.regression import folds
from clipnlc.reports.record import BEST_SINGLE, ORACLE
from clipnlc.runs.exported import open_exported
from clipnlc.runs.finding import find_runs, read_fitted
from clipnlc.runs.fitted import apply
from clipnlc.runs.members import members_name
from clipnlc.runs.mixture import usual_head
from clipnlc.runs.predictor import open_predictor
from clipnlc.runs.targets import stored_target
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.export import export
from clipnlc.stages.train_heads import train_heads
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stages.verify import verify
from clipnlc.stores.feature_writing import write_features
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fit_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import IMPORTED, Layout
from clipnlc.stores.logits import LogitStore, SplitLogits, read_logits, write_logits
from clipnlc.stores.status import store_status

THREE = ("dino.v2", "forest", "nano-RN50")
PARTS = {"dino.v2": "logistic-few", "forest": "imported", "nano-RN50": "zero-shot"}
FOUR = Labels.shots(4)
QUICK = {
    "nlc": {"steps": 5},
    "nlc-shuffled": {"steps": 5},
    "nlc-constant": {"steps": 5},
    "neural-ensembler": {"steps": 5},
    "gac": {"generations": 2},
    "greedy-selection": {"steps": 5},
    "moe": {"epochs": 5},
    "amu": {"epochs": 2},
}
USABLE = [name for name in COMBINERS if not COMBINERS.get(name).needs_costs]


@pytest.fixture
def layout(tmp_path) -> Layout:
    """A store with a backbone of each kind."""
    layout = Layout(tmp_path / "store")
    write_fruit(layout, "nano-RN50")
    write_fruit(layout, "dino.v2", texts=False)
    write_forest(layout)
    return layout


def write_forest(layout, backbone="forest", *, seed=0):
    """Write the logits of a classifier without features: the labels, blurred."""
    splits, inputs = {}, {}
    for split in ("train", "test"):
        plain = read_features(layout.features("fruit", split, "nano-RN50"))
        path = layout.features("fruit", split, backbone)
        rows = {"labels": plain.labels, "sample_id": plain.sample_id}
        nothing = np.empty((len(plain.labels), 0), np.float32)
        inputs[layout.relative(path)] = write_features(
            path, feature_key(backbone, split), features=nothing, class_names=FRUIT, **rows
        )
        noise = np.random.default_rng([seed, *nothing.shape]).normal(size=(len(nothing), 3))
        logits = (3 * np.eye(3)[plain.labels] + 2 * noise).astype(np.float32)
        splits[split] = SplitLogits(logits=logits, **rows)
    key = Key.of({"head": IMPORTED, "backbone": backbone, "inputs": inputs})
    path = layout.logits("fruit", IMPORTED, backbone)
    write_logits(path, LogitStore(splits, FRUIT, key, learnt={}, facts={}))


def heads(layout, **more):
    given = {"head": "auto", "labels": [FOUR], "seeds": (0,), **more}
    return train_heads(store=layout.root, **given)


def combiners(layout, **more):
    given = {"head": "auto", "combiners": ["log-avg", "static"], "labels": [FOUR], "seeds": (0,)}
    return train_nlc(store=layout.root, **given | more)


def stored(layout, backbone, run="4-shots-seed-0"):
    return read_logits(layout.logits("fruit", "auto", backbone, run))


def drawn(layout, which=FOUR, backbone="dino.v2"):
    train = read_features(layout.features("fruit", "train", backbone))
    rows = which.draw(train.labels, train.sample_id, classes=3).rows
    return train, rows


def reference_regression(unit, labels, strength):
    """Return scikit-learn's weights of the same objective; binary problems have two halves there."""
    model = LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
    return model.fit(unit.astype(float), labels).coef_


class TestLogistic:
    def test_is_scikit_learns_regression_of_the_strength_that_held_out_labels_ask_for(self):
        random = np.random.default_rng(0)
        labels = np.repeat(np.arange(4), 6)
        features = (np.eye(4, 9)[labels] * 2 + random.normal(size=(24, 9))).astype(np.float32)
        ids = tuple(f"{row:02}" for row in range(24))
        unit = normalise(features)
        fold = folds(labels, ids, most=5, seed=3)

        def judged(strength):
            total = 0.0
            for number in range(5):
                kept, held = fold != number, fold == number
                weights = reference_regression(unit[kept], labels[kept], strength)
                total += cross_entropy(unit[held] @ weights.T, labels[held]) * held.sum()
            return total

        best = min(STRENGTHS, key=judged)
        head = LogisticHead(seed=3).fit(features=features, labels=labels, sample_id=ids, classes=4)
        assert float(head.strength_) == best
        expected = unit @ reference_regression(unit, labels, best).T
        np.testing.assert_allclose(head.logits(features), expected, rtol=1e-3, atol=1e-3)

    def test_two_images_by_hand(self):
        # Features e1 and e2, one of each class, strength 1. By symmetry the weights are (a, -a) and
        # (-a, a), which minimise 2 log(1 + exp(-2a)) + 2 a^2: a = 1 / (1 + exp(2a)) = 0.3374.
        head = LogisticHead().fit(
            features=np.float32([[2, 0], [0, 5]]),
            labels=np.array([0, 1]),
            sample_id=["a", "b"],
            classes=3,
        )
        assert float(head.strength_) == 1
        expected = [[0.3374, -0.3374], [-0.3374, 0.3374], [0, 0]]
        np.testing.assert_allclose(head.weight_, expected, atol=1e-4)
        # A class without a label stands between the others.
        np.testing.assert_allclose(
            head.logits(np.float32([[3, 0]])), [[0.3374, -0.3374, 0]], atol=1e-4
        )

    def test_auto_is_it_where_there_are_no_texts(self):
        random = np.random.default_rng(1)
        features, labels = random.normal(size=(20, 5)).astype(np.float32), np.arange(20) % 4
        rows = {"features": features, "labels": labels, "sample_id": [f"{i}" for i in range(20)]}
        one = AutoHead(seed=2).fit(**rows, classes=4)
        other = LogisticHead(seed=2).fit(**rows, classes=4)
        for name, value in other.state().items():
            np.testing.assert_array_equal(one.state()[name], value)
        texts = random.normal(size=(4, 5)).astype(np.float32)
        by_texts = AutoHead().fit(**rows, texts=texts, logit_scale=10.0, logit_bias=-1.0)
        expected = 10 * normalise(features) @ normalise(texts).T - 1
        np.testing.assert_allclose(by_texts.logits(features), expected, rtol=1e-5, atol=1e-5)
        assert (one.facts(), by_texts.facts()) == ({"strength": float(one.strength_)}, {})


class TestTrainHeads:
    def test_every_backbone_is_answered_by_what_it_has(self, layout):
        trained = {head.backbone: head for head in heads(layout)}
        assert {name: head.facts["part"] for name, head in trained.items()} == PARTS
        assert {n: stored(layout, n).key.fields["part"] for n in THREE} == PARTS
        assert [n for n in THREE if trained[n].zero_shot is not None] == ["nano-RN50"]
        train, rows = drawn(layout)
        test = read_features(layout.features("fruit", "test", "dino.v2"))
        rest = np.setdiff1d(np.arange(60), rows)

        given = read_logits(layout.logits("fruit", IMPORTED, "forest")).splits
        forest = stored(layout, "forest").splits
        np.testing.assert_array_equal(forest["cross-fitted"].logits, given["train"].logits[rows])
        np.testing.assert_array_equal(forest["holdout"].logits, given["train"].logits[rest])
        np.testing.assert_array_equal(forest["test"].logits, given["test"].logits)

        nano = read_features(layout.features("fruit", "train", "nano-RN50"))
        cosines = normalise(nano.features) @ normalise(nano.texts).T
        found = stored(layout, "nano-RN50").splits["cross-fitted"].logits
        np.testing.assert_allclose(found, 100 * cosines[rows], rtol=1e-4, atol=1e-4)

        unit = normalise(train.features[rows])
        strength = trained["dino.v2"].facts["strength"]
        weights = reference_regression(unit, train.labels[rows], strength)
        expected = normalise(test.features) @ weights.T
        found = stored(layout, "dino.v2").splits["test"].logits
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
        assert all(head.cached for head in heads(layout))

    def test_a_labelled_row_is_answered_by_a_head_that_has_not_seen_it(self, layout):
        heads(layout)
        train, rows = drawn(layout)
        labels, ids = train.labels[rows], [train.sample_id[row] for row in rows]
        fold = folds_of(labels, ids, seed=0)
        crossed = stored(layout, "dino.v2").splits["cross-fitted"].logits
        for number in np.unique(fold):
            kept, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            head = LogisticHead(seed=0).fit(
                features=train.features[rows[kept]],
                labels=labels[kept],
                sample_id=[ids[row] for row in kept],
                classes=3,
            )
            np.testing.assert_array_equal(crossed[held], head.logits(train.features[rows[held]]))

    def test_what_is_learnt_by_heart_does_not_look_accurate(self, tmp_path):
        layout, random = Layout(tmp_path / "store"), np.random.default_rng(0)
        for split, rows in (("train", 60), ("test", 30)):
            write_features(
                layout.features("fruit", split, "dino.v2"),
                feature_key("dino.v2", split),
                features=random.normal(size=(rows, 200)).astype(np.float32),
                labels=np.arange(rows) % 3,
                sample_id=[f"{split}/{row}" for row in range(rows)],
                class_names=FRUIT,
            )
        heads(layout, labels=[Labels.all()])
        crossed = stored(layout, "dino.v2", "all-labels-seed-0").splits["cross-fitted"]
        train = read_features(layout.features("fruit", "train", "dino.v2"))
        whole = LogisticHead(strength=100.0).fit(
            features=train.features, labels=train.labels, sample_id=train.sample_id, classes=3
        )
        assert (whole.logits(train.features).argmax(axis=1) == train.labels).all()
        assert (crossed.logits.argmax(axis=1) == crossed.labels).mean() < 0.55

    def test_a_single_label_tells_nothing_of_its_own_row(self, layout):
        heads(layout, labels=[Labels.count(1)])
        crossed = stored(layout, "dino.v2", "1-labels-seed-0").splits["cross-fitted"].logits
        np.testing.assert_array_equal(crossed, np.zeros((1, 3)))

    @pytest.mark.parametrize("head", ["rla", "linear", "class-mean-few"])
    def test_heads_that_read_texts_name_what_has_none(self, layout, head):
        lacking = (
            rf"^dino.v2, forest on fruit have no texts, which the head {head} reads; run `clipnlc "
            r"train-heads --dataset fruit --head auto --store .*` and give --head auto, or leave out "
            r"dino.v2, forest with --backbones nano-RN50$"
        )
        with pytest.raises(DataError, match=lacking):
            heads(layout, head=head, labels=[])

    def test_heads_that_read_features_name_what_has_none(self, layout):
        with pytest.raises(
            DataError, match=r"^forest on fruit has no features, which the head log"
        ):
            heads(layout, head="logistic-few")
        assert len(heads(layout, head="logistic-few", backbones=["dino.v2", "nano-RN50"])) == 2

    def test_a_backbone_with_nothing_is_named(self, layout):
        layout.logits("fruit", IMPORTED, "forest").unlink()
        with pytest.raises(
            DataError, match=r"^forest has neither texts nor features nor logits on"
        ):
            heads(layout)

    def test_other_imported_logits_make_it_stale(self, layout):
        heads(layout)
        combiners(layout)
        write_forest(layout, seed=1)
        stale = (
            r"logits/auto/4-shots-seed-0/forest\.h5 is stale: fruit/logits/imported/forest\.h5 has"
        )
        with pytest.raises(StoreError, match=rf"{stale}.*train-heads --dataset fruit --head auto"):
            evaluate(store=layout.root, head="auto")
        assert [head.cached for head in heads(layout)] == [True, False, True]
        combiners(layout)
        evaluate(store=layout.root, head="auto")

    def test_imported_logits_of_other_images_are_refused(self, layout):
        path = layout.logits("fruit", IMPORTED, "forest")
        kept = read_logits(path)
        train = kept.splits["train"]
        other = replace(train, sample_id=tuple(reversed(train.sample_id)))
        write_logits(path, replace(kept, splits={**kept.splits, "train": other}))
        with pytest.raises(
            StoreError, match=r"imported/forest\.h5 are not aligned: sample_id of row 0"
        ):
            heads(layout)


class TestWithoutLabels:
    def test_a_backbone_that_would_be_fitted_is_refused_by_name(self, layout):
        refused = (
            "^dino.v2 on fruit has neither texts nor logits, so the head auto fits logistic-few on "
            "labels, and 0 shots give none; give --shots 1 or more, or name the others with"
        )
        with pytest.raises(DataError, match=refused):
            heads(layout, labels=[Labels.none(), FOUR])
        heads(layout)
        with pytest.raises(MissingStageError, match="no auto logits of fruit without labels"):
            combiners(layout, labels=[Labels.none()])

    def test_the_others_need_none(self, layout):
        two = ["forest", "nano-RN50"]
        heads(layout, backbones=two, labels=[])
        runs = combiners(layout, backbones=two, combiners=["log-avg", "balanced-gp", "gp"])
        assert [(r.which.name, r.combiners) for r in runs] == [
            ("no-labels", ("log-avg", "balanced-gp")),
            ("4-shots-seed-0", ("log-avg", "balanced-gp", "gp")),
        ]
        found = evaluate(store=layout.root, head="auto", backbones=two)
        rows = {(r.method, r.drawn): r.accuracy for r in found.summary}
        assert rows["log-avg", Labels.none()] == rows["log-avg", FOUR]
        assert rows[BEST_SINGLE, Labels.none()] == rows["forest", Labels.none()]


class TestCombiners:
    def test_every_one_runs(self, layout):
        heads(layout)
        (run,) = combiners(layout, combiners=USABLE, settings=QUICK)
        assert set(run.combiners) == set(USABLE)
        fits = read_fit_header(layout.fits("fruit", "auto", members_name(THREE), FOUR.name))
        assert all(key.fields["parts"] == PARTS for key in fits.keys.values())

        found = evaluate(store=layout.root, head="auto")
        labels = read_features(layout.features("fruit", "test", "dino.v2")).labels
        logits = {name: stored(layout, name).splits["test"].logits.astype(float) for name in THREE}
        right = {name: logits[name].argmax(axis=1) == labels for name in THREE}
        rows = {(r.method, r.drawn): r for r in found.datasets[0].rows}
        mean = (sum(logits.values()) / 3).argmax(axis=1)
        assert rows["log-avg", FOUR].accuracy == pytest.approx((mean == labels).mean())
        shares = [np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in logits.values()]
        assert rows["prob-avg", FOUR].accuracy == (sum(shares).argmax(axis=1) == labels).mean()
        # What needs no labels stands under none; what was fitted stands under its labels.
        assert {n: sorted(d.name for m, d in rows if m == n) for n in THREE} == {
            "dino.v2": ["4-shots-seed-0"],
            "forest": ["no-labels"],
            "nano-RN50": ["no-labels"],
        }
        assert all(
            rows[name, FOUR if name == "dino.v2" else Labels.none()].accuracy == right[name].mean()
            for name in THREE
        )
        unfitted = [right["forest"], right["nano-RN50"]]
        best, oracle = rows[BEST_SINGLE, Labels.none()], rows[ORACLE, Labels.none()]
        assert best.accuracy == max(each.mean() for each in unfitted)
        assert oracle.accuracy == np.any(unfitted, axis=0).mean()
        assert evaluate(store=layout.root, head="auto") == found
        assert not verify(store=layout.root).damage
        assert not [row for row in store_status(layout.root) if row.stale or not row.complete]

    @pytest.mark.slow
    def test_what_costs_are_not_known_is_said(self, layout):
        heads(layout)
        cost = "cascade starts with the cheapest backbone, and what forest costs is not known"
        with pytest.raises(DataError, match=cost):
            combiners(layout, combiners=["cascade"])

    def test_scores_are_a_plain_mean_of_the_three(self, layout):
        heads(layout)
        combiners(layout, combiners=["log-avg"])
        fitted = read_fitted(find_runs(layout, "fruit", "auto"), FOUR.name, ["log-avg"])["log-avg"]
        given = {"head": "auto", "backbones": THREE, "run": FOUR.name}
        with stored_target(layout, "fruit", "test", **given) as target:
            ensemble = target.read(np.arange(31), False)
            scores = apply(fitted, ensemble).combined(ensemble)
        nano = read_features(layout.features("fruit", "test", "nano-RN50"))
        forest = read_logits(layout.logits("fruit", IMPORTED, "forest")).splits["test"].logits
        dino = read_features(layout.features("fruit", "test", "dino.v2"))
        train, rows = drawn(layout)
        strength = stored(layout, "dino.v2").facts["strength"]
        weights = reference_regression(
            normalise(train.features[rows]), train.labels[rows], strength
        )
        expected = 100 * normalise(nano.features) @ normalise(nano.texts).T
        expected = (expected + forest + normalise(dino.features) @ weights.T) / 3
        by_name = [FRUIT.index(name) for name in sorted(FRUIT)]
        np.testing.assert_allclose(scores, expected[:, by_name], rtol=2e-3, atol=2e-3)

    def test_where_all_are_fitted_the_reference_says_of_what(self, layout):
        heads(layout, backbones=["dino.v2"], labels=[Labels.shots(1), FOUR])
        combiners(
            layout, backbones=["dino.v2"], combiners=["log-avg"], labels=[Labels.shots(1), FOUR]
        )
        (one,) = evaluate(store=layout.root, head="auto", backbones=["dino.v2"]).datasets
        assert any(
            "best single and oracle are those of heads fitted at 4 per" in n for n in one.notes
        )
        rows = {(r.method, r.drawn): r.accuracy for r in one.rows}
        assert rows[BEST_SINGLE, Labels.none()] == rows["dino.v2", FOUR] == rows["log-avg", FOUR]
        assert ("dino.v2", Labels.none()) not in rows

    def test_logits_alone_leave_features_to_nobody(self, layout):
        heads(layout, backbones=["forest"], labels=[])
        notes = []
        given = {"backbones": ["forest"], "combiners": ["log-avg", "gp"]}
        made = combiners(layout, **given, on_note=notes.append)
        assert notes == ["fruit: gp reads features, and forest has logits alone"]
        assert {name for run in made for name in run.combiners} == {"log-avg"}

    def test_zero_shot_is_not_taken_for_all_of_them(self, layout):
        lacking = (
            r"^dino.v2, forest on fruit have no texts, which the head zero-shot reads; run `clipnlc "
            r"train-heads --dataset fruit --head auto --store .*` and give --head auto, or leave out "
            r"dino.v2, forest with --backbones nano-RN50$"
        )
        for stage in (lambda **g: combiners(layout, head="zero-shot", **g),
                      lambda **g: diversity(store=layout.root, **g)):  # fmt: skip
            with pytest.raises(DataError, match=lacking):
                stage()
            with pytest.raises(
                DataError, match=r"^dino.v2 on fruit has no texts, which the head zero"
            ):
                stage(backbones=["dino.v2", "nano-RN50"])
        assert combiners(layout, head="zero-shot", backbones=["nano-RN50"])
        layout.logits("fruit", "zero-shot", "nano-RN50").unlink()
        layout.features("fruit", "train", "nano-RN50").unlink()
        layout.features("fruit", "test", "nano-RN50").unlink()
        with pytest.raises(DataError, match=r"have no texts, .* give --head auto$"):
            combiners(layout, head="zero-shot")

    def test_the_usual_head_is_zero_shot_where_all_have_texts(self, layout):
        assert usual_head(layout, "fruit") == usual_head(layout, "fruit", ["dino.v2"]) == "auto"
        assert usual_head(layout, "fruit", ["nano-RN50"]) == "zero-shot"

    def test_a_backbone_without_texts_has_no_zero_shot_logits(self, layout):
        assert not write_zero_shot_logits(layout, "fruit", "dino.v2")
        assert layout.logit_backbones("fruit", "zero-shot") == ("nano-RN50",)


class TestPredictor:
    TWO = ("dino.v2", "nano-RN50")

    def test_gives_the_bits_of_the_store_in_it_and_exported(self, layout, tmp_path):
        heads(layout)
        combiners(layout, backbones=self.TWO, combiners=["gp"])
        chosen = {"head": "auto", "combiner": "gp", "which": FOUR, "backbones": self.TWO}
        predictor = open_predictor(layout, "fruit", **chosen)
        assert predictor.templates == ("a {}",)
        export(store=layout.root, out=tmp_path / "out", dataset="fruit", **chosen)
        tests = [read_features(layout.features("fruit", "test", name)) for name in self.TWO]
        given = {"head": "auto", "backbones": self.TWO, "run": FOUR.name}
        with stored_target(layout, "fruit", "test", **given) as target:
            ensemble = target.read(np.arange(31), True)
        expected = apply(predictor.fitted, ensemble).combined(ensemble)
        for one in (predictor, open_exported(tmp_path / "out")):
            order = by_name(one.heads.class_names)
            features = [test.features for test in tests]
            made = one.heads.ensemble(features, tests[0].sample_id, classes=order)
            np.testing.assert_array_equal(apply(one.fitted, made).combined(made), expected)

    def test_answers_another_data_set_with_the_heads_of_the_run(self, layout):
        heads(layout)
        combiners(layout, backbones=self.TWO, combiners=["log-avg"])
        for name in self.TWO:
            write_fruit(layout, name, dataset="market", seed=5, texts=name != "dino.v2")
        market = [read_features(layout.features("market", "test", name)) for name in self.TWO]
        found = evaluate(
            store=layout.root,
            head="auto",
            backbones=self.TWO,
            fitted_on="fruit",
            datasets=["market"],
        )
        learnt = [stored(layout, name) for name in self.TWO]
        logits = [
            AutoHead.rebuild(one.key.fields["settings"], one.learnt).logits(its.features)
            for one, its in zip(learnt, market, strict=True)
        ]
        right = (sum(logits).argmax(axis=1) == market[0].labels).mean()
        rows = {(r.method, r.drawn): r.accuracy for r in found.datasets[0].rows}
        assert rows["log-avg", FOUR] == pytest.approx(right)

    def test_refuses_logits_alone_by_name(self, layout, tmp_path):
        heads(layout)
        combiners(layout, combiners=["log-avg"])
        came = "^forest came with logits of the images of fruit, and nothing makes them of other"
        for use in (open_predictor, lambda _l, d, **g: export(store=layout.root, out=tmp_path / "o",
                                                              dataset=d, **g)):  # fmt: skip
            with pytest.raises(DataError, match=came):
                use(layout, "fruit", head="auto", combiner="log-avg", which=FOUR)


@pytest.mark.slow
def test_the_commands_lead_from_one_to_the_next(layout):
    store = ("--store", layout.root)
    said = refusal("train-nlc", *store)
    assert "give --head auto, or leave out dino.v2, forest with --backbones nano-RN50" in said
    said = good("train-heads", "--head", "auto", "--shots", "4", "--seeds", "1", *store)
    assert "next: clipnlc train-nlc --head auto --shots 4 --seeds 1" in said
    assert "  logistic-few: dino.v2; imported: forest; zero-shot: nano-RN50\n" in said
    quick = ("--combiners", "log-avg,gp", "--shots", "4", "--seeds", "1")
    assert "next: clipnlc evaluate --head auto" in good(
        "train-nlc", "--head", "auto", *quick, *store
    )
    said = " ".join(good("evaluate", "--head", "auto", *store).split())
    assert "dino.v2 without texts or logits: a head fitted on the same labels" in said
