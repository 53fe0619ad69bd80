"""Everything that an installed package declares, through the suite of its family."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from clipnlc.combiners import COMBINERS
from clipnlc.heads import HEADS
from clipnlc.measures import Measures
from clipnlc.metrics import METRICS, PAIRWISE
from clipnlc.registry import Registry
from clipnlc.testing.combiners import check_combiner
from clipnlc.testing.heads import check_head
from clipnlc.testing.measures import check_measure

_TABLES: Final[Mapping[str, tuple[Registry | Measures[Any], Callable[[Any], None]]]] = {
    "clipnlc.combiners": (COMBINERS, check_combiner),
    "clipnlc.heads": (HEADS, check_head),
    "clipnlc.measures": (METRICS, check_measure),
    "clipnlc.pair_measures": (PAIRWISE, check_measure),
}


def check_package(package: str) -> None:
    """Run the conformance suites on everything that an installed package declares.

    Its entry points are read as clipnlc reads them, so names that are taken and what cannot be imported are
    found here, too.

    Args:
        package: the name of the distribution, as `pip` lists it.

    Raises:
        AssertionError: the package declares nothing, or a check failed; the message says which.
        PluginError: a member cannot be imported, or its name is taken.

    >>> check_package("numpy")
    Traceback (most recent call last):
        ...
    AssertionError: numpy declares no entry point of clipnlc.combiners, clipnlc.heads, clipnlc.measures, clipnlc.pair_measures
    """
    found = [
        (name, table, check)
        for table, check in _TABLES.values()
        for name, its in table.plugins.declared().items()
        if package in [one.package for one in its]
    ]
    assert found, f"{package} declares no entry point of {', '.join(_TABLES)}"
    for name, table, check in found:
        try:
            check(table.get(name))
        except AssertionError as problem:
            problem.add_note(f"of {name}")
            raise
