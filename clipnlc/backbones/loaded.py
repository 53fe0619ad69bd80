"""A backbone with its weights: pixels to features, prompts to embeddings."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
from jaxtyping import Float, Float32, UInt8

from clipnlc.backbones import Backbone
from clipnlc.backbones.openclip import architecture_config, open_clip, quiet, tokenizer
from clipnlc.errors import BackboneError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

Precision = Literal["fp32", "fp16", "bf16"]

_PROMPTS_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Preprocessing:
    """How open_clip turns an image into a backbone's input.

    Attributes:
        size: height and width in pixels.
        interpolation: `bicubic` or `bilinear`.
        resize_mode: `shortest`, `longest` or `squash`.
        fill_color: of the border that `longest` adds.
        mean: per channel, in [0, 1].
        std: per channel.
    """

    size: tuple[int, int]
    interpolation: str
    resize_mode: str
    fill_color: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def geometry(self) -> tuple[object, ...]:
        """What decides the resized pixels: backbones that agree on it share them."""
        return (self.size, self.interpolation, self.resize_mode, self.fill_color)

    def resizer(self) -> Callable[[Image.Image], UInt8[np.ndarray, "height width 3"]]:
        """Return open_clip's own transform up to the point where pixels become floats."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        # Everything but the last two: to tensor, normalise. Those run on the device, in batches.
        steps = image_transform_v2(PreprocessCfg(**asdict(self)), is_train=False).transforms[:-2]

        def resize(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
            for step in steps:
                image = step(image)
            return np.asarray(image)

        return resize


def choose_precision(wanted: str, device: str) -> Precision:
    """Resolve `auto`: half precision on a GPU, full precision on a CPU.

    Raises:
        BackboneError: half precision asked of a CPU, where it is many times slower than fp32.
    """
    if wanted == "auto":
        return "fp16" if device.startswith("cuda") else "fp32"
    if wanted not in ("fp32", "fp16", "bf16"):
        raise BackboneError(f"unknown precision {wanted!r}; choose auto, fp32, fp16 or bf16")
    if wanted != "fp32" and device == "cpu":
        raise BackboneError(
            f"precision {wanted} is many times slower than fp32 on a CPU; use --precision fp32"
        )
    return wanted  # type: ignore[return-value]


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


def weights_file(backbone: Backbone) -> Path:
    """Return the weights file of a backbone, downloaded first if it is a tag's.

    Raises:
        BackboneError: the tag is unknown, or its weights cannot be downloaded.
        UnknownNameError: open_clip has no such architecture.
    """
    if backbone.source != "tag":
        assert backbone.file is not None
        if not backbone.file.is_file():
            raise BackboneError(
                f"the weights {backbone.file} of {backbone.name} are missing; install clipnlc again"
            )
        return backbone.file
    from pathlib import Path

    config = pretrained_config(backbone)
    try:
        if not at_hand(backbone) and not _hub_resolves():
            raise ConnectionError("no network")  # noqa: TRY301  (the hub's client retries a minute)
        with quiet():
            return Path(open_clip().download_pretrained(config))
    except Exception as problem:  # noqa: BLE001  (the hub's clients raise whatever they like)
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        # A file does not say which activation it was trained with, so the architecture must.
        variant = "-quickgelu" if config.get("quick_gelu") else ""
        raise BackboneError(
            f"the weights of {backbone.name} are not at hand and cannot be downloaded ({reason}); "
            f"fetch the file elsewhere and give {backbone.architecture}{variant}@FILE, or use "
            "--backbones nano"
        ) from None


def at_hand(backbone: Backbone) -> bool:
    """Tell whether a backbone's weights need no download.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    if backbone.file is not None:
        return backbone.file.is_file()
    from huggingface_hub import try_to_load_from_cache

    # open_clip loads a tag from the hub's cache; the file names are its own, in its own order.
    repository = str(pretrained_config(backbone).get("hf_hub", "")).rstrip("/")
    files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, f), str) for f in files if repository)


def _hub_resolves() -> bool:
    """Tell whether the hub's name can be looked up; behind a proxy that is the proxy's business."""
    from huggingface_hub.constants import ENDPOINT

    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def pretrained_config(backbone: Backbone) -> dict[str, Any]:
    """Return open_clip's facts about a tag: where its weights are, how images are prepared.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    architecture_config(backbone.architecture)
    config: dict[str, Any] = open_clip().get_pretrained_cfg(backbone.architecture, backbone.tag)
    if not config:
        tags = open_clip().list_pretrained_tags_by_model(backbone.architecture)
        raise BackboneError(
            f"{backbone.architecture} has no weights called {backbone.tag!r}; "
            f"known: {', '.join(tags) or 'none'}"
        )
    return config


class LoadedBackbone:
    """A backbone in memory, in eval mode.

    Attributes:
        name: the backbone's name.
        preprocessing: how images become its input.
        logit_scale: its own factor on cosines.
        logit_bias: its own offset on logits; 0 where it has none.
    """

    def __init__(self, backbone: Backbone, *, device: str, precision: Precision) -> None:
        import torch

        file = weights_file(backbone)
        self._model = _create(backbone, file, device, precision)
        self._model.eval()
        self._tokenize = tokenizer(backbone.architecture)
        self._device = device
        self._dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[
            precision
        ]
        # A ResNet's convolutions are a quarter to twice faster with channels last.
        self._layout = (
            torch.channels_last if _is_convolutional(self._model) else torch.contiguous_format
        )
        self._model.visual.to(memory_format=self._layout)
        self.name = backbone.name
        self.preprocessing = _preprocessing(dict(self._model.visual.preprocess_cfg))
        self.logit_scale = float(self._model.logit_scale.detach().exp())
        bias = getattr(self._model, "logit_bias", None)
        self.logit_bias = float(bias.detach()) if bias is not None else 0.0
        self._mean = torch.tensor(self.preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.preprocessing.std, device=device).view(1, 3, 1, 1)

    def embed_images(
        self, pixels: UInt8[np.ndarray, "samples height width 3"]
    ) -> Float[np.ndarray, "samples dim"]:
        """Embed resized images; not normalised. float32, or float16 below full precision."""
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
            # As torchvision's ToTensor and Normalize, so that the values are bit-equal.
            x = x.contiguous().to(torch.float32).div(255).sub(self._mean).div(self._std)
            x = x.to(self._dtype).contiguous(memory_format=self._layout)
            features = self._model.encode_image(x)
            kept = torch.float32 if self._dtype is torch.float32 else torch.float16
            found: np.ndarray = features.to(kept).cpu().numpy()
        return found

    def embed_prompts(self, prompts: Sequence[str]) -> Float32[np.ndarray, "prompts dim"]:
        """Embed sentences; each is L2-normalised."""
        import torch

        blocks = []
        with torch.inference_mode():
            for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
                tokens = self._tokenize(list(prompts[start : start + _PROMPTS_AT_ONCE]))
                block = self._model.encode_text(tokens.to(self._device), normalize=True)
                blocks.append(block.float().cpu().numpy())
        return np.concatenate(blocks)

    def embed_classes(self, prompts: Sequence[Sequence[str]]) -> Float32[np.ndarray, "classes dim"]:
        """Embed classes: the mean of a class's prompts, L2-normalised.

        As open_clip's zero-shot classifier (Radford et al. 2021, section 3.1.4).

        Args:
            prompts: one list of sentences per class, all of one length.
        """
        flat = self.embed_prompts([sentence for of_class in prompts for sentence in of_class])
        means = flat.reshape(len(prompts), -1, flat.shape[1]).mean(1)
        texts: np.ndarray = means / np.linalg.norm(means, axis=1, keepdims=True)
        return texts.astype(np.float32)


def describe(backbone: Backbone) -> dict[str, int]:
    """Measure an architecture without weights: embedding width, input size, parameters.

    Raises:
        UnknownNameError: open_clip has no such architecture.
    """
    model = _skeleton(backbone)
    return {
        "dim": int(architecture_config(backbone.architecture)["embed_dim"]),
        "input": _size(model.visual.image_size)[0],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def preprocessing_of(backbone: Backbone) -> Preprocessing:
    """Tell how a backbone's images are prepared, without its weights.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    config = dict(_skeleton(backbone).visual.preprocess_cfg)
    if backbone.source == "tag":
        from open_clip.transform import merge_preprocess_dict

        # A tag may name its own mean, interpolation, …; the model's own size wins, as in open_clip.
        size = config["size"]
        config = {**merge_preprocess_dict(config, pretrained_config(backbone)), "size": size}
    return _preprocessing(config)


def _skeleton(backbone: Backbone) -> Any:  # noqa: ANN401
    """Create an architecture without values."""
    import torch

    architecture_config(backbone.architecture)
    with quiet(), torch.device("meta"):
        return open_clip().create_model(backbone.architecture, device="meta", load_weights=False)


def _create(backbone: Backbone, file: Path, device: str, precision: Precision) -> Any:  # noqa: ANN401
    """Create the model through open_clip's own loader, refusing anything but these weights."""
    pretrained, quick_gelu = str(file), False
    if backbone.source == "tag":
        pretrained = str(backbone.tag)
        # Some tags (OpenAI's) were trained with another activation than their architecture has.
        quick_gelu = bool(pretrained_config(backbone).get("quick_gelu", False))
    try:
        with quiet():
            return open_clip().create_model(
                backbone.architecture,
                pretrained=pretrained,
                precision=precision,
                device=device,
                force_quick_gelu=quick_gelu,
                require_pretrained=True,
            )
    except UserWarning:
        raise BackboneError(
            f"{backbone.name} was trained with GELU, and {backbone.architecture} has QuickGELU; "
            f"use {backbone.architecture.removesuffix('-quickgelu')}.{backbone.tag}"
        ) from None
    except Exception as problem:  # torch, safetensors and open_clip each raise theirs
        if isinstance(problem, UnknownNameError):
            raise
        architecture_config(backbone.architecture)  # an unknown architecture has its own message
        reason = " ".join(str(problem).split())[:160]
        raise BackboneError(
            f"{file} does not load as {backbone.architecture}: {reason}; "
            "check that architecture and file belong together"
        ) from None


def _is_convolutional(model: Any) -> bool:  # noqa: ANN401
    return hasattr(model.visual, "layer4") or hasattr(model.visual, "trunk")


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    return Preprocessing(
        size=_size(config["size"]),
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
        fill_color=int(config["fill_color"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _size(size: Any) -> tuple[int, int]:  # noqa: ANN401
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
