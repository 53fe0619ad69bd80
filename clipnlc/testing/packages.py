"""Everything that an installed package declares, through the suite of its family."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from clipnlc.backbones.families import FAMILIES
from clipnlc.combiners import COMBINERS
from clipnlc.datasets import foreign_function
from clipnlc.datasets.foreign import FOREIGN
from clipnlc.heads import HEADS
from clipnlc.metrics import METRICS, PAIRWISE
from clipnlc.plugins import Plugins
from clipnlc.testing.combiners import check_combiner
from clipnlc.testing.datasets import check_dataset
from clipnlc.testing.families import check_family
from clipnlc.testing.heads import check_head
from clipnlc.testing.measures import check_measure

_SUITES: Final[Sequence[tuple[Plugins, Callable[[str], Any], Callable[[Any], None]]]] = (
    (COMBINERS.plugins, COMBINERS.get, check_combiner),
    (HEADS.plugins, HEADS.get, check_head),
    (METRICS.plugins, METRICS.get, check_measure),
    (PAIRWISE.plugins, PAIRWISE.get, check_measure),
    (FOREIGN, foreign_function, check_dataset),
    (FAMILIES.plugins, FAMILIES.get, check_family),
)
"""What packages add to a table, how a member is got, and what checks it."""


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
    AssertionError: numpy declares no entry point of clipnlc.combiners, clipnlc.heads, clipnlc.measures, clipnlc.pair_measures, clipnlc.datasets, clipnlc.families
    """
    found = [
        (name, get, check)
        for plugins, get, check in _SUITES
        for name, its in plugins.declared().items()
        if package in [one.package for one in its]
    ]
    groups = ", ".join(plugins.group for plugins, _, _ in _SUITES)
    assert found, f"{package} declares no entry point of {groups}"
    for name, get, check in found:
        try:
            check(get(name))
        except AssertionError as problem:
            problem.add_note(f"of {name}")
            raise
