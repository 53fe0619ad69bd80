"""Train an open_clip model from scratch on captioned images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipnlc.errors import DataError
from clipnlc.files import write_whole

if TYPE_CHECKING:
    from clipnlc.backbones.contrastive import CaptionedImages, Training


@dataclass(frozen=True)
class Pretrained:
    """What `pretrain` made.

    Attributes:
        weights: the safetensors file (half precision).
        digest: blake2b of that file.
        loss: running mean of the CLIP loss at the last step.
        cached: the weights were there already.
    """

    weights: Path
    digest: str
    loss: float
    cached: bool


def pretrain(
    *,
    data: Path,
    backbone: str,
    out: Path,
    steps: int,
    batch_size: int = 128,
    learning_rate: float | None = None,
    weight_decay: float = 0.05,
    warmup: int = 80,
    seed: int = 0,
    threads: int = 1,
    checkpoint_every: int = 500,
    on_progress: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Pretrained:
    """Train `backbone` by fixed steps and write `<out>/<backbone>.safetensors` with its recipe.

    A run that was interrupted goes on from its last checkpoint and gives the same bits as an
    unbroken one with the same number of threads.

    Args:
        data: parquet file or folder (columns `image`, `caption`, optionally `concept`).
        backbone: an open_clip architecture; the nano ones are known.
        out: folder for weights and checkpoint.
        steps: optimiser steps.
        batch_size: images of one contrastive batch.
        learning_rate: peak; by default 2e-3 for ResNets and 1.5e-3 for ViTs.
        weight_decay: decoupled, on matrices.
        warmup: steps of warm-up.
        seed: of everything random.
        threads: torch threads.
        checkpoint_every: steps between checkpoints.
        on_progress: called with (step, running loss).

    Raises:
        DataError: too few images for one batch, or unreadable rows.
        BackboneError: a checkpoint of another recipe or other data lies in `out`.
        UnknownNameError: open_clip has no such architecture.
    """
    from clipnlc.backbones.contrastive import Recipe, Training
    from clipnlc.backbones.openclip import architecture_config, untrained
    from clipnlc.datasets.captioned import digest

    vision = architecture_config(backbone)["vision_cfg"]
    if learning_rate is None:
        # A ResNet's config lists its stages' depths, a ViT's gives one number.
        learning_rate = 2e-3 if isinstance(vision.get("layers"), list) else 1.5e-3
    recipe = Recipe(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        seed=seed,
        threads=threads,
    )
    weights, record = out / f"{backbone}.safetensors", out / f"{backbone}.json"
    wanted = {"backbone": backbone, "data": digest(data), **asdict(recipe)}
    done = _finished(weights, record, wanted)
    if done:
        return done
    model = untrained(backbone, seed=seed)
    images, mean, std = _prepare(data, backbone, model, wanted["data"], batch_size)
    checkpoint = out / f"{backbone}.checkpoint.safetensors"
    training = Training(model, images, recipe, mean=mean, std=std, checkpoint=checkpoint)
    began = time.process_time()

    def on_step(now: Training) -> None:
        on_progress(now.step, now.loss)

    training.run(checkpoint_every=checkpoint_every, on_step=on_step)
    found = _write(weights, model, wanted)
    facts = {
        **wanted,
        "digest": found,
        "loss": training.loss,
        "samples": steps * batch_size,
        "cpu_seconds_of_last_run": round(time.process_time() - began),
    }
    write_whole(record, json.dumps(facts, indent=2) + "\n")
    checkpoint.unlink(missing_ok=True)
    return Pretrained(weights, found, training.loss, cached=False)


def _finished(weights: Path, record: Path, wanted: dict[str, Any]) -> Pretrained | None:
    """Return the weights that are there already, if they were made by the same recipe."""
    if not (weights.is_file() and record.is_file()):
        return None
    facts = json.loads(record.read_text("utf-8"))
    same = all(facts.get(k) == v for k, v in wanted.items())
    if not same or facts["digest"] != _digest(weights.read_bytes()):
        return None
    return Pretrained(weights, facts["digest"], facts["loss"], cached=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _prepare(
    data: Path,
    backbone: str,
    model: Any,  # noqa: ANN401
    data_digest: str,
    batch_size: int,
) -> tuple[CaptionedImages, tuple[float, float, float], tuple[float, float, float]]:
    """Decode and resize every image once, as open_clip would; tokenize every caption once."""
    import numpy as np
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from clipnlc.backbones.contrastive import CaptionedImages
    from clipnlc.backbones.openclip import tokenizer
    from clipnlc.datasets.captioned import read_captioned
    from clipnlc.datasets.images import decode

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
    made = CaptionedImages(np.stack(images), tokens, captions, np.array(concepts), data_digest)
    return made, tuple(preprocess.mean), tuple(preprocess.std)


def _write(path: Path, model: Any, recipe: dict[str, Any]) -> str:  # noqa: ANN401
    """Write the weights in half precision; return their digest."""
    from safetensors.torch import save

    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    # One entry: safetensors writes several in random order, and the digest would be random too.
    data = save(tensors, metadata={"recipe": json.dumps(recipe)})
    write_whole(path, data)
    return _digest(data)
