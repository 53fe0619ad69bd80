"""Heads, and stores to fit them on, that several test files use."""

import numpy as np

from clipnlc.digests import content_digest
from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.heads.base import AffineHead, normalise
from clipnlc.stores.feature_writing import write_features
from clipnlc.stores.key import Key


class NearestMean(AffineHead):
    """Cosines with the mean of each class's features: a head that needs no texts."""

    needs_labels = True
    needs_texts = False

    def _learn(self, examples, *, texts, logit_scale, logit_bias):
        assert texts.shape == (0, examples.unit.shape[1])
        means = np.zeros((examples.classes, examples.unit.shape[1]), dtype=np.float32)
        np.add.at(means, examples.labels, examples.unit)
        self.weight_ = normalise(means)
        self.bias_ = np.full(len(means), logit_bias, dtype=np.float32)
        self.logit_scale_ = np.array(logit_scale, dtype=np.float64)


FRUIT = ("pear", "fig", "apple")


def write_fruit(layout, backbone, *, dataset="fruit", seed=0, dim=16, logits=True, texts=True):
    """Write features of train and test, around class centres that the texts miss by a little."""
    centres = np.random.default_rng(99).normal(size=(len(FRUIT), dim))
    of_classes = centres + np.random.default_rng(98).normal(size=centres.shape)
    for split, rows in (("train", 60), ("test", 31)):
        labels = np.random.default_rng([rows, seed]).permutation(np.arange(rows) % len(FRUIT))
        noise = np.random.default_rng([rows, seed, *backbone.encode()]).normal(size=(rows, dim))
        write_features(
            layout.features(dataset, split, backbone),
            feature_key(backbone, split),
            features=(centres[labels] + 1.5 * noise).astype(np.float32),
            labels=labels,
            sample_id=tuple(f"{split}/{row:04}.png" for row in range(rows)),
            class_names=FRUIT,
            texts=of_classes.astype(np.float32) if texts else None,
            logit_scale=100.0 if texts else None,
        )
    if logits:
        write_zero_shot_logits(layout, dataset, backbone)


def feature_key(backbone, split):
    images = {
        "backbone": backbone,
        "split": split,
        "content": "fruit",
        "samples": 1,
        "preprocessing": {"size": 32},
        "weights": "0" * 32,
        "architecture": "RN50",
        "precision": "fp32",
    }
    classes = {"labels": "fruit", "names": content_digest(list(FRUIT)), "templates": ["a {}"]}
    return Key.of({"images": images, "classes": classes})
