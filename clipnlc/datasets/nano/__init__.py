"""The nano sets: small classification sets that ship with the package, as parquet.

`data/<set>/` holds `train*.parquet`, `test*.parquet` and `dataset.json` (class names, templates,
licence, digest), and is read like any parquet data set on disk. `confirmation/<set>/` holds fresh
test images of seven sets, which no list of splits shows: they are read by name only, once, when
everything to be claimed is settled (docs/nano.md). The other modules build both from public
packages (`make nano`).
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "data"

KEYS: Final = (
    "colors",
    "counts",
    "digits",
    "emoji_group",
    "emoji_kind",
    "fashion",
    "icon_kind",
    "letters",
    "patterns",
    "shapes",
)

CONFIRMATION: Final = "confirmation"
"""The name of the split of fresh test images."""

CONFIRMATION_FOLDER: Final = Path(__file__).parent / CONFIRMATION


def confirmed() -> tuple[str, ...]:
    """Return the sets that have a confirmation split."""
    return tuple(key for key in KEYS if (CONFIRMATION_FOLDER / key).is_dir())


def confirmation_root(key: str) -> Path:
    """Return the folder of the confirmation split of a set that has one."""
    return CONFIRMATION_FOLDER / key


def dataset_root(key: str) -> Path:
    """Return the folder of one nano set."""
    return FOLDER / key
