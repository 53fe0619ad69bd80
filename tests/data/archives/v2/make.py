"""How the files beside this script were made, once, by the first code that wrote version 2.

Every later version reads them (`tests/test_stores_archives.py`); they are never made again. Blocks
are made small here, so that files of a few kB have matrices of several blocks; readers take the
number of rows per block from the file.
"""

from pathlib import Path

import numpy as np

from clipnlc.stores._h5 import blocks
from clipnlc.stores.fits import Fit, FitStore, add_fits
from clipnlc.stores.given import GivenArrays, GivenStore, add_given
from clipnlc.stores.key import Key
from clipnlc.stores.logits import LogitStore, SplitLogits, write_logits
from clipnlc.stores.shards import Shard, merge_shards, shard_files, write_shard
from clipnlc.stores.texts import TextStore, write_texts

HERE = Path(__file__).parent
CLASS_NAMES = ("cat", "dog", "Käfer")
SAMPLE_ID = ("cat/1.png", "dog/1.png", "Käfer/1.png", "cat/2.png")
BACKBONES = ("RN50.openai", "ViT-B-32.openai")
LABELS = np.array([0, 1, 2, 0])


def make_features(name: str, dtype: type) -> str:
    """Write a feature file of four samples, one more skipped, merged from two shards."""
    path, key = HERE / name, Key.of({"backbone": "RN50.openai", "precision": dtype.__name__})
    features = (np.arange(12).reshape(4, 3) / 4 - 1).astype(dtype)
    skipped = (("dog/2.png", "cannot identify image file"),)
    write_shard(path, key, Shard(0, 3, features[:2], LABELS[:2], SAMPLE_ID[:2], skipped))
    write_shard(path, key, Shard(3, 5, features[2:], LABELS[2:], SAMPLE_ID[2:]))
    if dtype is np.float32:
        shard = shard_files(path)[0]
        (HERE / shard.name).write_bytes(shard.read_bytes())
    return merge_shards(
        path,
        key,
        rows=5,
        class_names=CLASS_NAMES,
        texts=np.eye(3, dtype=np.float32),
        logit_scale=100.0,
        logit_bias=-10.5,
    )


def make_logits(features_digest: str) -> str:
    """Write a logit file of two splits with what its head learnt."""
    logits = (np.arange(12).reshape(4, 3) / 2).astype(np.float32)
    return write_logits(
        HERE / "logits.h5",
        LogitStore(
            splits={
                "test": SplitLogits(logits, LABELS, SAMPLE_ID),
                "train": SplitLogits(-logits[:2], LABELS[:2], ("cat/8.png", "dog/8.png")),
            },
            class_names=CLASS_NAMES,
            key=Key.of({"head": "linear", "inputs": {"features.h5": features_digest}}),
            learnt={"weight_": np.eye(3) / 8, "bias_": np.float32([1, 2, 3])},
            facts={"validation accuracy": 0.75, "epochs": 300, "optimiser": "adam"},
        ),
    )


def make_fits(logits_digest: str) -> str:
    """Write the fits of a combiner that learns and of one that does not."""
    inputs = {"logits.h5#train": logits_digest}
    fits = {
        "nlc": Fit(
            key=Key.of({"combiner": "nlc", "settings": {"seed": 0}, "inputs": inputs}),
            learnt={"hidden_weight_": np.arange(4.0).reshape(2, 2), "steps_": np.int64([300])},
            facts={"drawn": "4-shots-seed-0", "labels": 12, "labelled_samples": "ab"},
        ),
        "vote-1": Fit(
            key=Key.of({"combiner": "vote-1", "settings": {"seed": 0}}),
            learnt={},
            facts={"drawn": "no-labels", "labels": 0, "labelled_samples": "00"},
        ),
    }
    return add_fits(HERE / "fits.h5", FitStore(BACKBONES, CLASS_NAMES, fits))


def make_given(fits_digest: str) -> None:
    """Write what a combiner that weighs and one whose scores were kept give."""
    values = {"accuracy": np.float64([[1], [0], [1], [1]]), "calibration-error": np.eye(4, 2)}

    def key(name: str) -> Key:
        return Key.of({"combiner": name, "inputs": {f"fits.h5#{name}": fits_digest}})

    given = {
        "nlc": GivenArrays(
            key("nlc"), values, weights=(np.arange(8).reshape(4, 2) / 8).astype(np.float32)
        ),
        "vote-1": GivenArrays(key("vote-1"), values, scores=np.eye(4, 3, dtype=np.float32)),
    }
    add_given(HERE / "given.h5", GivenStore(SAMPLE_ID, BACKBONES, CLASS_NAMES, given))


def make_texts() -> None:
    """Write a text file of three classes."""
    texts = np.float32([[1, 0, 0, 0], [0, 0.6, 0.8, 0], [0.5, -0.5, 0.5, -0.5]])
    key = Key.of({"backbone": "RN50.openai", "precision": "fp32"})
    write_texts(HERE / "texts.h5", TextStore(texts, CLASS_NAMES, 100.0, -10.5, key))


if __name__ == "__main__":
    blocks.BLOCK_BYTES = 16
    make_features("features-float16.h5", np.float16)
    make_given(make_fits(make_logits(make_features("features.h5", np.float32))))
    make_texts()
