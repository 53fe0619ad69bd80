"""What `clipnlc backbones` lists."""

from collections.abc import Sequence
from dataclasses import dataclass

from clipnlc.backbones import GROUPS, Backbone, parse, resolve
from clipnlc.backbones.families import FAMILIES, family
from clipnlc.errors import UnknownNameError
from clipnlc.plugins import blame


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: as given to `--backbones`.
        family: its family.
        groups: groups it belongs to.
        texts: whether it embeds texts.
        dim: width of its embedding; None where it was found by a part of its name.
        input: side of its input, in pixels; likewise.
        parameters: of all towers; likewise.
        at_hand: its weights need no download.
    """

    name: str
    family: str
    groups: tuple[str, ...]
    texts: bool
    dim: int | None
    input: int | None
    parameters: int | None
    at_hand: bool


@dataclass(frozen=True)
class FamilyEntry:
    """One family of backbones.

    Attributes:
        name: as in front of its backbones' names (open_clip's have none).
        meaning: what its backbones are.
        needs: what must be installed, and where weights come from.
        release: the version of its package; None where that is not installed.
        texts: whether its backbones embed texts.
        known: how many backbones it can name.
        package: whose it is, with the version; empty for clipnlc's own.
    """

    name: str
    meaning: str
    needs: str
    release: str | None
    texts: bool
    known: int
    package: str = ""


def families(names: Sequence[str] = ()) -> list[FamilyEntry]:
    """Describe families, by default all.

    Raises:
        UnknownNameError: there is no such family.
        PluginError: another package has it, and it cannot be used.
    """
    found = []
    for name in FAMILIES.resolve(names) if names else FAMILIES:
        plugin = FAMILIES.plugin(name)
        with blame(plugin, f"the family {name!r}"):
            one = family(name)
            release = one.release()
            known = 0 if release is None else sum(1 for _ in one.names())
        package = str(plugin or "")
        found.append(
            FamilyEntry(name, one.meaning, one.needs, release, one.embeds_texts, known, package)
        )
    return found


def catalogue(names: str) -> list[Entry]:
    """Describe backbones without loading weights.

    Args:
        names: comma-separated: backbones, groups, or parts of backbones' names, which stand for
            all that have them (case does not matter).

    Raises:
        BackboneError: a weights file does not exist.
        UnknownNameError: a name or an architecture is not known, and is part of none.
    """
    entries: dict[str, Entry] = {}
    for asked in (one.strip() for one in names.split(",")):
        try:
            rows = [_entry(backbone, sizes=True) for backbone in resolve(asked)]
        except UnknownNameError:
            rows = [_entry(parse(name), sizes=False) for name in _having(asked)]
            if not rows:
                raise
        for row in rows:
            entries.setdefault(row.name, row)
    return list(entries.values())


def _having(part: str) -> list[str]:
    """Return the backbones of all installed families that have this part in their names."""
    wanted = part.casefold()
    return [
        name
        for one in FAMILIES
        if wanted and family(one).release() is not None
        for name in family(one).names()
        if wanted in name.casefold()
    ]


def _entry(backbone: Backbone, *, sizes: bool) -> Entry:
    its = family(backbone.family)
    described = its.described(backbone) if sizes else {}
    return Entry(
        name=backbone.name,
        family=its.name,
        groups=tuple(g for g, members in GROUPS.items() if backbone.name in members),
        texts=its.has_texts(backbone),
        dim=described.get("dim"),
        input=described.get("input"),
        parameters=described.get("parameters"),
        at_hand=its.at_hand(backbone),
    )
