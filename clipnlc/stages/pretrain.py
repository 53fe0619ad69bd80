"""Train an open_clip model from scratch on captioned images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipnlc.files import write_whole

if TYPE_CHECKING:
    from clipnlc.training.loop import Training


@dataclass(frozen=True)
class Pretrained:
    """Result of `pretrain`.

    Attributes:
        weights: the safetensors file (half precision).
        digest: blake2b of that file.
        loss: running mean of the CLIP loss at the last step.
        cached: the weights existed already.
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

    An interrupted run continues from its last checkpoint and gives the same bits as an unbroken
    one with the same number of threads.

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
    from clipnlc.backbones.openclip import architecture_config, untrained
    from clipnlc.datasets.captioned import digest
    from clipnlc.training.captions import prepared
    from clipnlc.training.loop import Recipe, Training

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
    images, norm = prepared(data, backbone, model, digest=wanted["data"], batch_size=batch_size)
    checkpoint = out / f"{backbone}.checkpoint.safetensors"
    training = Training(model, images, recipe, mean=norm.mean, std=norm.std, checkpoint=checkpoint)
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
    """Return the existing weights if they were made by the same recipe, else None."""
    if not (weights.is_file() and record.is_file()):
        return None
    facts = json.loads(record.read_text("utf-8"))
    same = all(facts.get(k) == v for k, v in wanted.items())
    if not same or facts["digest"] != _digest(weights.read_bytes()):
        return None
    return Pretrained(weights, facts["digest"], facts["loss"], cached=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


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
