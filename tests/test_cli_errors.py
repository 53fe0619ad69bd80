"""Errors that a user can fix: one line that says how, exit code 2, nothing on standard output."""

import re
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from command_line import COLOURS, MEMBERS, QUICK, flip_a_byte, good, refusal, run, write_photos
from safetensors.numpy import load_file, save_file

from clipnlc.backbones import nano
from clipnlc.stores import _h5
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fits
from clipnlc.stores.logits import read_logits, write_logits

LOGITS = "photos/logits/zero-shot/nano-RN50.h5"
FEATURES = "photos/features/train/nano-RN50.h5"
RUN = f"photos/fits/zero-shot/{MEMBERS}/2-shots-seed-0.h5"

# Each reader of a file, with what it needs to open it again.
READERS = {
    LOGITS: [["train-nlc", "--combiners", "c-conf", "--shots", 3, "--workers", 1], ["diversity"]],
    FEATURES: [["train-nlc", "--combiners", "nlc"], ["train-heads", "--epochs", 1]],
    RUN: [["evaluate"]],
}
CASES = [(name, line) for name, lines in READERS.items() for line in lines]
each_reader = pytest.mark.parametrize(
    ("name", "line"), CASES, ids=[f"{line[0]} {name.split('/')[1]}" for name, line in CASES]
)


def largest(path, split="test"):
    """Return the largest array that a file's readers give; of logits, in one split."""
    if "features" in path.parts:
        return read_features(path).features
    if "logits" in path.parts:
        return read_logits(path).splits[split].logits
    arrays = (a for fit in read_fits(path).fits.values() for a in fit.learnt.values())
    return max(arrays, key=np.size)


# Options ---------------------------------------------------------------------------------------

OPTIONS = {
    "no such command": (["fit"], "no such command 'fit'; see `clipnlc --help`"),
    "no such option": (["evaluate", "--hed", "x"], "--head.*; see `clipnlc evaluate --help`"),
    "no data set given": (["extract"], "missing option '--dataset'.*`clipnlc extract --help`"),
    "not a number": (["train-nlc", "--seeds", "x"], "'--seeds'.*`clipnlc train-nlc --help`"),
    "no seed": (["train-nlc", "--seeds", "0"], "'--seeds'.*greater than or equal to 1"),
    "shots of words": (["train-nlc", "--shots", "1,few"], "--shots is '1,few'; give whole numbers"),
    "shots of zero": (["train-nlc", "--shots", "0"], "as in --shots 1,4,16"),
    "shots below zero": (["train-nlc", "--shots", "-4"], "--shots is '-4'"),
    "no shots": (["train-nlc", "--shots", ""], "--shots is ''"),
    "hold-out above 1": (["train-nlc", "--holdout", "2"], "--holdout is 2; give a share above 0"),
    "hold-out of 0": (["train-nlc", "--holdout", "0"], "--holdout is 0; give"),
    "heads keep nothing": (["train-heads", "--holdout", "0"], "--holdout is 0.0; give a share of"),
    "heads keep all": (["train-heads", "--holdout", "1"], "and below 1"),
    "heads stop on all": (["train-heads", "--early-stopping", "1"], "--early-stopping is 1.0"),
    "unknown head": (["train-nlc", "--head", "liner"], "'liner'; did you mean 'linear'.*zero-shot"),
    "unknown head measured": (["evaluate", "--head", "liner"], "did you mean 'linear'"),
    "unknown head compared": (["diversity", "--head", "liner"], "did you mean 'linear'"),
    "unknown combiner": (["train-nlc", "--combiners", "log-avgg"], "did you mean 'log-avg'"),
    "unknown backbone": (["train-nlc", "-b", "nano-RN5"], "did you mean 'nano-RN50'"),
    "unknown backbones": (["backbones", "nano-RN5O"], "did you mean 'nano-RN50'"),
    "no weights file": (["extract", "-d", "digits", "-b", "RN50@x.pt"], "x.pt, which does not exi"),
    "unknown data set": (["extract", "-d", "digit"], "unknown dataset 'digit'; did you mean 'digi"),
    "no such folder": (["extract", "-d", "./nowhere"], "nowhere does not exist.*--dataset"),
    "not extracted": (["train-nlc", "-d", "birds"], "of birds; run `clipnlc extract --dataset bir"),
    "two named": (["extract", "-d", "digits,colors", "--name", "x"], "but 2 were given; drop --na"),
    "no image": (["extract", "-d", "digits", "--limit", "0"], "--limit is 0; give at least 1"),
    "bad images how": (["extract", "-d", "digits", "--on-bad-image", "x"], "choose fail or skip"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case, here, extracted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line, message = OPTIONS[case]
    store = ["--store", extracted] if line[0] not in ("fit", "backbones") else []
    said = refusal(*line, *["--json"][: line[0] != "fit"], *store, by=here)
    assert re.search(message, said), said


def test_one_backbone_has_no_diversity(extracted, here):
    said = refusal("diversity", "-b", "nano-RN50", "--json", "--store", extracted, by=here)
    assert "at least two backbones" in said
    assert said.endswith("expected at least two backbones: name more of them with --backbones")


def test_two_weights_of_one_name(tmp_path, here):
    files = [tmp_path / folder / "w.pt" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    names = ",".join(f"RN50@{file}" for file in files)
    store = tmp_path / "store"
    assert "rename one of the files" in refusal(
        "extract", "-d", "digits", "-b", names, "--store", store, by=here
    )
    assert not store.exists()


# Folders ---------------------------------------------------------------------------------------


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    said = refusal(
        *("extract", "-d", tmp_path / "empty", "-b", "nano-RN50", "--json"),
        *("--store", tmp_path / "store"),
    )
    assert "no images in" in said
    assert "expected split/class/image" in said


def test_a_split_that_is_not_there(photos, extracted, here):
    said = refusal(
        *("extract", "-d", photos, "-b", "nano-RN50", "--split", "val", "--json"),
        *("--store", extracted),
        by=here,
    )
    assert "no split 'val'" in said
    assert "train, test" in said
    assert "--split" in said


@pytest.mark.parametrize("option", ["--templates", "--class-names"])
def test_a_text_file_that_is_not_there(option, photos, extracted, here):
    said = refusal(
        *("extract", "-d", photos, "-b", "nano-RN50", option, "nowhere.txt"),
        *("--store", extracted),
        by=here,
    )
    assert "nowhere.txt" in said
    assert option in said


@pytest.mark.parametrize("option", ["--csv", "--markdown"])
def test_a_table_that_cannot_be_written(option, fitted, here, tmp_path):
    (tmp_path / "file").touch()
    table = tmp_path / "file" / "table"
    said = refusal("evaluate", option, table, "--json", "--store", fitted, by=here)
    assert f"cannot write {table}" in said
    assert f"give {option} another place" in said


def test_plots_that_cannot_be_written(fitted, here, tmp_path):
    (tmp_path / "file").touch()
    said = refusal("diversity", "--plots", tmp_path / "file", "--store", fitted, "-q", by=here)
    assert said.endswith("give --plots another place")


def test_test_images_alone_need_no_labels(extracted, here):
    shutil.rmtree(extracted / "photos/features/train")
    for path in (extracted / "photos/logits/zero-shot").glob("*.h5"):
        held = read_logits(path)
        write_logits(path, replace(held, splits={"test": held.splits["test"]}))
    said = refusal("train-nlc", "--json", "--store", extracted, by=here)
    assert "no train split of photos to draw labels from" in said
    assert "--combiners parameter-free" in said
    line = ["train-nlc", "--combiners", "parameter-free", "--store", extracted]
    assert good(*line, by=here).startswith("photos: without labels: 5 fits made\n")
    assert "log-avg" in good("evaluate", "--store", extracted, by=here)


# The store as a whole --------------------------------------------------------------------------

COMMANDS = {
    "extract": ["--dataset", "digits", "--backbones", "nano-RN50"],
    "train-heads": [],
    "train-nlc": [],
    "evaluate": [],
    "diversity": [],
    "export": ["--out", "ensemble"],
    "status": [],
    "verify": [],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_store_that_is_a_file(name, below, tmp_path, here):
    file = tmp_path / "file"
    file.write_text("mine")
    line = [name, *COMMANDS[name], "--json", "--store", file / below]
    said = refusal(*line, by=here)
    assert f"but {file} is a file; expected a folder" in said
    assert "choose another --store" in said
    assert file.read_text() == "mine"


MISSING = {
    "train-heads": "run `clipnlc extract",
    "train-nlc": "run `clipnlc extract",
    "evaluate": "run `clipnlc extract",
    "diversity": "run `clipnlc extract",
    "export": "run `clipnlc extract",
    "status": "make one with `clipnlc extract --dataset … --store",
    "verify": "make one with `clipnlc extract --dataset … --store",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_stage_before_the_one_it_needs(name, tmp_path, here):
    said = refusal(name, *COMMANDS[name], "--json", "--store", tmp_path / "store", by=here)
    assert MISSING[name] in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["train-nlc", "evaluate", "diversity"])
def test_a_linear_head_before_it_is_trained(name, fitted, here):
    said = refusal(name, "--head", "linear", "--json", "--store", fitted, by=here)
    assert "run `clipnlc train-heads" in said


def test_evaluate_before_train_nlc(extracted, here):
    said = refusal("evaluate", "-d", "photos", "--json", "--store", extracted, by=here)
    assert "run `clipnlc train-nlc --dataset photos" in said


def test_a_backbone_that_was_not_extracted(extracted, here):
    line = ["-b", "nano-RN50,nano-ViT-B-32", "--json", "--store", extracted]
    for name in ("train-nlc", "train-heads", "diversity"):
        said = refusal(name, *line, by=here)
        assert "run `clipnlc extract --dataset photos --backbones nano-ViT-B-32 --store" in said


# Files of the store ----------------------------------------------------------------------------


@each_reader
def test_a_flipped_byte(name, line, fitted):
    split = "train" if line[0] == "train-nlc" else "test"
    flip_a_byte(fitted / name, largest(fitted / name, split))
    said = refusal(*line, "--json", "--store", fitted)
    assert str(fitted / name) in said
    assert "delete the file and run `clipnlc " in said


def test_a_flipped_byte_of_test_is_no_matter_to_train_nlc(fitted, here):
    flip_a_byte(fitted / LOGITS, largest(fitted / LOGITS))
    good(*READERS[LOGITS][0], "--store", fitted, by=here)
    assert "checksum of 'splits/test/logits'" in refusal("evaluate", "--store", fitted, by=here)


@each_reader
def test_a_truncated_file(name, line, fitted, here):
    data = (fitted / name).read_bytes()
    (fitted / name).write_bytes(data[: len(data) // 2])
    said = refusal(*line, "--json", "--store", fitted, by=here)
    assert str(fitted / name) in said
    assert "delete the file and run `clipnlc " in said


@each_reader
def test_a_foreign_file(name, line, fitted, here):
    (fitted / name).write_text("not ours")
    said = refusal(*line, "--json", "--store", fitted, by=here)
    assert str(fitted / name) in said
    assert "clipnlc" in said


@each_reader
def test_a_newer_format(name, line, fitted, here):
    with h5py.File(fitted / name, "r+") as file:
        file.attrs["format-version"] = 99
    said = refusal(*line, "--json", "--store", fitted, by=here)
    assert str(fitted / name) in said
    assert "update clipnlc" in said


def rewrite(path, change):
    """Write a feature file anew, with right checksums, after `change` of its features."""
    content = _h5.read(path, "clipnlc-features")
    arrays = {name: array.copy() for name, array in content.arrays.items()}
    change(arrays["features"])
    attributes = dict(content.header.attributes[""])
    for sealed in ("contents", "digest", "complete"):
        attributes.pop(sealed, None)
    _h5.write_sealed(path, "clipnlc-features", attributes=attributes, datasets=arrays)


@pytest.mark.parametrize("line", READERS[FEATURES], ids=lambda line: line[0])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_features_that_are_no_features(value, line, fitted, here):
    def change(features):
        features[3] = value

    rewrite(fitted / FEATURES, change)
    said = refusal(*line, "--json", "--store", fitted, by=here)
    assert str(fitted / FEATURES) in said
    assert "row 3" in said
    assert "run `clipnlc extract" in said


def test_a_rewritten_file_is_else_good(fitted, here):
    before = read_features(fitted / FEATURES)
    rewrite(fitted / FEATURES, lambda _features: None)
    assert read_features(fitted / FEATURES).digest == before.digest
    good("train-nlc", *QUICK, "--quiet", "--store", fitted, by=here)


@pytest.mark.parametrize("name", ["train-nlc", "diversity"])
def test_other_samples(name, extracted, here):
    path = extracted / LOGITS
    store = read_logits(path)
    changed = {
        split: replace(part, sample_id=tuple(reversed(part.sample_id)))
        for split, part in store.splits.items()
    }
    write_logits(path, replace(store, splits=changed))
    said = refusal(name, "--json", "--store", extracted, by=here)
    assert "are not aligned: sample_id of row 0 is" in said
    assert "run `clipnlc extract --dataset photos --backbones" in said


def test_features_without_a_sample_of_the_logits(extracted, here):
    path = extracted / LOGITS
    store = read_logits(path)
    other = extracted / "photos/logits/zero-shot/nano-ViT-B-16.h5"
    for file, held in ((path, store), (other, read_logits(other))):
        changed = {
            split: replace(part, sample_id=("new", *part.sample_id[1:]))
            for split, part in held.splits.items()
        }
        write_logits(file, replace(held, splits=changed))
    said = refusal("train-nlc", "--workers", 1, "--json", "--store", extracted, by=here)
    assert "has no sample 'new'" in said
    assert "run `clipnlc extract --dataset photos" in said


def test_a_run_older_than_its_logits_is_refused(fitted, here):
    path = fitted / LOGITS
    store = read_logits(path)
    halved = {s: replace(part, logits=part.logits / 2) for s, part in store.splits.items()}
    write_logits(path, replace(store, splits=halved))
    said = refusal("evaluate", "--json", "--store", fitted, by=here)
    assert f"stale: {LOGITS}#train has changed since; run `clipnlc train-nlc" in said
    assert "stale" in good("status", "--store", fitted, by=here)


# Few images ------------------------------------------------------------------------------------


@pytest.fixture
def uneven(extracted):
    """Logits where one class has three labelled images and the others eight."""
    for path in (extracted / "photos/logits/zero-shot").glob("*.h5"):
        store = read_logits(path)
        part = store.splits["train"]
        kept = np.flatnonzero((part.labels != 1) | (np.cumsum(part.labels == 1) <= 3))
        ids = tuple(part.sample_id[row] for row in kept)
        cut = replace(part, logits=part.logits[kept], labels=part.labels[kept], sample_id=ids)
        write_logits(path, replace(store, splits={**store.splits, "train": cut}))
    return extracted


def test_a_class_with_too_few_images_is_said(uneven, here):
    line = ["train-nlc", "--shots", "2,5", "--seeds", 1, "--combiners", "log-avg,c-conf"]
    said = good(*line, "--workers", 1, "--store", uneven, by=here)
    assert said.splitlines()[:2] == [
        "photos: 2, 5 shots \N{MULTIPLICATION SIGN} 1 seed (6 to 13 labels): 3 fits made",
        "  1 class has fewer than 5 labelled images (fewest: green, 3); all there are were used",
    ]


def test_strict_shots_refuse_it(uneven):
    said = refusal(
        *("train-nlc", "--shots", "2,5", "--strict-shots", "--combiners", "c-conf", "--json"),
        *("--store", uneven),
    )
    assert "3 labelled images of 'green', fewer than 5 shots" in said
    assert "lower --shots, or drop --strict-shots" in said


@pytest.mark.slow
def test_one_image_leaves_none_for_a_hold_out(tmp_path):
    folder = write_photos(tmp_path / "few", train=1, test=1)
    for name in list(COLOURS)[1:]:
        (folder / "train" / name / "00.png").unlink()
    store = tmp_path / "store"
    good("extract", "-d", folder, "-b", "nano-RN50", "-q", "--store", store)
    said = refusal("train-heads", "--json", "--store", store)
    assert "a single training image" in said
    assert "zero-shot head" in said
    said = refusal("train-nlc", "--holdout", "0.1", "--json", "--store", store)
    assert "a single labelled image" in said
    assert "--shots 1" in said


# Backbones -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_that_hold_nan(photos, tmp_path):
    weights = load_file(nano.WEIGHTS / "nano-ViT-B-16.safetensors")
    name = next(n for n in weights if n.startswith("visual.") and weights[n].ndim == 2)
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, tmp_path / "nan.safetensors")
    said = refusal(
        *("extract", "-d", photos, "-b", f"nano-ViT-B-16@{tmp_path / 'nan.safetensors'}"),
        *("--json", "--store", tmp_path / "store"),
    )
    assert "NaN" in said


def test_one_failure_as_a_process(tmp_path):
    """The rest of this file mostly runs within the process of the tests."""
    ended = run("train-nlc", "--store", tmp_path, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
