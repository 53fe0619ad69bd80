"""A backbone with its weights: pixels to features, prompts to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8

from clipnlc.backbones import Backbone
from clipnlc.backbones.checkpoints import load_checkpoint
from clipnlc.backbones.compiled import Compiled
from clipnlc.backbones.folding import fold_batch_norms, is_foldable
from clipnlc.backbones.openclip import (
    architecture_config,
    open_clip,
    quiet,
    skeleton,
    tokenizer,
    unset,
)
from clipnlc.backbones.preprocessing import preprocessing_of, sides
from clipnlc.backbones.text import OnLong, OnProgress, TextTower
from clipnlc.backbones.weights import has_quick_gelu, weights_file
from clipnlc.errors import BackboneError, ClipnlcError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "fp16", "bf16"]

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
        logit_scale: its own factor on cosines.
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

        if trained:
            self._model = _create(backbone, weights_file(backbone), device, precision)
        else:  # to measure its speed, which needs no weights
            with quiet():
                self._model = open_clip().create_model(
                    backbone.architecture, precision=precision, device=device, load_weights=False
                )
        # Half precision would round the weights twice, for a gain that no GPU here could show.
        if precision == "fp32" and is_foldable(self._model.visual):
            fold_batch_norms(self._model.visual)
        self._model.eval()
        self._device = device
        self._dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[
            precision
        ]
        # ResNets are a quarter faster with channels last, ViTs as fast and bit-equal: one layout
        # for all, so that they share finished tensors.
        self._model.visual.to(memory_format=torch.channels_last)
        self.name = backbone.name
        self._encode = self._model.encode_image
        if compile_for is not None:
            self._encode = Compiled(self.name, self._encode, compile_for)
        self.preprocessing = preprocessing_of(backbone, self._model)
        self.logit_scale = float(self._model.logit_scale.detach().exp())
        bias = getattr(self._model, "logit_bias", None)
        self.logit_bias = float(bias.detach()) if bias is not None else 0.0
        self._text = TextTower(
            self._model,
            tokenizer(backbone.architecture),
            device=device,
            full_precision=precision == "fp32",
        )
        self.dim = int(architecture_config(backbone.architecture)["embed_dim"])
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
            BackboneError: a sentence is longer than the context.
        """
        found = np.empty((len(prompts), self.dim), np.float32)
        for rows, block in self._text.embed(prompts, on_progress=on_progress):
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
            BackboneError: a sentence is longer than the context.
        """
        of_class = np.repeat(np.arange(len(prompts)), [len(p) for p in prompts])
        flat = [sentence for sentences in prompts for sentence in sentences]
        # Summed as they come: the embeddings of all prompts may take more memory than the model.
        sums = np.zeros((len(prompts), self.dim))
        for rows, block in self._text.embed(flat, on_long=on_long, on_progress=on_progress):
            np.add.at(sums, of_class[rows], block)
        texts: np.ndarray = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return texts.astype(np.float32)


def describe(backbone: Backbone) -> dict[str, int]:
    """Measure an architecture without weights: embedding width, input size, parameters.

    Raises:
        UnknownNameError: open_clip has no such architecture.
    """
    model = skeleton(backbone.architecture)
    return {
        "dim": int(architecture_config(backbone.architecture)["embed_dim"]),
        "input": sides(model.visual.image_size)[0],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _create(backbone: Backbone, file: Path, device: str, precision: Precision) -> Any:  # noqa: ANN401
    """Create the model in open_clip; it gets these weights or none."""
    architecture = backbone.architecture
    try:
        with quiet(), unset():
            model = open_clip().create_model(
                architecture,
                precision=precision,
                device=device,
                force_quick_gelu=has_quick_gelu(backbone, file),
                pretrained_image=False,
                pretrained_text=False,
            )
            # What the hub has for a tag, open_clip may fit to its architecture; a user's file fits.
            resize = backbone.file is None
            load_checkpoint(model, file, architecture=architecture, resize=resize)
            return model
    except (ClipnlcError, MemoryError):
        raise
    except Exception as problem:  # noqa: BLE001  (torch and open_clip each raise theirs)
        architecture_config(architecture)  # an unknown architecture has its own message
        reason = " ".join(str(problem).split())[:160]
        raise BackboneError(
            f"{file} does not load as {architecture}: {reason}; "
            "check that architecture and file belong together"
        ) from None
