"""Which backbones a run was fitted on, as one name: ensembles of different members side by side."""

from collections.abc import Iterable

from clipnlc.backbones import GROUPS
from clipnlc.digests import content_digest


def members_name(backbones: Iterable[str]) -> str:
    """Name an ensemble: its group where it is exactly one, else its size and a digest of the list.

    >>> members_name(["nano-RN50"]).split("-")[0]
    '1'
    """
    members = sorted(set(backbones))
    for group, names in GROUPS.items():
        if sorted(names) == members:
            return group
    return f"{len(members)}-{content_digest(members)[:12]}"
