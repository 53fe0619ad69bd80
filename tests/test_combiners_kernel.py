"""The joint kernel and the regression on given logits, against plain scipy and scikit-learn."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.linear_model import LogisticRegression

from clipnlc import logistic
from clipnlc.combiners import COMBINERS, kernel
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import cross_entropy
from clipnlc.regression import draw_landmarks


def problem(rows=24, classes=4, dims=(5, 3, 7), *, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes - 1, rows)  # the last class has no row
    features = [
        (random.normal(size=(classes, d))[labels] + random.normal(size=(rows, d)) + 2) for d in dims
    ]
    return [f.astype(np.float32) for f in features], random.normal(0, 2, (rows, classes)), labels


def kernel_by_hand(features, others, beta, pool=None):
    """The formula of the docstring, row by row; centred on the mean of a pool, or of the others."""
    found = np.zeros((len(features[0]), len(others[0])))
    for of_rows, of_others, of_pool in zip(features, others, pool or others, strict=True):
        one, two, three = (f.astype(float) for f in (of_rows, of_others, of_pool))
        one /= np.linalg.norm(one, axis=1)[:, None]
        two /= np.linalg.norm(two, axis=1)[:, None]
        centre = (three / np.linalg.norm(three, axis=1)[:, None]).mean(axis=0)
        one, two = one - centre, two - centre
        for i, a in enumerate(one):
            for j, b in enumerate(two):
                found[i, j] += a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) / len(features)
    return np.exp(-beta * (1 - found))


def optimum(gram, offset, labels, sigma):
    """Minimise over A with scipy; A has one row per labelled row."""
    shape = offset.shape

    def objective(flat):
        a = flat.reshape(shape)
        f = gram @ a
        log_p = scipy.special.log_softmax(offset + f, axis=1)
        value = -log_p[np.arange(len(labels)), labels].sum() + (a * f).sum() / (2 * sigma**2)
        slope = np.exp(log_p)
        slope[np.arange(len(labels)), labels] -= 1
        return value, (gram @ (slope + a / sigma**2)).ravel()

    found = scipy.optimize.minimize(
        objective,
        np.zeros(offset.size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 50000, "ftol": 0, "gtol": 1e-10},
    )
    return found.x.reshape(shape)


def test_the_kernel_is_its_formula():
    features, others = problem()[0], problem(9, seed=1)[0]
    mean = kernel.unit_mean(features)
    rows, new = kernel.centred_rows(features, mean), kernel.centred_rows(others, mean)
    np.testing.assert_allclose(
        kernel.joint_kernel(rows, beta=0.7), kernel_by_hand(features, features, 0.7), rtol=1e-6
    )
    np.testing.assert_allclose(
        kernel.joint_kernel(new, rows, beta=2.0), kernel_by_hand(others, features, 2.0), rtol=2e-6
    )


@pytest.mark.parametrize("per_backbone", [False, True])
@pytest.mark.parametrize(("sigma", "beta", "pull"), [(4.0, 1.0, 1.0), (0.7, 3.0, 0.2)])
def test_gp_is_its_formula(sigma, beta, pull, per_backbone):
    """Everything again with scipy: weights, kernel, coefficients, scores of other rows."""
    (train, _, labels), (test, _, _) = problem(), problem(9, seed=1)
    random = np.random.default_rng(5)
    logits = random.normal(0, 2, (3, 33, 4)).astype(np.float32).astype(float)
    logits, new = logits[:, :24], logits[:, 24:]

    counts = np.bincount(labels, minlength=4) + 0.25
    shift = np.log(counts / counts.sum() * 4)  # what random labels say of the classes is left out

    def static(o):
        weighted = np.tensordot(np.exp(o) / 3, logits, axes=1) + shift
        log_p = scipy.special.log_softmax(weighted, axis=1)
        return -log_p[np.arange(24), labels].sum() + pull / 2 * (o**2).sum()

    weight = np.exp(scipy.optimize.minimize(static, np.zeros(3), options={"gtol": 1e-9}).x) / 3

    def kernel_of(one, two):
        if not per_backbone:
            return kernel_by_hand(one, two, beta)
        each = [kernel_by_hand([a], [b], beta) for a, b in zip(one, two, strict=True)]
        return sum(each) / len(each)

    gram = kernel_of(train, train)
    a = optimum(gram, np.tensordot(weight, logits, axes=1) + shift, labels, sigma)
    expected = np.tensordot(weight, new, axes=1) + kernel_of(test, train) @ a

    def ensemble(of, features):
        ids = tuple(f"{i:04d}" for i in range(of.shape[1]))
        return Ensemble(of.astype(np.float32), tuple(features), ids)

    gp = COMBINERS.get("gp")(sigma=sigma, beta=beta, pull=pull, per_backbone=per_backbone)
    gp.fit(ensemble(logits, train), labels)
    np.testing.assert_allclose(gp.combine(ensemble(new, test)), expected, rtol=0, atol=1e-6)
    assert gp.keeps_features


@pytest.mark.parametrize("sigma", [0.5, 4.0])
def test_the_kernel_form_is_at_the_optimum(sigma):
    features, offset, labels = problem()
    rows = kernel.centred_rows(features, kernel.unit_mean(features))
    gram = kernel.joint_kernel(rows, beta=1.0)
    found = logistic.fit_kernel(gram.copy(), offset, labels, sigma=sigma)
    expected = optimum(gram, offset, labels, sigma)
    np.testing.assert_allclose(gram @ found, gram @ expected, atol=1e-6)


def test_where_the_search_begins_does_not_change_where_it_ends():
    features, offset, labels = problem()
    rows = kernel.centred_rows(features, kernel.unit_mean(features))
    gram = kernel.joint_kernel(rows, beta=1.0)
    near = logistic.fit_kernel(gram.copy(), offset, labels, sigma=1.0, enough=1e-3)
    far = optimum(gram, offset, labels, 1.0)
    assert 1e-4 < np.abs(gram @ near - gram @ far).max() < 0.5
    found = logistic.fit_kernel(gram.copy(), offset, labels, sigma=4.0, start=near)
    np.testing.assert_allclose(gram @ found, gram @ optimum(gram, offset, labels, 4.0), atol=1e-6)


def test_a_kernel_centred_on_a_pool_has_no_mean_there_and_is_fitted_to_its_optimum():
    features, offset, labels = problem()
    pool_features = problem(40, seed=2)[0]
    mean = kernel.unit_mean(pool_features)
    rows, pool = kernel.centred_rows(features, mean), kernel.centred_rows(pool_features, mean)
    of_rows = kernel.kernel_means(rows, pool, beta=1.0)
    of_pool = kernel.kernel_means(pool, pool, beta=1.0)
    whole = of_pool.mean()
    np.testing.assert_allclose(of_rows, kernel.joint_kernel(rows, pool, beta=1.0).mean(axis=1))
    to_pool = kernel.joint_kernel(pool, rows, beta=1.0)
    centred = kernel.centred_kernel(to_pool, of_pool, of_rows, whole)
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-12)
    gram = kernel.centred_kernel(kernel.joint_kernel(rows, beta=1.0), of_rows, of_rows, whole)
    found = logistic.fit_kernel(gram.copy(), offset, labels, sigma=4.0)
    np.testing.assert_allclose(gram @ found, gram @ optimum(gram, offset, labels, 4.0), atol=1e-6)


@pytest.mark.parametrize("strength", [0.1, 30.0])
def test_both_forms_are_scikit_learns_regression(strength):
    random = np.random.default_rng(0)
    labels = np.arange(40) % 3
    inputs = random.normal(size=(40, 6)) + np.eye(3, 6)[labels]
    other = LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=10000)
    expected = inputs @ other.fit(inputs, labels).coef_.T
    nothing, sigma = np.zeros((40, 3)), strength**0.5
    weights = logistic.fit_primal(inputs, nothing, labels, sigma=sigma)
    np.testing.assert_allclose(inputs @ weights, expected, atol=1e-5)
    gram = inputs @ inputs.T
    found = logistic.fit_kernel(gram.copy(), nothing, labels, sigma=sigma)
    np.testing.assert_allclose(gram @ found, expected, atol=1e-5)


def test_float32_predicts_as_float64():
    features, offset, labels = problem(300, 7, (40, 30))
    rows = kernel.centred_rows(features, kernel.unit_mean(features))
    scores = []
    for dtype in (np.float32, np.float64):
        gram = kernel.joint_kernel(rows, beta=1.0, dtype=dtype)
        found = logistic.fit_kernel(gram, offset, labels, sigma=4.0)
        assert found.dtype == dtype
        scores.append(offset + kernel.kernel_scores(rows, rows, found, beta=1.0))
    np.testing.assert_allclose(*scores, rtol=0, atol=3e-2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_has_the_same_bits_in_any_block(dtype):
    features = problem(333)[0]
    mean = kernel.unit_mean(features)
    rows = kernel.centred_rows(features, mean)
    coefficients = np.random.default_rng(0).normal(size=(333, 5)).astype(dtype)

    def scores(part):
        block = kernel.centred_rows([f[part] for f in features], mean)
        return kernel.kernel_scores(block, rows, coefficients, beta=1.0)

    whole = scores(slice(None))
    for start, stop in [(0, 1), (7, 8), (5, 200), (332, 333), (100, 333)]:
        found = scores(slice(start, stop))
        if dtype == np.float64:
            np.testing.assert_array_equal(found, whole[start:stop])
        else:  # some matrix libraries sum by where a row stands
            np.testing.assert_allclose(found, whole[start:stop], rtol=1e-5, atol=1e-5)
    assert scores(slice(0, 0)).shape == (0, 5)


def test_landmarks_that_are_all_rows_change_nothing():
    features, offset, labels = problem()
    rows = kernel.centred_rows(features, kernel.unit_mean(features))
    exact, nystrom = (
        kernel.fit_residual(rows, offset, labels, sigma=4.0, beta=1.0, exact_rows=most)
        for most in (100, 10)
    )
    np.testing.assert_allclose(
        nystrom.scores(rows, beta=1.0), exact.scores(rows, beta=1.0), atol=1e-5
    )
    few = kernel.fit_residual(
        rows, offset, labels, sigma=4.0, beta=1.0, exact_rows=10, landmarks=12
    )
    assert len(few.rows) == 12
    losses = [
        cross_entropy(offset + found.scores(rows, beta=1.0), labels) for found in (exact, few)
    ]
    assert losses[0] < losses[1] < cross_entropy(offset, labels)


@pytest.mark.parametrize("exact_rows", [100, 10])
def test_a_residual_centred_on_a_pool_has_no_mean_there(exact_rows):
    features, offset, labels = problem()
    pool_features = problem(40, seed=2)[0]
    mean = kernel.unit_mean(pool_features)
    rows, pool = kernel.centred_rows(features, mean), kernel.centred_rows(pool_features, mean)
    found = kernel.fit_residual(
        rows, offset, labels, sigma=4.0, beta=1.0, pool=pool, exact_rows=exact_rows
    )
    np.testing.assert_allclose(found.scores(pool, beta=1.0).mean(axis=0), 0, atol=1e-10)
    of_rows = kernel.joint_kernel(rows, pool, beta=1.0).mean(axis=1)
    of_pool = kernel.joint_kernel(pool, beta=1.0).mean(axis=1)
    gram = kernel.joint_kernel(rows, beta=1.0) - of_rows - of_rows[:, None] + of_pool.mean()
    expected = gram @ optimum(gram, offset, labels, 4.0)
    np.testing.assert_allclose(found.scores(rows, beta=1.0), expected, atol=1e-5)


def test_a_row_that_is_the_mean_is_like_no_other():
    same = [np.ones((3, 4), dtype=np.float32) / 3]
    rows = kernel.centred_rows(same, kernel.unit_mean(same))
    np.testing.assert_allclose(kernel.joint_kernel(rows, beta=1.0), np.exp(-1), atol=1e-6)


def test_other_widths_and_no_features_are_refused():
    features = problem()[0]
    with pytest.raises(ValueError, match="fitted on features 15 wide, asked to read 8"):
        kernel.centred_rows(features[:2], kernel.unit_mean(features))
    with pytest.raises(ValueError, match="holds no features"):
        kernel.unit_mean([])


def test_landmarks_take_the_classes_in_turn():
    labels = np.repeat([0, 1, 2], [50, 5, 20])
    chosen = draw_landmarks(labels, 17, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [6, 5, 6]
    assert (np.diff(chosen) > 0).all()
