"""Which classes are taken for which, and whether the class names are in another order.

A zero-shot head maps by name: where a name stands at the wrong number, images of one class are
steadily called another. These functions read labels to find such mistakes; they fit nothing.
"""

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment


def confusion_matrix(
    predicted: Int[np.ndarray, " samples"], labels: Int[np.ndarray, " samples"], *, classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count rows by label (first axis) and predicted class (second).

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def swapped_pairs(confusion: Int[np.ndarray, "classes classes"]) -> set[tuple[int, int]]:
    """Return the pairs of classes that are each taken for the other more often than for itself.

    A backbone that knows neither class prefers one of the two names for both; preferring the
    wrong one both ways is the mark of swapped names. At least a tenth of the rows of each class
    must go to the other, since where a class is never recognised a single row is more.

    >>> swapped_pairs(np.array([[1, 9, 0], [8, 2, 0], [0, 0, 10]]))
    {(0, 1)}
    """
    more = confusion > np.diag(confusion)[:, np.newaxis]
    more &= 10 * confusion >= confusion.sum(axis=1, keepdims=True)
    both = np.triu(more & more.T, k=1)
    return {(int(one), int(two)) for one, two in np.argwhere(both)}


def best_relabelling(
    confusion: Int[np.ndarray, "classes classes"],
) -> Int[np.ndarray, " classes"]:
    """Return the class that each label is best called, one to one, by the Hungarian method.

    Of equally good ones the one that keeps more labels as they are is taken.

    >>> best_relabelling(np.array([[0, 9, 0], [0, 0, 9], [9, 0, 0]])).tolist()
    [1, 2, 0]
    """
    ties = np.eye(len(confusion)) / (2 * len(confusion))  # together less than one row
    _, columns = linear_sum_assignment(confusion + ties, maximize=True)
    called: np.ndarray = columns.astype(np.int64)
    return called
