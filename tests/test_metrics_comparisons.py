"""Intervals and tests against scipy, brute force, or how often they hold."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from clipnlc.metrics.comparisons import (
    cluster_interval,
    cluster_means,
    holm,
    mcnemar,
    signed_rank,
)
from clipnlc.metrics.intervals import (
    DrawSpread,
    bootstrap_interval,
    draw_spread,
    mean_spread,
    resampled_means,
)

many = settings(max_examples=25, deadline=None)
values = st.lists(st.floats(-1, 1).map(lambda v: round(v, 3)), min_size=2, max_size=9)


def two_way(values: np.ndarray, *, seed: int = 0, resamples: int = 2000):
    """Return the interval of the mean over draws and images, as evaluate does."""
    images = values.mean(axis=0)[:, None]
    resampled = resampled_means(images, seed=seed, resamples=resamples)[:, 0]
    return bootstrap_interval(float(values.mean()), resampled, draw_spread(values))


class TestOneDataSet:
    def test_images_alone_agree_with_scipys_bootstrap(self):
        hits = (np.random.default_rng(3).random(400) < 0.7).astype(float)
        found = bootstrap_interval(hits.mean(), resampled_means(hits[:, None])[:, 0], DrawSpread())
        theirs = scipy.stats.bootstrap(
            (hits,), np.mean, method="percentile", n_resamples=20_000, rng=1
        ).confidence_interval
        assert found[1:] == pytest.approx((theirs.low, theirs.high), abs=0.004)

    @many
    @given(values)
    def test_draws_alone_agree_with_students_t(self, means):
        draws = np.repeat(np.array(means)[:, None], 7, axis=1)
        low, high = two_way(draws)[1:]
        half = scipy.stats.t.ppf(0.975, len(means) - 1) * scipy.stats.sem(means)
        assert (high - low) / 2 == pytest.approx(half, rel=0.02, abs=1e-5)

    def test_the_spread_of_the_draws_is_an_analysis_of_variance(self):
        random = np.random.default_rng(0)
        draws = random.normal(size=(4, 1)) + random.normal(size=(4, 30)) + random.normal(size=30)
        overall = draws.mean()
        by_draw, by_image = draws.mean(axis=1), draws.mean(axis=0)
        within = sum(
            (draws[s, i] - by_draw[s] - by_image[i] + overall) ** 2
            for s in range(4)
            for i in range(30)
        ) / (3 * 29)
        between = 30 * sum((m - overall) ** 2 for m in by_draw) / 3
        assert draw_spread(draws) == pytest.approx(((between - within) / 30 / 4, 3))
        assert draw_spread(draws[:1]) == DrawSpread()

    def test_resamples_are_shared_and_the_same_twice(self):
        random = np.random.default_rng(0)
        one, other = random.random((50, 2)), random.random((50, 1))
        both = resampled_means(np.hstack([one, other]), resamples=40)
        assert (both[:, :2] == resampled_means(one, resamples=40)).all()
        assert both[:, 2:] == pytest.approx(resampled_means(other, resamples=40))
        assert (resampled_means(one, resamples=40, seed=1) != both[:, :2]).any()
        assert resampled_means(one - other).mean(axis=0) == pytest.approx(
            (one - other).mean(axis=0), abs=0.01
        )

    @pytest.mark.parametrize(("of_images", "of_draws"), [(1.0, 0.0), (0.3, 0.1), (0.0, 0.3)])
    def test_the_interval_holds_as_often_as_it_says(self, of_images, of_draws):
        """With three draws, whether the images or the draws are what varies."""
        random = np.random.default_rng(5)
        covered = 0
        for trial in range(400):
            true = random.normal(size=80) * of_images + random.normal(size=(3, 1)) * of_draws
            _, low, high = two_way(true + random.normal(size=(3, 80)), seed=trial, resamples=400)
            covered += low <= 0 <= high
        assert 0.91 <= covered / 400 <= 0.975

    @many
    @given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(0, 999))
    def test_mcnemar_is_the_binomial_test_of_what_one_alone_gets_right(self, right, seed):
        one = np.array(right)
        other = np.random.default_rng(seed).random(len(one)) < 0.5
        wins, losses = int((one & ~other).sum()), int((other & ~one).sum())
        expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert mcnemar(one, other) == pytest.approx(expected)


class TestSeveralDataSets:
    @many
    @given(values)
    def test_data_sets_of_their_own_give_the_paired_t_interval(self, differences):
        names = [str(n) for n in range(len(differences))]
        mean, low, high = cluster_interval(np.array(differences), names)
        half = scipy.stats.t.ppf(0.975, len(names) - 1) * scipy.stats.sem(differences)
        assert (mean, low, high) == pytest.approx(
            (np.mean(differences), np.mean(differences) - half, np.mean(differences) + half)
        )

    def test_a_cluster_counts_once(self):
        """Two copies of every data set say no more than one."""
        found = np.array([0.1, 0.4, -0.2, 0.3])
        alone = cluster_interval(found, list("abcd"))
        twice = cluster_interval(np.tile(found, 2), list("abcdabcd"))
        assert twice == pytest.approx(alone)
        assert math.isnan(cluster_interval(found, list("aaaa")).low)
        assert cluster_means(np.tile(found, 2), list("abcdabcd")).tolist() == found.tolist()

    def test_the_spread_of_a_mean_over_data_sets(self):
        spreads = [DrawSpread(0.4, 2.0), DrawSpread(0.1, 2.0), DrawSpread()]
        variance, freedom = mean_spread(spreads)
        assert variance == pytest.approx(0.5 / 9)
        assert freedom == pytest.approx(0.5**2 / (0.4**2 / 2 + 0.1**2 / 2))
        assert mean_spread([DrawSpread()]) == DrawSpread()

    @many
    @given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
    def test_signed_rank_counts_every_choice_of_signs(self, whole):
        differences = np.array(whole) / 10
        present = differences[differences != 0]
        ranks = scipy.stats.rankdata(np.abs(present))
        middle = ranks.sum() / 2
        found = abs(ranks[present > 0].sum() - middle)
        signs = itertools.product([0, 1], repeat=len(present))
        extreme = [abs((ranks * np.array(s)).sum() - middle) >= found - 1e-9 for s in signs]
        assert signed_rank(differences) == pytest.approx(np.mean(extreme))

    @many
    @given(st.integers(0, 10_000), st.integers(1, 30))
    def test_signed_rank_agrees_with_scipy_where_there_are_no_ties(self, seed, count):
        differences = np.random.default_rng(seed).normal(0.3, 1, count)
        expected = scipy.stats.wilcoxon(differences, method="exact").pvalue
        assert signed_rank(differences) == pytest.approx(expected)

    @many
    @given(st.lists(st.floats(0, 1), max_size=8))
    def test_holm_rejects_what_stepping_down_rejects(self, p_values):
        adjusted = holm(p_values)
        for level in (0.01, 0.05, 0.3):
            rejected: set[int] = set()
            for index in sorted(range(len(p_values)), key=p_values.__getitem__):
                if p_values[index] > level / (len(p_values) - len(rejected)):
                    break
                rejected.add(index)
            close = {i for i, p in enumerate(adjusted) if abs(p - level) < 1e-9}
            assert {i for i, p in enumerate(adjusted) if p <= level} - close == rejected - close
