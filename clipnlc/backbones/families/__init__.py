"""Families of backbones: how weights are named, loaded and prompted.

A backbone's name begins with its family's, as `nano-RN50` does; what begins with none is a name of
open_clip. To add a family: write one class (`base.Family`), add one row here. A package of one's own
declares an entry point of the group `clipnlc.families` instead (`docs/plugins.md`).
"""

from functools import cache
from typing import Final

from clipnlc.backbones.families.base import Family
from clipnlc.errors import PluginError
from clipnlc.plugins import Plugins
from clipnlc.registry import Registry

_OF_OPEN_CLIP: Final = (
    *("EVA01", "EVA02", "MobileCLIP", "MobileCLIP2", "PE", "ViT", "ViTamin", "coca_ViT"),
    *("coca_roberta", "mt5", "nllb", "roberta", "xlm"),
    *("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"),
)
"""What names of open_clip's architectures begin with, before a hyphen: no family can be called so."""

FAMILIES: Final = Registry(
    "family",
    {
        "open_clip": "clipnlc.backbones.families.open_clip:OpenClip",
        "nano": "clipnlc.backbones.families.nano:Nano",
        "timm": "clipnlc.backbones.families.timm:Timm",
        "hf": "clipnlc.backbones.families.hf:HuggingFace",
    },
    plugins=Plugins("clipnlc.families", "family", Family),
    reserved=_OF_OPEN_CLIP,
)


def family_of(name: str) -> str:
    """Return the family of a backbone's name, or of what stores call it.

    >>> family_of("nano-RN50"), family_of("ViT-B-32.openai"), family_of("timm/resnet18.a1_in1k")
    ('nano', 'open_clip', 'timm')
    """
    own = next((one for one in FAMILIES.table if _is_of(name, one)), None)
    if own is not None or not ("-" in name or "/" in name):
        return own or "open_clip"
    # What packages declare is read for the first name that none of ours claims; nothing is imported.
    theirs = (one for one in FAMILIES.plugins.declared() if one not in FAMILIES.reserved)
    return max((one for one in theirs if _is_of(name, one)), key=len, default="open_clip")


def _is_of(name: str, kind: str) -> bool:
    return name.startswith((f"{kind}-", f"{kind}/"))


@cache
def family(name: str) -> "Family":
    """Return a family by name.

    Raises:
        PluginError: another package has it, and it cannot be used.
        UnknownNameError: no family has this name.
    """
    found: Family = FAMILIES.get(name)()
    plugin = FAMILIES.plugin(name)
    if plugin is not None and found.name != name:
        raise PluginError(
            f"the family {name!r} of {plugin} cannot be used: its class {plugin.place} is called "
            f"{found.name!r}; repair or uninstall {plugin.package}"
        )
    return found
