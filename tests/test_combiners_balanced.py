"""Class offsets against the published iteration, agreement weights by hand, and the stage."""

import numpy as np
import pytest

from clipnlc.combiners.balanced import Balanced, agreement_weights, class_offsets
from clipnlc.errors import DataError
from clipnlc.fitting import softmax
from clipnlc.testing.combiners import example


def marginal_debiasing(logits, proportions, rounds=3000):
    """The published fixed point: a_c -= 0.7 log(mean_i softmax(z_i + a)_c / proportion_c)."""
    a = np.zeros(logits.shape[1])
    for _ in range(rounds):
        a -= 0.7 * np.log(softmax(logits + a).mean(axis=0) / proportions)
    return a - a.mean()


@pytest.mark.parametrize("proportions", [[0.25] * 4, [0.7, 0.1, 0.1, 0.1]])
def test_offsets_are_those_of_marginal_debiasing_where_the_spread_is_wide(proportions):
    random = np.random.default_rng(0)
    logits = random.normal([0, 1, -2, 4], 3, (200, 4))
    found = class_offsets(logits, np.array(proportions), spread=1e4)
    np.testing.assert_allclose(found, marginal_debiasing(logits, proportions), atol=1e-5)
    np.testing.assert_allclose(softmax(logits + found).mean(axis=0), proportions, atol=1e-6)


def test_few_images_and_a_narrow_spread_move_little():
    logits = np.tile([3.0, 0.0, 0.0], (500, 1))
    size = [
        np.abs(class_offsets(logits[:rows], np.full(3, 1 / 3), spread=spread)).max()
        for rows, spread in ((500, 10.0), (500, 1.0), (5, 1.0), (5, 0.1))
    ]
    assert size == sorted(size, reverse=True)
    assert size[0] > 1.9
    assert size[-1] < 0.1


def test_a_class_that_nothing_looks_like_stays_finite():
    logits = np.tile([0.0, -5000.0], (10, 1)).astype(np.float32)
    assert np.isfinite(class_offsets(logits, np.full(2, 0.5), spread=2.0)).all()


def test_a_backbone_that_agrees_with_the_rest_weighs_more():
    ensemble, _ = example(300, signal=4.0)
    weights = agreement_weights(ensemble.logits, power=2.0)
    assert weights.sum() == pytest.approx(1)
    assert weights.argmax() == 3  # the most skilful
    assert weights.argmin() == 0
    np.testing.assert_array_equal(agreement_weights(ensemble.logits, power=0.0), [0.25] * 4)


def test_labels_change_nothing_and_declared_proportions_do():
    ensemble, labels = example(60, seed=1)
    test = example(20, seed=2)[0]
    here = Balanced().fit(ensemble.rows([]), labels[:0], ensemble).combine(test)
    there = Balanced().fit(ensemble, labels).combine(test)
    np.testing.assert_array_equal(here, there)
    assert Balanced().strength == 0.5
    assert Balanced(proportions="uniform").strength == 1.0
    # Classes are numbered in the order of their names: apple is the first.
    skewed = Balanced(proportions=[0.6, 0.1, 0.1, 0.1, 0.1]).fit(ensemble, labels)
    equal = Balanced(proportions="uniform").fit(ensemble, labels)
    assert (skewed.offset_ - equal.offset_).argmax() == 0
    more = (skewed.combine(test) - equal.combine(test))[0]
    assert ensemble.class_names[more.argmax()] == "apple"


def test_settings_out_of_range_are_refused():
    with pytest.raises(DataError, match=r"strength of offsets is 1\.5; give 0 to 1"):
        Balanced(strength=1.5)
    with pytest.raises(DataError, match="3 proportions for 5 classes"):
        Balanced(proportions=[0.5, 0.25, 0.25]).fit(*example(10))
    with pytest.raises(DataError, match="proportions must be positive"):
        Balanced(proportions=[0.5, 0.5, 0.0, 0.0, 0.0])
