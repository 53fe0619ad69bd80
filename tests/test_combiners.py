"""Every combiner keeps the family's contract; each does what its definition says."""

import functools
import hashlib
import tracemalloc

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from clipnlc.combiners import COMBINERS, Combiner, genetic, weigh
from clipnlc.combiners.base import ConstantWeigher
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy, fit_temperatures, softmax
from clipnlc.metrics.accuracy import accuracy, best_single_accuracy, oracle_accuracy
from clipnlc.testing import COMBINER_CHECKS, check_combiner, example

NAMES = list(COMBINERS)
LEARNT = [name for name in NAMES if COMBINERS.get(name).needs_labels]


make = functools.partial(example, named=False)


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


# A shorter one is checked in test_combiners_cascade.py.
CHECKED = [pytest.param(n, marks=pytest.mark.long) if n == "cascade-nlc" else n for n in NAMES]


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("check", COMBINER_CHECKS, ids=lambda check: check.__name__)
def test_every_combiner_conforms(name, check):
    check(COMBINERS.get(name))


class Foreign(Combiner):
    """Ridge regression of the classes on the features, as a stranger would write it."""

    needs_labels = needs_features = per_class = True
    learnt = ("coef_",)

    def _learn(self, ensemble, labels):
        inputs = ensemble.concatenated().astype(float)
        kernel = inputs @ inputs.T + np.eye(len(inputs))
        wanted = 2 * np.eye(ensemble.logits.shape[2])[labels] - 1
        self.coef_ = inputs.T @ np.linalg.solve(kernel, wanted)

    def combine(self, ensemble):
        self.require_fitted()
        return ensemble.concatenated().astype(float) @ self.coef_


class Permuting(Foreign):
    """What was wrong once: classes are sorted when learning, and not when combining."""

    def _learn(self, ensemble, labels):
        order = np.argsort(ensemble.logits.sum(axis=(0, 1)))
        super()._learn(ensemble.classes(order), np.argsort(order)[labels])


class ByBytes(ConstantWeigher):
    """What was wrong once: an order, here a whole draw, that comes from the bytes of the arrays."""

    needs_labels = True
    learnt = ("weight_",)

    def _learn(self, ensemble, labels):  # noqa: ARG002
        digest = hashlib.blake2b(ensemble.logits.tobytes(), digest_size=4).digest()
        self.weight_ = np.random.default_rng(list(digest)).dirichlet([0.2] * len(ensemble.logits))

    def _constant(self, backbones):  # noqa: ARG002
        return self.weight_


class TestForeign:
    def test_one_that_replaces_combine_conforms(self):
        check_combiner(Foreign)

    def test_one_that_permutes_classes_is_caught(self):
        with pytest.raises(AssertionError, match="in the same order in fit and combine") as caught:
            check_combiner(Permuting)
        assert caught.value.__notes__ == ["in _answers_its_own_training_rows(Permuting)"]

    def test_one_that_hangs_on_last_bits_is_caught(self):
        check = next(c for c in COMBINER_CHECKS if c.__name__ == "_hangs_on_no_last_bit")
        with pytest.raises(AssertionError, match="predictions hang on a last bit"):
            check(ByBytes)


def test_equal_backbones_predict_what_each_predicts():
    ensemble, labels = make(30, 6)
    equal = ensemble.members([2, 2, 2])
    for name in NAMES:
        if COMBINERS.get(name).per_class or COMBINERS.get(name).reads_test:  # may prefer classes
            continue
        scores = COMBINERS.get(name)().fit(equal, labels).combine(equal)
        np.testing.assert_array_equal(predictions(scores), predictions(ensemble.logits[2]))


@pytest.mark.parametrize("name", LEARNT)
class TestLearnt:
    def test_a_failed_fit_keeps_nothing_half_learnt(self, name, train, test):
        ensemble, labels = train
        combiner = COMBINERS.get(name)()
        with pytest.raises(ValueError, match="labels for"):
            combiner.fit(ensemble, labels[1:])
        with pytest.raises(ValueError, match="is not fitted"):
            combiner.combine(test)

    def test_another_number_of_backbones_is_refused(self, name, fitted, test):
        with pytest.raises(ValueError, match="fitted on 4 backbones, asked to combine 3"):
            fitted[name].combine(test.members([0, 1, 2]))


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


def test_probabilities_are_averaged_without_rounding_small_ones_to_zero():
    ensemble, _ = make(9, 4, 3)
    average = COMBINERS.get("prob-avg")()
    expected = softmax(ensemble.logits.astype(float)).mean(axis=0)
    np.testing.assert_allclose(np.exp(average.combine(ensemble)), expected, rtol=1e-12)
    extreme = average.combine(ensemble_of([[[0, 2000, 5000]], [[0, 1000, 5000]]]))
    np.testing.assert_allclose(extreme, [[-5000, -3000 - np.log(2), 0]])


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
        assert loss["static"] <= loss["log-avg"]
        assert loss["super-learner"] <= loss["log-avg"]
        assert right["gac"] >= right["c-log-avg"]
        assert loss["nlc"] < loss["log-avg"]

    @pytest.mark.parametrize(("samples", "pull"), [(1, 1.0), (5, 0.1), (60, 1.0)])
    def test_static_is_at_the_mode(self, samples, pull):
        """Against scipy on the formula, with numerical derivatives."""
        ensemble, labels = make(samples, 5, 3, seed=3)
        z = ensemble.logits.astype(float)

        def objective(o):
            scores = np.einsum("b,bnc->nc", np.exp(o) / 3, z)
            chosen = scipy.special.log_softmax(scores, axis=1)[np.arange(samples), labels]
            return -chosen.sum() + pull / 2 * (o**2).sum()

        expected = scipy.optimize.minimize(objective, np.zeros(3), options={"gtol": 1e-9}).x
        found = COMBINERS.get("static")(pull=pull).fit(ensemble, labels).weight_
        np.testing.assert_allclose(found, np.exp(expected) / 3, rtol=1e-5)

    def test_static_stays_near_log_avg_on_one_label(self):
        """One row that only the first backbone gets wrong used to move weights by a factor of 20."""
        logits = ensemble_of([[[9, 0, 0]], [[0, 9, 0]], [[0, 9, 0]]])
        weight = COMBINERS.get("static")().fit(logits, np.array([1])).weight_
        assert (np.abs(np.log(weight * 3)) < 1).all()
        assert weight[0] < weight[1]

    def test_static_without_a_pull_is_refused(self, train):
        with pytest.raises(ValueError, match=r"pull is 0\.0; it must be above 0"):
            COMBINERS.get("static")(pull=0.0).fit(*train)

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

    @pytest.mark.parametrize("seed", range(24))
    def test_super_learner_reaches_the_optimum(self, seed):
        """The loss is convex: what is missing is at most the bound of Frank and Wolfe."""
        random = np.random.default_rng(seed)
        samples, classes, backbones = [(8, 8, 9), (20, 10, 9), (300, 7, 9)][seed % 3]
        ensemble, labels = make(samples, classes, backbones, seed=seed, signal=4 * random.random())
        # As trained heads: some sure and often right, some sure and often wrong.
        logits = ensemble.logits * random.uniform(0.3, 6, (backbones, 1, 1)).astype(np.float32)
        ensemble = Ensemble(logits, (), ensemble.sample_id)
        w = COMBINERS.get("super-learner")().fit(ensemble, labels).weight_
        z = ensemble.logits.astype(float)
        probs = scipy.special.softmax(np.einsum("b,bnc->nc", w, z), axis=1)
        slope = np.einsum("bnc,nc->b", z, probs - np.eye(classes)[labels]) / samples
        assert w.min() >= 0
        assert w.sum() == pytest.approx(1, abs=1e-9)
        assert slope @ w - slope.min() <= 1e-5

    def test_gac_has_the_same_energy_in_blocks(self, monkeypatch):
        ensemble, labels = make(50, 6, 4, seed=4)
        weights = np.random.default_rng(0).uniform(size=(4, 28))
        whole = genetic.fitness(ensemble.logits, labels)(weights)
        monkeypatch.setattr(genetic, "_SCORES_AT_ONCE", 28 * 6 * 7)
        np.testing.assert_allclose(genetic.fitness(ensemble.logits, labels)(weights), whole, 1e-7)

    @pytest.mark.parametrize("name", ["nlc", "static", "gac", "super-learner", "c-log-avg"])
    def test_a_fit_copies_its_logits_once_at_most(self, name):
        """What a fit takes beside its inputs stays below them, however many labels there are."""
        ensemble, labels = make(6000, 200, 9)
        combiner = COMBINERS.get(name)()
        combiner.steps = combiner.generations = 1
        tracemalloc.start()
        try:
            combiner.fit(ensemble, labels)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1.6 * ensemble.logits.nbytes

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
