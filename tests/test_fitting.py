"""The shared mathematics, against independent implementations; the choice of rows, as properties."""

from itertools import pairwise

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
    few_shot,
    fit_temperature,
    log_softmax,
    ranks,
    softmax,
    stratified_split,
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


labelled = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


def names(labels):
    return [f"img/{i}" for i in range(len(labels))]


class TestRanks:
    @given(st.lists(st.text(), unique=True))
    def test_are_each_place_once_and_move_with_the_samples(self, sample_id):
        places = ranks(sample_id, draw="x")
        assert sorted(places) == list(range(len(sample_id)))
        assert ranks(sample_id[::-1], draw="x").tolist() == places[::-1].tolist()

    def test_draws_differ(self):
        sample_id = [str(i) for i in range(50)]
        assert ranks(sample_id, draw="1").tolist() != ranks(sample_id, draw="2").tolist()


class TestStratifiedSplit:
    @given(labelled, st.floats(0.01, 0.99), SEEDS)
    def test_every_class_of_two_or_more_is_on_both_sides(self, labels, share, seed):
        kept, held = stratified_split(labels, names(labels), share=share, seed=seed)
        assert sorted([*kept, *held]) == list(range(len(labels)))
        classes, counts = np.unique(labels, return_counts=True)
        if counts.max() == 1:  # nothing to stratify: drawn from all rows
            assert len(held) == min(max(round(share * len(labels)), 1), len(labels) - 1)
            return
        for label, count in zip(classes, counts, strict=True):
            on_held = (labels[held] == label).sum()
            assert on_held == 0 if count == 1 else 1 <= on_held < count
            assert abs(on_held - share * count) <= 1

    @given(labelled, SEEDS)
    def test_does_not_depend_on_the_order_of_rows(self, labels, seed):
        order = np.random.default_rng(seed).permutation(len(labels))
        sample_id = names(labels)
        mixed = [sample_id[i] for i in order]
        _, held = stratified_split(labels, sample_id, share=0.3, seed=seed)
        _, again = stratified_split(labels[order], mixed, share=0.3, seed=seed)
        assert {sample_id[i] for i in held} == {mixed[i] for i in again}

    def test_a_tenth_of_each_class(self):
        labels = np.repeat([0, 1], [100, 50])
        _, held = stratified_split(labels, names(labels), share=0.1, seed=0)
        assert np.bincount(labels[held]).tolist() == [10, 5]


class TestFewShot:
    @given(labelled, st.integers(1, 8), SEEDS)
    def test_gives_each_class_its_shots_or_all_it_has(self, labels, shots, seed):
        draw = few_shot(labels, names(labels), classes=6, shots=shots, seed=seed)
        has = np.bincount(labels, minlength=6)
        got = np.bincount(labels[draw.rows], minlength=6)
        assert got.tolist() == np.minimum(has, shots).tolist()
        assert draw.short == {c: n for c, n in enumerate(has) if n < shots}
        assert (np.diff(draw.rows) > 0).all()

    @given(labelled, SEEDS)
    def test_more_shots_contain_fewer(self, labels, seed):
        chosen = [
            set(few_shot(labels, names(labels), classes=5, shots=k, seed=seed).rows)
            for k in (1, 2, 4, 8)
        ]
        for fewer, more in pairwise(chosen):
            assert fewer <= more

    @given(labelled, SEEDS)
    def test_does_not_depend_on_the_order_of_rows(self, labels, seed):
        order = np.random.default_rng(seed).permutation(len(labels))
        sample_id = names(labels)
        mixed = [sample_id[i] for i in order]
        draw = few_shot(labels, sample_id, classes=5, shots=2, seed=seed)
        again = few_shot(labels[order], mixed, classes=5, shots=2, seed=seed)
        assert {sample_id[i] for i in draw.rows} == {mixed[i] for i in again.rows}

    def test_seeds_differ_and_repeat(self):
        labels = np.repeat(np.arange(5), 20)
        draws = [
            few_shot(labels, names(labels), classes=5, shots=4, seed=s).rows.tolist()
            for s in (0, 0, 1)
        ]
        assert draws[0] == draws[1] != draws[2]
