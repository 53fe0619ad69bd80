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
    },
)


@cache
def family(name: str) -> "Family":
    """Return a family by name.

    Raises:
        UnknownNameError: no family has this name.
    """
    found: Family = FAMILIES.get(name)()
    return found
