"""`balanced-gp` against everything written again with scipy, and what random labels may do to it."""

import numpy as np
import pytest
import scipy
from test_combiners_kernel import kernel_by_hand, optimum

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.balanced import Balanced
from clipnlc.combiners.balanced_gp import BalancedGaussianProcess
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError
from clipnlc.testing.combiners import example


def offsets_by_hand(logits, shares, spread):
    def objective(a):
        marginal = scipy.special.logsumexp(logits + a, axis=1).mean() - shares @ a
        return marginal + a @ a / (2 * len(logits) * spread**2)

    found = scipy.optimize.minimize(objective, np.zeros(len(shares)), tol=1e-12).x
    return found - found.mean()


def kernels_by_hand(rows, others, pool):
    """Take the mean of a kernel per backbone, beta 2."""
    each = zip(rows, others, pool, strict=True)
    return np.mean([kernel_by_hand([a], [b], 2.0, [c]) for a, b, c in each], axis=0)


def by_hand(train, labels, pool, test, *, shares, strength):
    """Follow the docstrings: spread 2, power 2, sigma 4, beta 2, pull 1, smoothing 0.25."""
    each = strength * np.stack([offsets_by_hand(one, shares, 2.0) for one in pool.logits])
    moved = pool.logits + each[:, None]
    weight = np.full(len(each), 1 / len(each))
    for _ in range(10):
        answer = np.tensordot(weight, moved, axes=1).argmax(axis=1)
        likely = scipy.special.softmax(moved, axis=2)[:, np.arange(len(answer)), answer]
        weight = likely.mean(axis=1) ** 2 / (likely.mean(axis=1) ** 2).sum()
    offset, start = weight @ each, weight
    counts = np.bincount(labels, minlength=len(shares)) + 0.25 * len(shares) * shares
    shifted = offset + np.log(counts / counts.sum() / shares)

    def static(o):
        weighted = np.tensordot(start * np.exp(o), train.logits, axes=1) + shifted
        log_p = scipy.special.log_softmax(weighted, axis=1)
        return -log_p[np.arange(len(labels)), labels].sum() + (o**2).sum() / 2

    found = scipy.optimize.minimize(static, np.zeros(len(start)), options={"gtol": 1e-9})
    weight = start * np.exp(found.x)
    gram = kernels_by_hand(train.features, train.features, pool.features)
    a = optimum(gram, np.tensordot(weight, train.logits, axes=1) + shifted, labels, 4.0)

    def scores(of):
        kernel = kernels_by_hand(of.features, train.features, pool.features)
        return np.tensordot(weight, of.logits, axes=1) + offset + kernel @ a

    return scores(test) + strength * offsets_by_hand(scores(pool), shares, 2.0)


def exact(ensemble):
    logits = ensemble.logits.astype(float)
    features = tuple(block.astype(float) for block in ensemble.features)
    return Ensemble(logits, features, ensemble.sample_id)


@pytest.mark.parametrize("proportions", [None, "uniform", (0.3, 0.2, 0.2, 0.2, 0.1), "labels"])
def test_it_is_its_formula(proportions):
    (train, labels), (pool, _) = example(15, seed=1, named=False), example(40, seed=4, named=False)
    test = example(9, seed=2, named=False)[0]
    shares = np.full(5, 0.2)
    if proportions == "labels":
        shares = (np.bincount(labels, minlength=5) + 1) / (len(labels) + 5)
    elif isinstance(proportions, tuple):
        shares = np.array(proportions)
    strength = 0.5 if proportions is None else 1.0
    expected = by_hand(
        exact(train), labels, exact(pool), exact(test), shares=shares, strength=strength
    )
    found = BalancedGaussianProcess(proportions=proportions).fit(train, labels, pool).combine(test)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_without_labels_it_is_balanced():
    pool, labels = example(40, seed=4)
    nothing, test = pool.rows([]), example(9, seed=2)[0]
    here = BalancedGaussianProcess().fit(nothing, labels[:0], pool).combine(test)
    np.testing.assert_array_equal(here, Balanced().fit(nothing, labels[:0], pool).combine(test))


@pytest.mark.parametrize("name", ["gp", "balanced-gp"])
def test_labels_of_one_class_alone_do_not_make_it_the_answer(name):
    """Twelve labels at random, of which most are of one class, say nothing of how common it is."""
    pool, truth = example(200, seed=4, signal=1.5)
    test, wanted = example(300, seed=2, signal=1.5)
    rows = np.concatenate([np.flatnonzero(truth == 0)[:10], np.flatnonzero(truth == 1)[:2]])
    scores = COMBINERS.get(name)().fit(pool.rows(rows), truth[rows], pool).combine(test)
    plain = COMBINERS.get("log-avg")().combine(test)
    right, before = ((s.argmax(axis=1) == wanted).mean() for s in (scores, plain))
    assert right > before - 0.02
    assert (scores.argmax(axis=1) == 0).mean() < 0.3


def test_a_declared_proportion_for_each_class_is_needed():
    with pytest.raises(DataError, match="3 proportions for 5 classes"):
        BalancedGaussianProcess(proportions=(0.5, 0.3, 0.2)).fit(*example(10))
