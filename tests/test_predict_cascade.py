"""`predict` with a cascade: a backbone is computed only for photos that the cheaper ones doubt."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from command_line import BACKBONES, good

from clipnlc import backbones as backbone_names
from clipnlc.backbones.costs import image_gflops
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.ensemble import by_name
from clipnlc.errors import StoreError
from clipnlc.extraction.models import Models
from clipnlc.extraction.photos import stream_photos
from clipnlc.fitting import softmax
from clipnlc.labels import Labels
from clipnlc.runs.fitted import apply
from clipnlc.runs.predictor import open_predictor
from clipnlc.stages.predict import predict
from clipnlc.stores.layout import Layout

NAMES = BACKBONES.split(",")


@pytest.fixture
def cascades(extracted):
    options = ("--combiners", "cascade,cascade-nlc", "--shots", 2, "--seeds", 1)
    good("train-nlc", *options, "--store", extracted)
    return extracted


@pytest.fixture
def forwarded(monkeypatch):
    """Count the photos that each backbone embeds."""
    counts = dict.fromkeys(NAMES, 0)
    forward = LoadedBackbone.forward

    def counting(self, finished):
        counts[self.name] += len(finished)
        return forward(self, finished)

    monkeypatch.setattr(LoadedBackbone, "forward", counting)
    return counts


def files(photos):
    return sorted((photos / "test").rglob("*.png"))


def with_threshold(predictor, threshold):
    learnt = dict(predictor.fitted.learnt, threshold_=np.full(len(NAMES) - 1, threshold))
    return replace(predictor, fitted=replace(predictor.fitted, learnt=learnt))


@pytest.mark.parametrize("combiner", ["cascade", "cascade-nlc"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_computes_what_photos_need_and_answers_alike(
    combiner, batch_size, cascades, photos, forwarded
):
    every = files(photos)
    given = [backbone_names.parse(name) for name in NAMES]
    models = Models("cpu", "fp32")
    predictor = open_predictor(
        Layout(cascades), "photos", head="zero-shot", combiner=combiner, which=Labels.shots(2)
    )
    ordered = [backbone_names.parse(name) for name in predictor.backbones]
    blocks = list(stream_photos(every, models, ordered))
    features = [np.concatenate(each) for each in zip(*(b.features for b in blocks), strict=True)]
    classes = by_name(predictor.heads.class_names)
    whole = predictor.heads.ensemble(features, list(map(str, every)), classes=classes)
    first = predictor.fitted.combiner.order_[0]
    sure = softmax(whole.logits[first].astype(float)).max(axis=1)

    for threshold, asked_twice in (
        (0.0, np.zeros(len(every), bool)),
        (np.median(sure) + 2e-3, sure < np.median(sure) + 2e-3),
        (2.0, np.ones(len(every), bool)),
    ):
        cascade = with_threshold(predictor, threshold)
        forwarded.update(dict.fromkeys(NAMES, 0))
        found = [
            one
            for block in predict(
                cascade,
                every,
                backbones=given,
                models=models,
                batch_size=batch_size,
                explain=True,
            )
            for one in block.predictions
        ]
        expected = apply(cascade.fitted, whole)
        scores = expected.combined(whole)
        assert [one.answer for one in found] == [
            whole.class_names[best] for best in scores.argmax(axis=1)
        ]
        np.testing.assert_allclose(
            [one.probability for one in found], softmax(scores).max(axis=1), atol=1e-4
        )
        cheap, dear = (predictor.backbones[n] for n in predictor.fitted.combiner.order_)
        close = np.abs(sure - threshold) < 2e-3  # these may be computed and not asked
        assert forwarded[cheap] == len(every)
        assert asked_twice.sum() <= forwarded[dear] <= (asked_twice | close).sum()
        for one, second in zip(found, asked_twice, strict=True):
            answers = {opinion.backbone: opinion.answer for opinion in one.opinions}
            assert answers[cheap] is not None
            assert (answers[dear] is not None) == second


def test_the_command_marks_what_was_not_asked(cascades, photos, here):
    store = ("--store", cascades, "--shots", 2, "--combiner", "cascade", "--explain")
    lines = good("predict", photos / "test", *store, "--json", by=here).splitlines()
    told = [json.loads(line)["backbones"] for line in lines]
    assert len(told) == len(files(photos))
    for one in told:
        assert sorted(one) == sorted(NAMES)
        assert all((each["answer"] is None) == (each["weight"] == 0) for each in one.values())
    costs = {name: image_gflops(name) for name in NAMES}
    for line in lines:
        one = json.loads(line)
        asked = sum(costs[b] for b, its in one["backbones"].items() if its["answer"] is not None)
        # What is near a threshold is computed and not asked.
        assert one["gflops"] in (pytest.approx(asked), pytest.approx(sum(costs.values())))
    spent = [json.loads(line)["gflops"] for line in lines]
    assert min(spent) == pytest.approx(min(costs.values()))
    file = photos.parent / "answers.csv"
    table = good("predict", photos / "test", *store, "--csv", file, by=here).splitlines()
    with file.open() as opened:
        assert [float(row["gflops"]) for row in csv.DictReader(opened)] == spent
    at = table[0].split("\t").index("GFLOPs")
    assert [line.split("\t")[at] for line in table[1:]] == [f"{number:.3g}" for number in spent]
    plain = good("predict", photos / "test", *store[:-1], "--json", by=here)
    assert "gflops" not in plain
    dashes = sum(line.split("\t").count("-") for line in table)
    assert dashes == sum(each["answer"] is None for one in told for each in one.values())


def test_a_damaged_order_is_refused(cascades, photos):
    predictor = open_predictor(
        Layout(cascades), "photos", head="zero-shot", combiner="cascade", which=Labels.shots(2)
    )
    learnt = dict(predictor.fitted.learnt, order_=np.array([0, 0]))
    damaged = replace(predictor, fitted=replace(predictor.fitted, learnt=learnt))
    given = [backbone_names.parse(name) for name in NAMES]
    with pytest.raises(StoreError, match="a fit of cascade cannot be applied: its backbones have"):
        predict(damaged, files(photos), backbones=given, models=Models("cpu", "fp32"))
