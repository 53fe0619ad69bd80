"""One small table: names to lazily imported objects, and to what other packages add.

Each family (backbones, datasets, heads, combiners, metrics) keeps one `Registry` in its
`__init__`. To add a member: write one file, add one `name -> "module:attribute"` row; in a package of
one's own, declare an entry point (`docs/plugins.md`).
"""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from clipnlc.errors import UnknownNameError
from clipnlc.plugins import GROUP, Plugin, Plugins

_LISTED: Final = 30  # names an error lists before it counts the rest


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

    Members of other packages come after clipnlc's own, sorted by name. Listing the table imports them, and
    leaves out with a warning what cannot be; asking for a member of clipnlc's does not.

    Attributes:
        kind: what a member is, as messages say it.
        table: clipnlc's own members.
        groups: names of several of them.
        plugins: what other packages add.
        reserved: names that no member may have.

    >>> table = Registry("combiner", {"log-avg": "clipnlc.combiners.averages:LogAverage"})
    >>> list(table)
    ['log-avg']
    >>> table.resolve("all")
    ('log-avg',)
    """

    kind: str
    table: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plugins: Plugins = field(default_factory=Plugins)
    reserved: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names: clipnlc's own in the table's order, then those of other packages."""
        yield from self.table
        yield from self._added

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is a member that can be used (groups are not)."""
        return name in self.table or name in self._added

    def get(self, name: str) -> Any:  # noqa: ANN401  (a table of unlike things)
        """Import and return the member called `name`.

        Raises:
            UnknownNameError: no member has this name.
            PluginError: another package has it, and it cannot be used.
        """
        if name in self.table:
            module, attribute = self.table[name].split(":")
            return getattr(importlib.import_module(module), attribute)
        found = self.plugins.load(name, self._taken)
        if found is None:
            raise unknown_name(self.kind, name, self)
        return found

    def plugin(self, name: str) -> Plugin | None:
        """Return which package has a member; None for clipnlc's own and for unknown names."""
        declared = () if name in self.table else self.plugins.declared().get(name, ())
        return declared[0] if declared else None

    @property
    def all_groups(self) -> dict[str, tuple[str, ...]]:
        """Every group, with `plugins`, what other packages add, where they add something."""
        return {**self.groups, **({GROUP: tuple(self._added)} if self._added else {})}

    def resolve(self, names: str | Iterable[str]) -> tuple[str, ...]:
        """Spell out comma-separated names and groups; `all` is every member; no name twice.

        Raises:
            UnknownNameError: a name is neither a member nor a group.
            PluginError: another package has a member, and it cannot be used.
        """
        asked = names.split(",") if isinstance(names, str) else list(names)
        spelled: dict[str, None] = {}
        for name in (a.strip() for a in asked):
            if name in self.groups:
                spelled.update(dict.fromkeys(self.groups[name]))
            elif name == "all":
                spelled.update(dict.fromkeys(self))
            elif name == GROUP and self._added:
                spelled.update(dict.fromkeys(self._added))
            elif name in self.table or self.plugins.load(name, self._taken) is not None:
                spelled[name] = None
            else:
                raise unknown_name(self.kind, name, [*self, *self.all_groups])
        return tuple(spelled)

    @cached_property
    def _added(self) -> Mapping[str, Any]:
        return self.plugins.members(self._taken)

    @property
    def _taken(self) -> tuple[str, ...]:
        return (*self.table, *self.groups, *self.reserved, "all", GROUP)
