"""Backbones: one open_clip model and its weights, by name.

A name is an architecture and where its weights come from:

- `nano-RN50`: an embedded backbone;
- `ViT-B-32.openai`: an open_clip architecture and one of its pretrained tags;
- `RN50@weights.pt`: an open_clip architecture and a weights file (`.pt`, `.safetensors`).

Tags are downloaded by open_clip, or read from a folder of weights files (`resolve`).

To add an embedded backbone: its configuration in `nano/configs`, its weights in `nano/weights`,
its name in `nano.NAMES`. Every architecture and tag that open_clip knows needs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from clipnlc.backbones import nano
from clipnlc.backbones.folders import find_weights
from clipnlc.errors import BackboneError
from clipnlc.registry import unknown_name

OPENAI_RESNETS: Final = tuple(
    f"{a}.openai" for a in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")
)
OPENAI_VITS: Final = tuple(
    f"{a}.openai" for a in ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")
)

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "all": (*OPENAI_RESNETS, *OPENAI_VITS),
    "resnets": OPENAI_RESNETS,
    "vits": OPENAI_VITS,
    "small": (*OPENAI_RESNETS[:2], *OPENAI_VITS[:2]),
    "nano": nano.NAMES,
    "nano-resnets": nano.RESNETS,
    "nano-vits": nano.VITS,
}


@dataclass(frozen=True)
class Backbone:
    """A backbone by name, before anything is loaded.

    Attributes:
        name: as in stores and tables; of a weights file only its stem is part of it.
        architecture: open_clip's name.
        source: where the weights come from.
        tag: open_clip's pretrained tag, for `source == "tag"`.
        file: the weights file, for the other two; of a tag only where it lies in `weights_dir`.
        weights_dir: the one folder a tag's weights may come from, besides the hub's cache.
        family: one of `families.FAMILIES`.
    """

    name: str
    architecture: str
    source: Literal["nano", "tag", "file"]
    tag: str | None = None
    file: Path | None = None
    weights_dir: Path | None = None
    family: str = "open_clip"


def parse(name: str, *, weights_dir: Path | None = None) -> Backbone:
    """Read one backbone's name. Whether open_clip knows it is checked when it is loaded.

    Args:
        name: the name.
        weights_dir: as in `resolve`.

    Raises:
        BackboneError: the weights file does not exist.
        UnknownNameError: the name says no weights.
    """
    if name in nano.NAMES:
        embedded = nano.WEIGHTS / f"{name}.safetensors"
        return Backbone(name, name, "nano", file=embedded, family="nano")
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
        return Backbone(stem, architecture, "file", file=path, family=family)
    architecture, dot, tag = name.rpartition(".")
    if dot and architecture:
        file = None if weights_dir is None else find_weights(weights_dir, architecture, tag)
        return Backbone(name, architecture, "tag", tag=tag, file=file, weights_dir=weights_dir)
    likely = _likely(name)
    if likely is not None:
        raise unknown_name("backbone", name, [*GROUPS["all"], *GROUPS], meant=likely)
    # Who does not write `nano` does not mean a miniature that knows shapes and emoji.
    others = [*(nano.NAMES if "nano" in name.casefold() else ()), *GROUPS["all"], *GROUPS]
    raise unknown_name("backbone", name, _tags_of(name) or others)


def _likely(name: str) -> str | None:
    """Return OpenAI's backbone that a name means: `ViT-B-32`, `ViT-B/32`, `resnet50`."""
    plain = _plain(name)
    return next(
        (k for k in GROUPS["all"] if plain in (_plain(k), _plain(k.removesuffix(".openai")))), None
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
    from clipnlc.backbones.openclip import open_clip

    architectures = [a for a in open_clip().list_models() if _plain(a) == _plain(name)]
    return [f"{a}.{t}" for a in architectures for t in open_clip().list_pretrained_tags_by_model(a)]


def resolve(names: str | Iterable[str], weights_dir: Path | None = None) -> tuple[Backbone, ...]:
    """Spell out comma-separated names and groups; no backbone twice.

    Args:
        names: of backbones and groups.
        weights_dir: read the weights of tags from this folder (or the hub's cache), and download
            nothing; what files are called is told by `folders.find_weights`.

    Raises:
        BackboneError: a weights file or `weights_dir` does not exist, or two backbones would share
            a name, or two tags a file.
        UnknownNameError: a name is neither a backbone nor a group.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise BackboneError(f"--weights-dir {weights_dir} is not a folder; give an existing one")
    asked = names.split(",") if isinstance(names, str) else list(names)
    found: dict[str, Backbone] = {}
    for name in (a.strip() for a in asked):
        for member in GROUPS.get(name, (name,)):
            backbone = parse(member, weights_dir=weights_dir)
            known = found.setdefault(backbone.name, backbone)
            if known != backbone:
                raise BackboneError(
                    f"{known.file} and {backbone.file} would both be called {backbone.name!r}; "
                    "rename one of the files"
                )
    tags: dict[Path, Backbone] = {}
    for backbone in found.values():
        if backbone.source == "tag" and backbone.file is not None:
            other = tags.setdefault(backbone.file, backbone)
            if other.tag != backbone.tag:
                raise BackboneError(
                    f"{other.name} and {backbone.name} would both be read from {backbone.file}; "
                    "name the files ARCHITECTURE.TAG.safetensors"
                )
    return tuple(found.values())
