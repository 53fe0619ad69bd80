"""Records as files of a store: which are whole, and which cannot be checked."""

import json
import re
from pathlib import Path

from clipnlc.errors import StoreError
from clipnlc.reports.files import diversity_from_json, evaluation_from_json, kept_digest

READERS = {"evaluate-": evaluation_from_json, "diversity-": diversity_from_json}
KEPT = re.compile(r".+\.([0-9a-f]{8})\.json")


def is_record(path: Path) -> bool:
    """Return, from its name, whether a file is a record."""
    return path.suffix == ".json" and path.name.startswith(tuple(READERS))


def verify_record(path: Path) -> str | None:
    """Check the record in a file; return why that cannot be done, None where it was.

    An older record, which was kept beside a newer one, also has a digest in its name.

    Raises:
        StoreError: it was altered, or is no record of the stage that its name tells.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    read = next(reader for start, reader in READERS.items() if path.name.startswith(start))
    read(data, where=str(path))
    kept = KEPT.fullmatch(path.name)
    if kept is not None and kept[1] != kept_digest(data):
        raise StoreError(
            f"{path} was altered: it does not match the digest in its name; delete it: it is an "
            "older record, which nothing else needs"
        )
    if kept is not None or "digest" in json.loads(data):
        return None
    return "a record of before records carried a digest"
