"""What fits on one pool share: the same results as without, and never those of another pool."""

import numpy as np

from clipnlc.combiners import COMBINERS, balanced, balanced_gp, kernel, shared
from clipnlc.combiners.shared import once, rows_within
from clipnlc.testing.combiners import example


def test_a_result_is_kept_for_equal_arrays_and_made_anew_for_others():
    made = []

    def ask(array, settings=1):
        return once("test", lambda: made.append(1) or len(made), [array], settings)

    array = np.arange(6.0)
    assert (ask(array), ask(array.copy())) == (1, 1)
    array[3] = 7  # the same object, other content
    assert ask(array) == 2
    assert ask(array, settings=2) == 3
    assert ask(array.astype(np.float32), settings=2) == 4
    assert ask(array.reshape(2, 3), settings=2) == 5


def test_a_balance_that_is_kept_cannot_be_changed_by_who_got_it():
    pool, labels = example(30)
    first = COMBINERS.get("balanced")().fit(pool, labels, pool)
    kept = first.offset_.copy()
    first.offset_ += 5
    again = COMBINERS.get("balanced")().fit(pool, labels, pool)
    np.testing.assert_array_equal(again.offset_, kept)


def test_rows_of_other_content_are_not_rows_of_the_pool():
    pool, _ = example(30)
    np.testing.assert_array_equal(rows_within(pool.rows([7, 2]), pool), [7, 2])
    assert rows_within(example(31)[0], pool) is None
    other = pool.with_features([block + 1 for block in pool.features])
    assert rows_within(other.rows([7]), pool) is None


def test_a_fit_with_the_kernel_of_the_pool_is_that_with_its_own(monkeypatch):
    """Two draws of one pool and one of another, in turn, so that a wrong kernel would show."""
    monkeypatch.setattr(shared, "DOUBLE_ROWS", 5)
    monkeypatch.setattr(kernel, "DOUBLE_ROWS", 5)
    test = example(20, seed=9)[0]
    made = []
    original = shared.joint_kernel
    monkeypatch.setattr(shared, "joint_kernel", lambda *a, **k: made.append(1) or original(*a, **k))
    monkeypatch.setattr(shared, "_KEPT", {})
    for pool_seed, seed in ((1, 0), (1, 1), (2, 0), (1, 0)):
        pool, truth = example(60, seed=pool_seed)
        rows = np.random.default_rng(seed).choice(60, 24, replace=False)
        drawn, labels = pool.rows(rows), truth[rows]
        found = COMBINERS.get("balanced-gp")().fit(drawn, labels, pool).combine(test)
        with monkeypatch.context() as without:
            without.setattr(balanced_gp, "shares_kernel", lambda *_: False)
            without.setattr(balanced, "once", lambda _name, compute, *_: compute())
            alone = COMBINERS.get("balanced-gp")().fit(drawn, labels, pool).combine(test)
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)
    assert len(made) == 3, "once for each change of the pool"
