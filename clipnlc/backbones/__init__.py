"""Backbones: one model and its weights, by name.

A name is an architecture and where its weights come from:

- `nano-RN50`: an embedded backbone;
- `ViT-B-32.openai`: an open_clip architecture and one of its pretrained tags;
- `RN50@weights.pt`: an open_clip architecture and a weights file (`.pt`, `.safetensors`);
- `timm-resnet18.a1_in1k`, `timm-resnet18@weights.pth`: an image tower of timm;
- `hf-siglip@FOLDER`: a snapshot of the hub for the package transformers.

Tags are downloaded, or read from a folder of weights files (`resolve`).

To add an embedded backbone: its configuration in `nano/configs`, its weights in `nano/weights`,
its name in `nano.NAMES`. To add a family, see `families`. Every architecture and tag that open_clip
or timm knows needs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from clipnlc.backbones import nano
from clipnlc.backbones.families import FAMILIES, family, family_of
from clipnlc.commands import is_own_name
from clipnlc.errors import BackboneError, PluginError
from clipnlc.plugins import blame

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
        architecture: its family's name.
        source: where the weights come from.
        tag: its family's pretrained tag, for `source == "tag"`.
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
    """Read one backbone's name. Whether its family knows it may be checked when it is loaded.

    Args:
        name: the name.
        weights_dir: as in `resolve`.

    Raises:
        BackboneError: the weights file does not exist.
        PluginError: the family is another package's, and cannot be used.
        UnknownNameError: the name says no weights, or its family has no such backbone.
    """
    kind = family_of(name)
    plugin = FAMILIES.plugin(kind)
    with blame(plugin, f"the family {kind!r}"):
        found = family(kind).parse(name, weights_dir=weights_dir)
    if plugin is not None and (is_own_name(found.name) or family_of(found.name) != kind):
        raise PluginError(
            f"the family {kind!r} of {plugin} calls a backbone {found.name!r}; expected a name like "
            f"{kind}-ARCHITECTURE.TAG or {kind}-ARCHITECTURE@FILE: ask its authors to repair it"
        )
    return found


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
