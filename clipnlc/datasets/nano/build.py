"""Build the nano data: the captioned corpus, the classification sets and their confirmation splits.

The digest of a build covers the pixels as drawn, the captions and the labels, so that it does not
depend on how a release of an image or parquet library packs them.
"""

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipnlc.datasets.nano import CONFIRMATION
from clipnlc.datasets.nano.corpus import Captioned, corpus
from clipnlc.datasets.nano.palette import Pixels
from clipnlc.datasets.nano.sets import SETS, WITHOUT_CONFIRMATION, Definition, Row

_ROWS_PER_GROUP = 1024
_ALIKE = 4
_FILES = {CONFIRMATION: f"{CONFIRMATION}-00000-of-00001"}  # a name that tells its split


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _webp(pixels: Pixels) -> bytes:
    """Pack an image as WebP: lossless where that is no larger than quality 90."""
    image = Image.fromarray(pixels)
    packed = []
    for lossless in (True, False):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", method=4, lossless=lossless, quality=90)
        packed.append(buffer.getvalue())
    return min(packed, key=len)


class _Digest:
    """A running digest of drawn images and their words."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, pixels: Pixels, words: Iterable[str]) -> None:
        self._hash.update(np.ascontiguousarray(pixels).tobytes())
        self._hash.update(json.dumps(list(words)).encode())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _write(path: Path, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
    """Write rows as parquet in the layout of the `datasets` library."""
    from datasets import Dataset, Features, disable_progress_bars

    disable_progress_bars()
    path.parent.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_dict(columns, features=Features(features))
    table.to_parquet(str(path), batch_size=_ROWS_PER_GROUP)


def build_corpus(packages: Path, out: Path, drawn: set[bytes]) -> dict[str, Any]:
    """Draw and write `corpus.parquet`; return its rows, digest and rows per source.

    What was drawn is added to `drawn`, as digests of pixels.
    """
    from datasets import Image as ImageFeature
    from datasets import List, Value

    digest, counts = _Digest(), Counter[str]()
    columns: dict[str, list[Any]] = defaultdict(list)
    row: Captioned
    for row in corpus(packages):
        digest.add(row.pixels, (*row.captions, row.concept))
        drawn.add(_pixel_digest(row.pixels))
        counts[row.source] += 1
        columns["image"].append({"bytes": _png(row.pixels), "path": None})
        columns["caption"].append(list(row.captions))
        columns["concept"].append(row.concept)
        columns["source"].append(row.source)
    features = {
        "image": ImageFeature(),
        "caption": List(Value("string")),
        "concept": Value("string"),
        "source": Value("string"),
    }
    _write(out / "corpus.parquet", columns, features)
    return {"rows": sum(counts.values()), "digest": digest.hexdigest(), "sources": dict(counts)}


def build_set(
    definition: Definition, packages: Path, out: Path, drawn: set[bytes]
) -> dict[str, Any]:
    """Draw and write one classification set; return its rows per part and digest.

    What was drawn, left out or not, is added to `drawn`, as digests of pixels.
    """
    rows = list(definition.rows(packages))
    drawn.update(_pixel_digest(row.pixels) for row in rows)
    known = [row for row in rows if row.part.startswith("train")]
    alike = _drawn_like(known, [row for row in rows if not row.part.startswith("train")])
    return _write_set(definition, [row for row in rows if row.identifier not in alike], out)


def build_confirmation(
    definition: Definition, packages: Path, out: Path, drawn: set[bytes]
) -> dict[str, Any]:
    """Draw and write the confirmation split of a set; return its rows, digests and what it left out.

    `digest` is of what was drawn, `file` of the bytes of the parquet file.

    Left out are images with the pixels of one in `drawn` (what the corpus and the sets drew) or of
    one before it, and, as in test, images that are drawn like one to train on.
    """
    assert definition.confirmation is not None, f"{definition.key} has no confirmation split"
    rows, copies, before = [], 0, set(drawn)
    for row in definition.confirmation(packages):
        pixels = _pixel_digest(row.pixels)
        copies += pixels in before
        if pixels not in before:
            rows.append(row)
        before.add(pixels)
    known = [row for row in definition.rows(packages) if row.part.startswith("train")]
    alike = _drawn_like(known, rows)
    kept = [row for row in rows if row.identifier not in alike]
    described = _write_set(definition, kept, out)
    file = out / definition.key / f"{_FILES[CONFIRMATION]}.parquet"
    return {
        "rows": len(kept),
        "digest": described["digest"],
        "file": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
        "left_out": {"copies": copies, "like_train": len(alike)},
    }


def _write_set(definition: Definition, rows: list[Row], out: Path) -> dict[str, Any]:
    """Write rows as one parquet file per part, and their card; return the card."""
    from datasets import ClassLabel, Value
    from datasets import Image as ImageFeature

    digest = _Digest()
    parts: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        digest.add(row.pixels, (row.identifier, str(row.label), row.part))
        columns = parts[row.part]
        columns["id"].append(row.identifier)
        columns["image"].append({"bytes": _webp(row.pixels), "path": None})
        columns["label"].append(row.label)
    features = {
        "id": Value("string"),
        "image": ImageFeature(),
        "label": ClassLabel(names=list(definition.class_names)),
    }
    for part, columns in parts.items():
        _write(out / definition.key / f"{_FILES.get(part, part)}.parquet", columns, features)
    described = {
        "key": definition.key,
        "class_names": definition.class_names,
        "templates": definition.templates,
        "kind": definition.kind,
        "note": definition.note,
        **({"cluster": definition.cluster} if definition.cluster else {}),
        "licence": definition.licence,
        "rows": {part: len(columns["id"]) for part, columns in sorted(parts.items())},
        "digest": digest.hexdigest(),
    }
    text = json.dumps(described, indent=2, ensure_ascii=False)
    (out / definition.key / "dataset.json").write_text(text + "\n", "utf-8")
    return described


def _pixel_digest(pixels: Pixels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def _drawn_like(known: list[Row], tests: list[Row]) -> set[str]:
    """Return the identifiers of test images that are drawn like one to train on.

    Two emoji or icons may share a drawing but for its anti-aliasing: a root mean square difference
    below `_ALIKE` grey levels.
    """
    a, b = (np.stack([r.pixels.ravel() for r in part]).astype(float) for part in (tests, known))
    square = (a**2).mean(1)[:, None] + (b**2).mean(1) - 2 * (a @ b.T) / a.shape[1]
    return {r.identifier for r, d in zip(tests, square.min(1), strict=True) if d < _ALIKE**2}


def drawn_with() -> dict[str, str]:
    """Tell the versions of what draws; others may place a pixel differently."""
    return {
        package: version(package) for package in ("numpy", "pillow", "resvg_py", "scikit-learn")
    }


def build(
    packages: Path, out: Path, on_part: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Build everything into `out`; return the digests and row counts.

    They are also written to `data.json`, those of the confirmation splits to `confirmation/data.json`.
    """
    on_part("corpus")
    drawn: set[bytes] = set()
    built: dict[str, Any] = {"corpus": build_corpus(packages, out, drawn), "sets": {}}
    for definition in SETS:
        on_part(definition.key)
        described = build_set(definition, packages, out, drawn)
        built["sets"][definition.key] = {k: described[k] for k in ("rows", "digest")}
    built["drawn_with"] = drawn_with()
    _record(out, built)
    fresh: dict[str, Any] = {}
    for definition in SETS:
        if definition.confirmation is not None:
            on_part(f"{definition.key} {CONFIRMATION}")
            found = build_confirmation(definition, packages, out / CONFIRMATION, drawn)
            fresh[definition.key] = found
    without = dict(WITHOUT_CONFIRMATION)
    _record(out / CONFIRMATION, {"sets": fresh, "without": without, "drawn_with": drawn_with()})
    return {**built, CONFIRMATION: fresh}


def _record(folder: Path, built: dict[str, Any]) -> None:
    (folder / "data.json").write_text(json.dumps(built, indent=2) + "\n", "utf-8")
