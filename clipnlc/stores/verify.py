"""Every byte of a store, read and checked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores.combined import read_combined
from clipnlc.stores.features import read_features, read_shard
from clipnlc.stores.key import content_digest
from clipnlc.stores.layout import locate
from clipnlc.stores.logits import read_logits
from clipnlc.stores.texts import read_texts

READERS: dict[str, Callable[[Path], object]] = {
    "features": read_features,
    "shards": read_shard,
    "logits": read_logits,
    "combined": read_combined,
    "texts": read_texts,
}


class Damage(NamedTuple):
    """One file that cannot be trusted.

    Attributes:
        path: the file.
        problem: what is wrong and how to mend it, in one line.
    """

    path: Path
    problem: str


def verify_store(
    root: Path, progress: Callable[[Path, int, int], None] | None = None
) -> list[Damage]:
    """Read every sealed file and record of the store at `root` whole; list the damaged ones.

    Goes on after a damaged file. `progress(path, number, count)` is called before each file,
    with `number` counting from 1.

    Raises:
        MissingStageError: there is no store at `root`.
    """
    if not root.is_dir():
        raise MissingStageError(
            f"no store at {root}; make one with `clipnlc extract`, or name one with --store"
        )
    files = sorted([*root.rglob("*.h5"), *root.glob("*/records/*.json")])
    damage = []
    for number, path in enumerate(files, start=1):
        if progress is not None:
            progress(path, number, len(files))
        try:
            verify_file(path)
        except StoreError as error:
            damage.append(Damage(path, str(error)))
    return damage


def verify_file(path: Path) -> None:
    """Read one file of a store whole.

    Raises:
        StoreError: the file is damaged or does not belong there.
    """
    if path.suffix == ".json":
        _verify_record(path)
        return
    location = locate(path)
    if location is None:
        raise StoreError(f"{path} does not belong into a store; move it elsewhere or delete it")
    READERS[location.kind](path)


def _verify_record(path: Path) -> None:
    """Check that a record is a JSON object, and its `digest` where it carries one."""
    try:
        record = json.loads(path.read_bytes())
        digest = record.pop("digest", None)
        good = digest in (None, content_digest(record))
    except (OSError, ValueError, TypeError, AttributeError):
        good = False
    if not good:
        raise StoreError(f"{path} is damaged; delete the file and run `clipnlc evaluate` again")
