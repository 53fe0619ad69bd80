"""A backbone with its weights: pixels to features, prompts to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float, Float32, UInt8

from clipnlc.backbones import Backbone
from clipnlc.backbones.compiled import Compiled
from clipnlc.backbones.families import family
from clipnlc.backbones.families.base import Precision
from clipnlc.backbones.text import OnLong, OnProgress, TextTower
from clipnlc.errors import BackboneError

if TYPE_CHECKING:
    import torch

_CPU: Final = Path("/proc/cpuinfo")


def choose_precision(wanted: str, device: str) -> Precision:
    """Resolve `auto`: half precision on a GPU, full precision on a CPU.

    On a CPU with instructions for bf16, asking for it makes forwards about three times faster
    than fp32, and features agree to a cosine of 0.9999; on another it is many times slower.

    Raises:
        BackboneError: half precision asked of a CPU that has no instructions for it.
    """
    if wanted == "auto":
        return "fp16" if device.startswith("cuda") else "fp32"
    if wanted not in ("fp32", "fp16", "bf16"):
        raise BackboneError(f"unknown precision {wanted!r}; choose auto, fp32, fp16 or bf16")
    if wanted != "fp32" and device == "cpu" and not (wanted == "bf16" and cpu_knows_bf16()):
        raise BackboneError(
            f"precision {wanted} is many times slower than fp32 on this CPU; use --precision fp32"
        )
    return wanted  # type: ignore[return-value]


def cpu_knows_bf16() -> bool:
    """Return whether this CPU multiplies matrices of bf16 itself (AVX512-BF16 or AMX)."""
    try:
        flags = _CPU.read_text("utf-8")
    except OSError:  # not Linux: nothing is known
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_device(wanted: str) -> str:
    """Resolve `auto` to the first GPU, Apple's GPU, or the CPU.

    Raises:
        BackboneError: torch cannot use this device here.
    """
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        raise BackboneError(
            f"device {wanted!r} cannot be used ({reason}); try --device cpu"
        ) from None
    return wanted


class LoadedBackbone:
    """A backbone in memory, in eval mode.

    `compile_for` is the number of images of one forward where forwards are to be compiled.

    Attributes:
        name: the backbone's name.
        preprocessing: how images become its input.
        dim: width of its embedding.
        logit_scale: its own factor on cosines; None where it embeds no texts.
        logit_bias: its own offset on logits; 0 where it has none.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: str,
        precision: Precision,
        trained: bool = True,
        compile_for: int | None = None,
    ) -> None:
        import torch

        kind = family(backbone.family)
        towers = kind.load(backbone, device=device, precision=precision, trained=trained)
        self._model, self._text = towers.model, towers.text
        self._device = device
        self._dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[
            precision
        ]
        self.name = backbone.name
        self._encode = towers.encode_image
        if compile_for is not None:
            self._encode = Compiled(self.name, self._encode, compile_for)
        self.preprocessing = towers.preprocessing
        self.dim = towers.dim
        self.logit_scale, self.logit_bias = towers.logit_scale, towers.logit_bias
        width = self.preprocessing.size[1]
        # One row of an image, colours interleaved: plain vectors, which the CPU adds fastest. 255 is
        # a tensor because a GPU would multiply by the reciprocal of a number, which rounds otherwise.
        self._full = torch.tensor(255.0, device=device)
        self._mean = torch.tensor(self.preprocessing.mean, device=device).repeat(width)
        self._std = torch.tensor(self.preprocessing.std, device=device).repeat(width)

    @property
    def input(self) -> tuple[object, ...]:
        """What decides the finished tensor: backbones that agree on it share one."""
        return (*self.preprocessing.geometry, self.preprocessing.mean, self.preprocessing.std)

    def finish(self, pixels: UInt8[np.ndarray, "samples height width 3"]) -> torch.Tensor:
        """Turn resized images into the model's input: on the device, normalised, channels last.

        Values are bit-equal to torchvision's `ToTensor` and `Normalize`. Thread-safe.
        """
        import torch

        n, height, width, _ = pixels.shape
        with torch.inference_mode():
            given = torch.from_numpy(pixels).to(self._device).reshape(n, height, width * 3)
            if self._device == "cpu":
                # Image by image they stay in the CPU's cache; numpy's memory comes in large pages.
                values = torch.from_numpy(np.empty(given.shape, np.float32))
                blocks = zip(given, values, strict=True)
            else:
                values = torch.empty(given.shape, device=self._device)
                blocks = zip([given], [values], strict=True)
            for block, out in blocks:
                out.copy_(block).div_(self._full).sub_(self._mean).div_(self._std)
            return values.view(n, height, width, 3).permute(0, 3, 1, 2).to(self._dtype)

    def forward(self, finished: torch.Tensor) -> Float[np.ndarray, "samples dim"]:
        """Embed finished images; not normalised. float32, or float16 below full precision.

        Thread-safe. The first call compiles, where that was asked for.

        Raises:
            BackboneError: torch cannot compile here.
        """
        import torch

        with torch.inference_mode():
            features = self._encode(finished)
            kept = torch.float32 if self._dtype is torch.float32 else torch.float16
            found: np.ndarray = features.to(kept).cpu().numpy()
        return found

    def embed_images(
        self, pixels: UInt8[np.ndarray, "samples height width 3"]
    ) -> Float[np.ndarray, "samples dim"]:
        """Embed resized images: `finish`, then `forward`."""
        return self.forward(self.finish(pixels))

    def embed_prompts(
        self, prompts: Sequence[str], *, on_progress: OnProgress | None = None
    ) -> Float32[np.ndarray, "prompts dim"]:
        """Embed sentences; each is L2-normalised.

        Args:
            prompts: the sentences.
            on_progress: called with the number of sentences done and of all.

        Raises:
            BackboneError: a sentence is longer than the context, or it embeds no texts.
        """
        found = np.empty((len(prompts), self.dim), np.float32)
        for rows, block in self._tower().embed(prompts, on_progress=on_progress):
            found[rows] = block
        return found

    def embed_classes(
        self,
        prompts: Sequence[Sequence[str]],
        *,
        on_long: OnLong | None = None,
        on_progress: OnProgress | None = None,
    ) -> Float32[np.ndarray, "classes dim"]:
        """Embed classes: the mean of a class's prompts, L2-normalised.

        As open_clip's zero-shot classifier (Radford et al. 2021, section 3.1.4).

        Args:
            prompts: one list of sentences per class.
            on_long: as for `TextTower.embed`; prompts are counted over all classes.
            on_progress: called with the number of sentences done and of all.

        Raises:
            BackboneError: a sentence is longer than the context, or it embeds no texts.
        """
        of_class = np.repeat(np.arange(len(prompts)), [len(p) for p in prompts])
        flat = [sentence for sentences in prompts for sentence in sentences]
        # Summed as they come: the embeddings of all prompts may take more memory than the model.
        sums = np.zeros((len(prompts), self.dim))
        for rows, block in self._tower().embed(flat, on_long=on_long, on_progress=on_progress):
            np.add.at(sums, of_class[rows], block)
        texts: np.ndarray = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return texts.astype(np.float32)

    @property
    def embeds_texts(self) -> bool:
        """Whether there is a text tower."""
        return self._text is not None

    def _tower(self) -> TextTower:
        if self._text is None:
            raise BackboneError(
                f"{self.name} has an image tower alone and embeds no class names; choose backbones "
                "with texts, or a head that learns from labels"
            )
        return self._text


def describe(backbone: Backbone) -> dict[str, int]:
    """Measure an architecture without weights: embedding width, input size, parameters.

    Raises:
        UnknownNameError: its family has no such architecture.
    """
    return family(backbone.family).described(backbone)
