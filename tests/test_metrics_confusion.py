"""Confusions: against loops and against all permutations."""

from itertools import permutations

import numpy as np
import pytest

from clipnlc.metrics.confusion import best_relabelling, confusion_matrix, swapped_pairs


@pytest.mark.parametrize("seed", range(5))
def test_counts_agree_with_a_loop(seed):
    random = np.random.default_rng(seed)
    predicted, labels = random.integers(4, size=(2, 50))
    expected = np.zeros((5, 5), int)  # one class never occurs
    for one, two in zip(labels, predicted, strict=True):
        expected[one, two] += 1
    assert confusion_matrix(predicted, labels, classes=5).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_is_better_than_the_best_relabelling(seed):
    confusion = np.random.default_rng(seed).integers(20, size=(5, 5))
    found = best_relabelling(confusion)
    hits = {p: confusion[np.arange(5), list(p)].sum() for p in permutations(range(5))}
    assert hits[tuple(found.tolist())] == max(hits.values())


def test_labels_stay_where_nothing_is_better():
    assert best_relabelling(np.zeros((3, 3), int)).tolist() == [0, 1, 2]
    assert best_relabelling(np.array([[5, 5], [5, 5]])).tolist() == [0, 1]


def test_a_swap_goes_both_ways():
    one_way = np.array([[2, 8, 0], [1, 9, 0], [0, 0, 10]])
    assert swapped_pairs(one_way) == set()
    both = np.array([[2, 8, 0], [6, 4, 0], [0, 0, 10]])
    assert swapped_pairs(both) == {(0, 1)}
    assert swapped_pairs(np.zeros((3, 3), int)) == set()
    accidents = np.array([[0, 1, 12], [1, 0, 12], [0, 0, 10]])
    assert swapped_pairs(accidents) == set()
