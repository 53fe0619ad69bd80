"""Which folders of an image folder are splits and which are classes.

Read is what can mean one thing only; all else is refused with what was seen:

- `split/class/**/image` and `class/**/image`; `class/split/image`;
- any of them below folders that hold nothing else (an archive unpacked into a folder);
- split folders under the words of `clipnlc.datasets.splits`.

Images of one class may lie in folders below it. That is certain where the class folder holds
images itself, or holds a single folder. A folder without images of its own but with several
folders of images may be a class with its parts as well as a group of classes: refused.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clipnlc.datasets.splits import FILLERS, WHOLE, is_alias, split_words, words
from clipnlc.datasets.tree import Folder, unreadable_suffixes
from clipnlc.errors import DataError
from clipnlc.wording import count, some

EXPECTED: Final = (
    "split/class/image, class/image, class/split/image, or a CSV of the images and their labels"
)

_PLAIN: Final = frozenset("images img imgs jpeg jpegs jpg jpgs png pngs".split())  # noqa: SIM905
_USUAL: Final = frozenset("train training val validation valid dev test testing".split())  # noqa: SIM905


class LayoutError(DataError):
    """The folders do not say for certain which are the classes."""


@dataclass(frozen=True)
class Layout:
    """The class folders of each split.

    Attributes:
        splits: split -> class -> its folders; a class is called as its folder, in Unicode's NFC.
        bare: split -> its folder, where that holds images but no class folders.
        notes: what was read in which way, and what was left out.
    """

    splits: dict[str, dict[str, list[Folder]]]
    notes: tuple[str, ...]
    bare: Mapping[str, Folder] = field(default_factory=dict)

    def files(self) -> dict[str, dict[str, list[str]]]:
        """List the images of each split and class, relative to the root."""
        return {
            split: {
                name: [file for folder in folders for file in folder.files()]
                for name, folders in classes.items()
            }
            for split, classes in self.splits.items()
        }


def find_layout(tree: Folder, root: Path) -> Layout:
    """Tell splits and classes apart.

    Raises:
        LayoutError: there are no class folders, or they could be read in two ways.
    """
    base, notes = _unwrap(tree)
    filled = base.filled
    here = root / base.path
    if not filled:
        raise LayoutError(
            f"the {count(tree.total, 'image')} of {here} lie in no class folder ({some(base.images)}); expected {EXPECTED}"
        )
    splits = split_words([folder.name for folder in filled])
    deep = {folder.name for folder in filled if folder.filled}
    if len(splits) == len(filled):
        if not deep:
            first = filled[0]
            raise LayoutError(
                f"images lie directly in the split folder {root / first.path} ({some(first.images)}); expected {first.name}/CLASS/image, or a CSV of the images and their labels"
            )
        return _by_split(base, splits, root, notes)
    if mixed := deep & set(splits):
        others = some(folder.name for folder in filled if folder.name not in splits)
        raise LayoutError(
            f"{here} has both split folders ({', '.join(sorted(mixed))}) and others ({others}); keep one kind side by side: train, val, test, or classes"
        )
    if found := _by_class(filled, root):
        example = found["train" if "train" in found else next(iter(found))]
        shown = next(iter(example.values()))[0].path
        said = f"folders were read as class/split/image ({shown})"
        return Layout(found, (*notes, said, *_lacking(base)))
    if len(filled) == 1:
        raise LayoutError(
            f"all images of {here} lie in one folder ({filled[0].name}), which says nothing of their classes{_besides(base)}; expected {EXPECTED}"
        )
    classes = _named({WHOLE: filled}, root, notes)
    return Layout({WHOLE: classes[WHOLE]}, (*notes, *_lacking(base)))


def class_name(folder: str) -> str:
    """Return a folder's name as a class is called, in Unicode's NFC."""
    return unicodedata.normalize("NFC", folder)


def _unwrap(tree: Folder) -> tuple[Folder, list[str]]:
    """Go down to the folder that holds the data set, where the ones above hold nothing else."""
    base = tree
    while len(base.filled) == 1:
        (only,) = base.filled
        below = [folder.name for folder in only.filled]
        splits = len(below) > 1 and len(split_words(below)) == len(below)
        around = splits and any(folder.filled for folder in only.filled)
        # Several folders below the only one: that is no class, which would have images or others
        # beside it.
        alone = is_alias(only.name) or only.images or not only.filled or _may_be_classes(base)
        if not around and alone:
            break
        base = only
    return base, [f"the data set was read below {base.path}/"] if base.path else []


def _may_be_classes(base: Folder) -> list[str]:
    """Name the folders without images that may be classes: empty, or of images not read."""
    return [
        folder.name
        for folder in base.folders
        if not folder.total
        and (not folder.kinds_below() or unreadable_suffixes() & folder.kinds_below().keys())
    ]


def _besides(base: Folder) -> str:
    others = _lacking(base)
    return f"; {others[0]}" if others else ""


def _by_split(base: Folder, splits: Mapping[str, str], root: Path, notes: list[str]) -> Layout:
    """Read split/class/image."""
    folders: dict[str, Folder] = {}
    for folder in base.filled:
        split = splits[folder.name]
        if split in folders:
            raise DataError(
                f"{root / base.path} has both {folders[split].name!r} and {folder.name!r}, which are one split; merge or rename one"
            )
        folders[split] = folder
    odd = [f"{f.name} as {s}" for s, f in folders.items() if f.name.casefold() not in _USUAL]
    if odd:
        notes.append(f"split folders were read so: {', '.join(odd)}")
    for split, folder in folders.items():
        inner = _inside(folder)
        if inner is not folder:
            notes.append(f"split {split} was read below {inner.path}/")
            folders[split] = inner
    notes += [note for folder in folders.values() for note in _lacking(folder)]
    empty = [f.name for f in base.folders if not f.total and is_alias(f.name)]
    if empty:
        notes.append(f"split folders without an image that can be read: {some(empty)}")
    classes = _named({s: f.filled for s, f in folders.items() if f.filled}, root, notes)
    return Layout(classes, tuple(notes), {s: f for s, f in folders.items() if not f.filled})


def _inside(folder: Folder) -> Folder:
    """Return the folder that holds a split's classes: `train/train/cat`, `train/images/cat`."""
    while len(folder.filled) == 1 and not folder.images:
        (only,) = folder.filled
        around = (
            _says_nothing(only.name)
            or is_alias(only.name)
            or only.name.casefold() == folder.name.casefold()
        )
        if not (around and only.filled) or only.images:
            break
        folder = only
    return folder


def _by_class(filled: Sequence[Folder], root: Path) -> dict[str, dict[str, list[Folder]]]:
    """Read class/split/image; empty where the folders in the classes are not all splits.

    Raises:
        LayoutError: they are, but there are more folders below them.
    """
    inner = [part for folder in filled for part in folder.filled]
    splits = split_words(sorted({part.name for part in inner}))
    if not inner or any(f.images or not f.filled for f in filled):
        return {}
    if any(part.name not in splits for part in inner):
        return {}
    if deeper := next((part for part in inner if part.filled), None):
        raise LayoutError(
            f"{root / deeper.path} is a split folder with more folders in it ({some(f.name for f in deeper.filled)}); expected {EXPECTED}: give one of the folders ({some(str(root / f.path) for f in filled)})"
        )
    found: dict[str, dict[str, list[Folder]]] = {}
    for folder in filled:
        for part in folder.filled:
            classes = found.setdefault(splits[part.name], {})
            same = classes.setdefault(class_name(folder.name), [])
            if same:
                raise DataError(
                    f"{root / folder.path} has both {same[0].name!r} and {part.name!r}, which are one split; merge or rename one"
                )
            same.append(part)
    return found


def _named(
    splits: Mapping[str, Sequence[Folder]], root: Path, notes: list[str]
) -> dict[str, dict[str, list[Folder]]]:
    """Take the folders of each split as classes.

    Raises:
        LayoutError: a name is not that of a class, or there are two levels of classes.
    """
    classes: dict[str, dict[str, list[Folder]]] = {}
    for split, folders in splits.items():
        by_name = classes.setdefault(split, {})
        for folder in folders:
            by_name.setdefault(class_name(folder.name), []).append(folder)
        notes += [
            f"{count(len(same), 'folder')} differ in Unicode form only and were read as one class: {some(f.path for f in same)}"
            for same in by_name.values()
            if len(same) > 1
        ]
    merged: dict[str, list[Folder]] = {}
    for by_name in classes.values():
        for name, folders in by_name.items():
            merged.setdefault(name, []).extend(folders)
    several = {name for by_name in classes.values() if len(by_name) > 1 for name in by_name}
    for name, folders in merged.items():
        alone = name not in several
        if _says_images(name) or (alone and (_says_nothing(name) or is_alias(name))):
            raise LayoutError(
                f"{root / folders[0].path} holds {count(folders[0].total, 'image')} but is not called like a class; expected {EXPECTED}: add their labels, or take the folder away"
            )
    _check_levels(merged, root)
    nested = [part.path for folders in merged.values() for f in folders for part in f.filled]
    if nested:
        notes.append(f"images in folders below a class were read as of that class: {some(nested)}")
    return classes


def _check_levels(classes: Mapping[str, Sequence[Folder]], root: Path) -> None:
    """Refuse two levels of classes.

    A class folder that holds images itself is a class, whatever lies below it. One without images
    of its own is a class for certain only if all below is in one folder, and that folder's name
    does not say more than the class: `dog/images`, `dog/dog`, or the same word in every class.
    """
    inner: dict[str, list[Folder]] = {}
    for name, folders in classes.items():
        level = list(folders)
        while not any(folder.images for folder in level):
            level = [part for folder in level for part in folder.filled]
            inner.setdefault(name, level)
            if len({part.name for part in level}) > 1:
                raise LayoutError(_two_levels(inner, root))
    parts = {name: [p for f in folders for p in f.filled] for name, folders in classes.items()}
    if any(is_alias(part.name) for level in parts.values() for part in level):
        raise LayoutError(_two_levels(parts, root))
    if len(inner) < max(len(classes), 2):
        return
    # Every class has a single folder: `animals/cat` beside `plants/oak` may be meant as cat, oak.
    names = {level[0].name for level in inner.values()}
    telling = [
        name
        for name, level in inner.items()
        if not _says_nothing(level[0].name) and class_name(level[0].name) != name
    ]
    if len(names) > 1 and telling:
        raise LayoutError(_two_levels(inner, root))


def _two_levels(inner: Mapping[str, Sequence[Folder]], root: Path) -> str:
    parts = sorted({part.path for parts in inner.values() for part in parts})
    return (
        f"{root} has folders in its class folders ({some(parts)}), so the classes may be either; "
        f"expected {EXPECTED}: move the folders of the classes there"
    )


def _lacking(home: Folder) -> list[str]:
    """Say which folders beside the classes hold no image that can be read, and what they hold."""
    held = [
        f"{folder.path} ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items())) or 'empty'})"
        for folder in home.folders
        if not folder.total
        for kinds in [folder.kinds_below()]
    ]
    if not held:
        return []
    which = "1 folder holds" if len(held) == 1 else f"{len(held)} folders hold"
    return [f"{which} no image that can be read, so no class was made of {some(held)}"]


def _says_nothing(name: str) -> bool:
    """Return whether a name only says that there are images: `images`, `data`, `jpg_256`."""
    parts = words(name)
    return bool(set(parts) & FILLERS) and all(p in FILLERS or p.isdecimal() for p in parts)


def _says_images(name: str) -> bool:
    """Return whether a name cannot be a class beside others: `images`, `train images`, `jpg`."""
    parts = words(name)
    return bool(set(parts) & _PLAIN) and all(
        p in FILLERS or p.isdecimal() or is_alias(p) for p in parts
    )
