"""Real images: product photographs (Fashion-MNIST) and handwritten digits (UCI optdigits)."""

import gzip
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from PIL import Image

from clipnlc.datasets.nano.palette import Pixels

FASHION: Final[dict[str, tuple[str, str]]] = {
    "t-shirt": ("t-shirt", "tee shirt top"),
    "trousers": ("trousers", "pants"),
    "pullover": ("pullover", "sweater"),
    "dress": ("dress", "long dress"),
    "coat": ("coat", "jacket coat"),
    "sandal": ("sandal", "open sandal shoe"),
    "shirt": ("shirt", "buttoned shirt"),
    "sneaker": ("sneaker", "sport shoe"),
    "bag": ("bag", "handbag"),
    "ankle boot": ("ankle boot", "boot"),
}
"""Class names in the data's own label order, each with two ways to say it."""


def padded(image: UInt8[np.ndarray, "28 28"]) -> Pixels:
    """Frame a 28 pixel grey image to 32 pixels of RGB."""
    return np.repeat(np.pad(image, 2)[..., None], 3, axis=2)


def _idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read an array in the IDX format: magic, shape as big-endian words, bytes."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def fashion(
    folder: Path, part: str
) -> tuple[UInt8[np.ndarray, "samples 28 28"], Int[np.ndarray, " samples"]]:
    """Read Fashion-MNIST's `train` (60,000) or `t10k` (10,000) images and labels."""
    images = _idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
    return images, labels


def handwritten_digits() -> tuple[UInt8[np.ndarray, "samples 28 28"], Int[np.ndarray, " samples"]]:
    """Read scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged to 28x28.

    They are the test part of UCI's optdigits, by 13 writers.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _enlarged(digits.images), digits.target.astype(np.int64)


def other_digits(
    folder: Path,
) -> tuple[UInt8[np.ndarray, "samples 28 28"], Int[np.ndarray, " samples"]]:
    """Read the 3,823 optdigits that scikit-learn does not have: UCI's training part, 30 writers.

    KEEL's file holds both parts; what scikit-learn has is told by its grey levels.
    """
    from sklearn.datasets import load_digits

    lines = (folder / "optdigits.dat").read_text("utf-8").splitlines()
    rows = np.array([line.split(",") for line in lines if line[:1].isdigit()], dtype=np.int64)
    known = {row.tobytes() for row in load_digits().data.astype(np.int64)}
    levels, labels = np.ascontiguousarray(rows[:, :-1]), rows[:, -1]
    other = np.array([row.tobytes() not in known for row in levels])
    return _enlarged(levels[other].reshape(-1, 8, 8)), labels[other]


def _enlarged(levels: Shaped[np.ndarray, "samples 8 8"]) -> UInt8[np.ndarray, "samples 28 28"]:
    """Enlarge images of 17 grey levels, 0 to 16."""
    images = [
        Image.fromarray((one * 255 / 16).astype(np.uint8)).resize(
            (28, 28), Image.Resampling.BICUBIC
        )
        for one in levels
    ]
    return np.stack([np.asarray(image) for image in images])
