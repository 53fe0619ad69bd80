"""Members that other packages add to a table, declared by entry points (`docs/plugins.md`).

What packages declare is read when a table is listed, or a name is asked for that is not clipnlc's own;
reading it imports nothing. A member that cannot be used is left out with one warning, which names
its package; asking for it by name is an error. No package can replace a member of clipnlc's.
"""

import inspect
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from clipnlc.errors import ClipnlcError, PluginError, PluginWarning
from clipnlc.wording import quoted, shown

GROUP: Final = "plugins"
"""The group of all members that other packages add to a table."""

GROUPS: Final = tuple(
    f"clipnlc.{family}"
    for family in ("combiners", "heads", "measures", "pair_measures", "datasets", "families")
)
"""The groups of entry points that clipnlc reads."""

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_LONGEST: Final = 300


@dataclass(frozen=True)
class Plugin:
    """One member, as a package declares it; nothing of it is imported.

    Attributes:
        name: of the member.
        place: `module:attribute`.
        package: the distribution that declares it.
        version: the distribution's.
    """

    name: str
    place: str
    package: str
    version: str

    def __str__(self) -> str:
        """Spell the package and its version."""
        return f"{self.package} {self.version}"

    @property
    def origin(self) -> dict[str, str]:
        """The package as keys name it: another version is another key."""
        return {"name": self.package, "version": self.version}


@dataclass(frozen=True)
class Plugins:
    """What packages add to one table.

    Attributes:
        group: of the entry points, as `clipnlc.combiners`; nothing is added without.
        kind: what a member is, as messages say it.
        base: the class that every member is a subclass of, or with `instances` an instance.
        instances: whether members are instances.
    """

    group: str = ""
    kind: str = ""
    base: type = object
    instances: bool = False

    def declared(self) -> Mapping[str, tuple[Plugin, ...]]:
        """Return what packages declare, by name; more than one where several have a name."""
        return declared(self.group) if self.group else {}

    def load(self, name: str, taken: Collection[str]) -> Any:  # noqa: ANN401  (a table of unlike things)
        """Import and return the member called `name`; None where no package declares it.

        Args:
            name: of the member.
            taken: names that clipnlc uses itself.

        Raises:
            PluginError: it cannot be used; names its package.
        """
        its = self.declared().get(name, ())
        if not its:
            return None
        first, *others = its
        if name in taken or not _NAME.fullmatch(name):
            why = "which clipnlc uses itself" if name in taken else "which cannot be a name"
            raise PluginError(
                f"{first} calls a {self.kind} {quoted(name)}, {why}; expected another name: "
                f"uninstall {first.package}, or ask its authors to rename it"
            )
        if others:
            listed = " and ".join(map(str, its))
            raise PluginError(
                f"{listed} each have a {self.kind} {quoted(name)}; expected it of one package: "
                "uninstall the others"
            )
        return self._load(first)

    def members(self, taken: Collection[str]) -> dict[str, Any]:
        """Import every member that can be used, sorted by name; warn of each that cannot.

        Args:
            taken: names that clipnlc uses itself.
        """
        found = {}
        for name in sorted(self.declared()):
            try:
                found[name] = self.load(name, taken)
            except PluginError as problem:
                warnings.warn(f"left out: {problem}", PluginWarning, stacklevel=2)
        return found

    def _load(self, plugin: Plugin) -> Any:  # noqa: ANN401
        from importlib.metadata import EntryPoint

        what = f"the {self.kind} {quoted(plugin.name)} of {plugin}"
        cure = f"repair or uninstall {plugin.package}"
        try:
            found = EntryPoint(plugin.name, plugin.place, self.group).load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{what} cannot be imported ({_said(error)}); {cure}") from error
        problem = self._problem(found)
        if problem:
            raise PluginError(f"{what} cannot be used: {plugin.place} {problem}; {cure}")
        return found

    def _problem(self, found: object) -> str:
        """Say why it cannot be a member; nothing where it can."""
        is_class = isinstance(found, type)
        if self.instances:
            return "" if isinstance(found, self.base) else f"is no {self.base.__name__}"
        if not (is_class and issubclass(found, self.base)):  # type: ignore[arg-type]
            return f"is no subclass of {self.base.__name__}"
        if inspect.isabstract(found):
            return "is an abstract class"
        missing = [name for name in inspect.get_annotations(self.base) if not hasattr(found, name)]
        return f"does not say {missing[0]}" if missing else ""


@contextmanager
def blame(plugin: Plugin | None, what: str) -> Iterator[None]:
    """Turn any error within into one that names the package; clipnlc's own pass.

    Args:
        plugin: whose code runs within; None for clipnlc's own.
        what: what runs, as `the combiner 'median'`.

    Raises:
        PluginError: the plug-in's code raised something.
    """
    try:
        yield
    except ClipnlcError:
        raise
    except Exception as error:
        if plugin is None:
            raise
        raise PluginError(
            f"{what} of {plugin} failed ({_said(error)}); report it to the authors of {plugin.package} "
            "with the output of the same command under CLIPNLC_DEBUG=1"
        ) from error


@cache
def declared(group: str) -> dict[str, tuple[Plugin, ...]]:
    """Return what packages declare in a group, by name; several of one name sorted by package."""
    from importlib.metadata import entry_points

    found: dict[str, tuple[Plugin, ...]] = {}
    try:
        for point in entry_points(group=group):
            package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
            plugin = Plugin(point.name, point.value, str(package), str(version))
            found[point.name] = (*found.get(point.name, ()), plugin)
    except Exception as error:  # noqa: BLE001  (a foreign package's metadata)
        warnings.warn(
            f"{group} of other packages are left out: the metadata of one is damaged ({_said(error)}); "
            "`pip check` may name it",
            PluginWarning,
            stacklevel=2,
        )
    return {name: tuple(sorted(same, key=str)) for name, same in found.items()}


def culprit(error: BaseException) -> Plugin | None:
    """Return the plug-in in whose code an error was raised, or that called what raised it."""
    modules = {
        one.place.partition(":")[0].partition(".")[0]: one
        for group in GROUPS
        for same in declared(group).values()
        for one in same
    }
    found = None
    trace = error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        found = modules.get(module, found)
        trace = trace.tb_next
    return found


def forget() -> None:
    """Read what packages declare anew, as after one was installed into a running process."""
    declared.cache_clear()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {shown(' '.join(str(error).split())[:_LONGEST])}"
