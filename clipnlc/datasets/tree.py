"""Folders and the image files in them, without opening any."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from PIL import features

from clipnlc.datasets.splits import is_folder
from clipnlc.errors import DataError

TABLES: Final = frozenset((".csv", ".tsv", ".jsonl"))
"""Suffixes of files that may list images with their labels."""

_ALWAYS: Final = (
    ".apng .bmp .dib .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff".split()  # noqa: SIM905
)
_WITH_PLUGIN: Final = {".avif": "avif", ".j2k": "jpg_2000", ".jp2": "jpg_2000", ".webp": "webp"}
_NEVER: Final = (
    ".arw .cr2 .cr3 .dcm .dng .exr .heic .heif .hif .jxl .nef .orf .psd .raf .rw2 .svg".split()  # noqa: SIM905
)


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files that this Pillow reads."""
    known = {*features.modules, *features.codecs}  # an older Pillow warns of what it does not know
    there = {s for s, name in _WITH_PLUGIN.items() if name in known and features.check(name)}
    return frozenset(_ALWAYS) | there


@cache
def unreadable_suffixes() -> frozenset[str]:
    """Return the suffixes of image files that are not read: HEIC, raw, what lacks its plugin."""
    return frozenset((*_NEVER, *_WITH_PLUGIN)) - image_suffixes()


@dataclass(frozen=True, eq=False)
class Folder:
    """One folder, with what lies in it.

    Attributes:
        path: posix, relative to the root; "" for the root itself.
        images: names of its image files, sorted.
        kinds: how many other files it has, by suffix; hidden files and folders are `hidden`.
        tables: names of the files that may list images and labels.
        folders: its folders, sorted by name, without hidden ones.
    """

    path: str
    images: tuple[str, ...]
    kinds: Counter[str]
    tables: tuple[str, ...]
    folders: tuple["Folder", ...]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @cached_property
    def total(self) -> int:
        """Number of images in it and below."""
        return len(self.images) + sum(folder.total for folder in self.folders)

    @cached_property
    def filled(self) -> tuple["Folder", ...]:
        """Its folders with images in or below them."""
        return tuple(folder for folder in self.folders if folder.total)

    def below(self) -> Iterator["Folder"]:
        """Yield it and every folder below."""
        yield self
        for folder in self.folders:
            yield from folder.below()

    def files(self) -> list[str]:
        """List the images in it and below, relative to the root."""
        return [
            f"{folder.path}/{name}" if folder.path else name
            for folder in self.below()
            for name in folder.images
        ]

    def kinds_below(self) -> Counter[str]:
        """Count the files in it and below that are no images."""
        return sum((folder.kinds for folder in self.below()), Counter())


def read_tree(root: Path) -> Folder:
    """Read a folder and all below it.

    Raises:
        DataError: a folder cannot be listed.
    """
    suffixes = image_suffixes()

    def visit(folder: Path, path: str, above: frozenset[tuple[int, int]]) -> Folder:
        images, tables, folders = [], [], []
        kinds: Counter[str] = Counter()
        here, entries = _list(folder, above)
        for name, has_more in entries:
            if _is_hidden(name):
                kinds["hidden"] += 1
            elif has_more:
                folders.append(visit(folder / name, f"{path}/{name}" if path else name, here))
            elif (suffix := os.path.splitext(name)[1].lower()) in suffixes:  # noqa: PTH122
                images.append(name)
            else:
                kinds[suffix or name] += 1
                if suffix in TABLES:
                    tables.append(name)
        return Folder(path, tuple(images), kinds, tuple(tables), tuple(folders))

    try:
        return visit(root, "", frozenset())
    except OSError as error:
        raise DataError(
            f"cannot list {error.filename}: {error.strerror}; fix its permissions or give another --dataset"
        ) from error


def images_below(root: Path, *, unlisted: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """Yield the image files below `root` (posix, relative), sorted in each folder, as they are found.

    Args:
        root: the folder.
        unlisted: called where a folder cannot be listed, which is then left out.

    Raises:
        OSError: a folder cannot be listed, and there is no `unlisted`.
    """
    suffixes = image_suffixes()

    def visit(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        try:
            here, entries = _list(folder, above)
        except OSError as error:
            if unlisted is None:
                raise
            unlisted(error)
            return
        for name, has_more in entries:
            if _is_hidden(name):
                continue
            if has_more:
                yield from visit(folder / name, f"{prefix}{name}/", here)
            elif os.path.splitext(name)[1].lower() in suffixes:  # noqa: PTH122
                yield prefix + name

    yield from visit(root, "", frozenset())


def _list(
    folder: Path, above: frozenset[tuple[int, int]]
) -> tuple[frozenset[tuple[int, int]], list[tuple[str, bool]]]:
    """Return the folders now above, and the sorted entries; none of a link to a folder above it."""
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return above, []
    with os.scandir(folder) as found:
        return above | {here}, sorted((entry.name, is_folder(entry)) for entry in found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # what macOS adds to its archives
