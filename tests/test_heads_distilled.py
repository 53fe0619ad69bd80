"""The distilled head against a search that shares no code with it, and by hand."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from clipnlc.heads.distilled import SIGMAS, DistilledHead
from clipnlc.labels import ranks
from clipnlc.logistic import fit_primal


def pool(samples, *, dim=6, classes=3, seed=0):
    """Features around class centres, texts that miss them, and a teacher that sees more."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, dim))
    truth = random.integers(0, classes, samples)
    features = centres[truth] + 0.7 * random.normal(size=(samples, dim))
    return {
        "features": features.astype("f"),
        "labels": np.zeros(samples, dtype=int),
        "sample_id": [f"{row:03}" for row in range(samples)],
        "texts": (centres + random.normal(size=centres.shape)).astype("f"),
        "logit_scale": 10.0,
        "logit_bias": -1.5,
        "targets": softmax(4 * np.eye(classes)[truth] + random.normal(size=(samples, classes)), 1),
    }


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference(given, sigma, rows=slice(None)):
    """Minimise the stated objective by scipy; return V and c."""
    features, texts = unit(given["features"][rows]), unit(given["texts"])
    fixed, targets = 10 * features @ texts.T - 1.5, given["targets"][rows]
    dim, classes = features.shape[1], len(texts)

    def parts(flat):
        return flat[: dim * classes].reshape(dim, classes), flat[dim * classes :]

    def objective(flat):
        change, bias = parts(flat)
        scores = fixed + features @ change + bias
        wrong = softmax(scores, axis=1) - targets
        loss = -(targets * log_softmax(scores, axis=1)).sum()
        loss += ((change**2).sum() + (bias**2).sum() / 100) / (2 * sigma**2)
        slopes = features.T @ wrong + change / sigma**2, wrong.sum(0) + bias / 100 / sigma**2
        return loss, np.concatenate([slope.ravel() for slope in slopes])

    found = minimize(
        objective, np.zeros((dim + 1) * classes), jac=True, options={"gtol": 1e-9, "maxiter": 5000}
    )
    return parts(found.x)


@pytest.mark.parametrize(("samples", "sigma", "seed"), [(4, 1.0, 0), (30, 4.0, 1), (80, 16.0, 2)])
def test_equals_a_search_by_scipy(samples, sigma, seed):
    given = pool(samples, seed=seed)
    head = DistilledHead(sigma=sigma).fit(**given)
    change, bias = reference(given, sigma)
    new = pool(20, seed=seed + 10)["features"]
    expected = unit(new) @ (10 * unit(given["texts"]).T + change) - 1.5 + bias
    np.testing.assert_allclose(head.logits(new), expected, atol=0.01)


def test_takes_the_strength_that_agrees_best_on_held_out_rows():
    given = pool(60, seed=3)
    held = ranks(given["sample_id"], draw="held-out") % 5 == 0
    features, texts = unit(given["features"][held]), unit(given["texts"])
    found = {}
    for sigma in SIGMAS:
        change, bias = reference(given, sigma, ~held)
        scores = features @ (10 * texts.T + change) - 1.5 + bias
        right = scores.argmax(1) == given["targets"][held].argmax(1)
        surprise = -(given["targets"][held] * log_softmax(scores, axis=1)).sum(1).mean()
        found[sigma] = surprise, right.mean()
    best = min(found, key=lambda sigma: found[sigma][0])
    head = DistilledHead().fit(**given)
    assert SIGMAS[0] < best < SIGMAS[-1]
    assert head.facts() == {"sigma": best, "agreement": pytest.approx(found[best][1])}
    fixed = DistilledHead(sigma=best).fit(**given)
    np.testing.assert_array_equal(head.weight_, fixed.weight_)


def test_by_hand():
    """One image and two classes: z is 0 for both, and the teacher says 0.75 and 0.25.

    The inputs are (1, 0) and the constant 10, whose square is 101. At the minimum each class's
    weights are sigma^2 (t - p) times the inputs, so the logits differ by d = 202 sigma^2 (0.75 - p)
    with p = 1 / (1 + e^-d). With sigma^2 = 1 / (202 (0.75 - 0.7310586)), d is 1.
    """
    sigma = math.sqrt(1 / (202 * (0.75 - 1 / (1 + math.exp(-1)))))
    head = DistilledHead(sigma=sigma).fit(
        features=np.array([[2, 0]], "f"),
        labels=np.array([0]),
        sample_id=["a"],
        texts=np.array([[0, 1], [0, 1]], "f"),
        logit_scale=10.0,
        targets=np.array([[0.75, 0.25]]),
    )
    first, second = head.logits(np.array([[1, 0]], "f"))[0]
    assert first - second == pytest.approx(1, abs=1e-3)


def test_probabilities_of_one_class_are_labels():
    given = pool(40, seed=4)
    labels = given["targets"].argmax(axis=1)
    inputs = unit(given["features"]).astype(np.float64)
    offset = np.zeros((40, 3))
    hard = fit_primal(inputs, offset, labels, sigma=3.0)
    np.testing.assert_allclose(fit_primal(inputs, offset, np.eye(3)[labels], sigma=3.0), hard)
