"""How open_clip turns an image into a backbone's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from clipnlc.backbones.openclip import skeleton
from clipnlc.backbones.weights import pretrained_config, pretrained_configs

if TYPE_CHECKING:
    from PIL import Image

    from clipnlc.backbones import Backbone


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

    def filling(self) -> Preprocessing:
        """Return the same for a crop that fills the input, whatever its ratio of sides."""
        return replace(self, resize_mode="squash")

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


def preprocessing_of(backbone: Backbone, model: Any = None) -> Preprocessing:  # noqa: ANN401
    """Return how a backbone's images are prepared, without its weights.

    Args:
        backbone: which one.
        model: its model, where there is one already; only its settings are read.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    if model is None:
        model = skeleton(backbone.architecture)
    config = dict(model.visual.preprocess_cfg)
    if backbone.source == "tag":
        config = _as_trained(config, pretrained_config(backbone))
    elif backbone.source == "file":
        # A file does not say how its images were prepared. Where all of an architecture's tags
        # agree on it (SigLIP, MobileCLIP, PE, …), a file of that architecture is taken to as well.
        tags = [_as_trained(config, its) for its in pretrained_configs(backbone.architecture)]
        if tags and all(one == tags[0] for one in tags):
            config = tags[0]
    height, width = sides(config["size"])
    return Preprocessing(
        size=(height, width),
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
        fill_color=int(config["fill_color"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _as_trained(config: Mapping[str, Any], tag: Mapping[str, Any]) -> dict[str, Any]:
    """Merge what a tag says of its images: mean, interpolation, …; the model's own size wins."""
    from open_clip.transform import merge_preprocess_dict

    return {**merge_preprocess_dict(dict(config), dict(tag)), "size": config["size"]}


def sides(size: Any) -> tuple[int, int]:  # noqa: ANN401
    """Spell out a size as height and width: open_clip writes a square as one number.

    >>> sides(224)
    (224, 224)
    """
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
