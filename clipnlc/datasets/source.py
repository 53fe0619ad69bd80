"""Open a split of a data set on disk, whatever it is stored as.

Four kinds are told apart by what lies in the folder: a folder saved by `datasets`, parquet files,
webdataset tars, and, failing those, an image folder. To add a kind, write a module with an
`open_*(root, split, options) -> Rows` and add its row to `_KINDS`.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from clipnlc.datasets import folder, parquet, saved, tars
from clipnlc.datasets import splits as split_names
from clipnlc.datasets.class_names import name_classes
from clipnlc.datasets.fingerprints import digest_image, digest_labels, digest_texts
from clipnlc.datasets.images import decode
from clipnlc.datasets.label_names import classes_option
from clipnlc.datasets.name_files import folded, listed_classes
from clipnlc.datasets.rows import Images, Options, Rows
from clipnlc.errors import DataError
from clipnlc.labels import NO_LABEL, UNLABELLED
from clipnlc.wording import count, quoted, shown, some

_LONGEST = 80


@dataclass(frozen=True)
class Sample:
    """One image file, as stored, with its label; `digest` is of its bytes, empty where unknown."""

    sample_id: str
    label: int
    data: bytes
    digest: bytes = b""

    def image(self) -> Image.Image:
        """Decode to RGB (see `clipnlc.datasets.images.decode`).

        Raises:
            DataError: the image is truncated or damaged; the message names the sample.
        """
        return decode(self.data, self.sample_id)


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set: labels and names in memory, images read on demand.

    Attributes:
        root: the folder or file it was opened from.
        name: `train`, `val`, `test`, another name, or `all` for a data set without splits.
        kind: `folder`, `parquet`, `saved` or `tars`.
        class_names: the words for prompts, in label order; the same for all splits.
        labels: index into `class_names`, in [0, classes); -1 in the split `unlabelled`.
        sample_id: one stable, unique name per row, independent of where the data set lies.
        content: digest of the images and their names: what image features depend on.
        fingerprint: digest of content, names, labels and class names.
        notes: what the user should be told, one line each.
        origin: of a data set from the registry, `source` (a repository and its commit, or `local`)
            and, where a difference was accepted, `accepted`; of another package's data set, `package`;
            empty for paths. It is in no digest.
        identifiers: what the source calls the classes, in label order; None for bare numbers.
        digests: of each image, where the source has them; `image_digests` always gives them.
        test_share: of a data set that was divided, the share of test (`division`).
    """

    root: Path
    name: str
    kind: str
    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, " samples"]
    sample_id: tuple[str, ...]
    content: str
    fingerprint: str
    notes: tuple[str, ...]
    images: Images
    origin: dict[str, str] = field(default_factory=dict)
    identifiers: tuple[str, ...] | None = None
    digests: UInt8[np.ndarray, "samples 16"] | None = None
    test_share: float | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.sample_id)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """Yield the samples of a row range in order, holding a few images at a time.

        Raises:
            DataError: a file has gone since the split was opened, or a row holds no image.
        """
        rows = range(len(self))[start:stop]
        found = self.images.read(rows.start, rows.stop)
        for row, data in zip(rows, found, strict=True):
            digest = digest_image(data) if self.digests is None else self.digests[row].tobytes()
            yield Sample(self.sample_id[row], int(self.labels[row]), data, digest)

    @cached_property
    def image_digests(self) -> UInt8[np.ndarray, "samples 16"]:
        """Digest of each image's bytes; images that share a file are read for it, once.

        Raises:
            DataError: as `read`.
        """
        if self.digests is not None:
            return self.digests
        read = self.images.read(0, len(self))
        return np.frombuffer(b"".join(map(digest_image, read)), np.uint8).reshape(len(self), -1)


def open_split(
    path: str | Path,
    split: str,
    *,
    class_names_file: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    hash_cache: Path | None = None,
    labels: Path | None = None,
    classes: tuple[str, ...] = (),
) -> Split:
    """Open a split of the data set at `path`.

    Args:
        path: a folder of images, parquet files or tars, a folder saved by `datasets`, or one
            parquet file or tar.
        split: `train`, `val`, `test` or an alias (`validation`, ...), or any name `splits` gives.
        class_names_file: names that replace the data set's own; see `class_names.name_classes`.
        image_column: the column with the images, where there are columns.
        label_column: the column with the labels, where there are columns.
        hash_cache: an SQLite file that remembers file hashes, so that a second call only looks at
            sizes and times.
        labels: a table of the images' labels; see `Options`.
        classes: the class names, for which a table's labels stand.

    Raises:
        DataError: what is there cannot be used; the message says what, where, and how to fix it.
    """
    root = Path(path)
    kind = kind_of(root) if labels is None else "folder"
    options = Options(image_column, label_column, hash_cache, labels=labels, classes=classes)
    rows = open_rows(root, kind, split, options)
    if classes:
        rows = _among(rows, classes, "--classes", cure="fix the label or the list", every=True)
        if rows.identifiers is None:
            rows = replace(rows, identifiers=classes)
    elif class_names_file is not None:
        rows = _among(
            rows,
            listed_classes(class_names_file),
            str(class_names_file),
            cure="fix the label or the list",
        )
    elif rows.recorded:
        rows = _among(
            rows,
            rows.recorded,
            "the draw of the command label",
            cure="fix the label, or give every class with --classes",
            every=True,
        )
    names, notes = named(rows, root, class_names_file)
    return make_split(root, kind, rows, names, notes)


def open_rows(root: Path, kind: str, split: str, options: Options) -> Rows:
    """Open a split as far as the classes are what the source calls them.

    Raises:
        DataError: what is there cannot be used, or holds no image.
    """
    rows = _KINDS[kind].open(root, split, options)
    if not rows.sample_id:
        raise DataError(f"split {rows.split!r} of {root} holds no images; choose another split")
    return rows


def named(
    rows: Rows, root: Path, class_names_file: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class names and notes, as `class_names.name_classes`; every label has a name.

    Raises:
        DataError: there are no names, or their number or their identifiers do not fit.
    """
    home = root if root.is_dir() else root.parent
    names, notes = name_classes(rows.identifiers, home, class_names_file)
    _check_range(rows, names, root, class_names_file)
    return names, notes


def make_split(
    root: Path, kind: str, rows: Rows, names: tuple[str, ...], notes: tuple[str, ...] = ()
) -> Split:
    """Put a split together once its class names are decided; `rows.labels` index into `names`.

    Raises:
        DataError: a sample or a class has a name that no store can hold.
    """
    _check_texts("class", names, root)
    _check_texts("sample", rows.sample_id, root)
    return Split(
        root=root,
        name=rows.split,
        kind=kind,
        class_names=names,
        labels=rows.labels,
        sample_id=rows.sample_id,
        content=rows.content,
        fingerprint=digest_texts(
            [rows.content, *rows.sample_id, digest_labels(rows.labels), *names]
        ),
        notes=(
            *rows.notes,
            *notes,
            *_note_alike(rows, names),
            *_note_classes(rows.split, rows.labels, names),
        ),
        images=rows.images,
        identifiers=rows.identifiers,
        digests=rows.digests,
    )


def part_of(split: Split, name: str, rows: Int64[np.ndarray, " rows"], note: str) -> Split:
    """Take some rows of a split as a split of its own; `split.images` are those of the rows alone."""
    ids = tuple(split.sample_id[row] for row in rows)
    labels, digests = split.labels[rows], split.image_digests[rows]
    content = digest_texts([*ids, digests.tobytes().hex()])
    of_whole = _note_classes(split.name, split.labels, split.class_names)
    kept = [one for one in split.notes if one not in of_whole]
    return replace(
        split,
        name=name,
        labels=labels,
        sample_id=ids,
        content=content,
        fingerprint=digest_texts([content, *ids, digest_labels(labels), *split.class_names]),
        notes=(*kept, note, *_note_classes(name, labels, split.class_names)),
        digests=digests,
    )


def splits(
    path: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    labels: Path | None = None,
) -> tuple[str, ...]:
    """Return the names of the splits at `path`: train, val, test, then others.

    Raises:
        DataError: there is no data set.
    """
    root = Path(path)
    options = Options(image_column, label_column, labels=labels)
    if labels is not None:
        listing = folder.list_images(root, options)
        rest = [UNLABELLED] if listing.unlabelled else []
        return split_names.in_order([*listing.splits, *rest])
    return split_names.in_order(_KINDS[kind_of(root)].splits(root, options))


def kind_of(root: Path) -> str:
    """Return how a data set is stored: `saved`, `parquet`, `tars` or `folder`.

    Raises:
        DataError: the path does not exist, or is a file that is neither parquet nor tar.
    """
    if root.is_file():
        kinds = {".parquet": "parquet", ".tar": "tars"}
        if root.suffix not in kinds:
            raise DataError(
                f"{root} is a file; expected a folder, a .parquet file or a .tar file in --dataset"
            )
        return kinds[root.suffix]
    if not root.is_dir():
        raise DataError(f"{root} does not exist; give an existing folder or file in --dataset")
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return "saved"
    for suffix, kind in ((".parquet", "parquet"), (".tar", "tars")):
        if split_names.list_files(root, suffix):
            return kind
    return "folder"


@dataclass(frozen=True)
class _Kind:
    open: Callable[[Path, str, Options], Rows]
    splits: Callable[[Path, Options], Iterable[str]]


_KINDS = {
    "folder": _Kind(
        folder.open_folder, lambda root, options: folder.list_images(root, options).splits
    ),
    "parquet": _Kind(
        parquet.open_parquet, lambda root, _: split_names.list_files(root, ".parquet")
    ),
    "saved": _Kind(saved.open_saved, lambda root, _: saved.saved_splits(root)),
    "tars": _Kind(tars.open_tars, lambda root, _: split_names.list_files(root, ".tar")),
}


def _among(
    rows: Rows, given: tuple[str, ...], file: str, *, cure: str, every: bool = False
) -> Rows:
    """Match the labels of a table with a list of class names, which may have more classes.

    A list that has none of them names them in their order, unless it is to have `every` one.

    Raises:
        DataError: a label is not on the list; with the table's line.
    """
    if rows.identifiers is None or not rows.places:
        return rows
    number = {folded(name): label for label, name in enumerate(given)}
    unknown = [name for name in rows.identifiers if folded(name) not in number]
    if unknown and (every or len(unknown) < len(rows.identifiers)):
        raise DataError(
            f"{rows.places[unknown[0]]}: {unknown[0]!r} is no class of {file} ({some(given)}); {cure}"
        )
    if unknown or len(number) < len(given):
        return rows
    to = np.array([number[folded(name)] for name in rows.identifiers], dtype=np.int64)
    labels = np.where(rows.labels == NO_LABEL, NO_LABEL, to[rows.labels])
    return replace(rows, labels=labels, identifiers=given)


def _check_texts(what: str, texts: tuple[str, ...], root: Path) -> None:
    """Refuse what HDF5 cannot hold: a NUL, and half a character."""
    if is_storable("".join(texts)):  # one look at all: there may be millions
        return
    number, text = next((n, t) for n, t in enumerate(texts) if not is_storable(t))
    raise DataError(
        f"{what} {number} of {root} is called {text[:_LONGEST]!a}, which has a NUL or is no Unicode; rename it"
    )


def is_storable(text: str) -> bool:
    """Return whether a text has neither a NUL nor half a character.

    >>> is_storable("Käfer"), is_storable("a" + chr(0)), is_storable(chr(0xD800))
    (True, False, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return chr(0) not in text


def _check_range(rows: Rows, names: tuple[str, ...], root: Path, file: Path | None) -> None:
    row = int(rows.labels.argmax())
    if rows.labels[row] >= len(names):
        where = rows.places.get(
            str(rows.labels[row]), f"row {row} ({shown(rows.sample_id[row])}) of {root}"
        )
        raise DataError(
            f"{where} has label {rows.labels[row]}, but {file or 'the list beside the data'} has {count(len(names), 'class name')}; give one a line, in label order, with --class-names FILE"
        )


def _note_classes(
    split: str, labels: Int64[np.ndarray, " samples"], names: tuple[str, ...]
) -> tuple[str, ...]:
    present = np.bincount(labels[labels != NO_LABEL], minlength=len(names)) > 0
    absent = [quoted(names[i]) for i in np.flatnonzero(~present)] if split != UNLABELLED else []
    notes = []
    if absent:
        notes.append(
            f"split {split} has no image of {len(absent)} of {count(len(names), 'class')}: {some(absent)}"
        )
    if len(names) == 1:
        notes.append(f"there is only one class, {quoted(names[0])}: every prediction is right")
    return tuple(notes)


def _note_alike(rows: Rows, names: tuple[str, ...]) -> tuple[str, ...]:
    """Say which classes no prompt tells apart: of a table of labels they may be one class."""
    alike: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        plain = unicodedata.normalize("NFKC", name).casefold().replace("_", " ")
        alike.setdefault(" ".join(plain.split()), []).append(label)
    same = [
        " and ".join(f"{quoted(names[label])} (label {label})" for label in group)
        for group in alike.values()
        if len(group) > 1
    ]
    if not same:
        return ()
    said = f"classes {some(same)} differ in case, white space or Unicode form at most"
    if not rows.places:
        cure = (
            "which a prompt hardly tells apart; give each a name of its own with --class-names FILE"
        )
        return (f"{said}, {cure}",)
    merged = classes_option([names[group[-1]] for group in alike.values()])
    cure = f"write them alike in the table of labels, or give {merged} with --labels"
    return (f"{said}: if they are one class, {cure}",)
