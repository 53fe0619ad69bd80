"""hf: towers of the package transformers, from snapshots of the hub's repositories on disk.

`hf-siglip@FOLDER` is a type of model, as `model_type` in the folder's `config.json` has it, and the
folder. Nothing is downloaded, only safetensors are read, and no code of a snapshot is run. Models,
tokenizers and their arithmetic are transformers' own; pixels are those of its image processors.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clipnlc.backbones import Backbone
from clipnlc.backbones import snapshots as files
from clipnlc.backbones.checkpoints import read_checkpoint
from clipnlc.backbones.families.base import Family, Outline, Towers
from clipnlc.backbones.snapshot_tokenizer import (
    INSTALL,
    SnapshotTokenizer,
    first_line,
    library,
    quiet,
)
from clipnlc.backbones.text import EndToken, TextTower
from clipnlc.errors import BackboneError
from clipnlc.registry import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from clipnlc.backbones.families.base import Precision
    from clipnlc.backbones.snapshots import SnapshotPreprocessing

_PREFIX: Final = "hf-"
_NO_PART_OF_THE_MODEL: Final = ("dtype", "torch_dtype", "auto_map", "_name_or_path")


@dataclass(frozen=True)
class _Kind:
    """A type of model.

    Attributes:
        config: transformers' class of its configuration.
        model: transformers' class.
        texts: whether it has a text tower.
        fixed: whether the input's size is the one in the configuration.
    """

    config: str
    model: str
    texts: bool
    fixed: bool


_KINDS: Final = {
    "clip": _Kind("CLIPConfig", "CLIPModel", texts=True, fixed=True),
    "siglip": _Kind("SiglipConfig", "SiglipModel", texts=True, fixed=True),
    "dinov2": _Kind("Dinov2Config", "Dinov2Model", texts=False, fixed=False),
    "dinov2_with_registers": _Kind(
        "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", texts=False, fixed=False
    ),
}
"""By `model_type`; SigLIP 2 of a fixed resolution is `siglip`."""


class HuggingFace(Family):
    """Towers from snapshots on disk."""

    name: ClassVar[str] = "hf"
    meaning: ClassVar[str] = "snapshots for transformers: CLIP, SigLIP, SigLIP 2; DINOv2 (no texts)"
    needs: ClassVar[str] = "transformers; a folder with config.json and model.safetensors"
    costs_by_name: ClassVar[bool] = False
    finds_in_folder: ClassVar[bool] = True

    def has_texts(self, backbone: Backbone) -> bool:
        """Return whether the type of model has a text tower."""
        return _KINDS[backbone.architecture].texts

    def release(self) -> str | None:
        """Return the version of transformers."""
        try:
            return version("transformers")
        except PackageNotFoundError:
            return None

    def names(self) -> Iterator[str]:
        """Yield nothing: which snapshots there are, a name says."""
        yield from ()

    def parse(self, name: str, *, weights_dir: Path | None) -> Backbone:
        """Read `hf-TYPE@FOLDER`; a folder that is not there is looked for in `weights_dir`."""
        architecture, _, given = name[len(_PREFIX) :].partition("@")
        spelled = [f"{_PREFIX}{kind}@FOLDER" for kind in _KINDS]
        if not given:
            raise unknown_name("backbone", name, spelled)
        folder = Path(given).expanduser()
        if weights_dir is not None and not folder.exists():
            folder = weights_dir / given
        if not folder.is_dir():
            raise BackboneError(
                f"backbone {name!r} names the snapshot {folder}, which is no folder; give "
                f"{_PREFIX}TYPE@FOLDER with a folder that has {files.CONFIG} and {files.WEIGHTS}"
            )
        found = str(files.read_json(folder / files.CONFIG).get("model_type"))
        if found not in _KINDS:
            more = (
                " (of SigLIP 2 the checkpoints of a fixed resolution, not NaFlex)"
                if found == "siglip2"
                else ""
            )
            raise BackboneError(
                f"{folder} holds a model of the type {found!r}, which is not supported; supported "
                f"are {', '.join(_KINDS)}{more}"
            )
        if found != architecture:
            raise BackboneError(
                f"{folder} holds a model of the type {found}; write {_PREFIX}{found}@{given}"
            )
        if self.release() is None or importlib.util.find_spec("transformers") is None:
            raise BackboneError(
                f"{name} needs the package transformers, which is not installed; {INSTALL}"
            )
        return Backbone(
            f"{_PREFIX}{architecture}@{folder.absolute().name}",
            architecture,
            "file",
            file=folder / files.WEIGHTS,
            family=self.name,
        )

    def architecture_of(self, name: str) -> str:
        """Return the type of model."""
        return name.removeprefix(_PREFIX).partition("@")[0]

    def placed(self, name: str) -> str:
        """Spell the name with the folder that the snapshot is in."""
        return name.replace("@", "@FOLDER/")

    def at_hand(self, backbone: Backbone) -> bool:
        """Return whether the weights are there."""
        return _weights(backbone).is_file()

    def weights_file(self, backbone: Backbone) -> Path:
        """Return the weights in the folder."""
        file = _weights(backbone)
        if file.is_file():
            return file
        others = sorted(
            path.name
            for pattern in ("*.safetensors.index.json", "*.bin", "*.safetensors")
            for path in file.parent.glob(pattern)
        )
        has = f"it has {others[0]}" if others else "fetch the whole snapshot"
        raise BackboneError(
            f"{file.parent} lacks {file.name}, one file of all weights, and no other is read ({has})"
            "; save it with transformers: model.save_pretrained(FOLDER, max_shard_size='100GB')"
        )

    def beside(self, backbone: Backbone) -> tuple[Path, ...]:
        """Return configuration, image preparation and tokenizer."""
        folder = _weights(backbone).parent
        texts = files.tokenizer_files(folder) if self.has_texts(backbone) else ()
        return (folder / files.CONFIG, files.preprocessor_file(folder), *texts)

    def facts(self, backbone: Backbone, file: Path) -> dict[str, str | bool]:  # noqa: ARG002
        """Return the release of transformers, and digests of what lies beside the weights."""
        config, preprocessor, *tokenizer = self.beside(backbone)
        found = {
            "transformers": str(self.release()),
            "inference": "as in transformers",
            "config": files.digest([config]),
            "preprocessor": files.digest([preprocessor]),
        }
        return {**found, "tokenizer": files.digest(tokenizer)} if tokenizer else {**found}

    def preprocessing(self, backbone: Backbone) -> SnapshotPreprocessing:
        """Return what the snapshot says."""
        folder = _weights(backbone).parent
        found = files.read_preprocessing(folder)
        if _KINDS[backbone.architecture].fixed:
            side = int(_config(backbone).vision_config.image_size)
            if found.size != (side, side):
                height, width = found.size
                raise BackboneError(
                    f"{files.preprocessor_file(folder)} makes images of {height} by {width} pixels, "
                    f"and {folder / files.CONFIG} reads {side} by {side}; fetch the snapshot again"
                )
        return found

    def outline(self, architecture: str) -> Outline:
        """Refuse: a type of model is of many sizes."""
        raise unknown_name(
            "backbone", f"{_PREFIX}{architecture}", [f"{_PREFIX}{kind}@FOLDER" for kind in _KINDS]
        )

    def outline_of(self, backbone: Backbone) -> Outline:
        """Make the towers without values."""
        import torch

        if backbone.file is None:  # known by the name that stores have
            return self.outline(backbone.architecture)
        config = _config(backbone)
        with torch.device("meta"), quiet():
            model = _class_of(backbone)(config).eval()
        towers = _both(backbone, model, config)
        return Outline(
            model=model,
            visual=getattr(model, "vision_model", model),
            encode_image=towers.encode_image,
            dim=_dim(backbone, config),
            size=self.preprocessing(backbone).size,
            encode_text=towers.encode_text if self.has_texts(backbone) else None,
            context=_context(config) if self.has_texts(backbone) else 0,
        )

    def load(
        self, backbone: Backbone, *, device: str, precision: Precision, trained: bool
    ) -> Towers:
        """Load the towers, and the tokenizer of those with texts."""
        import torch

        config = _config(backbone)
        preprocessing = self.preprocessing(backbone)
        if trained:
            model = _loaded(backbone, config, self.weights_file(backbone))
        else:
            with quiet():
                model = _class_of(backbone)(config)
        kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        model.to(device, kinds[precision]).eval()
        towers = _both(backbone, model, config)
        dim = _dim(backbone, config)
        if not self.has_texts(backbone):
            return Towers(model, towers.encode_image, preprocessing, dim)
        bias = getattr(model, "logit_bias", None)
        return Towers(
            model=model,
            encode_image=towers.encode_image,
            preprocessing=preprocessing,
            dim=dim,
            text=TextTower(
                towers,
                SnapshotTokenizer(
                    _weights(backbone).parent,
                    context=_context(config),
                    lower_case=backbone.architecture == "siglip",
                ),
                device=device,
                full_precision=precision == "fp32",
            ),
            logit_scale=float(model.logit_scale.detach().float().exp()),
            logit_bias=float(bias.detach()) if bias is not None else 0.0,
        )


def _both(backbone: Backbone, model: Any, config: Any) -> Any:  # noqa: ANN401  (untyped models)
    """Wrap a model of transformers in what `TextTower` and `Towers` call."""
    from torch import nn

    texts = _KINDS[backbone.architecture].texts
    end = None
    if backbone.architecture == "clip":
        # transformers reads off the highest token where a configuration has OpenAI's wrong number.
        its = config.text_config.eos_token_id
        end = EndToken(None, None if its == 2 else its)  # noqa: PLR2004

    class Both(nn.Module):
        end_token = end

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def encode_image(self, images: Tensor) -> Tensor:
            found = (
                self.model.get_image_features(pixel_values=images)
                if texts
                else self.model(pixel_values=images)
            )
            return _pooled(found)

        def encode_text(self, tokens: Tensor, *, normalize: bool = False) -> Tensor:
            assert not normalize, "TextTower does that"
            return _pooled(self.model.get_text_features(input_ids=tokens))

    return Both().eval()


def _pooled(found: Any) -> Tensor:  # noqa: ANN401
    """Return features: releases before 5 give them bare from `get_image_features`."""
    pooled: Tensor = getattr(found, "pooler_output", found)
    return pooled


def _loaded(backbone: Backbone, config: Any, file: Path) -> Any:  # noqa: ANN401
    """Make the model with the weights of a file, all of them and no others.

    Raises:
        BackboneError: the file is no safetensors, or of another configuration.
    """
    with file.open("rb") as stream:
        head = stream.read(9)
    if len(head) == 9 and head[8:] != b"{":  # noqa: PLR2004  (a length of eight bytes, then JSON)
        raise BackboneError(f"{file} is no safetensors file, and no other is read of a snapshot")
    tensors = read_checkpoint(file)
    kind = _KINDS[backbone.architecture]
    try:
        with quiet():
            model, said = _class_of(backbone).from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # else it raises a report of many lines
            )
    except MemoryError:
        raise
    except Exception as problem:  # noqa: BLE001  (whatever a configuration makes of it)
        raise BackboneError(
            f"{file} does not load as {kind.model}: {first_line(problem)}; fetch the snapshot again"
        ) from None
    # Older releases wrote a table of positions; DINOv2 with a classifier gives features without it.
    foreign = sorted(
        name
        for name in said["unexpected_keys"]
        if not name.endswith(".position_ids") and not name.startswith("classifier.")
    )
    wrong = [f"it lacks {name}" for name in sorted(said["missing_keys"])]
    wrong += [f"it has {name}" for name in foreign]
    wrong += [
        f"the size of {one[0]} is another" for one in sorted(said["mismatched_keys"], key=str)
    ]
    wrong += [str(one) for one in said.get("error_msgs", ())]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise BackboneError(
            f"{file} does not load as {kind.model}: {' '.join(wrong[0].split())[:160]}{more}; check "
            f"that it belongs to the {files.CONFIG} beside it"
        )
    return model


def _config(backbone: Backbone) -> Any:  # noqa: ANN401
    """Read a configuration, without what is no part of the model.

    Raises:
        BackboneError: it cannot be read, or is of quantised weights, or gives no features.
    """
    file = _weights(backbone).parent / files.CONFIG
    given = files.read_json(file)
    if given.get("quantization_config"):
        raise BackboneError(f"{file} is of quantised weights; give weights of floating point")
    plain = {name: _plain(value) for name, value in _plain(given).items()}
    try:
        with quiet():
            found = getattr(library(), _KINDS[backbone.architecture].config).from_dict(plain)
    except Exception as problem:  # noqa: BLE001  (its validation raises its own)
        raise BackboneError(
            f"{file} cannot be read ({first_line(problem)}); fetch the snapshot again"
        ) from None
    if not getattr(getattr(found, "vision_config", None), "vision_use_head", True):
        raise BackboneError(f"{file} has no pooled features (vision_use_head is false)")
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    return {name: its for name, its in value.items() if name not in _NO_PART_OF_THE_MODEL}


def _class_of(backbone: Backbone) -> Any:  # noqa: ANN401
    return getattr(library(), _KINDS[backbone.architecture].model)


def _dim(backbone: Backbone, config: Any) -> int:  # noqa: ANN401
    if backbone.architecture == "clip":
        return int(config.projection_dim)
    return int(getattr(config, "vision_config", config).hidden_size)


def _context(config: Any) -> int:  # noqa: ANN401
    return int(config.text_config.max_position_embeddings)


def _weights(backbone: Backbone) -> Path:
    assert backbone.file is not None, "`parse` gives every backbone a file"
    return backbone.file
