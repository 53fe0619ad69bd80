"""Every byte of a sealed file, read and checked."""

from collections.abc import Callable
from pathlib import Path

from clipnlc.errors import StoreError
from clipnlc.stores.combined import read_combined
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fits
from clipnlc.stores.given import read_given
from clipnlc.stores.layout import locate
from clipnlc.stores.logits import read_logits
from clipnlc.stores.shards import read_shard
from clipnlc.stores.texts import read_texts

READERS: dict[str, Callable[[Path], object]] = {
    "features": read_features,
    "shards": read_shard,
    "logits": read_logits,
    "fits": read_fits,
    "given": read_given,
    "combined": read_combined,
    "texts": read_texts,
}


def verify_file(path: Path) -> None:
    """Read one sealed file of a store whole.

    Raises:
        StoreError: the file is damaged or does not belong there.
    """
    location = locate(path)
    if location is None:
        raise StoreError(f"{path} does not belong into a store; move it elsewhere or delete it")
    READERS[location.kind](path)
