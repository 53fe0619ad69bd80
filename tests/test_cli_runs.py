"""What no interruption, rival or test label can change in the fits of `train-nlc`."""

import contextlib
import functools
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import BACKBONES, MEMBERS, alive, end, good, refusal, runs, start, wait_for
from safetensors.numpy import save_file

from clipnlc.combiners import COMBINERS
from clipnlc.stores import locks
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fits
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits
from clipnlc.stores.shards import Shard, merge_shards, write_shard

INTERRUPTED = "interrupted; the same command goes on where this one stopped\n"
# Some seconds of work in nine files, for two processes.
LONG = ("train-nlc", "--shots", "1,2,4,8", "--seeds", 2, "--workers", 2, "--combiners", "all")


def workers_of(parent: int) -> list[int]:
    """List the processes that a command has spawned to work for it."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    command_lines = {int(c): Path(f"/proc/{c}/cmdline").read_bytes() for c in children}
    return [child for child, line in command_lines.items() if b"spawn_main" in line]


# Interruptions ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(once, first_extracted):
    """The runs of an unbroken `LONG`."""

    def make(store):
        shutil.copytree(first_extracted, store)
        good(*LONG, "--store", store)

    return runs(once("unbroken/store", make))


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(2, marks=pytest.mark.slow, id="2 kills"),
        pytest.param(20, marks=pytest.mark.long, id="20 kills"),
    ],
)
def test_kills_leave_what_an_unbroken_run_leaves(wanted, unbroken, first_extracted, tmp_path):
    moments = random.Random(0)
    kills, partly, round_ = 0, 0, 0
    while kills < wanted or not partly:
        round_ += 1
        store = shutil.copytree(first_extracted, tmp_path / f"store-{round_}")
        for share in (0, 0.5):  # of the runs, of which so many are written when it is killed
            enough = moments.uniform(share, share + 0.5) * len(unbroken)
            process = start(*LONG, "--store", store)
            wait_for(lambda: len(runs(store)) >= enough or process.poll() is not None)  # noqa: B023
            time.sleep(moments.uniform(0, 0.3))
            with contextlib.suppress(ProcessLookupError):  # it was done
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
            partly += 0 < len(runs(store)) < len(unbroken)
        good(*LONG, "--store", store)
        assert runs(store) == unbroken
        assert not list(store.rglob("*.partial"))
        assert "no damage" in good("verify", "--store", store)


def test_the_order_of_fits_leaves_no_trace(fitted, first_extracted, tmp_path):
    """Combiners that are added to a run make the same file as all at once."""
    store = shutil.copytree(first_extracted, tmp_path / "by-parts")
    quick = ("--shots", "2,1", "--seeds", 2, "--store", store, "--combiners")
    good("train-nlc", *quick, "nlc,vote-1")
    good("train-nlc", *quick, "all")
    assert runs(store) == runs(fitted)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_with_a_killed_parent(extracted):
    process = start(*LONG, "--store", extracted)
    wait_for(lambda: runs(extracted))
    process.kill()
    process.wait()
    wait_for(lambda: not alive(process.pid))
    process.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_worker_is_said(extracted):
    process = start(*LONG, "--store", extracted)
    wait_for(lambda: runs(extracted))
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    ended = end(process)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: a worker process was killed")
    assert ended.err.endswith("with fewer --workers than 2\n")


@pytest.mark.parametrize("group", [True, False], ids=["terminal", "one process"])
def test_an_interrupted_train_nlc_says_how_to_go_on(group, extracted):
    process = start(*LONG, "--store", extracted)
    wait_for(lambda: len(runs(extracted)) > 1)
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    ended = end(process)
    assert (ended.code, ended.out, ended.err) == (130, "", INTERRUPTED)
    assert 1 < len(runs(extracted)) < 9
    assert "no damage" in good("verify", "--store", extracted)


@pytest.mark.slow
def test_an_interrupted_extract_goes_on(tmp_path):
    store = tmp_path / "store"
    line = ["extract", "-d", "digits", "-b", BACKBONES, "--limit", 640, "--store", store]
    process = start(*line, "--batch-size", 2)
    wait_for(lambda: list(store.rglob("*.pid")))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert (ended.code, ended.out) == (130, "")
    assert ended.err == INTERRUPTED
    said = good(*line)
    assert "digits/test: 640 images, 2 backbones" in said


@pytest.mark.slow
def test_two_at_once_end_well_or_with_one_line(unbroken, extracted):
    both = [start(*LONG, "--store", extracted) for _ in range(2)]
    ended = [end(process) for process in both]
    assert any(each.code == 0 for each in ended)
    for each in ended:
        if each.code:
            assert each.code == 2
            assert each.out == ""
            assert each.err.startswith("error: another clipnlc is writing ")
            assert "wait for it or stop it (pid " in each.err
            assert each.err.count("\n") == 1
    good(*LONG, "--store", extracted)
    assert runs(extracted) == unbroken


def test_a_file_in_use_is_said(extracted, here):
    path = Layout(extracted).fits("photos", "zero-shot", MEMBERS, "no-labels")
    with locks.writing(path):
        said = refusal(*LONG, "--workers", 1, "--json", "--store", extracted, by=here)
    assert said == (
        f"error: another clipnlc is writing {path}; wait for it or stop it (pid {os.getpid()})"
    )


# Test labels -----------------------------------------------------------------------------------


def learnt(store: Path, head: str) -> dict[str, dict[str, bytes]]:
    """Return, by run and combiner, every array it learnt, as bytes."""
    layout = Layout(store)
    found = {}
    for name in layout.runs("photos", head, MEMBERS):
        opened = read_fits(layout.fits("photos", head, MEMBERS, name))
        for combiner, fit in opened.fits.items():
            arrays = {k: np.asarray(v).tobytes() for k, v in fit.learnt.items()}
            found[f"{name} {combiner}"] = {**arrays, "digest": fit.digest.encode()}
    return found


def relabel(store: Path, split: str, change) -> None:
    """Rewrite the labels of a split in every feature and logit file of a store."""
    layout = Layout(store)
    for path in store.glob(f"photos/features/{split}/*.h5"):
        held = read_features(path)
        write_shard(
            path,
            held.key,
            Shard(0, len(held.labels), held.features, change(held.labels), held.sample_id),
        )
        merge_shards(
            path,
            held.key,
            rows=len(held.labels),
            class_names=held.class_names,
            texts=held.texts,
            logit_scale=held.logit_scale,
            logit_bias=held.logit_bias,
        )
    for backbone in layout.logit_backbones("photos", "zero-shot"):
        path = layout.logits("photos", "zero-shot", backbone)
        held = read_logits(path)
        part = held.splits[split]
        changed = replace(part, labels=change(part.labels))
        write_logits(path, replace(held, splits={**held.splits, split: changed}))


CHANGES = {
    "permuted": lambda labels: np.random.default_rng(1).permutation(labels),
    "all the same": np.zeros_like,
}
FIT = {
    "zero-shot": [["train-nlc", "--shots", "1,4", "--seeds", 1, "--combiners", "all"]],
    "linear": [
        ["train-heads", "--epochs", 5],
        ["train-nlc", "--head", "linear", "--holdout", 1, "--seeds", 1, "--combiners", "all"],
    ],
}


def fit(store: Path, head: str) -> dict[str, dict[str, bytes]]:
    for line in FIT[head]:
        good(*line, "--quiet", "--store", store)
    return learnt(store, head)


slow = pytest.mark.slow
each_head = pytest.mark.parametrize("head", ["zero-shot", pytest.param("linear", marks=slow)])


@pytest.fixture(scope="module")
def with_true_labels(first_extracted, tmp_path_factory):
    """What is learnt from a store as it is, by head."""
    store = tmp_path_factory.mktemp("true") / "store"
    shutil.copytree(first_extracted, store)
    return functools.cache(lambda head: fit(store, head))


@each_head
@pytest.mark.parametrize("change", ["permuted", pytest.param("all the same", marks=slow)])
def test_test_labels_change_nothing_that_is_fitted(change, head, with_true_labels, extracted):
    relabel(extracted, "test", CHANGES[change])
    assert fit(extracted, head) == with_true_labels(head)
    draws = {"zero-shot": 2, "linear": 1}[head]
    classes = [COMBINERS.get(name) for name in COMBINERS]
    fits = sum(draws * c.learns_from_labels() + (not c.needs_labels) for c in classes)
    assert len(with_true_labels(head)) == fits


@each_head
def test_training_labels_do_change_it(head, with_true_labels, extracted):
    """The check above can fail."""
    relabel(extracted, "train", CHANGES["permuted"])
    assert fit(extracted, head) != with_true_labels(head)


# Full size -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_size_backbones_from_local_files(tmp_path, photos):
    import open_clip  # noqa: PLC0415  (seconds that the other tests can spare)
    import torch  # noqa: PLC0415

    files = []
    for architecture in ("RN50", "ViT-B-32"):
        torch.manual_seed(0)
        model = open_clip.create_model(architecture)
        file = tmp_path / f"{architecture}.safetensors"
        save_file({name: value.numpy() for name, value in model.state_dict().items()}, file)
        files.append(f"{architecture}@{file}")
    store = ["--store", tmp_path / "store"]
    said = good("extract", "-d", photos, "-b", ",".join(files), "--limit", 9, *store)
    assert "photos/test: 9 images, 2 backbones extracted" in said
    said = good("train-nlc", "--shots", 1, "--seeds", 1, *store)
    assert "1 shot" in said
    said = good("evaluate", "--full", *store)
    assert "RN50@RN50" in said
    assert "ViT-B-32@ViT-B-32" in said
    assert "cached" in good("extract", "-d", photos, "-b", ",".join(files), "--limit", 9, *store)


def test_strict_shots_end_every_worker(extracted):
    said = refusal(*LONG, "--shots", "64", "--strict-shots", "--store", extracted)
    assert "fewer than 64 shots" in said
