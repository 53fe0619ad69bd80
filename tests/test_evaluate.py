"""evaluate: its numbers against independent ones, what it refuses, and what it leaves behind."""

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_examples import (
    BACKBONES,
    MEMBERS,
    SEEDS,
    SHOTS,
    fits_path,
    logits_and_labels,
    nlc,
    older_evaluation,
    record_path,
    replace_split,
    row,
    sample_ids,
    write_backbones,
    write_dataset,
    write_example,
    write_run,
)
from scipy import stats
from scipy.special import softmax
from stores_examples import write_features

from clipnlc.combiners.votes import Vote1
from clipnlc.ensemble import Ensemble
from clipnlc.errors import ClipnlcError, MissingStageError, StoreError
from clipnlc.reports.files import evaluation_from_json, to_json
from clipnlc.reports.record import Evaluation
from clipnlc.runs.members import members_name
from clipnlc.stages.evaluate import evaluate
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import Fit, FitStore, add_fits, read_fits
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Layout:
    return write_example(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def evaluation(example) -> Evaluation:
    return evaluate(store=example.root)


@pytest.fixture
def layout(tmp_path) -> Layout:
    """Return a store of one data set, `digits`, that a test may spoil."""
    layout = Layout(tmp_path)
    write_dataset(layout, "digits")
    return layout


def calibration_error(probs: np.ndarray, labels: np.ndarray) -> float:
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    bins = np.minimum(np.floor(confidence * 15), 14)
    return sum(abs((confidence - right)[bins == b].sum()) for b in range(15)) / len(labels)


def test_one_data_set_agrees_with_an_independent_computation(example, evaluation):
    digits = evaluation.datasets[0]
    logits, labels = logits_and_labels(example, "digits")
    right = logits.argmax(axis=2) == labels
    alone, oracle = right.mean(axis=1), right.any(axis=0).mean()

    assert [row(digits.rows, b).accuracy for b in MEMBERS] == alone.tolist()
    assert row(digits.rows, "best-single-test").accuracy == alone.max()
    assert digits.best_single == MEMBERS[alone.argmax()]
    assert row(digits.rows, "oracle").accuracy == oracle

    pairs = [nlc(example, "digits", 4, seed) for seed in SEEDS]
    accuracies = [(scores.argmax(axis=1) == labels).mean() for scores, labels in pairs]
    found = row(digits.rows, "nlc", shots=4)
    assert found.accuracies == tuple(accuracies)
    assert (found.accuracy, found.labels, found.seeds) == (np.mean(accuracies), 16, SEEDS)
    assert found.gain == pytest.approx(np.mean(accuracies) - alone.max(), abs=1e-12)
    assert found.gap_closed == pytest.approx(found.gain / (oracle - alone.max()), abs=1e-12)
    probs = [softmax(scores, axis=1) for scores, _ in pairs]
    assert found.measures["calibration-error"] == pytest.approx(
        np.mean([calibration_error(p, labels) for p in probs]), abs=1e-12
    )
    assert found.measures["negative-log-likelihood"] == pytest.approx(
        -np.mean([np.log(p[np.arange(len(labels)), labels]) for p in probs]), abs=1e-12
    )


def test_the_summary_averages_per_seed_and_pools_calibration(example, evaluation):
    names = ("digits", "emoji", "flags")
    found = row(evaluation.summary, "nlc", shots=1)
    pairs = {(n, s): nlc(example, n, 1, s) for n in names for s in SEEDS}
    right = {at: (z.argmax(axis=1) == y).mean() for at, (z, y) in pairs.items()}
    per_seed = [np.mean([right[n, s] for n in names]) for s in SEEDS]
    assert found.accuracies == pytest.approx(per_seed, abs=1e-12)
    assert (found.interval, found.labels) == ("images-and-draws", 4 + 3 + 5)

    best, oracle = [], []
    for name in names:
        logits, labels = logits_and_labels(example, name)
        hits = logits.argmax(axis=2) == labels
        best.append(hits.mean(axis=1).max())
        oracle.append(hits.any(axis=0).mean())
    gain = np.mean(per_seed) - np.mean(best)
    assert found.gain == pytest.approx(gain, abs=1e-12)
    by_set = [np.mean([right[n, s] for s in SEEDS]) - b for n, b in zip(names, best, strict=True)]
    bounds = stats.t.interval(0.95, 2, loc=gain, scale=stats.sem(by_set))
    assert (found.gain_low, found.gain_high) == pytest.approx(bounds, abs=1e-12)
    assert found.gap_closed == pytest.approx(gain / (np.mean(oracle) - np.mean(best)), abs=1e-12)

    errors = []
    for seed in SEEDS:  # class numbers differ between data sets; confidence and hits do not
        probs = [softmax(pairs[n, seed][0], axis=1) for n in names]
        confidence = np.concatenate([p.max(axis=1) for p in probs])
        hits = np.concatenate([(z.argmax(1) == y) for z, y in (pairs[n, seed] for n in names)])
        errors.append(calibration_error(np.stack([confidence, 0 * confidence], 1), 1 - hits))
    assert found.measures["calibration-error"] == pytest.approx(np.mean(errors), abs=1e-12)


def test_votes_are_counted_and_equal_weights_are_the_mean_of_the_logits(example, evaluation):
    digits = evaluation.datasets[0]
    logits, labels = logits_and_labels(example, "digits")
    combiner = Vote1()  # its own tests say what it does
    votes = combiner.combine(Ensemble(logits.astype(np.float32), (), sample_ids(60)))
    for method, scores in (("vote-1", votes), ("log-avg", logits.mean(axis=0))):
        found = row(digits.rows, method)
        assert found.accuracy == (scores.argmax(axis=1) == labels).mean()
        probs = softmax(scores.astype(float), axis=1)
        assert found.measures["calibration-error"] == pytest.approx(
            calibration_error(probs, labels), abs=1e-6
        )
        assert found.interval == "samples"
        wilson = stats.binomtest(round(found.accuracy * 60), 60).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)


def test_controls_and_references_are_told_apart(evaluation):
    kinds = {r.method: r.kind for r in evaluation.summary}
    assert kinds == {
        **dict.fromkeys(BACKBONES, "backbone"),
        "best-single-test": "reference",
        "oracle": "reference",
        "vote-1": "method",
        "log-avg": "method",
        "nlc": "method",
        "static": "control",
    }


def test_sources_name_every_file_with_digest_and_rows(example, evaluation):
    digits = evaluation.datasets[0]
    sources = {s.path: s for s in digits.sources}
    assert len(sources) == len(BACKBONES) + 1 + 2 * len(SEEDS)
    path = example.logits("digits", "zero-shot", BACKBONES[0])
    assert sources[example.relative(path)].digest == read_logits(path).digest
    assert {s.rows for s in digits.sources if "/logits/" in s.path} == {60}
    run = fits_path(example, "digits", "4-shots-seed-2")
    assert sources[example.relative(run)].digest == read_fits(run).digest


def test_records_read_back_and_the_same_stores_give_the_same_bytes(example, evaluation, tmp_path):
    path = record_path(example.root)
    assert evaluation_from_json(path.read_text(), where=str(path)) == evaluation
    copy = tmp_path / "elsewhere"
    shutil.copytree(example.root, copy)
    for record in copy.rglob("evaluate-*.json"):
        record.unlink()
    evaluate(store=copy)
    assert record_path(copy).read_bytes() == path.read_bytes()
    for name in ("digits", "emoji", "flags"):
        alone = record_path(copy, name)
        again = evaluate(store=copy, datasets=[name])
        assert alone.read_text() == to_json(again)
        assert str(copy) not in alone.read_text()


def test_a_record_of_the_same_files_is_returned_and_another_result_is_kept_beside(layout):
    first = evaluate(store=layout.root)
    path = record_path(layout.root, "digits")
    before = path.read_bytes()
    calls = []
    assert evaluate(store=layout.root, on_progress=lambda *at: calls.append(at)) == first
    assert calls == []  # nothing was measured again
    inputs = write_backbones(layout, "digits")
    write_run(layout, "digits", inputs, shots=8, seed=0)
    assert evaluate(store=layout.root, on_progress=lambda *at: calls.append(at)) != first
    assert calls == [("digits", 60, 60)]
    kept = [p for p in path.parent.iterdir() if p != path]
    assert [p.read_bytes() for p in kept] == [before]


def test_progress_counts_samples(tmp_path, monkeypatch):
    layout = write_example(tmp_path)
    monkeypatch.setattr("clipnlc.runs.giving.BLOCK_ROWS", 40)
    calls = []
    evaluate(store=layout.root, on_progress=lambda *at: calls.append(at))
    rows = {"digits": 60, "emoji": 45, "flags": 50}
    assert calls == [(name, done, rows[name]) for name in rows for done in (40, rows[name])]


def test_processes_measure_the_same(example, evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr("clipnlc.stages.evaluate.measuring._WORTH_PROCESSES", 0)
    write_example(tmp_path)
    calls = []
    found = evaluate(store=tmp_path, workers=2, on_progress=lambda *at: calls.append(at))
    assert calls == [("data sets", done, 3) for done in (1, 2, 3)]
    assert found == evaluation
    records = sorted(tmp_path.rglob("*evaluate-*.json"))
    assert len(records) == 4
    for record in records:
        assert record.read_bytes() == (example.root / record.relative_to(tmp_path)).read_bytes()


def test_missing_runs_name_the_command(layout, tmp_path):
    with pytest.raises(MissingStageError, match=r"run `clipnlc train-heads --head linear --store"):
        evaluate(store=layout.root, head="linear")
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract --dataset emoji --store"):
        evaluate(store=layout.root, datasets=["digits", "emoji"])
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract"):
        evaluate(store=tmp_path / "nowhere")


def test_stale_runs_are_refused_once_with_the_cure(layout):
    write_backbones(layout, "digits", seed=9)
    members = members_name(BACKBONES)
    with pytest.raises(
        StoreError,
        match=rf"^digits/fits/zero-shot/{members}/no-labels.h5 and 6 more runs are stale: "
        r"digits/logits/zero-shot/nano-RN50.h5#train has changed since \(and 2 more\); "
        rf"run `clipnlc train-nlc --dataset digits --head zero-shot --backbones {','.join(sorted(BACKBONES))} "
        r"--combiners vote-1,log-avg,static,nlc --shots 1,4 --seeds 3 --store .*`$",
    ) as caught:
        evaluate(store=layout.root)
    assert "\n" not in str(caught.value)


def test_one_stale_run_among_fresh_ones_is_refused(layout):
    inputs = dict.fromkeys(write_backbones(layout, "digits"), "0" * 32)
    path = write_run(layout, "digits", inputs, shots=8, seed=0)
    with pytest.raises(StoreError, match=rf"^{layout.relative(path)} is stale"):
        evaluate(store=layout.root)


def test_other_test_logits_leave_the_fits_fresh(layout):
    """What they give is made anew."""
    first = evaluate(store=layout.root)
    path = layout.logits("digits", "zero-shot", MEMBERS[0])
    logits = read_logits(path).splits["test"].logits
    replace_split(path, "test", logits=logits[:, ::-1].copy())
    found = evaluate(store=layout.root)
    assert found != first
    scores, labels = nlc(layout, "digits", 4, 0)
    assert row(found.summary, "nlc", shots=4).accuracies[0] == (
        (scores.argmax(axis=1) == labels).mean()
    )


def test_logits_older_than_their_features_are_refused(layout):
    path = layout.logits("digits", "zero-shot", BACKBONES[0])
    features = layout.features("digits", "test", BACKBONES[0])
    write_features(features, read_features(features).features + 1)
    with pytest.raises(
        StoreError, match=rf"is stale: .*{features.name} has changed since; run `clipnlc extract"
    ):
        evaluate(store=layout.root)
    features.unlink()
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract --dataset digits"):
        evaluate(store=layout.root)  # NLC reads them
    path.unlink()
    with pytest.raises(MissingStageError, match=r"run `clipnlc extract"):
        evaluate(store=layout.root)


def test_features_may_be_gone_where_no_fit_needs_them(layout):
    """The cache may be deleted; what was made from it stays true."""
    for backbone in BACKBONES:
        layout.features("digits", "test", backbone).unlink()
        layout.features("digits", "train", backbone).unlink()
    for path in layout.dataset("digits").glob("fits/*/*/*-shots-*.h5"):
        path.unlink()
    assert row(evaluate(store=layout.root).summary, "log-avg").accuracy > 0.25


def test_features_may_be_gone_once_every_fit_was_applied(layout):
    first = evaluate(store=layout.root)
    for backbone in BACKBONES:
        layout.features("digits", "test", backbone).unlink()
    assert evaluate(store=layout.root) == first


def test_logits_of_backbones_in_another_order_are_refused(layout):
    path = layout.logits("digits", "zero-shot", BACKBONES[1])
    split = read_logits(path).splits["test"]
    replace_split(
        path,
        "test",
        logits=split.logits[::-1].copy(),
        labels=split.labels[::-1].copy(),
        sample_id=split.sample_id[::-1],
    )
    with pytest.raises(StoreError, match=r"are not aligned: sample_id of row 0"):
        evaluate(store=layout.root)


def test_the_order_of_a_runs_backbones_does_not_matter(layout):
    first = evaluate(store=layout.root)
    for path in layout.dataset("digits").glob("fits/*/*/*.h5"):
        store = read_fits(path)
        turned = {
            name: replace(fit, learnt={"weight_": fit.learnt["weight_"][::-1].copy()})
            for name, fit in store.fits.items()
            if name == "static"
        }
        if turned:
            path.unlink()
            add_fits(path, FitStore(store.backbones[::-1], store.class_names, turned))
    again = evaluate(store=layout.root)
    for shots in SHOTS:
        one, other = (row(each.summary, "static", shots) for each in (first, again))
        assert replace(one, level=()) == replace(other, level=())  # its rivals have gone


def test_a_fit_of_other_classes_is_refused(layout):
    path = fits_path(layout, "digits", "1-shots-seed-0")
    store = read_fits(path)
    path.unlink()
    add_fits(path, replace(store, class_names=("ant", *store.class_names[1:])))
    with pytest.raises(
        StoreError,
        match=r"fit is of 4 class names, and what it is applied to has 4: it lacks 'ant'",
    ):
        evaluate(store=layout.root)


def rewrite(path: Path, name: str, **changes) -> None:
    """Write a fit file with one other fit."""
    store = read_fits(path)
    changed: Fit = replace(store.fits[name], **changes)
    path.unlink()
    add_fits(path, replace(store, fits={**store.fits, name: changed}))


def test_fits_that_do_not_say_what_they_are_are_refused(layout):
    path = fits_path(layout, "digits", "1-shots-seed-0")
    good = path.read_bytes()
    fit = read_fits(path).fits["static"]
    rewrite(path, "static", facts={**fit.facts, "labels": "many"})
    with pytest.raises(StoreError, match=r"does not say how many labels static was fitted on; del"):
        evaluate(store=layout.root)
    path.write_bytes(good)
    rewrite(path, "static", learnt={"magic_": np.ones(3)})
    with pytest.raises(
        StoreError, match=r"a fit of static cannot be built again: .*magic_.*; fit it again with"
    ):
        evaluate(store=layout.root)
    path.write_bytes(good)
    rewrite(path, "static", key=Key.of({**fit.key.fields, "settings": {"magic": 1}}))
    with pytest.raises(StoreError, match=r"a fit of static cannot be built again: .*magic"):
        evaluate(store=layout.root)


def test_a_run_with_a_name_of_another_kind_is_refused(layout):
    path = fits_path(layout, "digits", "1-shots-seed-0")
    shutil.copy(path, path.with_name("1-shots-seed-0-again.h5"))
    with pytest.raises(
        ClipnlcError, match=r"of run 1-shots-seed-0, expected run 1-shots-seed-0-again"
    ):
        evaluate(store=layout.root)


def test_the_summary_leaves_out_what_a_data_set_lacks_and_says_so(tmp_path):
    layout = Layout(tmp_path)
    inputs = write_dataset(layout, "digits")
    write_dataset(layout, "emoji", seed=1)
    write_run(layout, "digits", inputs, shots=8, seed=0)
    found = evaluate(store=tmp_path)
    assert {r.drawn.amount for r in found.summary} == {0, 1, 4}
    assert "nlc at 8 per class is left out of the summary: emoji lacks it." in found.notes
    single = row(found.datasets[0].rows, "nlc", shots=8)
    assert (single.low, single.high, single.interval) == (None, None, "not-estimable")
    assert any("single seed" in note for note in found.datasets[0].notes)


def test_perfect_backbones_leave_no_gap_to_close(tmp_path):
    layout = Layout(tmp_path)
    inputs = write_backbones(layout, "digits")
    for b in BACKBONES:
        path = layout.logits("digits", "zero-shot", b)
        labels = read_logits(path).splits["test"].labels
        replace_split(path, "test", logits=np.eye(4, dtype=np.float32)[labels])
    write_run(layout, "digits", inputs, shots=0, seed=0)
    found = evaluate(store=tmp_path)
    assert row(found.summary, "log-avg").gap_closed is None
    assert not any(
        isinstance(v, float) and math.isnan(v) for r in found.summary for v in vars(r).values()
    )
    assert any("undefined" in note for note in found.datasets[0].notes)


def test_a_backbone_that_always_says_the_same_is_pointed_out(tmp_path):
    layout = Layout(tmp_path)
    inputs = write_backbones(layout, "digits")
    path = layout.logits("digits", "zero-shot", "nano-ViT-B-16")
    replace_split(path, "test", logits=np.eye(4, dtype=np.float32)[np.zeros(60, int)])
    write_run(layout, "digits", inputs, shots=0, seed=0)
    (note,) = evaluate(store=tmp_path).datasets[0].notes
    assert note.startswith("nano-ViT-B-16 predicts one class for every sample")


def test_torch_and_matplotlib_are_not_imported(example):
    code = (
        "import sys, pathlib; from clipnlc.stages.evaluate import evaluate; "
        f"evaluate(store=pathlib.Path({str(example.root)!r})); "
        "sys.exit(' '.join({'torch', 'matplotlib', 'typer', 'open_clip'} & set(sys.modules)) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_record_of_an_older_version_is_measured_again_and_kept(layout, version):
    evaluate(store=layout.root)
    path = record_path(layout.root, "digits")
    older = older_evaluation(path.read_text(), version=version)
    path.write_text(older)
    assert "brier" in evaluate(store=layout.root).measures
    (kept,) = [p for p in path.parent.iterdir() if p != path]
    assert kept.read_text() == older
