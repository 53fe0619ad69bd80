"""Train a CLIP model from scratch, the same bits after every interruption.

Every step draws from a generator of its own, seeded by (seed, step), and every epoch's order from
one seeded by (seed, epoch): a checkpoint needs no generator state, and a killed run continues
exactly where an unbroken one would be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from clipnlc.errors import BackboneError
from clipnlc.files import replacing
from clipnlc.training.captions import CaptionedImages
from clipnlc.training.contrastive import MAX_LOGIT_SCALE, augmented, clip_loss

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, besides the data and the architecture.

    Attributes:
        steps: optimiser steps; with `batch_size` this fixes the samples seen.
        batch_size: images (and captions) of one contrastive batch.
        learning_rate: peak; linear warm-up, then half a cosine to a thousandth.
        weight_decay: decoupled, on matrices only.
        warmup: steps of warm-up.
        seed: of initialisation, order, captions and augmentation.
        threads: torch threads; results are bit-equal for equal numbers only.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 80
    seed: int = 0
    threads: int = 1


class Training:
    """One model in training: `run` continues from the last checkpoint to the last step."""

    def __init__(
        self,
        model: nn.Module,
        data: CaptionedImages,
        recipe: Recipe,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        checkpoint: Path,
    ) -> None:
        import torch

        self.model, self.data, self.recipe, self.checkpoint = model, data, recipe, checkpoint
        self.step = 0
        self.loss = math.nan
        self._mean = torch.tensor(mean).view(1, 3, 1, 1)
        self._std = torch.tensor(std).view(1, 3, 1, 1)
        # Channels last: convolutions are up to twice as fast on a CPU.
        self.model.visual.to(memory_format=torch.channels_last)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-6,
        )
        self._images = torch.from_numpy(data.images).permute(0, 3, 1, 2)
        self._tokens = torch.from_numpy(data.tokens)
        self._concept = torch.from_numpy(data.concept)

    def run(
        self, *, checkpoint_every: int = 500, on_step: Callable[[Training], None] = lambda _: None
    ) -> None:
        """Train up to the recipe's last step."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(self.recipe.threads)
        torch.set_flush_denormal(True)  # denormals are many times slower
        try:
            self.resume()
            self.model.train()
            while self.step < self.recipe.steps:
                self._one_step()
                on_step(self)
                if self.step % checkpoint_every == 0 and self.step < self.recipe.steps:
                    self.save_checkpoint()
        finally:
            torch.set_num_threads(threads)
            torch.set_flush_denormal(False)
        self.model.eval()

    def _rows(self) -> Int[np.ndarray, " batch"]:
        """The images of this step: consecutive slices of each epoch's own permutation."""
        size, n = self.recipe.batch_size, len(self.data.images)
        epoch, place = divmod(self.step, n // size)
        order = np.random.default_rng([self.recipe.seed, 1, epoch]).permutation(n)
        return order[place * size : (place + 1) * size]

    def _one_step(self) -> None:
        import torch

        recipe, model = self.recipe, self.model
        rng = np.random.default_rng([recipe.seed, 2, self.step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = self._rows()
        text = torch.tensor([int(rng.choice(self.data.captions[r])) for r in rows])
        images = (augmented(self._images[rows], generator) - self._mean) / self._std
        images = images.contiguous(memory_format=torch.channels_last)
        concept = self._concept[rows]
        excluded = (concept[:, None] == concept) | (text[:, None] == text)
        excluded.fill_diagonal_(False)
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * self._schedule()
        loss = clip_loss(
            model.visual(images),  # type: ignore[operator]
            model.encode_text(self._tokens[text]),  # type: ignore[operator]
            model.logit_scale.exp(),  # type: ignore[operator]
            excluded,
        )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self._optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)  # type: ignore[operator]
        self.step += 1
        value = float(loss.detach())
        # A running mean, for the eye only.
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value

    def _schedule(self) -> float:
        done = self.step / self.recipe.steps
        rise = min(1.0, (self.step + 1) / self.recipe.warmup)
        return rise * (0.5 * (1 + math.cos(math.pi * done)) + 1e-3)

    def _identity(self) -> dict[str, str]:
        return {"recipe": json.dumps(asdict(self.recipe)), "data": self.data.digest}

    def save_checkpoint(self) -> None:
        """Write model, optimiser and step under a temporary name, then rename."""
        from safetensors.torch import save_file

        names = [f"optimiser.{i}" for i in range(sum(1 for _ in self.model.parameters()))]
        tensors = {f"model.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        for name, state in zip(names, self._optimiser.state_dict()["state"].values(), strict=True):
            tensors |= {f"{name}.{k}": v.contiguous() for k, v in state.items()}
        facts = {**self._identity(), "step": str(self.step), "loss": repr(self.loss)}
        with replacing(self.checkpoint) as partial:
            save_file(tensors, partial, metadata=facts)

    def resume(self) -> None:
        """Load the checkpoint, if there is one.

        Raises:
            BackboneError: it belongs to another recipe or other data.
        """
        from safetensors import SafetensorError, safe_open

        if not self.checkpoint.is_file():
            return
        try:
            with safe_open(self.checkpoint, "pt") as file:
                facts = file.metadata()
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except SafetensorError as problem:
            raise BackboneError(
                f"{self.checkpoint} is damaged ({problem}); delete it to start again"
            ) from None
        if {k: facts.get(k) for k in self._identity()} != self._identity():
            raise BackboneError(
                f"{self.checkpoint} belongs to another recipe or other data; "
                "delete it to start again, or give another --out"
            )
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(model)
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.loss = int(facts["step"]), float(facts["loss"])
