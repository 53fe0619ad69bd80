"""timm: image towers without texts, prepared as timm prepares their images.

`timm-resnet18.a1_in1k` is an architecture and one of timm's pretrained tags, downloaded from the
hub's `timm/resnet18.a1_in1k` (which is taken as a name, too); `timm-resnet18@FILE` and
`timm-resnet18.a1_in1k@FILE` are weights files, which may hold timm's classifier: it is left out.
Features are those before the classifier, as timm pools them.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from jaxtyping import UInt8

from clipnlc.backbones import Backbone
from clipnlc.backbones.checkpoints import load_checkpoint
from clipnlc.backbones.families.base import Family, Outline, Towers
from clipnlc.backbones.openclip import unset
from clipnlc.backbones.preprocessing import Preprocessing
from clipnlc.backbones.weights import hub_resolves
from clipnlc.errors import BackboneError
from clipnlc.registry import unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image
    from torch import Tensor, nn

    from clipnlc.backbones.families.base import Precision

_PREFIX: Final = "timm-"
_HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".bin")
_CROP_MODES: Final = {"center": "shortest", "squash": "squash", "border": "longest"}
"""timm's word for how an image is made to fit: open_clip's."""


@dataclass(frozen=True)
class TimmPreprocessing(Preprocessing):
    """How timm turns an image into a backbone's input.

    Attributes:
        crop_pct: the image is resized to the input's size divided by this, and its middle is taken.
    """

    crop_pct: float

    @property
    def geometry(self) -> tuple[object, ...]:
        """What decides the resized pixels; timm and open_clip never share pixels."""
        # A border is filled with the mean.
        return ("timm", *super().geometry, self.crop_pct, self.mean)

    def filling(self) -> TimmPreprocessing:
        """Return the same for a crop that fills the input, whatever its ratio of sides."""
        return replace(self, resize_mode="squash", crop_pct=1.0)

    def resizer(self) -> Callable[[Image.Image], UInt8[np.ndarray, "height width 3"]]:
        """Return timm's own transform up to the point where pixels become floats."""
        # Everything but the last two: to tensor, normalise. Those run on the device, in batches.
        steps = (
            _timm("timm.data")
            .create_transform(
                input_size=(3, *self.size),
                is_training=False,
                interpolation=self.interpolation,
                mean=self.mean,
                std=self.std,
                crop_pct=self.crop_pct,
                crop_mode=next(
                    its for its, ours in _CROP_MODES.items() if ours == self.resize_mode
                ),
            )
            .transforms[:-2]
        )

        def resize(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
            image = image.convert("RGB")
            for step in steps:
                image = step(image)
            return np.asarray(image)

        return resize


class Timm(Family):
    """Image towers of timm."""

    name: ClassVar[str] = "timm"
    meaning: ClassVar[str] = "image towers of timm, without texts: ResNet, ConvNeXt, ViT, DINO, …"
    needs: ClassVar[str] = (
        "nothing; weights from the hub, a file or --weights-dir; a head that learns"
    )
    embeds_texts: ClassVar[bool] = False

    def release(self) -> str | None:
        """Return the version of timm, which open_clip brings."""
        try:
            return version("timm")
        except PackageNotFoundError:
            return None

    def names(self) -> Iterator[str]:
        """Yield every architecture with each of its tags."""
        yield from (f"{_PREFIX}{name}" for name in _timm().list_pretrained())

    def parse(self, name: str, *, weights_dir: Path | None) -> Backbone:
        """Read `timm-ARCHITECTURE.TAG` or `timm-ARCHITECTURE[.TAG]@FILE`."""
        architecture, at, given = name[len(_PREFIX) :].partition("@")
        if at:
            file = Path(given).expanduser()
            if not file.is_file():
                raise BackboneError(
                    f"backbone {name!r} names the weights file {file}, which is no file; give "
                    f"{_PREFIX}{architecture}@FILE with an existing .safetensors or .pth file"
                )
            spelled = f"{_PREFIX}{architecture}@{file.stem}"
            return Backbone(spelled, architecture, "file", file=file, family=self.name)
        if "." not in architecture:
            known = [one for one in self.names() if one.startswith(f"{_PREFIX}{architecture}.")]
            usual = f"{_PREFIX}{architecture}.{_config(architecture).get('tag')}"
            raise unknown_name("backbone", name, known, meant=usual if usual in known else None)
        found = None if weights_dir is None else _in_folder(weights_dir, architecture)
        return Backbone(
            f"{_PREFIX}{architecture}",
            architecture,
            "tag",
            tag=architecture.partition(".")[2],
            file=found,
            weights_dir=weights_dir,
            family=self.name,
        )

    def architecture_of(self, name: str) -> str:
        """Return the architecture, with its tag."""
        return name.removeprefix(_PREFIX).partition("@")[0]

    def at_hand(self, backbone: Backbone) -> bool:
        """Return whether the file is there, or the hub's cache has it."""
        if backbone.file is not None:
            return backbone.file.is_file()
        return self._cached(backbone) is not None

    def _cached(self, backbone: Backbone) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        repository = self.repository(backbone)
        found = (try_to_load_from_cache(repository, file) for file in _HUB_FILES if repository)
        return next((Path(file) for file in found if isinstance(file, str)), None)

    def repository(self, backbone: Backbone) -> str:
        """Return the hub's repository of a tag."""
        return str(_config(backbone.architecture).get("hf_hub_id") or "") if backbone.tag else ""

    def weights_file(self, backbone: Backbone) -> Path:
        """Return the file, or what the hub has for a tag."""
        if backbone.file is not None:
            if not backbone.file.is_file():
                raise BackboneError(
                    f"the weights {backbone.file} of {backbone.name} are missing; put the file back"
                )
            return backbone.file
        repository = self.repository(backbone)
        if (cached := self._cached(backbone)) is not None:
            return cached
        cure = (
            f"put them into a folder as {backbone.name}.safetensors and give --weights-dir FOLDER, "
            f"or name the file: {backbone.name}@FILE"
        )
        if backbone.weights_dir is not None or not repository:
            place = (
                f"in {backbone.weights_dir} nor in the hub's cache"
                if backbone.weights_dir
                else "on disk nor on the hub"
            )
            raise BackboneError(f"the weights of {backbone.name} are neither {place}; {cure}")
        try:
            if not hub_resolves():
                raise ConnectionError("no network")  # noqa: TRY301  (the client retries a minute)
            return _downloaded(repository)
        except Exception as problem:  # noqa: BLE001  (the hub's client raises whatever it likes)
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise BackboneError(
                f"the weights of {backbone.name} are not on disk and cannot be downloaded "
                f"({reason}); fetch {repository} elsewhere, {cure}"
            ) from None

    def facts(self, backbone: Backbone, file: Path) -> dict[str, str | bool]:  # noqa: ARG002
        """Return the release of timm."""
        return {"timm": str(self.release()), "inference": "as in timm"}

    def preprocessing(self, backbone: Backbone) -> TimmPreprocessing:
        """Return what timm resolves for the tag, or for the architecture's own where there is none."""
        its = _timm("timm.data").resolve_data_config(pretrained_cfg=_config(backbone.architecture))
        _, height, width = its["input_size"]
        return TimmPreprocessing(
            size=(height, width),
            interpolation=its["interpolation"],
            resize_mode=_CROP_MODES[its["crop_mode"]],
            fill_color=0,
            mean=tuple(its["mean"]),
            std=tuple(its["std"]),
            crop_pct=float(its["crop_pct"]),
        )

    def outline(self, architecture: str) -> Outline:
        """Make the tower without values."""
        import torch

        with torch.device("meta"):
            model = _made(architecture)
        _, height, width = _config(architecture)["input_size"]
        return Outline(model, model, model, _width(model), (height, width))

    def load(
        self, backbone: Backbone, *, device: str, precision: Precision, trained: bool
    ) -> Towers:
        """Load the tower without its classifier."""
        import torch

        with unset() if trained else nullcontext():
            model = _made(backbone.architecture)
        if trained:
            load_checkpoint(
                model,
                self.weights_file(backbone),
                architecture=f"timm's {backbone.architecture}",
                convert=lambda tensors: _without_classifier(model, tensors),
            )
        kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        model.to(device, kinds[precision])
        model.to(memory_format=torch.channels_last)
        return Towers(model, model, self.preprocessing(backbone), _width(model))


def _timm(module: str = "timm") -> Any:  # noqa: ANN401
    """Import timm; its functions are not typed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def _config(architecture: str) -> dict[str, Any]:
    """Return timm's facts about an architecture and its tag.

    Raises:
        UnknownNameError: timm has no such architecture or tag.
    """
    timm = _timm()
    bare, _, tag = architecture.partition(".")
    known = timm.is_model(bare) and (not tag or architecture in timm.list_pretrained(f"{bare}.*"))
    if not known:
        names = timm.list_pretrained(f"{bare}.*") if timm.is_model(bare) else timm.list_models()
        raise unknown_name(
            "backbone", f"{_PREFIX}{architecture}", [f"{_PREFIX}{one}" for one in names]
        )
    config = timm.get_pretrained_cfg(architecture)
    return dict(config.to_dict()) if config is not None else {"input_size": (3, 224, 224)}


def _made(architecture: str) -> nn.Module:
    """Make a tower that gives features, in eval mode."""
    _config(architecture)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = _timm().create_model(architecture, pretrained=False, num_classes=0)
    finally:
        logging.disable(logging.NOTSET)
    return model.eval()


def _width(model: Any) -> int:  # noqa: ANN401  (timm's models have more than modules)
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def _without_classifier(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
    """Leave out what timm calls the classifier, which a tower for features lacks."""
    named = model.pretrained_cfg.get("classifier") or ()
    heads = (named,) if isinstance(named, str) else tuple(named)
    own = model.state_dict()
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name in own or not name.startswith(tuple(f"{head}." for head in heads))
    }


def _in_folder(folder: Path, architecture: str) -> Path | None:
    """Find `timm-NAME.safetensors` (`.pth`, …), `NAME.safetensors`, or the hub's files in `NAME`."""
    names = [f"{p}{architecture}{suffix}" for p in (_PREFIX, "") for suffix in _SUFFIXES]
    names += [f"{architecture}/{file}" for file in _HUB_FILES]
    return next((path for name in names if (path := folder / name).is_file()), None)


@cache
def _downloaded(repository: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repository, _HUB_FILES[0]))
    except EntryNotFoundError:
        return Path(hf_hub_download(repository, _HUB_FILES[1]))
