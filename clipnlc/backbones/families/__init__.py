"""Families of backbones: how weights are named, loaded and prompted.

A backbone's name begins with its family's, as `nano-RN50` does; what begins with none is a name of
open_clip. To add a family: write one class (`base.Family`), add one row here.
"""

from functools import cache
from typing import TYPE_CHECKING, Final

from clipnlc.registry import Registry

if TYPE_CHECKING:
    from clipnlc.backbones.families.base import Family

FAMILIES: Final = Registry(
    "family",
    {
        "open_clip": "clipnlc.backbones.families.open_clip:OpenClip",
        "nano": "clipnlc.backbones.families.nano:Nano",
        "timm": "clipnlc.backbones.families.timm:Timm",
        "hf": "clipnlc.backbones.families.hf:HuggingFace",
    },
)


def family_of(name: str) -> str:
    """Return the family of a backbone's name, or of what stores call it.

    >>> family_of("nano-RN50"), family_of("ViT-B-32.openai"), family_of("timm/resnet18.a1_in1k")
    ('nano', 'open_clip', 'timm')
    """
    return next((one for one in FAMILIES if name.startswith((f"{one}-", f"{one}/"))), "open_clip")


@cache
def family(name: str) -> "Family":
    """Return a family by name.

    Raises:
        UnknownNameError: no family has this name.
    """
    found: Family = FAMILIES.get(name)()
    return found
