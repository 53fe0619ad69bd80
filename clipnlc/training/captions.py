"""Captioned images, made ready for one backbone: resized and tokenized once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from clipnlc.datasets.captioned import read_captioned
from clipnlc.datasets.images import decode
from clipnlc.errors import DataError


@dataclass(frozen=True)
class CaptionedImages:
    """Training data, ready for one backbone.

    Attributes:
        images: uint8 RGB at the backbone's input size, resized as open_clip would.
        tokens: every distinct caption, tokenized.
        captions: for each image the rows of `tokens` that describe it.
        concept: images with the same number are never each other's negatives.
        digest: of the data this was made from; a checkpoint of other data is refused.
    """

    images: UInt8[np.ndarray, "images height width 3"]
    tokens: Int[np.ndarray, "texts context"]
    captions: Sequence[Int[np.ndarray, " _"]]
    concept: Int[np.ndarray, " images"]
    digest: str


@dataclass(frozen=True)
class Normalisation:
    """What pixels in [0, 1] are normalised with, per colour.

    Attributes:
        mean: subtracted.
        std: divided by.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def prepared(
    data: Path,
    backbone: str,
    model: Any,  # noqa: ANN401
    *,
    digest: str,
    batch_size: int,
) -> tuple[CaptionedImages, Normalisation]:
    """Decode and resize every image once, as open_clip would; tokenize every caption once.

    Args:
        data: parquet file or folder, as for `datasets.captioned.read_captioned`.
        backbone: the architecture.
        model: the same, made by open_clip.
        digest: of `data`.
        batch_size: images of one batch.

    Raises:
        DataError: too few images for one batch, or unreadable rows.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from clipnlc.backbones.openclip import tokenizer

    preprocess = PreprocessCfg(**model.visual.preprocess_cfg)
    # Resize and crop only: the pixels stay bytes, and are normalised batch by batch.
    resize = image_transform_v2(preprocess, is_train=False).transforms[:2]
    images: list[np.ndarray] = []
    captions, concepts = [], []
    texts: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for row in read_captioned(data):
        image = decode(row.data, f"image {len(images)} of {data}")
        for step in resize:
            image = step(image)
        images.append(np.asarray(image))
        captions.append(np.array([texts.setdefault(c, len(texts)) for c in row.captions]))
        concepts.append(numbers.setdefault(row.concept, len(numbers)))
    if len(images) < batch_size:
        raise DataError(
            f"{data} holds {len(images)} images, fewer than one batch of {batch_size}; "
            "lower --batch-size or add images"
        )
    tokens = tokenizer(backbone)(list(texts)).numpy()
    made = CaptionedImages(np.stack(images), tokens, captions, np.array(concepts), digest)
    return made, Normalisation(tuple(preprocess.mean), tuple(preprocess.std))
