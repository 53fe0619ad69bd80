"""open_clip: every architecture and tag that it knows, and weights files of its architectures."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clipnlc import backbones as names
from clipnlc.backbones import nano
from clipnlc.backbones.families.base import Family, Outline, Towers
from clipnlc.backbones.folders import find_weights
from clipnlc.errors import BackboneError, ClipnlcError
from clipnlc.registry import unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipnlc.backbones import Backbone
    from clipnlc.backbones.families.base import Precision
    from clipnlc.backbones.preprocessing import Preprocessing


SIZES: Final = {
    "nano-RN50": (64, 48, 545_757),
    "nano-RN101": (64, 48, 585_885),
    "nano-RN50x4": (64, 64, 564_317),
    "nano-RN50x16": (64, 56, 766_563),
    "nano-RN50x64": (64, 72, 568_861),
    "nano-ViT-B-32": (64, 32, 565_857),
    "nano-ViT-B-16": (64, 24, 449_489),
    "nano-ViT-L-14": (64, 30, 670_497),
    "nano-ViT-L-14-336": (64, 42, 675_297),
    "RN50": (1024, 224, 102_007_137),
    "RN101": (512, 224, 119_688_033),
    "RN50x4": (640, 288, 178_300_601),
    "RN50x16": (768, 384, 290_979_217),
    "RN50x64": (1024, 448, 623_258_305),
    "ViT-B-32": (512, 224, 151_277_313),
    "ViT-B-16": (512, 224, 149_620_737),
    "ViT-L-14": (768, 224, 427_616_513),
    "ViT-L-14-336": (768, 336, 427_944_193),
}
"""What `described` says of the usual architectures: importing torch takes seconds."""


class OpenClip(Family):
    """CLIP models of open_clip, and whatever else of two towers it has."""

    name: ClassVar[str] = "open_clip"
    meaning: ClassVar[str] = "two towers of open_clip: CLIP, SigLIP, CoCa, EVA, …"
    needs: ClassVar[str] = (
        "nothing (SigLIP: transformers); weights from the hub, a file or --weights-dir"
    )

    def release(self) -> str:
        """Return the version of open_clip."""
        return version("open_clip_torch")

    def names(self) -> Iterator[str]:
        """Yield every architecture with each of its tags."""
        from clipnlc.backbones.openclip import open_clip

        for architecture, tag in open_clip().list_pretrained():
            yield f"{architecture}.{tag}"

    def parse(self, name: str, *, weights_dir: Path | None) -> Backbone:
        """Read `ARCHITECTURE.TAG` or `ARCHITECTURE@FILE`."""
        if name in nano.NAMES:
            embedded = nano.WEIGHTS / f"{name}.safetensors"
            return names.Backbone(name, name, "nano", file=embedded, family="nano")
        architecture, at, given = name.partition("@")
        if at:
            path = Path(given).expanduser()
            if path.is_dir():
                raise BackboneError(
                    f"backbone {name!r} names the folder {path}; give the weights file in it, as in "
                    f"{architecture}@{path / 'open_clip_model.safetensors'}"
                )
            if not path.is_file():
                if likely := _likely(name):  # OpenAI writes `ViT-L/14@336px`
                    raise unknown_name("backbone", name, [likely], meant=likely)
                raise BackboneError(
                    f"backbone {name!r} names the weights file {path}, which does not exist; "
                    "give ARCHITECTURE@FILE with an existing .pt or .safetensors file"
                )
            family = "nano" if architecture in nano.NAMES else "open_clip"
            stem = f"{architecture}@{path.stem}"
            return names.Backbone(stem, architecture, "file", file=path, family=family)
        architecture, dot, tag = name.rpartition(".")
        if dot and architecture:
            file = None if weights_dir is None else find_weights(weights_dir, architecture, tag)
            return names.Backbone(
                name, architecture, "tag", tag=tag, file=file, weights_dir=weights_dir
            )
        likely = _likely(name)
        if likely is not None:
            raise unknown_name(
                "backbone", name, [*names.GROUPS["all"], *names.GROUPS], meant=likely
            )
        # Who does not write `nano` does not mean a miniature that knows shapes and emoji.
        others = [
            *(nano.NAMES if "nano" in name.casefold() else ()),
            *names.GROUPS["all"],
            *names.GROUPS,
        ]
        raise unknown_name("backbone", name, _tags_of(name) or others)

    def at_hand(self, backbone: Backbone) -> bool:
        """Return whether the file is there, or the hub's cache has it."""
        from clipnlc.backbones.weights import at_hand

        return at_hand(backbone)

    def weights_file(self, backbone: Backbone) -> Path:
        """Return the file, or what open_clip downloads for a tag."""
        from clipnlc.backbones.weights import weights_file

        return weights_file(backbone)

    def repository(self, backbone: Backbone) -> str:
        """Return the hub's repository of a tag."""
        from clipnlc.backbones.weights import hub_repository

        return hub_repository(backbone) if backbone.source == "tag" else ""

    def facts(self, backbone: Backbone, file: Path) -> dict[str, str | bool]:
        """Return the release, the activation, and how inference differs from open_clip's."""
        from clipnlc.backbones.folding import is_foldable
        from clipnlc.backbones.openclip import skeleton
        from clipnlc.backbones.weights import has_quick_gelu

        foldable = is_foldable(skeleton(backbone.architecture).visual)
        return {
            "open_clip": self.release(),
            "quick_gelu": has_quick_gelu(backbone, file),
            "inference": "batch norm folded in fp32" if foldable else "as in open_clip",
        }

    def preprocessing(self, backbone: Backbone) -> Preprocessing:
        """Return open_clip's own."""
        from clipnlc.backbones.preprocessing import preprocessing_of

        return preprocessing_of(backbone)

    def outline(self, architecture: str) -> Outline:
        """Make both towers without values."""
        from clipnlc.backbones.openclip import architecture_config, skeleton
        from clipnlc.backbones.preprocessing import sides

        model = skeleton(architecture).eval()
        return Outline(
            model=model,
            visual=model.visual,
            encode_image=model.encode_image,
            dim=int(architecture_config(architecture)["embed_dim"]),
            size=sides(model.visual.image_size),
            encode_text=model.encode_text,
            context=model.context_length,
        )

    def described(self, backbone: Backbone) -> dict[str, Any]:
        """Return embedding width, input size and parameters."""
        known = SIZES.get(backbone.architecture)
        if known is None:
            return super().described(backbone)
        return dict(zip(("dim", "input", "parameters"), known, strict=True))

    def load(
        self, backbone: Backbone, *, device: str, precision: Precision, trained: bool
    ) -> Towers:
        """Load both towers; the batch norms of a ResNet are folded in fp32."""
        import torch

        from clipnlc.backbones.folding import fold_batch_norms, is_foldable
        from clipnlc.backbones.openclip import architecture_config, open_clip, quiet, tokenizer
        from clipnlc.backbones.preprocessing import preprocessing_of
        from clipnlc.backbones.text import TextTower

        file = self.weights_file(backbone) if trained else None
        if file is not None:
            model = _create(backbone, file, device, precision)
        else:
            with quiet():
                model = open_clip().create_model(
                    backbone.architecture, precision=precision, device=device, load_weights=False
                )
        # Half precision would round the weights twice, for a gain that no GPU here could show.
        if precision == "fp32" and is_foldable(model.visual):
            fold_batch_norms(model.visual)
        model.eval()
        # ResNets are a quarter faster with channels last, ViTs as fast and bit-equal: one layout
        # for all, so that they share finished tensors.
        model.visual.to(memory_format=torch.channels_last)
        bias = getattr(model, "logit_bias", None)
        return Towers(
            model=model,
            encode_image=model.encode_image,
            preprocessing=preprocessing_of(backbone, model),
            dim=int(architecture_config(backbone.architecture)["embed_dim"]),
            text=TextTower(
                model,
                tokenizer(backbone.architecture, beside=file.parent if file else None),
                device=device,
                full_precision=precision == "fp32",
            ),
            logit_scale=float(model.logit_scale.detach().exp()),
            logit_bias=float(bias.detach()) if bias is not None else 0.0,
        )


def _likely(name: str) -> str | None:
    """Return OpenAI's backbone that a name means: `ViT-B-32`, `ViT-B/32`, `resnet50`."""
    plain = _plain(name)
    return next(
        (k for k in names.GROUPS["all"] if plain in (_plain(k), _plain(k.removesuffix(".openai")))),
        None,
    )


def _plain(name: str) -> str:
    """Return what spellings of an architecture have in common, OpenAI's and the hub's among them.

    >>> _plain("openai/clip-vit-large-patch14-336"), _plain("ViT-L/14@336px"), _plain("resnet50")
    ('vitl14336', 'vitl14336', 'rn50')
    """
    letters = "".join(c for c in name.casefold() if c.isalnum())
    for long, short in (("vitbasepatch", "vitb"), ("vitlargepatch", "vitl"), ("resnet", "rn")):
        letters = letters.replace(long, short)
    return letters.removeprefix("openai").removeprefix("clip").removesuffix("px")


def _tags_of(name: str) -> list[str]:
    """Return the backbones of an architecture of open_clip that was named without its weights."""
    # By the names of its files first, since importing open_clip takes seconds.
    if not any(_plain(a) == _plain(name) for a in _listed()):
        return []
    from clipnlc.backbones.openclip import open_clip

    architectures = [a for a in open_clip().list_models() if _plain(a) == _plain(name)]
    return [f"{a}.{t}" for a in architectures for t in open_clip().list_pretrained_tags_by_model(a)]


def _listed() -> list[str]:
    """Return open_clip's architectures without importing it: it has a file of each."""
    found = find_spec("open_clip")
    folders = [] if found is None else (found.submodule_search_locations or [])
    return [file.stem for one in folders for file in Path(one, "model_configs").glob("*.json")]


def _create(backbone: Backbone, file: Path, device: str, precision: Precision) -> Any:  # noqa: ANN401
    """Create the model in open_clip; it gets these weights or none."""
    from clipnlc.backbones.checkpoints import load_checkpoint, openclip_form
    from clipnlc.backbones.openclip import architecture_config, open_clip, quiet, unset
    from clipnlc.backbones.weights import has_quick_gelu

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
            load_checkpoint(
                model,
                file,
                architecture=architecture,
                convert=lambda tensors: openclip_form(model, tensors, resize=resize),
            )
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
