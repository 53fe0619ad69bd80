"""Image folders: which files are images of which class and split.

Files are listed here and not by the `imagefolder` builder of `datasets`, which mixes up splits
when a class is called `train` or `test_tube`, drops the labels when there is one class or when
folders differ in depth, and numbers the classes of each split by itself. `layouts` says which
folders are splits and classes, `listed` reads labels from tables.
"""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import splitext

import numpy as np

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.drawn import find_draw
from clipnlc.datasets.fingerprints import digest_texts, hash_files, image_digests
from clipnlc.datasets.images import LARGEST_FILE
from clipnlc.datasets.label_names import class_counts, near_names
from clipnlc.datasets.layouts import EXPECTED, LayoutError, find_layout
from clipnlc.datasets.listed import (
    Labels,
    label_by_both,
    label_by_tables,
    read_labels,
    read_lists,
)
from clipnlc.datasets.rows import Options, Rows
from clipnlc.datasets.tree import Folder, image_suffixes, read_tree, unreadable_suffixes
from clipnlc.errors import DataError
from clipnlc.files import read_regular
from clipnlc.labels import NO_LABEL, UNLABELLED
from clipnlc.wording import count, some


@dataclass(frozen=True)
class ImageFiles:
    """The images of a folder's split, read one by one."""

    root: Path
    files: tuple[str, ...]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of the files `start` to `stop`."""
        for name in self.files[start:stop]:
            try:
                yield read_regular(self.root / name, at_most=LARGEST_FILE)
            except OSError as error:
                raise DataError(
                    f"cannot read {self.root / name}: {error.strerror}; restore the file or remove it"
                ) from error


def list_images(root: Path, options: Options) -> Labels:
    """List the images below `root` by split and class, without opening any.

    Raises:
        DataError: there is no image, or nothing says for certain which classes they are of.
    """
    tree = read_tree(root)
    if not tree.total:
        raise DataError(_no_images(tree, root))
    if options.labels is not None:
        return _label_by_file(tree, root, options.labels, options)
    lists = read_lists(
        tree, root, image_column=options.image_column, label_column=options.label_column
    )
    bare: Mapping[str, Folder] = {}
    try:
        layout = find_layout(tree, root)
    except LayoutError as error:
        if not lists.rows:
            raise DataError(
                "; ".join((str(error), *lists.problems[:1], *lists.lost[:1]))
            ) from error
        labels = label_by_tables(lists)
    else:
        labels = label_by_both(layout.files(), lists)
        labels = replace(labels, notes=(*layout.notes, *labels.notes))
        bare = layout.bare
    used = sum(len(files) for classes in labels.splits.values() for files in classes.values())
    notes = [*_ignored(tree, labels.tables), *labels.notes]
    notes += [
        f"split folder {folder.path} has no class folders: its {count(folder.total, 'image')} without labels left out"
        for split, folder in bare.items()
        if split not in labels.splits
    ]
    if left := tree.total - used:
        verb = "was" if left == 1 else "were"
        where = "that no table gives a label" if labels.places else "outside any class folder"
        notes.append(f"{count(left, 'image')} {where} {verb} left out")
    return replace(labels, notes=tuple(notes))


def _label_by_file(tree: Folder, root: Path, file: Path, options: Options) -> Labels:
    """List images by one table of labels; all others of the folder have none.

    Raises:
        DataError: a row cannot be used; with the line.
    """
    lists = read_labels(
        tree, root, file, image_column=options.image_column, label_column=options.label_column
    )
    if not lists.rows and not lists.lost:
        raise DataError(f"{file} has no row with a label; label some images first")
    labels = label_by_tables(lists)
    splits = {
        split_names.TRAIN if split == split_names.WHOLE else split: classes
        for split, classes in labels.splits.items()
    }
    used = {name for classes in splits.values() for names in classes.values() for name in names}
    rest = tuple(name for name in tree.files() if name not in used)
    if UNLABELLED in splits:
        raise DataError(
            f"{file} names a split {UNLABELLED!r}, which is that of images without labels; name "
            "another split, or leave their labels blank"
        )
    counts: Counter[str] = Counter()
    for classes in splits.values():
        counts.update({name: len(files) for name, files in classes.items()})
    said, *more = labels.notes
    notes = [*_ignored(tree, labels.tables), f"{said}: {class_counts(counts)}", *more]
    draw = find_draw(file, tree.files())
    if not (options.classes or (draw and draw.classes) or labels.numbers):
        notes += near_names(counts)
    return replace(labels, splits=splits, notes=tuple(notes), unlabelled=rest, draw=draw)


def open_folder(root: Path, split: str, options: Options) -> Rows:
    """Open a split of an image folder; classes are numbered over all split folders together.

    Raises:
        DataError: as `list_images`; no such split; names that cannot be stored.
    """
    listing = list_images(root, options)
    there = {**listing.splits, **({UNLABELLED: {}} if listing.unlabelled else {})}
    name, classes = split_names.pick(there, split, root)
    identifiers = sort_classes({c for group in listing.splits.values() for c in group})
    label = {c: int(c) if listing.numbers else i for i, c in enumerate(identifiers)}
    rows = [(_nfc(file), label[c], file) for c, group in classes.items() for file in group]
    if name == UNLABELLED:
        rows = [(_nfc(file), NO_LABEL, file) for file in listing.unlabelled]
    rows.sort()
    sample_id = tuple(row[0] for row in rows)
    _check_ids(root, sample_id)
    files = tuple(row[2] for row in rows)
    hashes = hash_files(root, files, options.hash_cache)
    return Rows(
        split=name,
        labels=np.array([row[1] for row in rows], dtype=np.int64),
        identifiers=None if listing.numbers else identifiers,
        sample_id=sample_id,
        images=ImageFiles(root, files),
        content=digest_texts([*sample_id, *hashes]),
        notes=listing.notes,
        places=listing.places,
        recorded=listing.draw.classes if listing.draw else (),
        digests=image_digests(hashes),
    )


def sort_classes(classes: set[str]) -> tuple[str, ...]:
    """Sort class folders by name, or by value when all are numbers.

    >>> sort_classes({"10", "2", "0"}), sort_classes({"dog", "Cat"})
    (('0', '2', '10'), ('Cat', 'dog'))
    """
    if all(c.isdecimal() for c in classes):
        return tuple(sorted(classes, key=lambda c: (int(c), c)))
    return tuple(sorted(classes))


def _no_images(tree: Folder, root: Path) -> str:
    """Say what lies there instead of images."""
    held = tree.kinds_below()
    if unread := sorted(unreadable_suffixes() & held.keys()):
        return f"no image that can be read in {root}, but {_kinds(held, unread)}; convert them to .jpg or .png"
    if packed := sorted({".zip", ".gz", ".tgz", ".7z", ".rar"} & held.keys()):
        return f"no images in {root}, but {_kinds(held, packed)}; unpack them"
    seen = [f"{folder.name}/" for folder in tree.folders]
    seen += [f"{number} {kind}" for kind, number in sorted(held.items())]
    return f"no images in {root}; expected {EXPECTED} ({' '.join(sorted(image_suffixes()))}), parquet files, tars, or a folder saved by datasets, but it holds {some(seen) or 'nothing'}"


def _ignored(tree: Folder, used: Sequence[str]) -> list[str]:
    """Say which files are no images, and which are but cannot be read; not which were used."""
    held = tree.kinds_below() - Counter(splitext(name)[1].lower() for name in used)
    if not held:
        return []
    unread = sorted(unreadable_suffixes() & held.keys())
    others = sorted(held.keys() - set(unread))
    notes = []
    if unread:
        notes.append(
            f"{count(sum(held[k] for k in unread), 'image')} of a kind that cannot be read left out ({_kinds(held, unread)}): convert to .jpg or .png"
        )
    if total := sum(held[kind] for kind in others):
        what = (
            "1 file that is no image was"
            if total == 1
            else f"{total} files that are not images were"
        )
        notes.append(f"{what} ignored ({_kinds(held, others)})")
    return notes


def _kinds(held: Counter[str], kinds: Sequence[str]) -> str:
    return ", ".join(f"{held[kind]} {kind}" for kind in kinds)


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
