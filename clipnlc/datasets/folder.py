"""Image folders: `root/split/class/**/image`, or `root/class/**/image` as one unnamed split.

Files are listed here and not by the `imagefolder` builder of `datasets`, which mixes up splits
when a class is called `train` or `test_tube`, drops the labels when there is one class or when
folders differ in depth, and numbers the classes of each split by itself.
"""

import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.fingerprints import digest_texts, hash_files
from clipnlc.datasets.images import read_image_file
from clipnlc.datasets.rows import Options, Rows
from clipnlc.errors import DataError

IMAGE_SUFFIXES = frozenset(
    ".bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class ImageFiles:
    """The images of a folder's split, read one by one."""

    root: Path
    files: tuple[str, ...]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of the files `start` to `stop`."""
        for name in self.files[start:stop]:
            try:
                yield read_image_file(self.root / name)
            except OSError as error:
                raise DataError(
                    f"cannot read {self.root / name}: {error.strerror}; restore the file or remove it"
                ) from error


@dataclass(frozen=True)
class Listing:
    """All images below a root: split -> class -> paths relative to the root."""

    splits: dict[str, dict[str, list[str]]]
    notes: tuple[str, ...]


def list_images(root: Path) -> Listing:
    """List the images below `root` by split and class, without opening any.

    Raises:
        DataError: there is no image, or the layout is neither of the two.
    """
    files, ignored = _walk(root)
    notes = _note_ignored(ignored)
    if not files:
        raise DataError(
            f"no images in {root}; expected split/class/image or class/image ({' '.join(sorted(IMAGE_SUFFIXES))}), parquet files, tars, or a folder saved by datasets"
        )
    parts = [tuple(name.split("/")) for name in files]
    top = {p[0] for p in parts if len(p) > 1}
    direct = {p[0] for p in parts if len(p) == 2}  # noqa: PLR2004  (folder/image)
    deep = {p[0] for p in parts if len(p) > 2}  # noqa: PLR2004  (folder/folder/.../image)
    # A class may be called `train`, so a folder is a split only when it holds class folders.
    split_folders = {t for t in top & deep if split_names.is_alias(t)}
    if top and top <= direct - deep and all(split_names.is_alias(t) for t in top):
        raise DataError(
            f"images lie directly in the split folder {root / min(top)}; expected {min(top)}/CLASS/image"
        )
    if split_folders and not all(split_names.is_alias(t) for t in top):
        others = ", ".join(sorted(top - split_folders)[:3])
        raise DataError(
            f"{root} has both split folders ({', '.join(sorted(split_folders))}) and others ({others}); keep one kind side by side: train, val, test, or classes"
        )
    depth = 1 if split_folders else 0
    labelled = [(name, p) for name, p in zip(files, parts, strict=True) if len(p) > depth + 1]
    if strays := len(files) - len(labelled):
        notes += (f"{strays} images outside any class folder were left out",)
    if not labelled:
        raise DataError(
            f"the {strays} images of {root} lie in no class folder; expected split/class/image or class/image"
        )
    words = ((p[0] if split_folders else split_names.WHOLE, (name, p)) for name, p in labelled)
    grouped: dict[str, dict[str, list[str]]] = {}
    for split, members in split_names.gather(words, root).items():
        classes = grouped.setdefault(split, {})
        for name, p in members:
            classes.setdefault(_nfc(p[depth]), []).append(name)
    return Listing(grouped, notes)


def open_folder(root: Path, split: str, options: Options) -> Rows:
    """Open a split of an image folder; classes are numbered over all split folders together.

    Raises:
        DataError: as `list_images`; no such split; names that cannot be stored.
    """
    listing = list_images(root)
    name, classes = split_names.pick(listing.splits, split, root)
    identifiers = sort_classes({c for group in listing.splits.values() for c in group})
    label = {c: i for i, c in enumerate(identifiers)}
    rows = sorted((_nfc(file), label[c], file) for c, group in classes.items() for file in group)
    sample_id = tuple(row[0] for row in rows)
    _check_ids(root, sample_id)
    files = tuple(row[2] for row in rows)
    return Rows(
        split=name,
        labels=np.array([row[1] for row in rows], dtype=np.int64),
        identifiers=identifiers,
        sample_id=sample_id,
        images=ImageFiles(root, files),
        content=digest_texts([*sample_id, *hash_files(root, files, options.hash_cache)]),
        notes=listing.notes,
    )


def sort_classes(classes: set[str]) -> tuple[str, ...]:
    """Sort class folders by name, or by value when all are numbers.

    >>> sort_classes({"10", "2", "0"}), sort_classes({"dog", "Cat"})
    (('0', '2', '10'), ('Cat', 'dog'))
    """
    if all(c.isdecimal() for c in classes):
        return tuple(sorted(classes, key=lambda c: (int(c), c)))
    return tuple(sorted(classes))


def walk(
    root: Path, *, unlisted: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the files below `root` (posix, relative), sorted within each folder, as they are found.

    Args:
        root: the folder.
        unlisted: called where a folder cannot be listed, which is then left out.

    Yields:
        The name and "" for an image; the name and its kind for anything else.

    Raises:
        OSError: a folder cannot be listed, and there is no `unlisted`.
    """

    def visit(
        folder: Path, prefix: str, above: frozenset[tuple[int, int]]
    ) -> Iterator[tuple[str, str]]:
        try:
            stat = folder.stat()
            here = (stat.st_dev, stat.st_ino)
            if here in above:  # a link to a folder above it
                return
            with os.scandir(folder) as found:
                entries = sorted((entry.name, split_names.is_folder(entry)) for entry in found)
        except OSError as error:
            if unlisted is None:
                raise
            unlisted(error)
            return
        for name, is_folder in entries:
            if name.startswith("."):
                yield prefix + name, "hidden"
            elif is_folder:
                yield from visit(folder / name, f"{prefix}{name}/", above | {here})
            elif (suffix := Path(name).suffix.lower()) in IMAGE_SUFFIXES:
                yield prefix + name, ""
            else:
                yield prefix + name, suffix or name

    yield from visit(root, "", frozenset())


def _walk(root: Path) -> tuple[list[str], Counter[str]]:
    """Return the image files below `root` (posix, relative), and what else lies there."""
    files: list[str] = []
    ignored: Counter[str] = Counter()
    try:
        for name, kind in walk(root):
            if kind:
                ignored[kind] += 1
            else:
                files.append(name)
    except OSError as error:
        raise DataError(
            f"cannot list {error.filename}: {error.strerror}; fix its permissions or give another --dataset"
        ) from error
    return files, ignored


def _note_ignored(ignored: Counter[str]) -> tuple[str, ...]:
    if not ignored:
        return ()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))
    return (f"{ignored.total()} files that are not images were ignored ({kinds})",)


def _check_ids(root: Path, sample_id: Sequence[str]) -> None:
    for one, two in itertools.pairwise(sample_id):
        if one == two:
            raise DataError(
                f"two files of {root} are both called {one} once Unicode is normalised; rename one"
            )
    for name in sample_id:
        if not name.isprintable():
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"a file name below {root} is not valid UTF-8: {name!a}; rename it"
                ) from error


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
