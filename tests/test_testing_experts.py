"""The synthetic family holds what it promises: who is competent where, and what features tell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipnlc.combiners import COMBINERS
from clipnlc.testing.experts import CLASSES, COMPETENCES, REGIONS, experts

SEEDS = range(4)
ROOT = Path(__file__).parent.parent


def right(family):
    return family.test.logits.argmax(axis=2) == family.test_labels


def by_group(family, groups, number):
    """Accuracy `[backbones, groups]`."""
    return np.stack([right(family)[:, groups == g].mean(axis=1) for g in range(number)], axis=1)


def gaps(competence, groups, number):
    """Strong minus weak groups, by backbone and seed; strong are those of the higher skill."""
    found = []
    for seed in SEEDS:
        family = experts(competence, seed=seed)
        skill = family.skill.mean(axis=2 if number == REGIONS else 1)
        strong = skill > skill.mean(axis=1, keepdims=True)
        assert (strong.sum(axis=1) == number // 2).all()
        accuracy = by_group(family, getattr(family, groups), number)
        means = [np.where(s, accuracy, np.nan) for s in (strong, ~strong)]
        found.append(np.nanmean(means[0], axis=1) - np.nanmean(means[1], axis=1))
    return np.concatenate(found)


@pytest.mark.parametrize("competence", COMPETENCES)
def test_one_seed_gives_the_same_bits_and_another_gives_other_images(competence):
    first, again = (experts(competence, seed=3, pool=5, tested=5) for _ in range(2))
    other = experts(competence, seed=4, pool=5, tested=5)
    for one, two in ((first.train, again.train), (first.test, again.test)):
        assert one.logits.tobytes() == two.logits.tobytes()
        assert [f.tobytes() for f in one.features] == [f.tobytes() for f in two.features]
    assert not np.allclose(first.test.logits, other.test.logits)
    assert not np.allclose(first.train.features[0], first.test.features[0])


def test_members_of_one_seed_differ_in_skill_alone():
    region, constant, by_class = (experts(c, seed=0, pool=5, tested=5) for c in COMPETENCES)
    for member in (region, by_class):
        assert (member.test_regions == constant.test_regions).all()
        np.testing.assert_allclose(member.skill.mean(axis=(1, 2)), constant.skill.mean(axis=(1, 2)))
    assert len(set(region.train.sample_id) | set(region.test.sample_id)) == 2 * 5 * CLASSES


def test_with_region_dependent_competence_every_backbone_has_strong_and_weak_regions():
    assert gaps("region", "test_regions", REGIONS).min() > 0.15


def test_with_class_biased_competence_every_backbone_has_strong_and_weak_classes():
    assert gaps("class", "test_labels", CLASSES).min() > 0.15


@pytest.mark.parametrize("competence", ["constant", "class"])
def test_otherwise_accuracy_is_alike_in_all_regions(competence):
    for seed in SEEDS:
        family = experts(competence, seed=seed)
        assert np.ptp(by_group(family, family.test_regions, REGIONS), axis=1).max() < 0.12


def test_with_constant_competence_skill_is_of_the_backbone_alone():
    skill = experts("constant", seed=0).skill
    assert (skill == skill[:, :1, :1]).all()
    assert len(np.unique(skill)) == len(skill)


@pytest.mark.parametrize("competence", COMPETENCES)
def test_accuracies_are_like_those_of_the_nano_sets(competence):
    families = [experts(competence, seed=seed) for seed in SEEDS]
    single = np.sort([right(f).mean(axis=1) for f in families], axis=1).mean(axis=0)
    assert 0.45 <= single.min() < single.max() <= 0.65
    average = [
        (COMBINERS.get("log-avg")().combine(f.test).argmax(axis=1) == f.test_labels).mean()
        for f in families
    ]
    assert single.max() + 0.02 < np.mean(average) < 0.75


@pytest.mark.parametrize("competence", COMPETENCES)
def test_each_backbones_features_tell_region_and_class_but_not_surely(competence):
    family = experts(competence, seed=0)
    for pool, test in zip(family.train.features, family.test.features, strict=True):
        for known, wanted, number in (
            (family.train_regions, family.test_regions, REGIONS),
            (family.train_labels, family.test_labels, CLASSES),
        ):
            centres = np.stack([pool[known == g].mean(axis=0) for g in range(number)])
            found = ((test[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
            assert 2 / number <= (found == wanted).mean() <= 0.9


def test_logits_are_scaled_cosines_of_features():
    family = experts("region", seed=0)
    for logits, features in zip(family.test.logits, family.test.features, strict=True):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        texts, *_ = np.linalg.lstsq(unit, logits, rcond=None)
        np.testing.assert_allclose(unit @ texts, logits, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(texts, axis=0), 12, rtol=1e-3)


def test_the_benchmark_prints_differences_to_static_with_paired_intervals():
    command = [sys.executable, ROOT / "benchmarks" / "synthetic.py", "--seeds", "3"]
    done = subprocess.run(
        [*command, "--combiners", "log-avg", "--labels", "2"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    heads, _, *rows = [line.strip("|").split("|") for line in done.stdout.splitlines()]
    assert [cell.strip() for cell in heads[2:]] == ["2 per class", "minus static"]
    assert [row[0].strip() for row in rows] == [c for c in COMPETENCES for _ in range(2)]
    for static, average in zip(rows[::2], rows[1::2], strict=True):
        difference, low, high = map(float, re.findall(r"[+-]\d+\.\d", average[3]))
        assert low < difference < high
        assert difference == pytest.approx(float(average[2]) - float(static[2]), abs=0.11)
