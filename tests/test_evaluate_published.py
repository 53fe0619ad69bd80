"""evaluate: published accuracies beside ours."""

import numpy as np
import pytest
from evaluation_examples import write_backbones, write_run

from clipnlc.reports.record import Evaluation
from clipnlc.stages.evaluate import evaluate
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits

OPENAI = ("RN50.openai", "ViT-B-32.openai")


def write_openai(layout: Layout, dataset: str, *, rows: int = 60) -> np.ndarray:
    """Write zero-shot logits under the names of published backbones; return their accuracies."""
    inputs = write_backbones(layout, dataset, rows=rows, backbones=OPENAI)
    write_run(layout, dataset, inputs, shots=0, seed=0, backbones=OPENAI)
    splits = [read_logits(layout.logits(dataset, "zero-shot", b)).splits["test"] for b in OPENAI]
    return np.array([(s.logits.argmax(axis=1) == s.labels).mean() for s in splits])


def test_published_accuracies_stand_beside_ours_and_enter_no_average(tmp_path):
    layout = Layout(tmp_path)
    ours = write_openai(layout, "cifar10")
    for one, accuracy, published in zip(
        evaluate(store=tmp_path).datasets[0].published, ours, (0.7157, 0.8983), strict=True
    ):
        assert (one.metric, one.published_samples) == ("accuracy", 10000)
        assert one.ours == accuracy
        assert one.published == published
        assert one.difference == accuracy - published
        assert one.suspicious == (abs(accuracy - published) > 0.02)

    write_openai(layout, "some-photos")  # the same logits under a name without published numbers
    both = evaluate(store=tmp_path)
    cifar, photos = both.datasets
    assert photos.published == ()
    assert cifar.rows == photos.rows
    assert {r.method: r.accuracy for r in both.summary} == {
        r.method: r.accuracy for r in photos.rows
    }


def test_means_over_classes_are_compared_with_means_over_classes(tmp_path):
    layout = Layout(tmp_path)
    rows = 10  # of four classes, so that the two measures differ
    write_openai(layout, "pets", rows=rows)
    for name, one in zip(OPENAI, evaluate(store=tmp_path).datasets[0].published, strict=True):
        split = read_logits(layout.logits("pets", "zero-shot", name)).splits["test"]
        right = split.logits.argmax(axis=1) == split.labels
        recalls = [right[split.labels == c].mean() for c in range(4)]
        assert one.metric == "class-mean-accuracy"
        assert one.ours == pytest.approx(np.mean(recalls), abs=1e-12)


def test_other_published_numbers_make_the_record_anew(tmp_path, monkeypatch):
    write_openai(Layout(tmp_path), "cifar10")
    calls = []

    def again() -> Evaluation:
        return evaluate(store=tmp_path, on_progress=lambda *at: calls.append(at))

    first = again()
    assert again() == first
    assert len(calls) == 1
    monkeypatch.setattr("clipnlc.stages.evaluate.published_digest", lambda: "another table")
    assert again().published_digest == "another table"
    assert len(calls) == 2
