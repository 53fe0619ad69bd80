"""Data sets that other packages add: each a function that says where it lies on disk.

An entry point of the group `clipnlc.datasets` names a function without arguments. It returns a path that
`extract` reads as any other (`source`), and may download or make what lies there first.
"""

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clipnlc.datasets.dataset import LocalDataset
from clipnlc.datasets.prompts import templates_of
from clipnlc.datasets.source import Split
from clipnlc.errors import PluginError
from clipnlc.plugins import Plugins, blame

FOREIGN: Final = Plugins("clipnlc.datasets", "data set", Callable, instances=True)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ForeignDataset(LocalDataset):
    """A data set of another package.

    Attributes:
        package: who says where it lies, with the version.
    """

    package: str = field(kw_only=True)

    def open(
        self,
        split: str,
        *,
        class_names_file: Path | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        hash_cache: Path | None = None,
    ) -> Split:
        """Open a split as any on disk; its origin names the package."""
        opened = super().open(
            split,
            class_names_file=class_names_file,
            image_column=image_column,
            label_column=label_column,
            hash_cache=hash_cache,
        )
        return dataclasses.replace(opened, origin={"package": self.package})


def open_foreign(name: str, taken: Collection[str]) -> ForeignDataset:
    """Find a data set of another package, which may download it now.

    Args:
        name: as the package declares it.
        taken: names that clipnlc uses itself.

    Raises:
        PluginError: the package cannot be used, or failed, or says nothing that is there.
    """
    where = FOREIGN.load(name, taken)
    plugin = FOREIGN.declared()[name][0]
    with blame(plugin, f"the data set {name}"):
        root = Path(where())
    if not root.exists():
        raise PluginError(
            f"the data set {name} of {plugin} says that it lies in {root}, and nothing is there; repair "
            f"or uninstall {plugin.package}"
        )
    return ForeignDataset(name, templates_of(root), root, package=str(plugin))
