"""Files of every format version are read for ever, with the values they were written with."""

import json
from pathlib import Path

import numpy as np
import pytest

from clipnlc.reports.diversity_tables import diversity_report
from clipnlc.reports.files import diversity_from_json, evaluation_from_json, to_json
from clipnlc.reports.tables import evaluation_report
from clipnlc.stages.verify import verify
from clipnlc.stores import _h5
from clipnlc.stores.combined import read_combined
from clipnlc.stores.features import FORMAT as FEATURES_FORMAT
from clipnlc.stores.features import open_features, read_features
from clipnlc.stores.logits import FORMAT as LOGITS_FORMAT
from clipnlc.stores.logits import open_logits, read_logits
from clipnlc.stores.shards import read_shard
from clipnlc.stores.texts import read_texts

ARCHIVES = Path(__file__).parent / "data" / "archives"
V1, V2, V3 = ARCHIVES / "v1", ARCHIVES / "v2", ARCHIVES / "v3"
STORE_V1 = ARCHIVES / "store-v1"
BACKBONES = ("RN50.openai", "ViT-B-32.openai")
CLASS_NAMES = ("cat", "dog", "Käfer")
SAMPLE_ID = ("cat/1.png", "dog/1.png", "Käfer/1.png", "cat/2.png")
SKIPPED = (("dog/2.png", "cannot identify image file"),)
FEATURES = [[-1, -0.75, -0.5], [-0.25, 0, 0.25], [0.5, 0.75, 1], [1.25, 1.5, 1.75]]


each_version = pytest.mark.parametrize("archive", [V1, V2], ids=["v1", "v2"])


@pytest.mark.parametrize(("archive", "files"), [(V1, 6), (V2, 7), (V3, 3)], ids=["v1", "v2", "v3"])
def test_the_archives_are_small(archive, files):
    sizes = {path.name: path.stat().st_size for path in archive.glob("*.h5")}
    assert len(sizes) == files
    assert max(sizes.values()) < 40_000


@each_version
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features(archive, dtype):
    name = {"float32": "features.h5", "float16": "features-float16.h5"}[dtype]
    store = read_features(archive / name)
    assert store.features.dtype == dtype
    assert store.features.tolist() == FEATURES
    assert store.labels.tolist() == [0, 1, 2, 0]
    assert (store.sample_id, store.class_names, store.skipped) == (SAMPLE_ID, CLASS_NAMES, SKIPPED)
    assert store.texts.tolist() == np.eye(3).tolist()
    assert (store.logit_scale, store.logit_bias) == (100.0, -10.5)
    assert store.key.fields == {"backbone": "RN50.openai", "precision": dtype}


@pytest.mark.parametrize(("name", "dim"), [("features.h5", 3), ("features-none.h5", 0)])
def test_features_without_texts(name, dim):
    store = read_features(V3 / name)
    assert store.features.tolist() == [row[:dim] for row in FEATURES]
    assert store.labels.tolist() == [0, 1, 2, 0]
    assert (store.sample_id, store.class_names, store.skipped) == (SAMPLE_ID, CLASS_NAMES, ())
    assert (store.texts, store.logit_scale, store.logit_bias) == (None, None, 0.0)
    texts = read_texts(V3 / "texts.h5")
    assert (texts.texts, texts.class_names, texts.logit_scale) == (None, CLASS_NAMES, None)


@each_version
def test_rows_of_features(archive):
    with open_features(archive / "features.h5") as file:
        assert file.read(np.array([3, 1, 3])).tolist() == [FEATURES[row] for row in (3, 1, 3)]
        assert [block.tolist() for block in file.blocks(3)] == [FEATURES[:3], FEATURES[3:]]


@each_version
def test_a_shard(archive):
    shard = read_shard(archive / "000000000-000000003.h5")
    assert (shard.start, shard.stop, shard.skipped) == (0, 3, SKIPPED)
    assert shard.features.tolist() == FEATURES[:2]
    assert (shard.labels.tolist(), shard.sample_id) == ([0, 1], SAMPLE_ID[:2])


@each_version
def test_logits(archive):
    store = read_logits(archive / "logits.h5")
    test, train = store.splits["test"], store.splits["train"]
    assert test.logits.tolist() == [[0, 0.5, 1], [1.5, 2, 2.5], [3, 3.5, 4], [4.5, 5, 5.5]]
    assert (test.labels.tolist(), test.sample_id) == ([0, 1, 2, 0], SAMPLE_ID)
    assert train.logits.tolist() == [[0, -0.5, -1], [-1.5, -2, -2.5]]
    assert train.sample_id == ("cat/8.png", "dog/8.png")
    assert store.class_names == CLASS_NAMES
    assert store.key.inputs == {"features.h5": read_features(archive / "features.h5").digest}
    assert store.learnt["weight_"].tolist() == (np.eye(3) / 8).tolist()
    assert store.learnt["bias_"].tolist() == [1, 2, 3]
    assert store.facts == {"validation accuracy": 0.75, "epochs": 300, "optimiser": "adam"}


@each_version
def test_rows_of_logits(archive):
    with open_logits(archive / "logits.h5", "test") as file:
        found = file.read(np.array([3, 0]), classes=np.array([2, 0]))
    assert found.tolist() == [[5.5, 4.5], [1, 0]]


def test_matrices_of_version_2_have_blocks():
    for name, file_format in (("features.h5", FEATURES_FORMAT), ("logits.h5", LOGITS_FORMAT)):
        entries = _h5.read_header(V2 / name, file_format).entries.values()
        assert sum(entry.block_rows is not None for entry in entries) > 1


def test_a_combined_file_of_version_1():
    store = read_combined(V1 / "combined.h5")
    assert (store.sample_id, store.class_names) == (SAMPLE_ID, CLASS_NAMES)
    assert store.backbones == ("RN50.openai", "ViT-B-32.openai")
    nlc, votes = store.combinations["nlc"], store.combinations["vote-1"]
    assert nlc.weights is not None
    assert nlc.weights.tolist() == [[0, 0.125], [0.25, 0.375], [0.5, 0.625], [0.75, 0.875]]
    assert nlc.scores is None
    assert nlc.learnt["hidden_weight_"].tolist() == [[0, 1], [2, 3]]
    assert nlc.learnt["steps_"].tolist() == [300]
    assert nlc.facts == {"labels": 12}
    assert nlc.key.inputs == {"logits.h5": read_logits(V1 / "logits.h5").digest}
    assert votes.scores is not None
    assert votes.scores.tolist() == np.eye(4, 3).tolist()
    assert (votes.learnt, votes.facts, votes.weights) == ({}, {"labels": 0}, None)


@each_version
def test_texts(archive):
    store = read_texts(archive / "texts.h5")
    expected = np.float32([[1, 0, 0, 0], [0, 0.6, 0.8, 0], [0.5, -0.5, 0.5, -0.5]])
    assert store.texts.tolist() == expected.tolist()
    assert store.class_names == CLASS_NAMES
    assert (store.logit_scale, store.logit_bias) == (100.0, -10.5)
    assert store.key.fields == {"backbone": "RN50.openai", "precision": "fp32"}


# The whole store ---------------------------------------------------------------------------------


def test_every_file_of_the_whole_store_is_read():
    read = []
    found = verify(
        store=STORE_V1 / "store", on_file=lambda path, _number, _count: read.append(path)
    )
    assert (found.files, found.damage) == (14, [])
    # Records of these versions carry no digest.
    assert {one.path.parent.name for one in found.unverified} == {"records"}
    assert set(read) == {path for path in (STORE_V1 / "store").rglob("*") if path.is_file()}
    assert len(read) == 17


@pytest.mark.parametrize("head", ["zero-shot", "linear"])
def test_the_whole_stores_evaluation_says_what_was_printed(head):
    path = STORE_V1 / "store" / "tiny" / "records" / f"evaluate-{head}.json"
    record = evaluation_from_json(path.read_bytes(), where=str(path))
    protocols = {"none": "no-labels", "shots": "shots-1", "holdout": "holdout-1"}
    found = [
        f"{head} {row.method} {protocols[row.drawn.kind]} {100 * row.accuracy:.1f}"
        for row in record.datasets[0].rows
    ]
    printed = (STORE_V1 / "accuracies.txt").read_text().splitlines()
    assert found == [line for line in printed if line.startswith(f"{head} ")]


@pytest.mark.parametrize("head", ["zero-shot", "linear"])
def test_what_an_older_record_calls_its_measures_and_labels_is_read_as_todays(head):
    path = STORE_V1 / "store" / "tiny" / "records" / f"evaluate-{head}.json"
    record = evaluation_from_json(path.read_bytes(), where=str(path))
    written = json.loads(path.read_bytes())["datasets"][0]["rows"]
    assert list(record.measures) == ["accuracy", "calibration-error", "negative-log-likelihood"]
    for row, old in zip(record.datasets[0].rows, written, strict=True):
        assert row.measures == {
            "accuracy": old["accuracy"],
            "calibration-error": old["calibration_error"],
            "negative-log-likelihood": old["nll"],
        }
        amounts = {"none": 0, "shots": old["shots"], "holdout": old["holdout"]}
        assert row.drawn.amount == amounts[row.drawn.kind]
    assert evaluation_from_json(to_json(record), where="again") == record
    titles = [table.title.split(":")[-1] for table in evaluation_report(record).tables]
    assert " expected calibration error in %, lower is better" in titles


def test_the_whole_stores_diversity_says_what_was_printed():
    path = STORE_V1 / "store" / "tiny" / "records" / "diversity-zero-shot.json"
    record = diversity_from_json(path.read_bytes(), where=str(path))
    (tiny,) = record.datasets
    assert (tiny.oracle, tiny.best_single, tiny.right_for_some) == (0.75, 0.5, 0.5)
    assert tiny.pair_means["disagreement"] == 0.5
    assert list(record.measures) == list(tiny.matrices)
    assert record.measures["disagreement"].better == "higher"
    assert diversity_from_json(to_json(record), where="again") == record
    assert "CKA" in diversity_report(record).tables[0].columns
