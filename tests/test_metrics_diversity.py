"""Pairwise measures and CKA, against scikit-learn or a short loop, and where they are undefined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from clipnlc.metrics import PAIRWISE
from clipnlc.metrics.diversity import (
    cohen_kappa,
    disagreement,
    double_fault,
    error_correlation,
    error_jaccard,
    linear_cka,
    q_statistic,
    share_right_for_some,
)

many = settings(max_examples=25, deadline=None)


def random_case(seed, backbones=4, samples=30, classes=3):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    guesses = random.integers(0, classes, (backbones, samples))
    knows = random.uniform(size=(backbones, samples)) < 0.4
    return np.where(knows, labels, guesses), labels


def test_every_row_says_what_it_needs():
    for name in PAIRWISE:
        facts = PAIRWISE.get(name)
        assert facts.title
        assert facts.meaning
        assert len(facts.heading or facts.title) < 15
    assert [name for name in PAIRWISE if PAIRWISE.get(name).reads == "features"] == ["cka"]


@pytest.mark.parametrize("name", [n for n in PAIRWISE if PAIRWISE.get(n).reads == "predictions"])
class TestContract:
    @many
    @given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 20))
    def test_is_symmetric_and_moves_with_the_backbones(self, name, seed, backbones, samples):
        predictions, labels = random_case(seed, backbones, samples)
        matrix = PAIRWISE.get(name)(predictions, labels)
        assert matrix.shape == (backbones, backbones)
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
        low, high = PAIRWISE.get(name).bounds
        assert np.nanmin([*matrix.ravel(), 0]) >= low - 1e-12
        assert np.nanmax([*matrix.ravel(), 0]) <= high + 1e-12
        order = np.random.default_rng(seed).permutation(backbones)
        np.testing.assert_allclose(
            PAIRWISE.get(name)(predictions[order], labels), matrix[np.ix_(order, order)]
        )

    def test_nobody_divides_by_zero(self, name, recwarn):
        right = np.array([0, 1, 0])
        for predictions in ([right, right], [1 - right, right], [1 - right] * 2, [right * 0] * 2):
            PAIRWISE.get(name)(np.array(predictions), right)
        assert not recwarn.list


def pairs(matrix):
    return [(i, j, matrix[i, j]) for i in range(len(matrix)) for j in range(len(matrix))]


class TestAgainstReferences:
    @pytest.fixture(params=range(5))
    def case(self, request):
        return random_case(request.param)

    def test_disagreement(self, case):
        for i, j, value in pairs(disagreement(*case)):
            assert value == pytest.approx(reference.hamming_loss(case[0][i], case[0][j]))

    def test_double_fault(self, case):
        predictions, labels = case
        for i, j, value in pairs(double_fault(predictions, labels)):
            both = [
                a != y != b for a, b, y in zip(predictions[i], predictions[j], labels, strict=True)
            ]
            assert value == pytest.approx(np.mean(both))

    def test_error_correlation(self, case):
        right = case[0] == case[1]
        for i, j, value in pairs(error_correlation(*case)):
            assert value == pytest.approx(reference.matthews_corrcoef(right[i], right[j]))

    def test_q_statistic(self, case):
        right = case[0] == case[1]
        for i, j, value in pairs(q_statistic(*case)):
            (n00, n01), (n10, n11) = reference.confusion_matrix(right[i], right[j])
            assert value == pytest.approx((n11 * n00 - n10 * n01) / (n11 * n00 + n10 * n01))

    def test_kappa(self, case):
        for i, j, value in pairs(cohen_kappa(*case)):
            assert value == pytest.approx(reference.cohen_kappa_score(case[0][i], case[0][j]))

    def test_error_jaccard(self, case):
        wrong = case[0] != case[1]
        for i, j, value in pairs(error_jaccard(*case)):
            assert value == pytest.approx(reference.jaccard_score(wrong[i], wrong[j]))

    def test_share_right_for_some(self, case):
        predictions, labels = case
        counts = [
            sum(p == y for p in column) for column, y in zip(predictions.T, labels, strict=True)
        ]
        assert share_right_for_some(predictions, labels) == pytest.approx(
            np.mean([0 < count < 4 for count in counts])
        )

    @many
    @given(st.integers(0, 2**32))
    def test_cka_by_kernels(self, seed):
        random = np.random.default_rng(seed)
        features = tuple(random.normal(3, 1, (12, d)).astype(np.float32) for d in (2, 5, 30))
        centre = np.eye(12) - 1 / 12
        kernels = [centre @ (f.astype(float) @ f.T) @ centre for f in features]
        for i, j, value in pairs(linear_cka(features)):
            a, b = kernels[i], kernels[j]
            expected = np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))
            assert value == pytest.approx(expected, rel=1e-4)


class TestByHand:
    """Right is 1: backbone 0 is right on rows 0 1 2, backbone 1 on rows 0 3."""

    labels = np.ones(5, dtype=int)
    predictions = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 1, 0]])

    def test_one_pair(self):
        # n11 = 1, n10 = 2, n01 = 1, n00 = 1
        given = self.predictions, self.labels
        assert disagreement(*given)[0, 1] == pytest.approx(3 / 5)
        assert double_fault(*given)[0, 1] == pytest.approx(1 / 5)
        assert error_correlation(*given)[0, 1] == pytest.approx((1 - 2) / 6)
        assert q_statistic(*given)[0, 1] == pytest.approx((1 - 2) / (1 + 2))
        assert error_jaccard(*given)[0, 1] == pytest.approx(1 / 4)
        assert cohen_kappa(*given)[0, 1] == pytest.approx((2 / 5 - 12 / 25) / (1 - 12 / 25))
        assert share_right_for_some(*given) == pytest.approx(3 / 5)

    def test_perfect_backbones(self):
        perfect = np.array([self.labels, self.labels])
        assert not disagreement(perfect, self.labels).any()
        assert not double_fault(perfect, self.labels).any()
        for undefined in (error_correlation, q_statistic, error_jaccard, cohen_kappa):
            assert np.isnan(undefined(perfect, self.labels)).all()

    def test_equal_backbones(self):
        equal = self.predictions[[0, 0]]
        for one in (error_correlation, q_statistic, error_jaccard, cohen_kappa):
            np.testing.assert_allclose(one(equal, self.labels), 1)

    def test_cka_ignores_rotation_and_scale_and_is_undefined_for_constants(self):
        random = np.random.default_rng(0)
        x = random.normal(size=(20, 4))
        rotation = np.linalg.qr(random.normal(size=(4, 4)))[0]
        cka = linear_cka((x, 1e-20 * x @ rotation, np.ones((20, 3))))
        assert cka[0, 1] == pytest.approx(1)
        assert np.isnan(cka[2]).all()
