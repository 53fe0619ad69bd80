"""What a fitted combiner says of how it decides."""

import numpy as np
import pytest

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.explanation import Contributions, margin_shares
from clipnlc.testing.combiners import example


def by_hand(ensemble, weights, scores):
    """The backbones' shares, row by row."""
    own, total = np.zeros(len(ensemble.logits)), 0.0
    for row, its_scores in enumerate(scores):
        second, best = np.argsort(its_scores)[-2:]
        total += its_scores[best] - its_scores[second]
        for b, logits in enumerate(ensemble.logits.astype(np.float64)):
            own[b] += weights[row][b] * (logits[row, best] - logits[row, second])
    return own / total


@pytest.mark.parametrize("name", ["static", "nlc"])
def test_shares_and_weights_are_those_computed_row_by_row(name):
    test, labels = example(31, seed=2)
    fitted = COMBINERS.get(name)().fit(*example(seed=1))
    weights = fitted.weights(test).astype(np.float64)
    found = fitted.explain(test, labels)
    np.testing.assert_allclose(found.share, by_hand(test, weights, fitted.combine(test)), rtol=1e-6)
    np.testing.assert_allclose(found.weight, weights.mean(axis=0), rtol=1e-6)
    if name == "static":
        assert found.by_class is None
        return
    for label in range(5):
        np.testing.assert_allclose(
            found.by_class[label], weights[labels == label].mean(axis=0), rtol=1e-6
        )


@pytest.mark.parametrize("name", list(COMBINERS))
def test_every_combiner_explains_itself(name):
    test, labels = example(31, seed=2)
    found = COMBINERS.get(name)().fit(*example(seed=1)).explain(test, labels)
    assert found.share.sum() + sum(found.others.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gp", ["kernel"]),
        ("balanced", ["class offset"]),
        ("balanced-gp", ["kernel", "class offset"]),
        ("probe", []),
        ("probe-static", []),
        ("log-avg", []),
    ],
)
def test_what_belongs_to_no_backbone_has_its_own_share(name, parts):
    test, labels = example(31, seed=2)
    fitted = COMBINERS.get(name)().fit(*example(seed=1))
    found = fitted.explain(test, labels)
    assert list(found.others) == parts
    if name == "gp":  # the scores of its static weights alone, on the same two classes
        weights = np.empty((31, 4))
        weights[:, np.argsort(test.backbones)] = fitted.weight_
        expected = by_hand(test, weights, fitted.combine(test))
        np.testing.assert_allclose(found.share, expected, rtol=1e-5)
        assert found.others["kernel"] == pytest.approx(1 - expected.sum(), abs=1e-6)


def test_probe_explains_classes_without_labels():
    ensemble, labels = example(seed=1)
    few = np.flatnonzero(labels != 2)
    fitted = COMBINERS.get("probe")().fit(ensemble.rows(few), labels[few])
    found = fitted.explain(*example(31, seed=2))
    assert list(found.others) == ["unlabelled classes"]


def test_where_nothing_decides_all_have_the_same_share():
    nothing = Contributions(np.zeros((2, 3, 4)), {"kernel": np.zeros((3, 4))})
    share, others = margin_shares(nothing)
    assert (share.tolist(), others) == ([0.5, 0.5], {"kernel": 0.0})
    ensemble, labels = example()
    with pytest.raises(ValueError, match="0 labels for 0 rows"):
        COMBINERS.get("log-avg")().explain(ensemble.rows([]), labels[:0])
