"""How the files beside this script were made, once, by the first code that wrote version 3.

Every later version reads them (`tests/test_stores_archives.py`); they are never made again.
"""

from pathlib import Path

import numpy as np

from clipnlc.stores.feature_writing import write_features
from clipnlc.stores.key import Key
from clipnlc.stores.texts import TextStore, write_texts

HERE = Path(__file__).parent
CLASS_NAMES = ("cat", "dog", "Käfer")
SAMPLE_ID = ("cat/1.png", "dog/1.png", "Käfer/1.png", "cat/2.png")


def make_features(name: str, dim: int) -> None:
    """Write the features of a backbone without texts; of width 0 where it gives logits alone."""
    write_features(
        HERE / name,
        Key.of({"backbone": "dino", "precision": "fp32"}),
        features=(np.arange(4 * dim).reshape(4, dim) / 4 - 1).astype(np.float32),
        labels=np.array([0, 1, 2, 0]),
        sample_id=SAMPLE_ID,
        class_names=CLASS_NAMES,
    )


if __name__ == "__main__":
    make_features("features.h5", 3)
    make_features("features-none.h5", 0)
    key = Key.of({"backbone": "dino", "precision": "fp32"})
    write_texts(HERE / "texts.h5", TextStore(None, CLASS_NAMES, None, 0.0, key))
