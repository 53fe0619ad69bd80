"""One small table: names to lazily imported objects.

Each family (backbones, datasets, heads, combiners, metrics) keeps one `Registry` in its
`__init__`. To add a member: write one file, add one `name -> "module:attribute"` row.
"""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clipnlc.errors import UnknownNameError

_LISTED = 30  # names an error lists before it counts the rest


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, meant: str | None = None
) -> UnknownNameError:
    """Make the error for an unknown name: what exists, and what is meant or else the nearest."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.5)
    nearest = meant or next((k for k in known if close and k.lower() == close[0]), None)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    listed = ", ".join(known[:_LISTED]) + (
        f" and {len(known) - _LISTED} more" * (len(known) > _LISTED)
    )
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}known: {listed}")


@dataclass(frozen=True)
class Registry:
    """A family's table: `name -> "module:attribute"`, imported at first use, with groups.

    >>> table = Registry("combiner", {"log-avg": "clipnlc.combiners.averages:LogAverage"})
    >>> list(table)
    ['log-avg']
    >>> table.resolve("all")
    ('log-avg',)
    """

    kind: str
    table: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the table's order."""
        return iter(self.table)

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is a member (groups are not)."""
        return name in self.table

    def get(self, name: str) -> Any:  # noqa: ANN401  (a table of unlike things)
        """Import and return the member called `name`.

        Raises:
            UnknownNameError: no member has this name.
        """
        if name not in self.table:
            raise unknown_name(self.kind, name, self.table)
        module, attribute = self.table[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve(self, names: str | Iterable[str]) -> tuple[str, ...]:
        """Spell out comma-separated names and groups; `all` is every member; no name twice.

        Raises:
            UnknownNameError: a name is neither a member nor a group.
        """
        asked = names.split(",") if isinstance(names, str) else list(names)
        spelled: dict[str, None] = {}
        for name in (a.strip() for a in asked):
            if name in self.groups:
                spelled.update(dict.fromkeys(self.groups[name]))
            elif name == "all":
                spelled.update(dict.fromkeys(self.table))
            elif name in self.table:
                spelled[name] = None
            else:
                raise unknown_name(self.kind, name, [*self.table, *self.groups])
        return tuple(spelled)
