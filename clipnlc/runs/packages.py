"""Whose code made a file: a key names the package of what is not clipnlc's own, and its version.

Another version is another key: what was made with it is stale. Without the package, what it made can be
verified and listed, and nothing else.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from clipnlc.errors import PluginError, UnknownNameError
from clipnlc.heads import HEADS
from clipnlc.plugins import Plugin
from clipnlc.registry import Registry
from clipnlc.stores.fits import read_fit_header
from clipnlc.stores.key import Json, Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

PACKAGE: Final = "package"
"""The field of a key."""


@runtime_checkable
class Table(Protocol):
    """A table that other packages add to."""

    def plugin(self, name: str) -> Plugin | None:
        """Return which package has a member; None for clipnlc's own."""


def package_of(table: Table, name: str) -> dict[str, Json]:
    """Return the field of a key that names the package of a member; no field for clipnlc's own."""
    found = table.plugin(name)
    return {} if found is None else {PACKAGE: found.origin}


def packages_of(table: Table, names: Iterable[str]) -> dict[str, str]:
    """Return the versions of the packages that have some members, by package."""
    found = (table.plugin(name) for name in names)
    return {one.package: one.version for one in found if one is not None}


def requirement(package: Mapping[str, Any]) -> str:
    """Spell what `pip install` takes, quoted for a shell.

    >>> requirement({"name": "stranger", "version": "1.0"})
    'stranger==1.0'
    """
    return shlex.quote(f"{package['name']}=={package['version']}")


def refuse_missing(
    registry: Registry, name: str, package: Mapping[str, Any] | None, where: str
) -> None:
    """Check that the package of what made a file is installed, whatever its version.

    Args:
        registry: of the family.
        name: of the member.
        package: as the file's key names it; None for clipnlc's own.
        where: names the file.

    Raises:
        PluginError: it is not; says what to install.
    """
    here = registry.plugin(name)
    if package is None or name in registry.table:
        return
    if here is None or here.package != package["name"]:
        instead = f", and {here} has another of this name" if here else ""
        raise PluginError(
            f"{where} needs the {registry.kind} {name} of {package['name']} {package['version']}, "
            f"which is not installed{instead}; run `pip install {requirement(package)}`"
        )
    registry.get(name)  # says why it cannot be used


def changed_package(table: Table, name: str, package: Mapping[str, Any] | None) -> str:
    """Say how the code of a member differs from what made a file; nothing where it does not."""
    here = table.plugin(name)
    if (here and here.origin) == package:
        return ""
    was = "clipnlc" if package is None else f"{package['name']} {package['version']}"
    return f"it was made with {name} of {was}, and {here or 'clipnlc'} is installed"


def package_in(key: Key) -> Mapping[str, Any] | None:
    """Return the package that a key names; None for clipnlc's own."""
    found: Mapping[str, Any] | None = key.fields.get(PACKAGE)
    return found


def find_member(registry: Registry, name: str, layout: Layout) -> Any:  # noqa: ANN401  (as `Registry.get`)
    """Return a head or a combiner; of one that is not known, say which package the store needs.

    Raises:
        UnknownNameError: it is not known, and the store has nothing of it.
        PluginError: its package is not installed, or it cannot be used.
    """
    try:
        return registry.get(name)
    except UnknownNameError:
        keys = _keys_of_head if registry is HEADS else _keys_of_combiner
        for where, key in keys(layout, name):
            refuse_missing(registry, name, package_in(key), where)
        raise


def _keys_of_head(layout: Layout, head: str) -> Iterator[tuple[str, Key]]:
    for dataset in layout.datasets():
        for run in (None, *layout.logit_runs(dataset, head)):
            for backbone in layout.logit_backbones(dataset, head, run):
                path = layout.logits(dataset, head, backbone, run)
                yield layout.relative(path), read_logit_header(path).key


def _keys_of_combiner(layout: Layout, combiner: str) -> Iterator[tuple[str, Key]]:
    for path in sorted(layout.root.glob("*/fits/*/*/*.h5")):
        found = read_fit_header(path).keys.get(combiner)
        if found is not None:
            yield layout.relative(path), found
