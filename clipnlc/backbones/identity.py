"""What makes a backbone's features what they are, told without loading it, and remembered.

Importing open_clip takes seconds and digesting weights reads gigabytes, so both happen once: the
memory is trusted while open_clip's version and the weights file's size and time are what they
were. It is a cache: lost or damaged, it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone


_FORM: Final = 2  # of what is remembered; raised when `identity` says more


def identity(backbone: Backbone, memory: Path) -> dict[str, Any]:
    """Name everything about a backbone that shapes its features.

    The architecture, the weights (by digest), open_clip's version, the activation, how inference
    differs from open_clip's, and the preprocessing.

    Args:
        backbone: which one; its weights are downloaded if they are not at hand.
        memory: a JSON file of what was found before.

    Raises:
        BackboneError: the weights cannot be had.
        UnknownNameError: open_clip has no such architecture.
    """
    known = _read(memory)
    release = version("open_clip_torch")
    entry = f"{backbone.name} {backbone.file.resolve() if backbone.file else ''} {release} {_FORM}"
    if entry in known and _stamp(Path(known[entry]["file"])) == known[entry]["stamp"]:
        return dict(known[entry]["identity"])
    from clipnlc.backbones.folding import is_foldable
    from clipnlc.backbones.openclip import skeleton
    from clipnlc.backbones.preprocessing import preprocessing_of
    from clipnlc.backbones.weights import has_quick_gelu, weights_file

    file = weights_file(backbone)
    model = skeleton(backbone.architecture)
    found = {
        "architecture": backbone.architecture,
        "weights": _digest(file),
        "open_clip": release,
        "quick_gelu": has_quick_gelu(backbone, file),
        "inference": "batch norm folded in fp32"
        if is_foldable(model.visual)
        else "as in open_clip",
        # Through JSON, so that what is remembered equals what was found.
        "preprocessing": json.loads(json.dumps(asdict(preprocessing_of(backbone, model)))),
    }
    known[entry] = {"file": str(file.resolve()), "stamp": _stamp(file), "identity": found}
    # Two runs at once must not share a temporary file.
    partial = memory.with_suffix(f".{os.getpid()}.partial")
    # It only saves time: a full disk is told by whoever must write to it.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
        partial.replace(memory)
    partial.unlink(missing_ok=True)
    return found


def _stamp(file: Path) -> list[int]:
    if not file.is_file():
        return []
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(memory: Path) -> dict[str, Any]:
    if not memory.is_file():
        return {}
    try:
        known = json.loads(memory.read_text("utf-8"))
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}
