"""Measures of one prediction, against scikit-learn or a short loop, and by hand."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from clipnlc.fitting import softmax
from clipnlc.measures import Block
from clipnlc.metrics import METRICS
from clipnlc.metrics.accuracy import (
    accuracy,
    backbone_accuracies,
    best_single_accuracy,
    oracle_accuracy,
    oracle_gain,
    share_of_gap_closed,
)
from clipnlc.metrics.calibration import binned_calibration_error
from clipnlc.metrics.intervals import accuracy_interval

SEEDS = st.integers(0, 2**32)
many = settings(max_examples=25, deadline=None)


def random_case(seed, samples=50, classes=4):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    logits = random.normal(0, 2, (samples, classes)).astype(np.float32)
    logits[np.arange(samples), labels] += 1
    return logits, labels


@pytest.mark.parametrize("name", list(METRICS))
class TestContract:
    @many
    @given(SEEDS, st.integers(1, 30), st.integers(2, 6))
    def test_is_a_finite_float_blind_to_the_order_of_rows_and_classes(
        self, name, seed, samples, classes
    ):
        logits, labels = random_case(seed, samples, classes)
        random = np.random.default_rng(seed)
        rows, names = random.permutation(samples), random.permutation(classes)
        value = METRICS.get(name)(logits, labels)
        assert type(value) is float
        assert math.isfinite(value)
        again = METRICS.get(name)(logits[rows][:, names], np.argsort(names)[labels[rows]])
        assert again == pytest.approx(value, abs=1e-9)

    @many
    @given(SEEDS, st.integers(1, 60), st.integers(2, 40), st.data())
    def test_a_rows_values_do_not_depend_on_its_block(self, name, seed, samples, classes, data):
        logits, labels = random_case(seed, samples, classes)
        cuts = sorted(data.draw(st.sets(st.integers(1, samples), max_size=6)))
        measure = METRICS.get(name)
        whole = measure.values(Block(logits, labels))
        blocks = zip(np.split(logits, cuts), np.split(labels, cuts), strict=True)
        parts = [measure.values(Block(*one)) for one in blocks]
        assert whole.dtype == np.float64
        assert whole.shape[0] == samples
        assert np.concatenate(parts).tobytes() == whole.tobytes()
        transposed = measure.values(Block(np.asfortranarray(logits), labels))
        assert transposed.tobytes() == whole.tobytes()

    @many
    @given(SEEDS, st.integers(1, 30), st.integers(2, 6))
    def test_is_within_its_bounds(self, name, seed, samples, classes):
        logits, labels = random_case(seed, samples, classes)
        low, high = METRICS.get(name).bounds
        for scale in (0, 1, 1e3):
            value = METRICS.get(name)(scale * logits, labels)
            assert low <= value
            assert high is None or value <= high + 1e-12
            assert math.copysign(1, value) == 1  # no minus before zero

    @many
    @given(SEEDS)
    def test_masked_classes_are_as_if_they_were_not_there(self, name, seed):
        logits, labels = random_case(seed, 20, 4)
        masked = np.concatenate([logits, np.full((20, 2), -np.inf, np.float32)], axis=1)
        value = METRICS.get(name)(masked, labels)
        assert value == pytest.approx(METRICS.get(name)(logits, labels), abs=1e-12)

    def test_says_what_a_table_needs(self, name):
        measure = METRICS.get(name)
        assert measure.title
        assert measure.meaning
        assert not hasattr(measure.facts, "each")
        assert measure.facts.bounds == measure.bounds


class TestAgainstReferences:
    @many
    @given(SEEDS)
    def test_accuracy(self, seed):
        logits, labels = random_case(seed)
        top = logits.argmax(axis=1)
        assert accuracy(logits, labels) == pytest.approx(reference.accuracy_score(labels, top))
        assert METRICS.get("accuracy")(logits, labels) == accuracy(logits, labels)
        assert METRICS.get("class-mean-accuracy")(logits, labels) == pytest.approx(
            reference.recall_score(
                labels, top, average="macro", labels=np.unique(labels), zero_division=0
            )
        )

    @many
    @given(SEEDS)
    def test_probabilities(self, seed):
        logits, labels = random_case(seed)
        probs = softmax(logits.astype(float))
        assert METRICS.get("negative-log-likelihood")(logits, labels) == pytest.approx(
            reference.log_loss(labels, probs, labels=range(4))
        )
        assert METRICS.get("brier")(logits, labels) == pytest.approx(
            sum(
                sum((p[c] - (c == y)) ** 2 for c in range(4))
                for p, y in zip(probs, labels, strict=True)
            )
            / len(labels)
        )

    @many
    @given(SEEDS)
    def test_calibration_error(self, seed):
        logits, labels = random_case(seed)
        probs = softmax(logits.astype(float))
        confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
        expected = 0.0
        for b in range(15):
            last = b == 14
            inside = (confidence >= b / 15) & ((confidence < (b + 1) / 15) | last)
            if inside.any():
                gap = abs(confidence[inside].mean() - right[inside].mean())
                expected += inside.mean() * gap
        assert METRICS.get("calibration-error")(logits, labels) == pytest.approx(expected)

    @many
    @given(SEEDS)
    def test_oracle(self, seed):
        random = np.random.default_rng(seed)
        labels, predictions = random.integers(0, 3, 20), random.integers(0, 3, (4, 20))
        each = [float(np.mean(p == labels)) for p in predictions]
        any_right = np.mean([y in column for y, column in zip(labels, predictions.T, strict=True)])
        assert backbone_accuracies(predictions, labels).tolist() == pytest.approx(each)
        assert best_single_accuracy(predictions, labels) == pytest.approx(max(each))
        assert oracle_accuracy(predictions, labels) == pytest.approx(any_right)
        assert oracle_gain(predictions, labels) == pytest.approx(any_right - max(each))
        assert oracle_gain(predictions, labels) >= 0

    @many
    @given(st.integers(1, 500), st.floats(0, 1))
    def test_accuracy_interval(self, samples, share):
        right = round(share * samples)
        expected = scipy.stats.binomtest(right, samples).proportion_ci(method="wilson")
        _, low, high = accuracy_interval(right / samples, samples)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert 0 <= low <= right / samples <= high <= 1 or right in {0, samples}


class TestByHand:
    def test_confidence_one_falls_into_the_last_bin(self):
        assert binned_calibration_error(np.array([1.0, 0.95]), np.array([True, True])) == (
            pytest.approx(0.025)
        )

    def test_a_bin_edge_belongs_to_the_bin_above(self):
        # 0.5 lies in [0.5, 1]; alone in it the error is 0.5, shared with the lower bin it is less.
        confidence, right = np.array([0.5, 0.4]), np.array([True, False])
        assert binned_calibration_error(confidence, right, bins=2) == pytest.approx(0.45)

    def test_gap_closed(self):
        assert share_of_gap_closed(accuracy=0.4, best_single=0.5, oracle=0.9) == (
            pytest.approx(-0.25)
        )
        assert math.isnan(share_of_gap_closed(accuracy=0.5, best_single=0.5, oracle=0.5))

    def test_perfect_accuracy_still_has_an_interval(self):
        _, low, high = accuracy_interval(1.0, 10)
        assert 0.7 < low < 0.75
        assert high == pytest.approx(1)
