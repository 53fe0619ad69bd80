"""Finds the image files that tables of labels name."""

import unicodedata
from pathlib import Path
from posixpath import normpath, splitext

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.tree import Folder, image_suffixes


def seen_from(name: str, table: Path, images: Path) -> str:
    """Return where a path leads below the folder of images; as it is where that is elsewhere.

    Args:
        name: absolute, or as seen from the table's folder or the current one.
        table: the table's folder.
        images: the folder of images.
    """
    for start in (table, Path()):
        path = (start / name).resolve()
        if path.is_relative_to(images.resolve()) and path.is_file():
            return path.relative_to(images.resolve()).as_posix()
    return name


class Finder:
    """Finds image files by what tables call them."""

    def __init__(self, tree: Folder) -> None:
        self._files: dict[str, str] = {}  # normalised -> as it is on disk
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._tree = tree

    def find(self, name: str, folder: str, split: str | None) -> list[str]:
        """Return the images that a name may mean: one where it is certain, none where unknown.

        Args:
            name: a path, from the table's folder or a folder above it, or the end of a path; without
                the image's suffix where it has none.
            folder: the table's.
            split: of the row: decides between images that are called alike.
        """
        if not self._files:
            self._index()
        name = normpath(nfc(name).replace("\\", "/")).lstrip("/") if name else ""
        if not name:
            return []
        above = folder
        while True:
            path = normpath(f"{above}/{name}") if above else name
            if path in self._files:
                return [self._files[path]]
            if not above:
                break
            above = above.rpartition("/")[0]
        last = name.rpartition("/")[2]
        found = [f for f in self._by_name.get(last, ()) if f.endswith(f"/{name}")]
        if not found and splitext(name)[1].lower() not in image_suffixes():
            found = [
                f
                for f in self._by_stem.get(last, ())
                if splitext(f)[0] == name or splitext(f)[0].endswith(f"/{name}")
            ]
        if len(found) > 1 and split is not None:
            found = [f for f in found if split_of(f) == split] or found
        return [self._files[f] for f in found]

    def _index(self) -> None:
        for file in self._tree.files():
            path = nfc(file)
            self._files[path] = file
            last = path.rpartition("/")[2]
            self._by_name.setdefault(last, []).append(path)
            self._by_stem.setdefault(splitext(last)[0], []).append(path)


def split_of(file: str) -> str | None:
    """Return the split that one of a path's folders is called after."""
    for folder in file.split("/")[:-1]:
        if split_names.is_alias(folder):
            return split_names.canonical(folder)
    return None


def nfc(text: str) -> str:
    """Return a text with its accents composed, so that equal names are equal texts."""
    return unicodedata.normalize("NFC", text)
