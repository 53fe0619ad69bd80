"""diversity: its numbers, its record, and what it refuses."""

import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from command_line import good
from evaluation_examples import BACKBONES, write_backbones, write_example
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from stores_examples import write_features

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.labels import Labels
from clipnlc.reports.heatmaps import draw_heatmaps
from clipnlc.reports.record import DiversityReport
from clipnlc.runs.members import members_name
from clipnlc.runs.records import diversity_path
from clipnlc.stages.diversity import diversity, is_measurable
from clipnlc.stages.evaluate import evaluate
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Layout:
    layout = write_example(tmp_path_factory.mktemp("store"))
    evaluate(store=layout.root)
    return layout


@pytest.fixture(scope="module")
def report(example) -> DiversityReport:
    return diversity(store=example.root, backbones=BACKBONES)


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = Layout(tmp_path)
    write_backbones(layout, "digits")
    return layout


def predictions(layout: Layout, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    splits = [read_logits(layout.logits(dataset, "zero-shot", b)).splits["test"] for b in BACKBONES]
    return np.stack([s.logits.argmax(axis=1) for s in splits]), splits[0].labels


def test_matrices_agree_with_an_independent_computation(example, report):
    digits = report.datasets[0]
    said, labels = predictions(example, "digits")
    right = said == labels
    for i in range(3):
        for j in range(3):
            pair = {m: matrix[i][j] for m, matrix in digits.matrices.items()}
            assert pair["disagreement"] == pytest.approx((said[i] != said[j]).mean())
            assert pair["double-fault"] == pytest.approx((~right[i] & ~right[j]).mean())
            assert pair["error-correlation"] == pytest.approx(np.corrcoef(right[i], right[j])[0, 1])
            assert pair["kappa"] == pytest.approx(cohen_kappa_score(said[i], said[j]))
            x, y = (
                f - f.mean(axis=0)
                for b in (BACKBONES[i], BACKBONES[j])
                for f in [
                    read_features(example.features("digits", "test", b)).features.astype(float)
                ]
            )
            cka = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
            assert pair["cka"] == pytest.approx(cka)
    pairs = [digits.matrices["disagreement"][i][j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert digits.pair_means["disagreement"] == pytest.approx(np.mean(pairs))


def test_ensemble_measures_and_their_mean(example, report):
    digits = report.datasets[0]
    said, labels = predictions(example, "digits")
    right = said == labels
    assert digits.right_for_some == (right.any(axis=0) & ~right.all(axis=0)).mean()
    assert digits.oracle_gain == pytest.approx(right.any(axis=0).mean() - right.mean(axis=1).max())
    assert report.mean.oracle_gain == pytest.approx(
        np.mean([one.oracle_gain for one in report.datasets])
    )
    assert report.mean.matrices["kappa"][0][1] == pytest.approx(
        np.mean([one.matrices["kappa"][0][1] for one in report.datasets])
    )
    assert report.mean.samples == 60 + 45 + 50


def test_diversity_is_ranked_against_nlcs_gain_where_evaluate_left_records(example, report):
    assert {(c.measure, c.drawn) for c in report.correlations} == {
        (measure, Labels.shots(shots))
        for measure in ("oracle-gain", "right-for-some")
        for shots in (1, 4)
    }
    rows = [
        next(r for r in one.rows if r.method == "nlc" and r.drawn == Labels.shots(4))
        for one in evaluate(store=example.root).datasets
    ]
    found = next(
        c for c in report.correlations if (c.measure, c.drawn) == ("oracle-gain", Labels.shots(4))
    )
    gains = [one.oracle_gain for one in report.datasets]
    assert found.rho == pytest.approx(stats.spearmanr(gains, [r.gain for r in rows]).statistic)
    assert found.datasets == 3


def test_records_of_other_logits_are_not_ranked(example, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(example.root, copy)
    write_backbones(Layout(copy), "digits", seed=9)
    assert diversity(store=copy).correlations == ()


def test_the_same_stores_give_the_same_bytes(example, report, tmp_path):
    path = diversity_path(example, "zero-shot", members_name(BACKBONES))
    copy = tmp_path / "copy"
    shutil.copytree(example.root, copy)
    (copy / path.name).unlink()
    assert diversity(store=copy, backbones=BACKBONES) == report
    assert (copy / path.name).read_bytes() == path.read_bytes()


def test_heat_maps_are_drawn_per_data_set_and_for_the_mean(report, tmp_path):
    two = replace(report, datasets=report.datasets[:2])
    drawn = draw_heatmaps(two, tmp_path / "a")
    assert [p.name for p in drawn] == [
        "diversity-digits.png",
        "diversity-emoji.png",
        "diversity-mean.png",
    ]
    times = [p.stat().st_mtime_ns for p in drawn]
    assert [p.stat().st_mtime_ns for p in draw_heatmaps(two, tmp_path / "a")] == times
    (again,) = draw_heatmaps(replace(report, datasets=report.datasets[:1]), tmp_path / "b")
    assert again.read_bytes() == drawn[0].read_bytes()
    assert drawn[0].read_bytes() != drawn[1].read_bytes()


def test_features_may_be_left_out(layout):
    for backbone in BACKBONES:
        layout.features("digits", "test", backbone).unlink()
    assert "cka" not in diversity(store=layout.root, features=False).mean.matrices
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract --dataset digits"):
        diversity(store=layout.root)


def test_a_backbone_that_is_always_right_leaves_measures_undefined(layout):
    path = layout.logits("digits", "zero-shot", BACKBONES[0])
    store = read_logits(path)
    split = store.splits["test"]
    perfect = replace(split, logits=np.eye(4, dtype=np.float32)[split.labels])
    write_logits(path, replace(store, splits={"test": perfect}))
    found = diversity(store=layout.root, backbones=BACKBONES).datasets[0]
    assert found.matrices["error-correlation"][0][1] is None
    assert found.matrices["error-correlation"][1][2] is not None
    assert found.pair_means["error-correlation"] == found.matrices["error-correlation"][1][2]
    (note,) = found.notes
    assert note.startswith("undefined for some pairs")
    assert "error-correlation" in note


def test_missing_logits_name_the_command(layout):
    with pytest.raises(
        MissingStageError, match=r"run `clipnlc train-heads --head linear --store .*` first"
    ):
        diversity(store=layout.root, head="linear")
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract --dataset cub .*first"):
        diversity(store=layout.root, datasets=["digits", "cub"])
    with pytest.raises(MissingStageError, match=r"--backbones nano-RN101 .*first"):
        diversity(store=layout.root, backbones=["nano-RN50", "nano-RN101"])


def test_different_backbones_need_a_choice(layout):
    write_backbones(layout, "emoji", backbones=BACKBONES[:2])
    with pytest.raises(StoreError, match=r"expected the same: name those to compare"):
        diversity(store=layout.root)
    assert diversity(store=layout.root, backbones=BACKBONES[:2]).backbones == BACKBONES[:2]
    with pytest.raises(StoreError, match=r"only nano-RN50 to compare; expected at least two"):
        diversity(store=layout.root, backbones=BACKBONES[:1])


def test_logits_older_than_their_features_are_refused(layout):
    target = layout.features("digits", "test", BACKBONES[0])
    write_features(target, read_features(target).features + 1)
    with pytest.raises(StoreError, match=r"is stale: .* has changed since; run `clipnlc extract"):
        diversity(store=layout.root, backbones=BACKBONES)


def test_rows_in_another_order_are_refused(layout):
    path = layout.logits("digits", "zero-shot", BACKBONES[1])
    store = read_logits(path)
    split = store.splits["test"]
    turned = replace(
        split,
        logits=split.logits[::-1].copy(),
        labels=split.labels[::-1].copy(),
        sample_id=split.sample_id[::-1],
    )
    write_logits(path, replace(store, splits={"test": turned}))
    with pytest.raises(StoreError, match=r"are not aligned: sample_id of row 0"):
        diversity(store=layout.root, backbones=BACKBONES)


def test_evaluate_offers_diversity_where_it_can_be_measured(fitted, here, tmp_path):
    store = ("--store", fitted)

    def offered():
        return [s for s in good("evaluate", *store, by=here).splitlines() if s.startswith("next:")]

    assert offered() == [f"next: clipnlc diversity --store {fitted}"]
    layout = Layout(fitted)
    for split in ("train", "test"):
        found = read_features(layout.features("photos", split, "nano-RN50"))
        kept = {"labels": found.labels, "sample_id": np.array(found.sample_id)}
        names = np.array(found.class_names)
        path = tmp_path / f"{split}.npz"
        np.savez(path, features=found.features[:, :3], class_names=names, **kept)
        line = ("import", path, "--backbone", "forest", "--dataset", "photos", "--split", split)
        good(*line, *store, by=here)
    (line,) = offered()
    assert "--backbones nano-RN50,nano-ViT-B-16" in line
    good(*shlex.split(line)[2:], by=here)
    path = layout.features("photos", "test", "nano-RN50")
    asked = {"store": fitted, "backbones": ["nano-RN50", "nano-ViT-B-16"]}
    assert is_measurable(**asked)
    path.write_bytes(path.read_bytes()[:100])
    assert not is_measurable(**asked)  # evaluate refuses such a file itself
    path.unlink()
    assert offered() == []
