"""Fingerprint a backbone without loading it, and cache the result.

Importing open_clip or timm takes seconds and digesting weights reads gigabytes, so both happen once: the
memory is trusted while the version of the family's package and size and time of the weights file, and of
the files beside it that count, are what they were. It is a JSON list of entries, each with a digest: one that was altered is made anew, and so is
all of a memory that is lost or of an earlier form.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipnlc.backbones.families import FAMILIES, family
from clipnlc.digests import matches_digest, with_digest
from clipnlc.errors import StoreError
from clipnlc.files import read_regular, reason, write_whole

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone


_FORM: Final = 3  # of what is remembered; raised when `identity` says more
_LARGEST: Final = 2**24  # bytes; an entry takes a thousand
_IDENTITY: Final[dict[str, type]] = {
    "architecture": str,
    "weights": str,
    "inference": str,
    "preprocessing": dict,
}
"""What every family says; what else is there is a word, or yes or no."""


def identity(backbone: Backbone, memory: Path | None, *, remember: bool = True) -> dict[str, Any]:
    """Name everything about a backbone that shapes its features.

    The architecture, the weights (by digest), the preprocessing, and the facts of its family: the
    version of its package, how inference differs from the package's, and what else it has; of
    another package's family that package and its version.

    Args:
        backbone: which one; its weights are downloaded if they are not on disk.
        memory: a JSON file of what was found before, if there is one.
        remember: add to it what is found now.

    Raises:
        BackboneError: the weights are unavailable.
        UnknownNameError: its family has no such architecture.
    """
    known = {} if memory is None else _read(memory)
    kind = family(backbone.family)
    release = kind.release()
    entry = f"{backbone.name} {backbone.file.resolve() if backbone.file else ''} {release} {_FORM}"
    plugin = FAMILIES.plugin(backbone.family)
    package = {} if plugin is None else {"family_package": str(plugin)}
    entry += f" {plugin}" if plugin else ""
    for beside in kind.beside(backbone):
        entry += f" {beside.name} {_stamp(beside)}"
    if entry in known and _stamp(Path(known[entry]["file"])) == known[entry]["stamp"]:
        return dict(known[entry]["identity"])
    file = kind.weights_file(backbone)
    stamp = _stamp(file)  # before its bytes are read: what changes meanwhile is seen next time
    found = {
        "architecture": backbone.architecture,
        "weights": _digest(file),
        **kind.facts(backbone, file),
        **package,
        # Through JSON, so that what is remembered equals what was found.
        "preprocessing": json.loads(json.dumps(asdict(kind.preprocessing(backbone)))),
    }
    if memory is None or not remember:
        return found
    # It only saves time: a full disk is told by whoever must write to it, and a path that is no
    # Unicode is looked at again.
    with suppress(OSError, UnicodeError):
        known[entry] = with_digest(
            {"entry": entry, "file": str(file.resolve()), "stamp": stamp, "identity": found}
        )
        write_whole(memory, json.dumps(list(known.values()), indent=1) + "\n")
    return found


def _stamp(file: Path) -> list[int]:
    try:
        stat = file.stat()
    except (OSError, ValueError):  # it has gone, or a memory names what no file can be called
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify_memory(memory: Path) -> str | None:
    """Check every entry; return why it cannot be done, None where it was.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        entries = _entries(_bytes(memory))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{memory} is damaged ({error}); delete it: it is made anew") from error
    if entries is None:
        return "its entries carry no digest; it is made anew when next needed"
    for number, entry in enumerate(entries):
        if not _is_sound(entry):
            raise StoreError(
                f"{memory} is damaged: entry {number} does not match its digest; "
                "delete it: it is made anew"
            )
    return None


def _read(memory: Path) -> dict[str, Any]:
    """Return the entries that are what was written, by name.

    Raises:
        StoreError: what is there is no file, is far too large, or cannot be read.
    """
    try:
        entries = _entries(_bytes(memory))
    except (ValueError, RecursionError):
        return {}
    return {entry["entry"]: entry for entry in entries or () if _is_sound(entry)}


def _bytes(memory: Path) -> bytes:
    """Return what is in the file; nothing if it does not exist."""
    try:
        return read_regular(memory, at_most=_LARGEST)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not memory.is_symlink():
            return b"[]"
        raise StoreError(
            f"cannot read {memory}: {reason(error, memory)}; delete it: it is made anew"
        ) from error


def _entries(text: bytes) -> list[Any] | None:
    """Return the entries; None for the form of before they had digests."""
    tree = json.loads(text)
    if isinstance(tree, dict):
        return None
    if not isinstance(tree, list):
        raise ValueError(f"expected a list, found {type(tree).__name__}")  # noqa: TRY004
    return tree


def _is_sound(entry: object) -> bool:
    """Return whether an entry says what was written, and has the types of what is written."""
    if not isinstance(entry, dict) or not matches_digest(entry):
        return False
    stamp, found = entry.get("stamp"), entry.get("identity")
    return (
        all(isinstance(entry.get(name), str) for name in ("entry", "file"))
        and (isinstance(stamp, list) and [type(one) for one in stamp] == [int, int])
        and isinstance(found, dict)
        and all(type(found.get(name)) is kind for name, kind in _IDENTITY.items())
        and all(isinstance(found[name], str | bool) for name in found.keys() - _IDENTITY.keys())
        and all(map(_is_plain, found["preprocessing"].values()))
    )


def _is_plain(value: object) -> bool:
    """Return whether it is a number or a word, or some of them."""
    values = value if isinstance(value, list) else [value]
    return all(one is None or isinstance(one, str | int | float) for one in values)
