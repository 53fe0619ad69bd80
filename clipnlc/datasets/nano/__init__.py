"""The nano sets: small classification sets that ship with the package, as parquet.

`data/<set>/` holds `train*.parquet`, `test*.parquet` and `dataset.json` (class names, templates,
licence, digest), and is read like any parquet data set on disk. The other modules build them from
public packages (`make nano`).
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


def dataset_root(key: str) -> Path:
    """Return the folder of one nano set."""
    return FOLDER / key
