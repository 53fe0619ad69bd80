"""The text store: one backbone's view of one list of classes (`docs/formats/text-store.md`).

Class names and prompts are the same for every split, and for every data set that shares them, so
their embeddings are kept by themselves; a feature file carries its own copy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from clipnlc.errors import StoreError
from clipnlc.stores import _h5, checks
from clipnlc.stores.features import (
    check_classes,
    check_texts,
    read_class_texts,
    text_parts,
)
from clipnlc.stores.key import Key

FORMAT = "clipnlc-texts"


@dataclass(frozen=True)
class TextStore:
    """What a backbone makes of the classes, and how it turns cosines into logits.

    Attributes:
        texts: one unit vector per class, the mean of its embedded prompts; None of a backbone that
            embeds no texts.
        class_names: one per class.
        logit_scale: the backbone's own factor on cosines (CLIP: up to 100); None without texts.
        logit_bias: the backbone's own offset on logits; 0 where it has none.
        key: every resolved input by name.
    """

    texts: Float32[np.ndarray, "classes dim"] | None
    class_names: tuple[str, ...]
    logit_scale: float | None
    logit_bias: float
    key: Key


def text_key(features: Key) -> Key:
    """Take from the key of features what their texts depend on."""
    images, classes = features.fields["images"], features.fields["classes"]
    of_images = ("preprocessing", "compiled", "max_pixels", "split", "view", "content", "samples")
    backbone = {name: value for name, value in images.items() if name not in of_images}
    return Key.of({**backbone, "names": classes["names"], "templates": classes["templates"]})


def write_texts(path: Path, store: TextStore) -> str:
    """Seal a text file; returns the digest of its content.

    Raises:
        StoreError: a text is NaN, infinite or zero; the disk is full.
    """

    def refuse(problem: str) -> StoreError:
        return StoreError(
            f"{path} not written: {problem}; expected finite texts that are not zero: "
            "extract with `--precision fp32`, or with other weights"
        )

    check_texts(store.texts, store.logit_scale, store.logit_bias, store.class_names, refuse)
    parts = text_parts(store.texts, store.logit_scale, store.logit_bias)
    return _h5.write_sealed(
        path,
        FORMAT,
        attributes={"key": store.key.json, **parts.attributes},
        datasets={"class_names": store.class_names, **parts.datasets},
        version=parts.version,
    )


def read_texts(path: Path) -> TextStore:
    """Read and check a text file.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    content = _h5.read(path, FORMAT)
    texts, logit_scale, logit_bias = read_class_texts(content)
    store = TextStore(
        texts=texts,
        class_names=content.strings("class_names"),
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        key=content.header.key(),
    )

    def refuse(problem: str) -> StoreError:
        return _h5.damaged(path, f"breaks the format: {problem}")

    if store.texts is not None and len(store.texts) != len(store.class_names):
        raise refuse(f"{len(store.texts)} texts for {len(store.class_names)} class names")
    checks.check_text("class name", store.class_names, refuse)
    check_texts(store.texts, store.logit_scale, store.logit_bias, store.class_names, refuse)
    check_classes(store.key.fields, store.class_names, refuse)
    return store
