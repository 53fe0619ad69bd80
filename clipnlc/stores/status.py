"""What a store holds: one row per file, from headers alone."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clipnlc.commands import command
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.files import PARTIAL, remove_left
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.fits import read_fit_header
from clipnlc.stores.given import read_given_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import TEXTS, Layout, Location, from_part, locate
from clipnlc.stores.logits import read_logit_header
from clipnlc.stores.shards import read_shard_header, shard_files
from clipnlc.stores.texts import read_texts

RowKind = Literal["features", "logits", "fits", "given", "combined", "shards", "texts", "partial"]

ORDER = (
    "features",
    "logits",
    "fits",
    "combined",
    "given",
)  # a file is made from files of an earlier kind


@dataclass(frozen=True)
class StatusRow:
    """One file of a store, or one directory of unmerged shards.

    Attributes:
        kind: the format; `shards` is an unfinished extraction, `partial` what a killed writer
            left.
        path: below the store's root, with `/`.
        dataset, split, head, backbone, run: names; None where the kind has none, and empty for
            the data set of texts, which data sets share. `split` lists the splits of a logit
            file, joined by commas.
        rows: samples, over all splits of a file; for shards those sealed so far; None where
            they cannot be told.
        bytes: size on disk.
        complete: whether a reader accepts it.
        stale: whether it was made from a file that has changed since.
        why: why it is incomplete or stale, in one line; empty for a good file.
    """

    kind: RowKind
    path: str
    dataset: str
    bytes: int
    split: str | None = None
    head: str | None = None
    backbone: str | None = None
    run: str | None = None
    rows: int | None = None
    complete: bool = True
    stale: bool = False
    why: str = ""


@dataclass(frozen=True)
class Found:
    """Facts of a file from its header.

    Attributes:
        digest: names the content of the file.
        rows: samples.
        keys: the file's key under `""`, or one key per combiner.
        split: the splits of a logit file.
        parts: digests of its parts, which inputs name as `path#part`: the splits of a logit file,
            the combiners of a fit file.
    """

    digest: str
    rows: int | None
    keys: Mapping[str, Key]
    split: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """The digests of the files seen so far, and which of them are stale."""

    digests: dict[str, str] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)


def store_status(root: Path) -> list[StatusRow]:
    """List every file of the store at `root`, by dataset, kind and name.

    Never raises on a damaged file: its row says what is wrong. What killed writers left is removed.

    Raises:
        MissingStageError: there is no store at `root`.
    """
    if not root.is_dir():
        raise MissingStageError(
            f"no store at {root}; make one with `{command('extract --dataset …', store=root)}`, or name one "
            "with --store"
        )
    layout = Layout(root)
    rows: list[tuple[str, int, Path, StatusRow]] = []
    seen = Seen()
    files = [
        path
        for dataset in layout.datasets()
        for path in layout.dataset(dataset).rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix == ".shards" or (path.suffix == ".h5" and path.parent.suffix != ".shards")
    ]
    # What a file was made from may lie in another data set: all of one kind before the next.
    for path, location in sorted(_located(files), key=lambda f: (*_made_after(*f), f[0])):
        made = (
            _shards_row(layout, path, location)
            if location.kind == "shards"
            else _file_row(layout, path, location, seen)
        )
        rows.append((location.dataset, _order(location), path, made))
    for path in sorted(root.rglob(f"*{PARTIAL}")):
        if not remove_left(path):
            row = _partial_row(layout, path)
            rows.append((row.dataset, len(ORDER), path, row))
    texts = [_texts_row(layout, path) for path in sorted(root.glob(f"{TEXTS}/*/*.h5"))]
    return [row for *_, row in sorted(rows, key=lambda r: r[:3])] + texts


def _located(files: list[Path]) -> list[tuple[Path, Location]]:
    located = ((path, locate(path)) for path in files)
    return [(path, location) for path, location in located if location is not None]


def _made_after(path: Path, location: Location) -> tuple[int, bool]:
    """Sort by kind; logits of runs, which may be made from others, come after those of none.

    Logits of a head that has learnt from a fit come right after all fits.
    """
    taught = False
    if location.kind == "logits" and location.run is not None:
        with suppress(StoreError):
            taught = "teacher" in read_logit_header(path).key.fields
    fitted = location.kind == "logits" and location.run is not None
    return ORDER.index("combined") if taught else _order(location), taught or fitted


def _order(location: Location) -> int:
    return ORDER.index("features" if location.kind == "shards" else location.kind)


def _file_row(layout: Layout, path: Path, location: Location, seen: Seen) -> StatusRow:
    name = layout.relative(path)
    found: Found | None = None
    why, stale = "", False
    try:
        found = _found(path, location)
    except StoreError as error:
        why = str(error)
    else:
        seen.digests[name] = found.digest
        seen.digests |= {f"{name}#{part}": digest for part, digest in found.parts.items()}
        why, stale = _staleness(layout, found, seen)
        if stale:
            seen.stale.add(name)
    return StatusRow(
        kind=location.kind,
        path=name,
        dataset=location.dataset,
        bytes=_size(path),
        split=location.split if found is None or found.split is None else found.split,
        head=location.head,
        backbone=location.backbone,
        run=location.run,
        rows=None if found is None else found.rows,
        complete=found is not None,
        stale=stale,
        why=why,
    )


def _found(path: Path, location: Location) -> Found:
    if location.kind == "features":
        features = read_feature_header(path)
        return Found(features.digest, features.rows, {"": features.key})
    if location.kind == "logits":
        logits = read_logit_header(path)
        splits = ",".join(logits.rows)
        rows = sum(logits.rows.values())
        return Found(logits.digest, rows, {"": logits.key}, splits, logits.split_digests)
    if location.kind == "given":
        given = read_given_header(path)
        return Found(given.digest, given.rows, given.keys)
    fits = read_fit_header(path)
    return Found(fits.digest, None, fits.keys, parts=fits.digests)


def _staleness(layout: Layout, found: Found, seen: Seen) -> tuple[str, bool]:
    """Compare the inputs that the keys name with the files that are there now."""
    stale: dict[str, list[str]] = {}
    gone: dict[str, None] = {}
    for part, key in found.keys.items():
        for name, digest in key.inputs.items():
            present = seen.digests.get(name)
            file, _, piece = name.partition("#")
            if present is None and piece and file in seen.digests:
                stale.setdefault(f"{file} has no {piece} any more", []).append(part)
            elif present is None:
                if not (layout.root / file).exists():
                    gone[f"{file} is no longer there"] = None
                else:
                    stale.setdefault(f"{file} is damaged", []).append(part)
            elif present != digest:
                stale.setdefault(f"{name} has changed since", []).append(part)
            elif file in seen.stale:
                stale.setdefault(f"{name} is stale itself", []).append(part)
    if stale:
        return "; ".join(_reason(why, parts) for why, parts in stale.items()), True
    return "; ".join(gone), False


def _reason(why: str, parts: list[str]) -> str:
    named = ", ".join(part for part in parts if part)
    return f"{why} ({named})" if named else why


def _texts_row(layout: Layout, path: Path) -> StatusRow:
    """Texts have no rows and are made from no other file: they are never stale."""
    why = ""
    try:
        read_texts(path)
    except StoreError as error:
        why = str(error)
    return StatusRow(
        kind="texts",
        path=layout.relative(path),
        dataset="",
        backbone=from_part(path.parent.name),
        bytes=_size(path),
        complete=not why,
        why=why,
    )


def _shards_row(layout: Layout, directory: Path, location: Location) -> StatusRow:
    features = directory.with_suffix(".h5")
    files = shard_files(features)
    rows: Counter[Key] = Counter()
    damage = ""
    for file in files:
        try:
            header = read_shard_header(file)
        except StoreError as error:
            damage = damage or str(error)
        else:
            rows[header.key] += header.stop - header.start
    key, done = rows.most_common(1)[0] if rows else (None, 0)
    why = f"{done} rows sealed; run `{location.command}` to go on"
    if key is not None and features.exists() and _has_key(features, key):
        why = f"already merged into {layout.relative(features)}; may be deleted"
    elif len(rows) > 1:
        why += f" ({sum(rows.values()) - done} rows under another key will be removed)"
    return StatusRow(
        kind="shards",
        path=layout.relative(directory),
        dataset=location.dataset,
        split=location.split,
        backbone=location.backbone,
        rows=done,
        bytes=sum(map(_size, files)),
        complete=False,
        why=damage or why,
    )


def _size(path: Path) -> int:
    """Return the bytes of what is there; 0 of what has gone meanwhile."""
    with suppress(OSError):
        return path.lstat().st_size
    return 0


def _has_key(features: Path, key: Key) -> bool:
    try:
        return read_feature_header(features).key == key
    except StoreError:
        return False


def _partial_row(layout: Layout, path: Path) -> StatusRow:
    name = layout.relative(path)
    first, _, rest = name.partition("/")
    return StatusRow(
        kind="partial",
        path=name,
        dataset=from_part(first) if rest and first != TEXTS else "",
        bytes=_size(path),
        complete=False,
        why="a writer is at work; what one that was killed left is removed here, where it can be",
    )
