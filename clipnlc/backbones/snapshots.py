"""Snapshots of the hub's repositories as the package transformers reads them: a folder of files.

`config.json`, `model.safetensors`, how images are prepared (`preprocessor_config.json`, or
`processor_config.json` of newer releases), and the tokenizer's files. Of these the JSON is read here;
nothing is run, and no code that a snapshot brings or names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import UInt8

from clipnlc.backbones.preprocessing import Preprocessing
from clipnlc.errors import BackboneError
from clipnlc.files import read_regular

if TYPE_CHECKING:
    from PIL import Image

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
PREPROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")
TOKENIZERS: Final = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "spiece.model", "tokenizer.model", "vocab.txt"),
)
"""The files of a tokenizer that transformers reads."""

_LARGEST: Final = 2**28  # bytes of a file beside the weights; a tokenizer of Gemma's takes 2**25
_RESAMPLING: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""PIL's numbers, which preprocessor_config.json has."""

_OPENAI: Final = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_CROPPED: Final = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": _OPENAI[0],
    "image_std": _OPENAI[1],
}
_SQUASHED: Final = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "CLIP": _CROPPED,
    "Bit": _CROPPED,
    "Siglip": _SQUASHED,
}
"""What transformers' image processors do where a snapshot does not say."""


@dataclass(frozen=True)
class SnapshotPreprocessing(Preprocessing):
    """How transformers' image processors (those of PIL) turn an image into a backbone's input.

    Attributes:
        edge: the shorter side of which the middle is cropped; 0 where an image is squashed.
    """

    edge: int

    @property
    def geometry(self) -> tuple[object, ...]:
        """What decides the resized pixels; open_clip rounds the corner of a crop otherwise."""
        return ("transformers", *super().geometry, self.edge)

    def filling(self) -> SnapshotPreprocessing:
        """Return the same for a crop that fills the input, whatever its ratio of sides."""
        return replace(self, resize_mode="squash", edge=0)

    def resizer(self) -> Callable[[Image.Image], UInt8[np.ndarray, "height width 3"]]:
        """Return the transform up to the point where pixels become floats."""
        from PIL import Image

        resampling = Image.Resampling[self.interpolation.upper()]
        height, width = self.size

        def resize(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
            image = image.convert("RGB")
            if not self.edge:
                return np.asarray(image.resize((width, height), resampling))
            shorter = min(image.size)
            sides = tuple(
                self.edge if side == shorter else int(self.edge * side / shorter)
                for side in image.size
            )
            image = image.resize((sides[0], sides[1]), resampling)
            left, top = (image.width - width) // 2, (image.height - height) // 2
            return np.asarray(image.crop((left, top, left + width, top + height)))

        return resize


def read_json(file: Path) -> dict[str, Any]:
    """Read an object of JSON.

    Raises:
        BackboneError: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(read_regular(file, at_most=_LARGEST))
    except OSError as problem:
        raise BackboneError(f"cannot read {file}: {problem.strerror}") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BackboneError(f"{file} is no JSON object; fetch the snapshot again")
    return found


def preprocessor_file(folder: Path) -> Path:
    """Return the file that says how images are prepared.

    Raises:
        BackboneError: there is none.
    """
    for name in PREPROCESSORS:
        if (folder / name).is_file():
            return folder / name
    raise BackboneError(
        f"{folder} lacks {PREPROCESSORS[0]}, which says how images are prepared; fetch the whole "
        "snapshot"
    )


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of the tokenizer that are there."""
    return tuple(path for name in TOKENIZERS if (path := folder / name).is_file())


def digest(files: Sequence[Path]) -> str:
    """Return one digest of files' names and bytes.

    Raises:
        BackboneError: one cannot be read.
    """
    found = hashlib.sha256()
    for file in files:
        try:
            content = read_regular(file, at_most=_LARGEST)
        except OSError as problem:
            raise BackboneError(f"cannot read {file}: {problem.strerror}") from None
        found.update(f"{file.name} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def read_preprocessing(folder: Path) -> SnapshotPreprocessing:
    """Read how a snapshot's images are prepared.

    Raises:
        BackboneError: it is missing, or says something that is not supported.
    """
    file = preprocessor_file(folder)
    given = read_json(file)
    given = given.get("image_processor", given)
    kind = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "CLIP")
    for ending in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind not in _DEFAULTS:
        raise BackboneError(
            f"{file} asks for the image processor {kind}ImageProcessor; supported are those of "
            f"{', '.join(_DEFAULTS)}"
        )
    its = {
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_pad": False,
        **_DEFAULTS[kind],
        **{name: value for name, value in given.items() if value is not None},
    }
    try:
        return _as_ours(its)
    except (KeyError, TypeError, ValueError) as problem:
        what = f"lacks {problem}" if isinstance(problem, KeyError) else str(problem)
        raise BackboneError(
            f"{file} prepares images as is not supported ({what}); expected a resize to a height and "
            "width, or of the shortest edge and a crop of the middle, then 1/255, mean and deviation"
        ) from None


def _as_ours(its: dict[str, Any]) -> SnapshotPreprocessing:
    if not (its["do_resize"] and its["do_rescale"] and its["do_normalize"]) or its["do_pad"]:
        raise ValueError("a step is left out or added")
    if abs(float(its["rescale_factor"]) * 255 - 1) > 1e-6:  # noqa: PLR2004
        raise ValueError(f"rescale_factor {its['rescale_factor']}")
    if its["resample"] not in _RESAMPLING:
        raise ValueError(f"resample {its['resample']}")
    mean, std = tuple(map(float, its["image_mean"])), tuple(map(float, its["image_std"]))
    if not (len(mean) == len(std) == 3 and min(std) > 0):  # noqa: PLR2004
        raise ValueError(f"image_mean {its['image_mean']}, image_std {its['image_std']}")
    size = its["size"] if isinstance(its["size"], dict) else {"shortest_edge": its["size"]}
    edge = 0
    if set(size) == {"height", "width"} and not its["do_center_crop"]:
        height, width = int(size["height"]), int(size["width"])
    elif set(size) == {"shortest_edge"} and its["do_center_crop"]:
        crop, edge = its["crop_size"], int(size["shortest_edge"])
        height, width = (
            (int(crop["height"]), int(crop["width"]))
            if isinstance(crop, dict)
            else (int(crop), int(crop))
        )
        if max(height, width) > edge:
            raise ValueError(f"a crop of {height} by {width} of an edge of {edge}")
    else:
        crops = "with" if its["do_center_crop"] else "without"
        raise ValueError(f"size {size} {crops} a crop")
    if min(height, width) < 1:
        raise ValueError(f"a size of {height} by {width}")
    return SnapshotPreprocessing(
        size=(height, width),
        interpolation=_RESAMPLING[its["resample"]],
        resize_mode="shortest" if edge else "squash",
        fill_color=0,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        edge=edge,
    )
