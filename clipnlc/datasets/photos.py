"""Photos that belong to no data set: files, folders, globs, or a list of paths, found lazily."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from clipnlc.datasets.tree import image_suffixes, images_below

LIST: Final = "-"
"""In place of a path: the paths that a list names."""


def list_photos(places: Sequence[str], listed: Iterable[bytes] = ()) -> Iterator[Path]:
    """Yield photos as they are found.

    A file is taken whatever it is called. Of a folder, and of what a glob matches, images are taken
    by their suffix: of a folder all below it, sorted in each folder. What does not exist or cannot
    be listed is yielded as it is, so that whoever opens it says why it cannot be read.

    Args:
        places: files, folders, globs (where no such file exists), or `LIST`.
        listed: lines, each with a path, that `LIST` stands for; blank lines are left out.
    """
    for place in places:
        if place == LIST:
            for line in listed:
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    yield from _below(Path(name))
            continue
        path = Path(place).expanduser()
        if os.path.lexists(path) or not glob.has_magic(str(path)):
            yield from _below(path)
        else:
            yield from _matching(str(path))


def _below(path: Path) -> Iterator[Path]:
    """Yield a file, or the images below a folder."""
    if not path.is_dir():
        yield path
        return
    unlisted: list[OSError] = []
    for name in images_below(path, unlisted=unlisted.append):
        yield path / name
    yield from (Path(error.filename) for error in unlisted)


def _matching(pattern: str) -> Iterator[Path]:
    found = sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207  (patterns may be absolute)
    if not found:
        yield Path(pattern)
    for name in found:
        if Path(name).suffix.lower() in image_suffixes() and not Path(name).is_dir():
            yield Path(name)
        elif "**" not in pattern and Path(name).is_dir():  # else its files match by themselves
            yield from _below(Path(name))
