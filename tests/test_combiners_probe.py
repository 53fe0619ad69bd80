"""Regressions on the features, against scikit-learn and plain scipy."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from clipnlc import regression
from clipnlc.combiners import COMBINERS
from clipnlc.fitting import log_softmax, softmax
from clipnlc.metrics.accuracy import accuracy
from clipnlc.testing import example


def inputs_of(ensemble):
    return np.hstack([normalize(block.astype(float)) for block in ensemble.features])


@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_probe_is_scikit_learns_regression(strength):
    (train, labels), (test, _) = example(80, seed=1, named=False), example(30, seed=2, named=False)
    other = LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=10000)
    expected = other.fit(inputs_of(train), labels).predict_log_proba(inputs_of(test))
    scores = COMBINERS.get("probe")(strength=strength).fit(train, labels).combine(test)
    np.testing.assert_allclose(log_softmax(scores), expected, atol=1e-5)


def test_probe_static_is_its_formula():
    (train, labels), (test, _) = example(30, 4, 3, seed=1), example(9, 4, 3, seed=2)
    train, test = (one.canonical().ensemble for one in (train, test))
    weight = COMBINERS.get("static")().fit(train, labels).weight_
    inputs, fixed = inputs_of(train), np.tensordot(weight, train.logits, axes=1)

    def objective(flat):
        log_p = scipy.special.log_softmax(fixed + inputs @ flat.reshape(-1, 4), axis=1)
        slope = np.exp(log_p)
        slope[np.arange(30), labels] -= 1
        value = -2.0 * log_p[np.arange(30), labels].sum() + (flat**2).sum() / 2
        return value, (2.0 * inputs.T @ slope).ravel() + flat

    start = np.zeros(inputs.shape[1] * 4)
    options = {"maxiter": 5000, "ftol": 0, "gtol": 1e-10}
    found = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    expected = np.tensordot(weight, test.logits, axes=1)
    expected += inputs_of(test) @ found.x.reshape(-1, 4)
    scores = COMBINERS.get("probe-static")(strength=2.0).fit(train, labels).combine(test)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_more_rows_than_the_dual_form_takes_give_the_same(monkeypatch):
    (train, labels), (test, _) = example(60, seed=1), example(20, seed=2)
    for name in ("probe", "probe-static"):
        monkeypatch.setattr(regression, "_EXACT_ROWS", 1000)
        dual = COMBINERS.get(name)(strength=3.0).fit(train, labels).combine(test)
        monkeypatch.setattr(regression, "_EXACT_ROWS", 10)
        primal = COMBINERS.get(name)(strength=3.0).fit(train, labels).combine(test)
        np.testing.assert_allclose(primal, dual, atol=3e-2)


class TestStrength:
    def test_the_best_of_all_held_out_losses_is_chosen(self):
        """Every strength by hand, with scikit-learn, on the same folds."""
        train, labels = example(60, seed=1, named=False)
        fold = regression.folds(labels, train.sample_id, most=5, seed=0)
        assert sorted(set(fold)) == [0, 1, 2, 3, 4]
        losses = []
        for strength in regression.STRENGTHS:
            loss = 0.0
            for number in range(5):
                held = fold == number
                one = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)
                one.fit(inputs_of(train)[~held], labels[~held])
                found = one.predict_log_proba(inputs_of(train)[held])
                loss -= found[np.arange(held.sum()), labels[held]].sum()
            losses.append(loss)
        chosen = COMBINERS.get("probe")().fit(train, labels).strength_
        assert chosen == regression.STRENGTHS[int(np.argmin(losses))]

    def test_one_label_per_class_takes_the_documented_one(self):
        train, _ = example(5, seed=1)
        for name in ("probe", "probe-static"):
            found = COMBINERS.get(name)().fit(train, np.arange(5))
            assert found.strength_ == regression.WITHOUT_FOLDS

    def test_folds_are_stratified_and_follow_the_samples(self):
        labels = np.repeat([0, 1, 2], [10, 4, 1])
        ids = tuple(f"{i}" for i in range(15))
        fold = regression.folds(labels, ids, most=5, seed=0)
        assert np.bincount(fold[labels == 0]).tolist() == [2] * 5
        assert sorted(fold[labels == 1]) == [0, 1, 2, 3]
        assert fold[14] == -1
        order = np.random.default_rng(0).permutation(15)
        moved = regression.folds(labels[order], tuple(ids[i] for i in order), most=5, seed=0)
        np.testing.assert_array_equal(moved, fold[order])


class TestClassesWithoutLabels:
    def test_probe_leaves_them_to_log_avg(self):
        train, labels = example(40, seed=1, named=False)
        test, truth = example(400, seed=2, named=False)
        kept = np.flatnonzero(labels < 3)
        fitted = COMBINERS.get("probe")().fit(train.rows(kept), labels[kept])
        probability, average = (
            softmax(one) for one in (fitted.combine(test), COMBINERS.get("log-avg")().combine(test))
        )
        np.testing.assert_allclose(probability[:, 3:], average[:, 3:], rtol=1e-6)
        np.testing.assert_allclose(probability.sum(axis=1), 1)
        unseen = np.flatnonzero(truth >= 3)
        assert accuracy(probability[unseen], truth[unseen]) > 1 / 5

    def test_probe_static_still_predicts_them(self):
        train, labels = example(40, seed=1, signal=6.0)
        test, truth = example(400, seed=2, signal=6.0)
        kept = np.flatnonzero(labels < 3)
        scores = COMBINERS.get("probe-static")().fit(train.rows(kept), labels[kept]).combine(test)
        unseen = np.flatnonzero(truth >= 3)
        assert accuracy(scores[unseen], truth[unseen]) > 1 / 5
