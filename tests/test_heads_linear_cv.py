"""`linear-cv` against scikit-learn's folds of strengths tried by plain scipy, and by hand."""

import numpy as np
import pytest
import scipy.optimize
from scipy.special import log_softmax, softmax
from test_heads_few import rows, unit

from clipnlc.heads import HEADS
from clipnlc.heads.linear_cv import STRENGTHS, CrossValidatedLinearHead
from clipnlc.regression import WITHOUT_FOLDS, folds


def optimum(features, fixed, labels, strength):
    """Minimise with scipy, from another start and in another form; return V."""
    classes, dim = fixed.shape[1], features.shape[1]

    def objective(flat):
        change = flat.reshape(dim, classes)
        logits = fixed + features @ change
        loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].sum()
        slope = softmax(logits, axis=1)
        slope[np.arange(len(labels)), labels] -= 1
        gradient = strength * features.T @ slope + change
        return strength * loss + (change**2).sum() / 2, gradient.ravel()

    start = np.random.default_rng(5).normal(size=dim * classes)
    options = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-8}
    found = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(dim, classes)


@pytest.mark.parametrize(("samples", "seed"), [(12, 0), (60, 2)])
def test_equals_the_optimum_of_the_strength_that_held_out_labels_choose(samples, seed):
    given = rows(samples, seed=seed)
    head = CrossValidatedLinearHead().fit(**given)
    features, texts = unit(given["features"]).numpy(), unit(given["texts"]).numpy()
    labels, fixed = given["labels"], 20 * features @ texts.T
    fold = folds(labels, tuple(given["sample_id"]), most=5, seed=0)
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for number in range(fold.max() + 1):
            kept, held = fold != number, fold == number
            change = optimum(features[kept], fixed[kept], labels[kept], strength)
            scores = log_softmax(fixed[held] + features[held] @ change, axis=1)
            total -= scores[np.arange(held.sum()), labels[held]].sum()
        losses.append(total)
    at = STRENGTHS.index(float(head.strength_))
    assert losses[at] < losses[at - 1]
    assert at == len(STRENGTHS) - 1 or losses[at] <= losses[at + 1]
    images = rows(30, seed=seed + 10)["features"]
    found = unit(images).numpy()
    change = optimum(features, fixed, labels, STRENGTHS[at])
    np.testing.assert_allclose(
        head.logits(images), 20 * found @ texts.T - 1.5 + found @ change, atol=2e-3
    )


def test_one_image_by_hand():
    """Its weights move along the image by the strength times the probability of the other class."""
    head = CrossValidatedLinearHead(strength=2.0).fit(
        features=np.array([[3.0, 0.0]], dtype="f"),
        labels=np.array([0]),
        sample_id=["a"],
        texts=np.array([[0.6, 0.8], [0.6, -0.8]], dtype="f"),
        logit_scale=1.0,
    )
    # v_0 = (a, 0) and v_1 = (-a, 0) with a = 2 p and p = 1 / (1 + e^(2 a)): a fixed point.
    a = scipy.optimize.brentq(lambda a: a - 2 / (1 + np.exp(2 * a)), 0, 2)
    np.testing.assert_allclose(head.weight_, [[0.6 + a, 0.8], [0.6 - a, -0.8]], atol=1e-5)


def test_one_label_of_each_class_leaves_none_to_hold_out():
    given = rows(40)
    first = [int(np.flatnonzero(given["labels"] == c)[0]) for c in range(4)]
    few = {
        name: [value[i] for i in first] if isinstance(value, list) else value[first]
        for name, value in given.items()
        if name in ("features", "labels", "sample_id")
    }
    head = HEADS.get("linear-cv-few")().fit(**given | few)
    assert head.facts() == {"strength": WITHOUT_FOLDS}
