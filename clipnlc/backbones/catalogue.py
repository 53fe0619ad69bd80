"""What `clipnlc backbones` lists."""

from dataclasses import dataclass

from clipnlc.backbones import GROUPS, resolve
from clipnlc.backbones.families import family


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: as given to `--backbones`.
        groups: groups it belongs to.
        dim: width of its embedding.
        input: side of its input, in pixels.
        parameters: of both towers.
        at_hand: its weights need no download.
    """

    name: str
    groups: tuple[str, ...]
    dim: int
    input: int
    parameters: int
    at_hand: bool


def catalogue(names: str) -> list[Entry]:
    """Describe backbones without loading weights.

    Raises:
        BackboneError: a weights file does not exist.
        UnknownNameError: a name or an architecture is not known.
    """
    from clipnlc.backbones.loaded import describe

    entries = []
    for backbone in resolve(names):
        groups = tuple(g for g, members in GROUPS.items() if backbone.name in members)
        entries.append(
            Entry(
                backbone.name,
                groups,
                **describe(backbone),
                at_hand=family(backbone.family).at_hand(backbone),
            )
        )
    return entries
