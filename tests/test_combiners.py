"""Every combiner keeps the family's contract; each does what its definition says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipnlc.combiners import COMBINERS, Weigher, weigh
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, fit_temperatures, softmax
from clipnlc.metrics.accuracy import accuracy, best_single_accuracy, oracle_accuracy

NAMES = list(COMBINERS)
LEARNT = [name for name in NAMES if COMBINERS.get(name).needs_labels]
PARAMETER_FREE = [name for name in NAMES if name not in LEARNT]
WEIGHERS = [name for name in NAMES if issubclass(COMBINERS.get(name), Weigher)]
ROW_WISE = [name for name in NAMES if COMBINERS.get(name).row_wise]


def make(samples=40, classes=5, backbones=4, *, seed=0, signal=2.0):
    """Backbones of different skill and feature width, with logits as large as CLIP's."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    logits = random.normal(20, 2, (backbones, samples, classes)).astype(np.float32)
    skill = np.linspace(0.5, 1.5, backbones)[:, None] * signal
    logits[:, np.arange(samples), labels] += skill.astype(np.float32)
    features = tuple(
        random.normal(size=(samples, 3 + b)).astype(np.float32) for b in range(backbones)
    )
    return Ensemble(logits, features, tuple(f"img/{i:03d}" for i in range(samples))), labels


def predictions(scores):
    return scores.argmax(axis=1)


@pytest.fixture(scope="module")
def train():
    return make(seed=1)


@pytest.fixture(scope="module")
def test():
    return make(31, seed=2)[0]


@pytest.fixture(scope="module")
def fitted(train):
    return {name: COMBINERS.get(name)().fit(*train) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_scores_have_a_row_per_sample_and_are_finite(self, name, fitted, test):
        scores = fitted[name].combine(test)
        assert scores.shape == test.logits.shape[1:]
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()

    def test_no_rows_give_no_scores(self, name, fitted, test):
        assert fitted[name].combine(test.rows([])).shape == (0, 5)

    def test_inputs_stay_as_they_were(self, name):
        (given_ensemble, given_labels), (copy, copied_labels) = make(), make()
        COMBINERS.get(name)().fit(given_ensemble, given_labels).combine(given_ensemble)
        np.testing.assert_array_equal(given_ensemble.logits, copy.logits)
        np.testing.assert_array_equal(given_labels, copied_labels)
        for one, other in zip(given_ensemble.features, copy.features, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_the_order_of_fitted_rows_does_not_matter(self, name, train, fitted):
        ensemble, labels = train
        order = np.random.default_rng(0).permutation(len(labels))
        again = COMBINERS.get(name)().fit(ensemble.rows(order), labels[order])
        for key, value in fitted[name].state().items():
            np.testing.assert_array_equal(again.state()[key], value)

    def test_the_order_of_combined_rows_carries_over(self, name, fitted, test):
        order = np.random.default_rng(0).permutation(len(test.sample_id))
        np.testing.assert_allclose(
            fitted[name].combine(test.rows(order)), fitted[name].combine(test)[order], rtol=1e-6
        )

    def test_renaming_classes_renames_predictions(self, name, train, fitted, test):
        ensemble, labels = train
        names = np.array([3, 0, 4, 1, 2])  # new class j is old class names[j]
        renamed = Ensemble(ensemble.logits[:, :, names], ensemble.features, ensemble.sample_id)
        test_renamed = Ensemble(test.logits[:, :, names], test.features, test.sample_id)
        again = COMBINERS.get(name)().fit(renamed, np.argsort(names)[labels])
        scores = again.combine(test_renamed)
        np.testing.assert_allclose(scores, fitted[name].combine(test)[:, names], rtol=1e-6)
        np.testing.assert_array_equal(
            names[predictions(scores)], predictions(fitted[name].combine(test))
        )

    def test_the_order_of_backbones_does_not_matter(self, name, train, fitted, test):
        ensemble, labels = train
        order = [2, 0, 3, 1]
        again = COMBINERS.get(name)().fit(ensemble.backbones(order), labels)
        mixed = test.backbones(order)
        np.testing.assert_allclose(
            again.combine(mixed), fitted[name].combine(test), rtol=1e-6, atol=1e-9
        )
        if isinstance(again, Weigher):
            np.testing.assert_allclose(
                again.weights(mixed), fitted[name].weights(test)[:, order], rtol=1e-6, atol=1e-9
            )

    def test_same_seed_same_bits(self, name, train, fitted, test):
        again = COMBINERS.get(name)(seed=0).fit(*train)
        np.testing.assert_array_equal(again.combine(test), fitted[name].combine(test))

    def test_state_travels(self, name, fitted, test):
        state = fitted[name].state()
        assert all(isinstance(value, np.ndarray) for value in state.values())
        again = COMBINERS.get(name)().load_state(state)
        np.testing.assert_array_equal(again.combine(test), fitted[name].combine(test))

    def test_a_foreign_state_is_refused(self, name):
        with pytest.raises(ValueError, match=r"learns \[.*\], the state has \['foreign_'\]"):
            COMBINERS.get(name)().load_state({"foreign_": np.zeros(1)})

    def test_refit_forgets(self, name, train, fitted, test):
        other, other_labels = make(20, seed=5)
        again = COMBINERS.get(name)().fit(other, other_labels).fit(*train)
        np.testing.assert_array_equal(again.combine(test), fitted[name].combine(test))

    def test_features_are_asked_for_only_where_needed(self, name, train):
        ensemble, labels = train
        blind = Ensemble(ensemble.logits, (), ensemble.sample_id)
        combiner = COMBINERS.get(name)()
        if combiner.needs_features:
            with pytest.raises(ValueError, match="holds no features"):
                combiner.fit(blind, labels)
        else:
            assert np.isfinite(combiner.fit(blind, labels).combine(blind)).all()

    def test_labels_must_fit_the_rows(self, name, train):
        ensemble, labels = train
        with pytest.raises(ValueError, match="39 labels for 40 rows"):
            COMBINERS.get(name)().fit(ensemble, labels[1:])
        with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), found 0 to 5"):
            COMBINERS.get(name)().fit(ensemble, np.where(labels == 1, 5, labels))
        with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), found -1 to 4"):
            COMBINERS.get(name)().fit(ensemble, np.where(labels == 0, -1, labels))

    @pytest.mark.parametrize(
        "shape",
        [(1, 2, 3, 0.0), (2, 2, 2, 50.0), (5, 5, 9, 50.0), (5, 5, 1, -50.0), (12, 3, 4, 0.0)],
        ids=["one row", "two rows, all right", "all right", "one backbone, wrong", "chance"],
    )
    def test_few_labels_stay_finite(self, name, shape, recwarn):
        samples, classes, backbones, signal = shape
        ensemble, labels = make(samples, classes, backbones, signal=signal)
        combiner = COMBINERS.get(name)().fit(ensemble, labels)
        assert np.isfinite(combiner.combine(make(7, classes, backbones, seed=3)[0])).all()
        assert not recwarn.list

    def test_equal_backbones_predict_what_each_predicts(self, name):
        ensemble, labels = make(30, 6)
        equal = ensemble.backbones([2, 2, 2])
        scores = COMBINERS.get(name)().fit(equal, labels).combine(equal)
        np.testing.assert_array_equal(predictions(scores), predictions(ensemble.logits[2]))

    def test_needs_labels_is_said_truly(self, name):
        assert COMBINERS.get(name).needs_labels == bool(COMBINERS.get(name).learnt)
        assert all(value.endswith("_") for value in COMBINERS.get(name).learnt)


@pytest.mark.parametrize("name", WEIGHERS)
def test_a_weigher_is_the_weighted_sum_of_logits(name, fitted, test):
    weights = fitted[name].weights(test)
    assert weights.dtype == np.float32
    expected = np.einsum("nb,bnc->nc", weights.astype(float), test.logits.astype(float))
    np.testing.assert_allclose(fitted[name].combine(test), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ROW_WISE)
def test_rows_may_be_combined_in_batches(name, fitted, test):
    parts = [fitted[name].combine(test.rows(range(a, b))) for a, b in [(0, 1), (1, 9), (9, 31)]]
    np.testing.assert_allclose(
        np.concatenate(parts), fitted[name].combine(test), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("name", LEARNT)
class TestLearnt:
    def test_unfitted_use_raises(self, name, test):
        for use in (COMBINERS.get(name)().combine, lambda _: COMBINERS.get(name)().state()):
            with pytest.raises(ValueError, match="is not fitted; call fit or load_state"):
                use(test)

    def test_a_failed_fit_keeps_nothing_half_learnt(self, name, train, test):
        ensemble, labels = train
        combiner = COMBINERS.get(name)()
        with pytest.raises(ValueError, match="labels for"):
            combiner.fit(ensemble, labels[1:])
        with pytest.raises(ValueError, match="is not fitted"):
            combiner.combine(test)

    def test_another_number_of_backbones_is_refused(self, name, fitted, test):
        with pytest.raises(ValueError, match="fitted on 4 backbones, asked to combine 3"):
            fitted[name].combine(test.backbones([0, 1, 2]))


@pytest.mark.parametrize("name", PARAMETER_FREE)
def test_parameter_free_ones_need_no_fit(name, fitted, test):
    np.testing.assert_array_equal(COMBINERS.get(name)().combine(test), fitted[name].combine(test))
    assert fitted[name].state() == {}


def ensemble_of(logits):
    logits = np.asarray(logits, dtype=np.float32)
    return Ensemble(logits, (), tuple(str(i) for i in range(logits.shape[1])))


class TestVotes:
    def test_plurality_wins_over_confidence(self):
        votes = ensemble_of([[[1, 0, 0]], [[1, 0, 0]], [[0, 90, 0]]])
        assert predictions(COMBINERS.get("vote-1")().combine(votes)) == [0]

    def test_ties_go_to_the_higher_mean_probability(self):
        votes = ensemble_of([[[2, 0, 0]], [[0, 3, 0]]])
        assert predictions(COMBINERS.get("vote-1")().combine(votes)) == [1]

    def test_scores_are_log_shares_with_the_mean_probability_as_one_more_vote(self):
        votes = ensemble_of([[[2, 0, 0]], [[0, 3, 0]], [[0, 1, 0]]])
        mean = softmax(votes.logits.astype(float)).mean(axis=0)
        expected = (np.array([[1, 2, 0]]) + mean) / 4
        probs = softmax(COMBINERS.get("vote-1")().combine(votes))
        np.testing.assert_allclose(probs, expected, rtol=1e-12)

    def test_three_ballots_each(self):
        votes = ensemble_of([[[9, 3, 2, 0, 0]], [[0, 3, 2, 9, 0]], [[0, 3, 2, 0, 9]]])
        # Classes 1 and 2 have three votes each, and 1 the higher probability.
        assert predictions(COMBINERS.get("vote-3")().combine(votes)) == [1]

    @pytest.mark.parametrize("classes", [2, 3])
    def test_few_classes_do_not_tie_always(self, classes):
        ensemble, labels = make(200, classes, signal=6.0)
        assert accuracy(COMBINERS.get("vote-3")().combine(ensemble), labels) > 0.9


class TestConfidence:
    def test_takes_the_surest_backbone_even_where_probabilities_round_to_one(self):
        logits = ensemble_of([[[60, 0, 0]], [[0, 80, 0]]])
        assert predictions(COMBINERS.get("conf")().combine(logits)) == [1]

    def test_equals_its_definition(self, train):
        ensemble, labels = train
        temperature = fit_temperatures(ensemble.logits, labels)
        for name, divisor in [("conf", np.ones(4)), ("c-conf", temperature)]:
            scores = COMBINERS.get(name)().fit(ensemble, labels).combine(ensemble)
            for row, score in enumerate(scores):
                probs = [softmax(z[row] / t) for z, t in zip(ensemble.logits, divisor, strict=True)]
                surest = max(probs, key=max)
                np.testing.assert_allclose(softmax(score), surest, rtol=1e-4)


class TestLearntWeights:
    def test_best_single_is_the_most_accurate_then_the_least_surprised(self):
        logits = [[[2, 1], [2, 1]], [[9, 1], [1, 1.5]], [[3, 1], [1, 3]], [[4, 1], [1, 4]]]
        combiner = COMBINERS.get("best-single-validation")()
        combiner.fit(ensemble_of(logits), np.array([0, 1]))
        assert combiner.chosen_.tolist() == [0, 0, 0, 1]

    def test_calibrated_average_is_the_mean_over_temperatures(self, train, fitted, test):
        temperature = fit_temperatures(train[0].logits, train[1])
        expected = (test.logits / temperature[:, None, None]).mean(axis=0)
        np.testing.assert_allclose(fitted["c-log-avg"].combine(test), expected, rtol=1e-5)

    def test_fits_are_no_worse_than_where_they_start(self, train, fitted):
        ensemble, labels = train
        scores = {name: combiner.combine(ensemble) for name, combiner in fitted.items()}
        loss = {name: cross_entropy(s, labels) for name, s in scores.items()}
        right = {name: accuracy(s, labels) for name, s in scores.items()}
        assert loss["static"] <= loss["c-log-avg"]
        assert loss["super-learner"] <= loss["log-avg"]
        assert right["gac"] >= right["c-log-avg"]
        assert loss["nlc"] < loss["log-avg"]

    def test_super_learner_finds_the_minimum_on_the_simplex(self):
        ensemble, labels = make(60, 4, 2, seed=3)
        combiner = COMBINERS.get("super-learner")().fit(ensemble, labels)
        assert combiner.weight_.min() >= 0
        assert combiner.weight_.sum() == pytest.approx(1)
        losses = [
            cross_entropy(w * ensemble.logits[0] + (1 - w) * ensemble.logits[1], labels)
            for w in np.linspace(0, 1, 201)
        ]
        assert cross_entropy(combiner.combine(ensemble), labels) <= min(losses) + 1e-6

    def test_gac_ties_the_gradient_fit_within_noise(self):
        ensemble, labels = make(400, 6, 5, seed=4)
        test, test_labels = make(2000, 6, 5, seed=5)
        by_search, by_gradient = (
            accuracy(COMBINERS.get(name)().fit(ensemble, labels).combine(test), test_labels)
            for name in ("gac", "static")
        )
        assert by_search == pytest.approx(by_gradient, abs=0.03)


class TestRelations:
    """The exact invariants of the NLC paper's methods."""

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 7), st.integers(1, 40))
    def test_oracle_bounds_whoever_picks_a_backbone(self, seed, backbones, classes, samples):
        ensemble, labels = make(samples, classes, backbones, seed=seed)
        tops = ensemble.logits.argmax(axis=2)
        oracle = oracle_accuracy(tops, labels)
        assert oracle >= best_single_accuracy(tops, labels)
        for name in ("conf", "c-conf", "vote-1", "best-single-validation"):
            chosen = predictions(COMBINERS.get(name)().fit(ensemble, labels).combine(ensemble))
            assert (tops == chosen).any(axis=0).all(), f"{name} elects some backbone's first choice"
            assert (chosen == labels).mean() <= oracle
        for count in range(1, backbones):
            assert oracle_accuracy(tops[:count], labels) <= oracle

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32), st.floats(0.05, 20))
    def test_a_temperature_keeps_each_backbones_choice(self, seed, temperature):
        logits = make(seed=seed)[0].logits
        np.testing.assert_array_equal(
            (logits / np.float32(temperature)).argmax(axis=2), logits.argmax(axis=2)
        )


def test_weigh_has_the_same_bits_for_a_row_in_any_batch():
    ensemble, _ = make(33, 7, 5)
    weights = np.random.default_rng(0).uniform(size=(33, 5)).astype(np.float32)
    whole = weigh(ensemble.logits, weights)
    for row in range(33):
        one = weigh(ensemble.logits[:, row : row + 1], weights[row : row + 1])
        np.testing.assert_array_equal(one[0], whole[row])
