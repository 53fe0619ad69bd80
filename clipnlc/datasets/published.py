"""Zero-shot accuracies of OpenAI's backbones as others have published them, never ours.

`published.csv` holds 225 numbers, nine backbones on 25 data sets, from open_clip's results table
(`docs/openclip_results.csv` in its repository). They were measured with the prompts of
CLIP_benchmark. They are there to be set beside our own, to find mistakes; they enter no average.

To add a number, add a row: backbone as in open_clip, our key of the data set, share in [0, 1],
`acc1` or `mean_per_class_recall`, and the number of test images behind it.
"""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

Metric = Literal["accuracy", "class-mean-accuracy"]

SUSPICIOUS: Final = 0.02
"""A larger difference from the published number is more than libraries and precision explain."""

_FILE: Final = Path(__file__).with_name("published.csv")
_WEIGHTS: Final = "openai"  # the table's backbones carry the weights that OpenAI released
_METRICS: Final[Mapping[str, Metric]] = {
    "acc1": "accuracy",
    "mean_per_class_recall": "class-mean-accuracy",
}


@dataclass(frozen=True)
class PublishedAccuracy:
    """One published zero-shot accuracy.

    Attributes:
        accuracy: share in [0, 1], by `metric`.
        metric: the name of the same measure in `clipnlc.metrics.METRICS`.
        samples: number of test images it was measured on.
    """

    accuracy: float
    metric: Metric
    samples: int


def published_accuracy(dataset: str, backbone: str) -> PublishedAccuracy | None:
    """Return what is published of a backbone on the test images of a data set, if anything.

    >>> published_accuracy("cifar10", "RN50.openai")
    PublishedAccuracy(accuracy=0.7157, metric='accuracy', samples=10000)
    >>> published_accuracy("cifar10", "RN50.yfcc15m")
    """
    return _table().get((dataset, backbone))


@cache
def published_digest() -> str:
    """Return the digest of the whole table: other numbers, other digest."""
    return hashlib.blake2b(_FILE.read_bytes(), digest_size=16).hexdigest()


@cache
def _table() -> Mapping[tuple[str, str], PublishedAccuracy]:
    with _FILE.open(encoding="utf-8", newline="") as file:
        return {
            (row["dataset"], f"{row['backbone']}.{_WEIGHTS}"): PublishedAccuracy(
                accuracy=float(row["zero_shot"]),
                metric=_METRICS[row["metric"]],
                samples=int(row["test_images"]),
            )
            for row in csv.DictReader(file)
        }
