"""The shared mathematics, against independent implementations."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from clipnlc.fitting import (
    TEMPERATURE_RANGE,
    Adam,
    cross_entropy,
    cross_entropy_gradient,
    fit_temperature,
    log_softmax,
    softmax,
)

SEEDS = st.integers(0, 2**32)


def random_case(seed, samples=12, classes=5):
    random = np.random.default_rng(seed)
    return random.normal(0, 4, (samples, classes)), random.integers(0, classes, samples)


class TestSoftmax:
    @settings(max_examples=25, deadline=None)
    @given(SEEDS, st.floats(1e-3, 1e4))
    def test_agrees_with_scipy_at_any_scale(self, seed, scale):
        logits = random_case(seed)[0] * scale
        np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits, axis=1))
        np.testing.assert_allclose(
            log_softmax(logits), scipy.special.log_softmax(logits, axis=1), rtol=1e-9, atol=1e-12
        )

    def test_keeps_the_dtype(self):
        logits = np.zeros((2, 3), dtype=np.float32)
        assert softmax(logits).dtype == log_softmax(logits).dtype == np.float32

    @settings(max_examples=10, deadline=None)
    @given(SEEDS)
    def test_gradient_is_the_slope_of_the_loss(self, seed):
        logits, labels = random_case(seed)
        gradient = cross_entropy_gradient(logits, labels)
        direction = np.random.default_rng(seed).normal(size=logits.shape)
        rise = cross_entropy(logits + 1e-6 * direction, labels) - cross_entropy(
            logits - 1e-6 * direction, labels
        )
        assert rise / 2e-6 == pytest.approx((gradient * direction).sum(), abs=1e-6)


class TestTemperature:
    @settings(max_examples=10, deadline=None)
    @given(SEEDS)
    def test_is_where_a_fine_grid_is_lowest(self, seed):
        logits, labels = random_case(seed, samples=40)
        found = fit_temperature(logits, labels)
        grid = np.exp(np.linspace(*np.log(TEMPERATURE_RANGE), 400))
        lowest = min(cross_entropy(logits / t, labels) for t in grid)
        assert cross_entropy(logits / found, labels) <= lowest + 1e-6

    def test_recovers_the_temperature_that_made_the_labels(self):
        random = np.random.default_rng(0)
        logits = random.normal(0, 2, (20000, 4))
        labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
        assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)

    def test_stays_in_range_where_the_loss_has_no_minimum(self):
        low, high = TEMPERATURE_RANGE
        logits = np.array([[5.0, 0.0], [0.0, 5.0]])
        assert low <= fit_temperature(logits, np.array([0, 1])) <= low * 1.01
        assert high * 0.99 <= fit_temperature(logits, np.array([1, 0])) <= high


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_torchs(weight_decay):
    import torch  # noqa: PLC0415

    random = np.random.default_rng(0)
    weights = [random.normal(size=(3, 2)).astype("f"), random.normal(size=4).astype("f")]
    twins = [torch.tensor(w.copy(), requires_grad=True) for w in weights]
    ours = Adam(weights, learning_rate=0.05, weight_decay=weight_decay)
    theirs = torch.optim.AdamW(twins, lr=0.05, weight_decay=weight_decay)
    for _ in range(20):
        gradients = [random.normal(size=w.shape).astype("f") for w in weights]
        ours.step(gradients)
        for twin, gradient in zip(twins, gradients, strict=True):
            twin.grad = torch.tensor(gradient)
        theirs.step()
    for weight, twin in zip(weights, twins, strict=True):
        np.testing.assert_allclose(weight, twin.detach().numpy(), rtol=1e-4, atol=1e-6)
