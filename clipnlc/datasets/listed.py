"""Images whose labels are in tables: `file,label[,split]`, `metadata.csv`, `train.csv`.

A table is of the labels if it has a column of files, which are found below the data set's root,
and one of labels. Rows whose label is blank are left out and counted. Class folders and tables may
label the same images: then they must agree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.drawn import Draw
from clipnlc.datasets.finder import Finder, nfc, seen_from, split_of
from clipnlc.datasets.tabled import Table, all_numbers, read_header, read_table
from clipnlc.datasets.tree import Folder
from clipnlc.errors import DataError
from clipnlc.wording import count, some

_MOST: Final = 20
"""Tables in one folder; more are not lists of images but a file an image."""

_DEPTH: Final = 2
"""Folders below the one with the data set in which tables are looked for."""


@dataclass(frozen=True)
class Listed:
    """One image as a table lists it.

    Attributes:
        file: its path relative to the root.
        label: what the table calls its class.
        split: its split; None where nothing says.
        place: the table's file and line.
    """

    file: str
    label: str
    split: str | None
    place: str


@dataclass(frozen=True)
class Lists:
    """What the tables of a data set say.

    Attributes:
        rows: the images with labels, each once.
        numbers: whether the labels are whole numbers.
        notes: what was read, and what was left out.
        problems: why a table was not read, one line each.
        lost: rows that cannot be used, each with its line and why.
        tables: the tables that were read.
        blank: images of rows without a label.
    """

    rows: tuple[Listed, ...] = ()
    numbers: bool = False
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse the first row that cannot be used.

        Raises:
            DataError: there is one.
        """
        if self.lost:
            raise DataError(self.lost[0])


def read_lists(
    tree: Folder, root: Path, *, image_column: str | None, label_column: str | None
) -> Lists:
    """Read every table that gives images of the tree their labels."""
    tables, problems = [], []
    finder = Finder(tree)
    for path in _tables(tree):
        try:
            found = _use(path, root, finder, image_column, label_column)
        except DataError as error:
            problems.append(str(error))
        else:
            tables += [found] if found else []
    return _lists(tables, problems, finder, root)


def read_labels(
    tree: Folder, root: Path, file: Path, *, image_column: str | None, label_column: str | None
) -> Lists:
    """Read the one table that says the labels, which may lie elsewhere.

    Raises:
        DataError: it is none, or cannot be read.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist; give --labels a CSV or parquet file")
    finder = Finder(tree)
    used = _use(file.name, file.parent, finder, image_column, label_column, images=root)
    if used is None:
        raise DataError(
            f"{file} has no columns of image files and of their labels; expected file,label in its "
            "first line, or name them with --image-column and --label-column"
        )
    return _lists([used], [], finder, file.parent, images=root)


def _lists(
    tables: list["_Used"],
    problems: list[str],
    finder: Finder,
    root: Path,
    *,
    images: Path | None = None,
) -> Lists:
    """Read the rows of tables, of which `images` is the folder where they lie elsewhere.

    There, blank labels are the user's wish.
    """
    rows: dict[str, Listed] = {}
    notes, lost, blanks = [], [], []
    # Tables that say the splits first: others only repeat them.
    for used in sorted(tables, key=lambda one: not one.says_split):
        blank = 0
        for row in used.rows(finder, root, images):
            if isinstance(row, str):
                lost.append(row)
            elif not row.label:
                blank += 1
                blanks.append(row.file)
            else:
                lost += _add(rows, row)
        notes.append(used.note)
        if blank and images is None:
            notes.append(
                f"{count(blank, 'row')} of {used.table.path} without a label: left out with {'its image' if blank == 1 else 'their images'} (--labels FILE keeps them, to be learnt from without labels)"
            )
    kept = [row for row in rows.values() if row.split is not None]
    alone = [row.file for row in rows.values() if row.split is None]
    if kept and alone:
        notes.append(f"{count(len(alone), 'image')} that no split lists left out: {some(alone)}")
    return Lists(
        rows=tuple(kept or rows.values()),
        numbers=all_numbers(row.label for row in rows.values()),
        notes=tuple(notes),
        problems=tuple(problems),
        lost=tuple(lost),
        tables=tuple(used.table.path for used in tables),
        blank=tuple(dict.fromkeys(file for file in blanks if file not in rows)),
    )


def _tables(tree: Folder) -> list[str]:
    """Return the tables that lie where the data set begins, or not far below."""
    base = tree
    while len(base.filled) == 1 and not base.images and not base.tables:
        (base,) = base.filled
    depth = base.path.count("/") + bool(base.path) + _DEPTH
    return [
        f"{folder.path}/{name}" if folder.path else name
        for folder in tree.below()
        if folder.path.count("/") + bool(folder.path) <= depth and len(folder.tables) <= _MOST
        for name in folder.tables
    ]


@dataclass(frozen=True)
class _Used:
    """A table with the columns that are used."""

    table: Table
    file: str
    label: str
    split: str | None

    @property
    def says_split(self) -> bool:
        return self.split is not None or self.table.split is not None

    @property
    def note(self) -> str:
        columns = [self.file, self.label, *([self.split] if self.split else [])]
        note = f"labels are from {self.table.path} (columns {', '.join(columns)})"
        if self.split is None and self.table.split is not None:
            note += f", split {self.table.split}"
        return note

    def rows(
        self, finder: Finder, root: Path, images: Path | None = None
    ) -> Iterator[Listed | str]:
        """Yield each row, or why it cannot be used; the label may be blank."""
        place = images or root
        table = self.table
        labels = table.column(self.label)
        splits = table.column(self.split) if self.split else None
        for row, name in enumerate(table.column(self.file)):
            where = f"{root / table.path}, line {table.rows[row][0]}"
            word = table.split if splits is None else splits[row]
            split = None if word is None else split_names.canonical(word)
            found = finder.find(name, table.folder, split)
            if not found and images is not None:
                found = finder.find(seen_from(name, root, images), table.folder, split)
            if word == "":
                yield f"{where}: column {self.split!r} is blank; write the split there"
            elif len(found) != 1:
                what = f"may be {some(found)}" if found else f"is no image below {place}"
                yield f"{where}: {name!r} {what}; write the path from {place} in column {self.file!r}, or remove the line"
            elif not (labels[row] + (split or "")).isprintable():
                yield f"{where}: {labels[row]!a} holds what cannot be printed; write the label anew"
            elif labels[row].startswith("-") and all_numbers([labels[row]]):
                yield f"{where}: label {labels[row]} marks unlabelled images; leave it blank"
            else:
                yield Listed(found[0], labels[row], split, where)


def _use(
    path: str,
    root: Path,
    finder: Finder,
    image_column: str | None,
    label_column: str | None,
    *,
    images: Path | None = None,
) -> _Used | None:
    """Take a table that lists images with labels; None for one about something else.

    `images` is the folder of the images where that is not `root`.

    Raises:
        DataError: it may be meant as one, and this is what it lacks.
    """
    table = read_header(root, path)
    if table.is_result and images is None:
        return None
    if label_column not in (None, *table.header):
        raise DataError(
            f"{root / path} has no column {label_column!r}, only {', '.join(table.header)}; choose one with --label-column"
        )
    files = [image_column] if image_column is not None else table.files()
    if label_column is not None and not files:
        files = [name for name in table.header if name != label_column]
    files = [name for name in files if name in table.header]
    if not files and any(finder.find(cell, table.folder, None) for cell in table.header):
        raise DataError(
            f"{root / path} has no header; write the names of its columns in its first line, as file,label"
        )
    if not files:
        return None
    table = read_table(root, path)
    firsts = {name: table.column(name)[:_MOST] for name in files}
    file = next(
        (n for n in files if any(finder.find(v, table.folder, None) for v in firsts[n])), None
    )
    if file is None and images is not None:
        file = next(
            (
                name for name in files
                if any(finder.find(seen_from(v, root, images), "", None) for v in firsts[name])
            ),
            None,
        )  # fmt: skip
    if file is None:
        value = next(iter(firsts[files[0]]), "")
        raise DataError(
            f"{root / path}: {value!r} in column {files[0]!r} is no image below {images or root}; write paths from there"
        )
    split = table.splits()
    label = table.labels(root, label_column, (file, split))
    rest = [name for name in table.header if name not in (file, split)]
    if label is None and rest:
        raise DataError(
            f"{root / path} has no column that is called like labels ({', '.join(rest)}); name it with --label-column"
        )
    # One without labels is a list of images, such as Kaggle's test.csv.
    return None if label is None else _Used(table, file, label, split)


def _add(rows: dict[str, Listed], row: Listed) -> list[str]:
    """Keep a row; of an image that was listed before, the label and the split must be the same."""
    before = rows.setdefault(row.file, row)
    if before.label != row.label:
        return [
            f"{row.place}: {row.file} is {row.label!r}, but {before.label!r} in {before.place}; keep one label an image"
        ]
    if row.split is not None and before.split != row.split:
        return [
            f"{row.place}: {row.file} is in split {row.split}, but in {before.split} by {before.place}; keep it in one split"
        ]
    return []


@dataclass(frozen=True)
class Labels:
    """The classes of a data set's images, from folders, tables or both.

    Attributes:
        splits: split -> class -> files relative to the root.
        places: class -> the table's line that names it first.
        notes: what was read, and what was left out.
        numbers: whether classes are bare numbers, whose names are listed elsewhere.
        tables: those that were used.
        unlabelled: images without a label that are kept.
        blank: of those, the ones that the table lists.
        draw: how the command label drew the images of the table, where that is known.
    """

    splits: dict[str, dict[str, list[str]]]
    places: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    numbers: bool = False
    tables: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    draw: Draw | None = None


def label_by_tables(lists: Lists) -> Labels:
    """Take labels and splits from tables alone; splits also from the folders of all images.

    Raises:
        DataError: a row cannot be used; with the line.
    """
    lists.check()
    rows = lists.rows
    if all(row.split is None for row in rows):
        folders = [split_of(row.file) for row in rows]
        known = all(folders)
    else:
        folders, known = [row.split for row in rows], True
    splits: dict[str, dict[str, list[str]]] = {}
    places: dict[str, str] = {}
    for row, split in zip(rows, folders, strict=True):
        classes = splits.setdefault(split if known and split else split_names.WHOLE, {})
        classes.setdefault(nfc(row.label), []).append(row.file)
        places.setdefault(nfc(row.label), row.place)
    return Labels(splits, places, lists.notes, lists.numbers, lists.tables, blank=lists.blank)


def label_by_both(folders: dict[str, dict[str, list[str]]], lists: Lists) -> Labels:
    """Add to class folders what tables say: images outside of them, and splits if folders name none.

    Raises:
        DataError: a table's label or split is not what the folder says, or no class folder has the
            label; with the line.
    """
    known = {
        file: (split, name)
        for split, classes in folders.items()
        for name, files in classes.items()
        for file in files
    }
    names = {name for classes in folders.values() for name in classes}
    called: dict[str, str] = {}  # what the tables call a class folder
    meant: dict[str, str] = {}
    more: list[Listed] = []
    for row in lists.rows:
        if row.file not in known:
            more.append(row)
            continue
        split, name = known[row.file]
        if (
            called.setdefault(name, row.label) != row.label
            or meant.setdefault(row.label, name) != name
        ):
            raise DataError(
                f"{row.place}: {row.file} is {row.label!r}, but lies in class folder {name!r}, whose other images are {called[name]!r}; take the table or the class folders away"
            )
        if row.split is not None and split not in (row.split, split_names.WHOLE):
            raise DataError(
                f"{row.place}: {row.file} is in split {row.split}, but lies in the folder of {split}; take the table or the split folders away"
            )
    if not lists.rows:
        return Labels(folders)
    divides = list(folders) == [split_names.WHOLE] and any(row.split for row in lists.rows)
    if not divides and not more:
        return Labels(folders)
    lists.check()
    splits: dict[str, dict[str, list[str]]] = {} if divides else folders
    for row in lists.rows if divides else more:
        name = known[row.file][1] if row.file in known else meant.get(row.label, nfc(row.label))
        if name not in names:
            raise DataError(
                f"{row.place}: there is no class folder {name!r} ({some(sorted(names))}); fix the label or remove the line"
            )
        its = row.split or split_of(row.file)
        if its is None and split_names.WHOLE not in folders:
            raise DataError(
                f"{row.place}: nothing says the split of {row.file}; add a column `split`"
            )
        splits.setdefault(its or split_names.WHOLE, {}).setdefault(name, []).append(row.file)
    return Labels(splits, notes=lists.notes, tables=lists.tables)
