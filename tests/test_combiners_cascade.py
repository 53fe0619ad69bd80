"""Cascades against plain loops over images, by hand, and at both ends bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.cascade import NEVER, Cascade, NeuralCascade
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError
from clipnlc.labels import dealt_folds
from clipnlc.testing import COMBINER_CHECKS, example

SHORT = {"steps": 20, "folds": 2}


class Short(NeuralCascade):
    """The same with few steps: what it keeps to does not depend on how long NLC is trained."""

    def __init__(self, **settings):
        super().__init__(**{**SHORT, **settings})


@pytest.mark.parametrize("check", COMBINER_CHECKS, ids=lambda check: check.__name__)
def test_a_shorter_cascade_with_nlc_conforms(check):
    check(Short)


# The reference: one image at a time ---------------------------------------------------------------


def prefix(ensemble, order, stage):
    return ensemble.members(sorted(order[:stage]))


def scores_by_stage(ensemble, order, fitted):
    """Return `[stages][samples][classes]`: the cheapest alone, then LOG-AVG or an NLC of each prefix."""
    found = [ensemble.logits[order[0]].astype(float)]
    for stage in range(2, len(order) + 1):
        seen = prefix(ensemble, order, stage)
        found.append(fitted[stage].combine(seen))
    return found


def chosen_by_loops(by_stage, labels, spare):
    """Choose each threshold by trying every image's confidence, lowest first."""
    last, found = by_stage[-1], []
    waiting, stopped_right = list(range(len(labels))), 0
    wanted = sum(scores.argmax() == label for scores, label in zip(last, labels, strict=True))
    for scores in by_stage[:-1]:
        sure = {i: softmax(scores[i]).max() for i in waiting}
        threshold = NEVER
        for candidate in sorted(sure.values()):
            right = stopped_right
            for i in waiting:
                decided = scores[i] if sure[i] >= candidate else last[i]
                right += decided.argmax() == labels[i]
            if right >= wanted - spare:
                threshold = candidate - 5e-6
                break
        found.append(threshold)
        stopped_right += sum(
            scores[i].argmax() == labels[i] for i in waiting if sure[i] >= threshold
        )
        waiting = [i for i in waiting if sure[i] < threshold]
    return found


def applied_by_loops(by_stage, thresholds, gflops, order):
    """Return the scores and the cost of each image."""
    scores, costs = [], []
    for i in range(len(by_stage[0])):
        cost = 0.0
        for stage, b in enumerate(order):
            cost += gflops[b]
            own = by_stage[stage][i]
            if stage == len(thresholds) or softmax(own).max() >= thresholds[stage]:
                break
        scores.append(own)
        costs.append(cost)
    return np.array(scores), np.array(costs)


def cheapest_first(gflops):
    return sorted(range(len(gflops)), key=lambda b: (gflops[b], b))


def fits(name, ensemble, labels, order):
    settings = {"steps": SHORT["steps"]} if name == "nlc" else {}
    return {
        stage: COMBINERS.get(name)(**settings).fit(prefix(ensemble, order, stage), labels)
        for stage in range(2, len(order) + 1)
    }


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize(
    ("samples", "classes", "backbones", "seed"), [(60, 5, 4, 1), (40, 3, 3, 2), (9, 2, 2, 3)]
)
def test_a_cascade_is_what_loops_over_images_find(samples, classes, backbones, seed, tolerance):
    ensemble, labels = example(samples, classes, backbones, seed=seed, signal=1.5, named=False)
    test = example(50, classes, backbones, seed=seed + 10, signal=1.5, named=False)[0]
    order = cheapest_first(ensemble.gflops)
    spare = int(tolerance * samples)

    fitted = Cascade(tolerance=tolerance).fit(ensemble, labels)
    average = fits("log-avg", ensemble, labels, order)
    on_labels = scores_by_stage(ensemble, order, average)
    thresholds = chosen_by_loops(on_labels, labels, spare)
    np.testing.assert_allclose(fitted.threshold_, thresholds, atol=1e-9)
    on_test = scores_by_stage(test, order, average)
    scores, costs = applied_by_loops(on_test, thresholds, test.gflops, order)
    np.testing.assert_allclose(fitted.combine(test), scores, rtol=1e-6)
    np.testing.assert_allclose(fitted.spent(test), costs)

    neural = NeuralCascade(tolerance=tolerance, **SHORT).fit(ensemble, labels)
    held_out = [np.empty_like(one) for one in on_labels]
    for fold in (0, 1):
        held = dealt_folds(labels, ensemble.sample_id, 2, draw="cascade:0") == fold
        kept, rest = np.flatnonzero(~held), np.flatnonzero(held)
        without = fits("nlc", ensemble.rows(kept), labels[kept], order)
        parts = scores_by_stage(ensemble.rows(rest), order, without)
        for whole, part in zip(held_out, parts, strict=True):
            whole[rest] = part
    thresholds = chosen_by_loops(held_out, labels, spare)
    np.testing.assert_allclose(neural.threshold_, thresholds, atol=1e-6)
    on_test = scores_by_stage(test, order, fits("nlc", ensemble, labels, order))
    scores, costs = applied_by_loops(on_test, neural.threshold_, test.gflops, order)
    np.testing.assert_allclose(neural.combine(test), scores, rtol=1e-6)
    np.testing.assert_allclose(neural.spent(test), costs)


def test_a_case_worked_by_hand():
    """Three backbones, the second the cheapest; logits are logarithms of odds.

    Probabilities of class 0 by the cheapest backbone: 9/10, 8/10, 7/10, 6/10; the labels are 0, 0, 1
    and 0, and all backbones together are right on all four. Two of them, 0.9 and 0.8, may stop: to
    stop the third would make it wrong. With the second backbone the odds are the geometric mean:
    the third has 7/3 and 1/63, so (1/27)^(1/2), a probability of class 1 of 0.839, right; the
    fourth 3/2 and 24, so 6, a probability of 0.857, right. So both stop there, from 0.839 on.
    """
    odds = np.array([[1e3, 1e3, 1e-6, 1e3], [9, 4, 7 / 3, 3 / 2], [9, 9, 1 / 63, 24]])
    logits = np.stack([np.log(odds), np.zeros_like(odds)], axis=2).astype(np.float32)
    ids = tuple("abcd")
    ensemble = Ensemble(logits, (), ids, gflops=(70.0, 1.0, 9.0))
    labels = np.array([0, 0, 1, 0])
    fitted = Cascade().fit(ensemble, labels)
    assert fitted.order_.tolist() == [1, 2, 0]
    np.testing.assert_allclose(fitted.threshold_, [0.8, 27**0.5 / (1 + 27**0.5)], atol=1e-5)
    assert fitted.spent(ensemble).tolist() == [1, 1, 10, 10]
    assert fitted.weights(ensemble).tolist() == [[0, 1, 0]] * 2 + [[0, 0.5, 0.5]] * 2
    assert fitted.combine(ensemble).argmax(axis=1).tolist() == labels.tolist()


@pytest.mark.parametrize(("cascade", "whole"), [(Cascade, "log-avg"), (NeuralCascade, "nlc")])
@pytest.mark.parametrize("named", [True, False])
def test_both_ends_bit_for_bit(cascade, whole, named):
    ensemble, labels = example(seed=1, named=named)
    test = example(31, seed=2, named=named)[0]
    first = cascade(thresholds=0.0).fit(ensemble, labels)
    cheapest = int(np.argmin(test.gflops))
    alone = test.logits[cheapest].astype(np.float64)
    np.testing.assert_array_equal(first.combine(test), alone)
    np.testing.assert_array_equal(first.spent(test), np.full(31, min(test.gflops)))
    every = cascade(thresholds=1.01).fit(ensemble, labels)
    full = COMBINERS.get(whole)().fit(ensemble, labels)
    np.testing.assert_array_equal(every.weights(test), full.weights(test))
    np.testing.assert_array_equal(every.combine(test), full.combine(test))
    np.testing.assert_array_equal(every.spent(test), np.full(31, sum(test.gflops)))


def test_of_one_backbone_it_is_that_backbone():
    ensemble, labels = example(10, 3, 1)
    for cascade in (Cascade(), Short()):
        found = cascade.fit(ensemble, labels).combine(ensemble)
        np.testing.assert_array_equal(found, ensemble.logits[0].astype(np.float64))
        assert cascade.spent(ensemble).tolist() == [ensemble.gflops[0]] * 10


def test_backbones_that_cost_the_same_come_by_name():
    ensemble, labels = example()
    alike = replace(ensemble, gflops=(2.0, 2.0, 2.0, 2.0))
    found = Cascade(thresholds=0.0).fit(alike, labels).combine(alike)
    first = alike.backbones.index("east")
    np.testing.assert_array_equal(found, alike.logits[first].astype(np.float64))


def test_folds_leave_every_row_out_once_whatever_a_class_is_called():
    labels = np.repeat(np.arange(4), 3)
    ids = tuple(f"{i:02d}" for i in range(12))
    folds = dealt_folds(labels, ids, 3, draw="cascade:0")
    assert all(sorted(folds[labels == label]) == [0, 1, 2] for label in range(4))
    np.testing.assert_array_equal(dealt_folds(3 - labels, ids, 3, draw="cascade:0"), folds)
    assert (dealt_folds(labels, ids, 3, draw="cascade:1") != folds).any()


@pytest.mark.parametrize("cascade", [Cascade, NeuralCascade])
def test_what_cannot_be_is_refused(cascade):
    ensemble, labels = example()
    with pytest.raises(DataError, match="does not say what its backbones cost; give it gflops"):
        cascade().fit(replace(ensemble, gflops=()), labels)
    with pytest.raises(
        DataError, match=r"thresholds of a cascade is -1\.0; give a number of at least"
    ):
        cascade(thresholds=-1.0)
    with pytest.raises(DataError, match="tolerance of a cascade is nan"):
        cascade(tolerance=float("nan"))
    with pytest.raises(DataError, match="folds of a cascade are 1; give at least 2"):
        NeuralCascade(folds=1)


def test_costs_go_with_their_backbones():
    ensemble = example()[0]
    assert ensemble.members([2, 0]).gflops == (ensemble.gflops[2], ensemble.gflops[0])
    canonical = ensemble.canonical()
    assert canonical.ensemble.gflops == tuple(ensemble.gflops[b] for b in canonical.backbones)
    others = (ensemble.rows([0]), ensemble.classes([1]), ensemble.with_features(()))
    assert {one.gflops for one in others} == {ensemble.gflops}
