"""evaluate's intervals and stars, against independent computations on what its fits give."""

import numpy as np
import pytest
from evaluation_examples import (
    MEMBERS,
    SEEDS,
    logits_and_labels,
    nlc,
    row,
    sample_ids,
    write_example,
)
from scipy import stats

from clipnlc.combiners.votes import Vote1
from clipnlc.ensemble import Ensemble
from clipnlc.measures import Block
from clipnlc.metrics import METRICS
from clipnlc.reports.record import Evaluation
from clipnlc.stages.evaluate import evaluate
from clipnlc.stores.layout import Layout

NAMES = ("digits", "emoji", "flags")


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Layout:
    return write_example(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def evaluation(example) -> Evaluation:
    return evaluate(store=example.root)


def nlc_hits(layout: Layout, dataset: str, shots: int) -> np.ndarray:
    pairs = [nlc(layout, dataset, shots, seed) for seed in SEEDS]
    return np.array([(scores.argmax(axis=1) == labels) for scores, labels in pairs]).astype(float)


def variances(values: np.ndarray) -> tuple[float, float]:
    """Return the variance of the mean over images, and what draws add, of values by draw."""
    draws, images = values.shape
    of_images = values.mean(axis=0).var() / images
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    error = (rest**2).sum() / ((images - 1) * (draws - 1))
    return of_images, max(0.0, values.mean(axis=1).var(ddof=1) - error / images) / draws


def simulated(
    centre: float, of_images: float, of_draws: float, freedom: float
) -> tuple[float, ...]:
    """Return bounds for normal images and Student's t draws."""
    random = np.random.default_rng(0)
    drawn = random.normal(0, of_images**0.5, 200_000)
    drawn += of_draws**0.5 * random.standard_t(freedom, 200_000)
    return tuple(np.quantile(centre + drawn, [0.025, 0.975]))


def test_one_data_set_has_an_interval_over_images_and_draws(example, evaluation):
    for number, name in enumerate(NAMES):
        hits = nlc_hits(example, name, 1)
        found = row(evaluation.datasets[number].rows, "nlc", shots=1)
        expected = simulated(hits.mean(), *variances(hits), 2)
        assert (found.low, found.high) == pytest.approx(expected, abs=0.03)
        assert (found.interval, found.shared) == ("images-and-draws", 1 / 8)

        logits, labels = logits_and_labels(example, name)
        alone = logits.argmax(axis=2) == labels
        best = alone[alone.mean(axis=1).argmax()]
        gain = simulated((hits - best).mean(), *variances(hits - best), 2)
        assert (found.gain_low, found.gain_high) == pytest.approx(gain, abs=0.03)


def test_the_mean_over_data_sets_has_an_interval_over_their_images_and_draws(example, evaluation):
    found = row(evaluation.summary, "nlc", shots=1)
    parts = np.array([variances(nlc_hits(example, name, 1)) for name in NAMES])
    freedom = parts[:, 1].sum() ** 2 / ((parts[:, 1] ** 2 / 2).sum() or 1)
    expected = simulated(found.accuracy, *(parts.sum(axis=0) / 9), max(freedom, 2))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02)
    logits = row(evaluation.summary, "log-avg")
    assert logits.interval == "images"
    assert 0.05 < logits.high - logits.low < 0.2  # 155 images in all


def test_draws_that_share_half_of_the_pool_have_no_interval(evaluation):
    """Four of eight images of each class."""
    for rows in (evaluation.summary, evaluation.datasets[0].rows):
        found = row(rows, "nlc", shots=4)
        assert (found.low, found.high, found.interval) == (None, None, "not-estimable")
        assert found.shared == 0.5
    assert row(evaluation.datasets[0].rows, "nlc", shots=4).gain_low is None
    assert row(evaluation.summary, "nlc", shots=4).gain_low is not None  # over data sets
    assert (
        "At 4 per class two draws share 50 % of their labels: the draw variance is not estimable."
    ) in evaluation.datasets[0].notes
    assert any("in 3 of 3 data sets" in note for note in evaluation.notes)


def test_a_method_is_level_where_its_paired_interval_over_data_sets_includes_zero(evaluation):
    for shots, measure in ((1, "accuracy"), (4, "brier"), (4, "own-calibration-error")):
        pair = [
            [row(one.rows, name, shots=shots).measures[measure] for one in evaluation.datasets]
            for name in ("nlc", "static")
        ]
        found = [row(evaluation.summary, name, shots=shots) for name in ("nlc", "static")]
        low, high = stats.ttest_rel(*pair).confidence_interval()
        best = np.argmax([r.measures[measure] for r in found])
        best = best if measure == "accuracy" else 1 - best
        assert measure in found[best].level
        assert (measure in found[1 - best].level) == (low <= 0 <= high)
    for name in (*MEMBERS, "oracle", "best-single-test"):
        assert row(evaluation.summary, name).level == ()


def test_on_one_data_set_the_paired_interval_is_over_its_images(tmp_path):
    layout = write_example(tmp_path)
    (flags,) = evaluate(store=layout.root, datasets=["flags"]).datasets
    logits, labels = logits_and_labels(layout, "flags")
    votes = Vote1().combine(Ensemble(logits.astype(np.float32), (), sample_ids(len(labels))))
    scores = {"log-avg": logits.mean(axis=0), "vote-1": votes}
    told = 0
    for measure in ("accuracy", "brier", "negative-log-likelihood"):
        table = METRICS.get(measure)
        one, other = (table.values(Block(z, labels))[:, 0] for z in scores.values())
        z = abs((one - other).mean() / stats.sem(one - other))
        level = [measure in row(flags.rows, name).level for name in scores]
        assert any(level)
        if abs(z - 1.96) > 0.3:  # else a resample decides
            assert all(level) == (z < 1.96)
            told += 1
    assert told == 3


def test_methods_and_clusters_are_described(evaluation):
    assert set(evaluation.methods) == {"log-avg", "vote-1", "static", "nlc"}
    nlc_facts = evaluation.methods["nlc"]
    assert nlc_facts.learns_from == ("labels",)
    assert nlc_facts.selected_on == "nano training pools"
    assert nlc_facts.meaning.startswith("NLC: ")
    assert [one.cluster for one in evaluation.datasets] == list(NAMES)
