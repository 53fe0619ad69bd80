"""Backbones: one open_clip model and its weights, by name.

A name is an architecture and where its weights come from:

- `nano-RN50`: an embedded backbone;
- `ViT-B-32.openai`: an open_clip architecture and one of its pretrained tags;
- `RN50@weights.pt`: an open_clip architecture and a weights file (`.pt`, `.safetensors`).

To add an embedded backbone: its configuration in `nano/configs`, its weights in `nano/weights`,
its name in `nano.NAMES`. Every architecture and tag that open_clip knows needs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from clipnlc.backbones import nano
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
        file: the weights file, for the other two.
    """

    name: str
    architecture: str
    source: Literal["nano", "tag", "file"]
    tag: str | None = None
    file: Path | None = None


def parse(name: str) -> Backbone:
    """Read one backbone's name. Whether open_clip knows it is checked when it is loaded.

    Raises:
        BackboneError: the weights file does not exist.
        UnknownNameError: the name says no weights.
    """
    if name in nano.NAMES:
        return Backbone(name, name, "nano", file=nano.WEIGHTS / f"{name}.safetensors")
    architecture, at, file = name.partition("@")
    if at:
        path = Path(file).expanduser()
        if not path.is_file():
            raise BackboneError(
                f"backbone {name!r} names the weights file {path}, which does not exist; "
                "give ARCHITECTURE@FILE with an existing .pt or .safetensors file"
            )
        return Backbone(f"{architecture}@{path.stem}", architecture, "file", file=path)
    architecture, dot, tag = name.rpartition(".")
    if dot and architecture:
        return Backbone(name, architecture, "tag", tag=tag)
    raise unknown_name("backbone", name, [*nano.NAMES, *GROUPS["all"], *GROUPS])


def resolve(names: str | Iterable[str]) -> tuple[Backbone, ...]:
    """Spell out comma-separated names and groups; no backbone twice.

    Raises:
        BackboneError: a weights file does not exist, or two backbones would share a name.
        UnknownNameError: a name is neither a backbone nor a group.
    """
    asked = names.split(",") if isinstance(names, str) else list(names)
    found: dict[str, Backbone] = {}
    for name in (a.strip() for a in asked):
        for member in GROUPS.get(name, (name,)):
            backbone = parse(member)
            known = found.setdefault(backbone.name, backbone)
            if known != backbone:
                raise BackboneError(
                    f"{known.file} and {backbone.file} would both be called {backbone.name!r}; "
                    "rename one of the files"
                )
    return tuple(found.values())
