"""Sealing a feature file: of an extraction's merged shards, or of arrays that somebody has.

    write_features(
        layout.features("birds", "train", "dino"), key, features=features, labels=labels,
        sample_id=files, class_names=["crow", "rook"],
    )

seals the features of a backbone that embeds no texts. One that gives logits alone has features of
width 0, and its logits lie beside them, under the head `imported` (`docs/formats/logit-store.md`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from clipnlc.errors import StoreError
from clipnlc.stores import _h5, checks
from clipnlc.stores.features import CONTENT, FORMAT, Skipped, check_texts, text_parts
from clipnlc.stores.key import Key


def write_features(
    path: Path,
    key: Key,
    *,
    features: Float[np.ndarray, "samples dim"] | _h5.Rows,
    labels: Int64[np.ndarray, " labels"],
    sample_id: Sequence[str],
    class_names: Sequence[str],
    texts: Float32[np.ndarray, "texts width"] | None = None,
    logit_scale: float | None = None,
    logit_bias: float = 0.0,
    skipped: Sequence[Skipped] = (),
    content: UInt8[np.ndarray, "digests 16"] | None = None,
) -> str:
    """Seal one backbone's features of one split; return the digest of the content.

    Whoever writes where another process may write, too, holds the lock (`locks.writing`).

    Args:
        path: of the feature file (`Layout.features`).
        key: every resolved input by name, with the fields `images` and `classes`.
        features: float32 or float16, not normalised; of width 0 for a backbone that gives logits
            alone. Rows that are written as they come were checked by whoever gives them.
        labels: class numbers.
        sample_id: one identifier per row, unique.
        class_names: one per class.
        texts: one unit vector per class, as wide as the features; None where the backbone embeds
            no texts.
        logit_scale: its own factor on cosines; given with texts, and only then.
        logit_bias: its own offset on logits.
        skipped: samples that have no row, each with the reason.
        content: digest of each image's bytes; None where they are not known.

    Raises:
        StoreError: a feature or text is NaN, infinite or zero throughout; a label names no class; a
            name is repeated; texts and scale, or the widths, do not fit together; the disk is full.
    """

    def refuse(problem: str) -> StoreError:
        return StoreError(
            f"{path} not written: {problem}; expected labels within the classes and unique names: "
            "fix the data set and extract it again"
        )

    given = {"features": features.shape[0], "labels": len(labels), "sample ids": len(sample_id)}
    if content is not None:
        given["digests of images"] = len(content)
    checks.check_lengths(given, refuse)
    if texts is not None:
        checks.check_lengths({"class names": len(class_names), "texts": len(texts)}, refuse)
        checks.check_lengths({"features": features.shape[1], "texts": texts.shape[1]}, refuse)
    if isinstance(features, np.ndarray):
        checks.check_finite("features", features, sample_id, refuse)
        checks.check_not_zero("features", features, sample_id, refuse)
    checks.check_text("class name", class_names, refuse)
    checks.check_names("sample_id", sample_id, refuse)
    checks.check_labels(labels, sample_id, len(class_names), refuse)
    check_texts(texts, logit_scale, logit_bias, class_names, refuse)
    parts = text_parts(texts, logit_scale, logit_bias)
    return _h5.write_sealed(
        path,
        FORMAT,
        attributes={"key": key.json, **parts.attributes},
        datasets={
            "features": features,
            "labels": labels,
            "sample_id": tuple(sample_id),
            "class_names": tuple(class_names),
            "skipped/sample_id": tuple(name for name, _ in skipped),
            "skipped/reason": tuple(reason for _, reason in skipped),
            **({} if content is None else {CONTENT: content}),
            **parts.datasets,
        },
        version=parts.version,
    )
