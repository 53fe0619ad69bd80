"""A data set of the registry: where its rows come from, with labels and row counts checked."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from clipnlc.datasets import source as on_disk
from clipnlc.datasets import splits as split_names
from clipnlc.datasets.class_names import beside
from clipnlc.datasets.dataset import Dataset
from clipnlc.datasets.hub import fetch
from clipnlc.datasets.hub.classes import numbering
from clipnlc.datasets.hub.entries import Entry, Source
from clipnlc.datasets.rows import Options, Rows
from clipnlc.datasets.source import Split
from clipnlc.errors import DataError
from clipnlc.wording import count


@dataclass(frozen=True)
class _Place:
    """Where one split lies on this disk.

    Attributes:
        root: the folder or file.
        kind: how it is stored.
        split: what the split is called there, canonically.
        files: its files, where they are known.
        sources: the repositories that it is, or may be a copy of.
        rows: the numbers of rows that would be right; empty where none is known.
        called: what it is, for messages and for the record.
        notes: what the user should be told.
    """

    root: Path
    kind: str
    split: str
    files: tuple[str, ...] | None
    sources: tuple[Source, ...]
    rows: frozenset[int]
    called: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedDataset(Dataset):
    """A data set of the registry, from the hub or from a copy on disk.

    Attributes:
        entry: what the registry says.
        local: the user's copy (`--source`); None gets it from the hub.
        accept_different_data: go on where rows or classes are not as many as they should be.
    """

    entry: Entry
    local: Path | None = None
    accept_different_data: bool = False
    _used: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def split_names(
        self,
        *,
        image_column: str | None = None,  # noqa: ARG002
        label_column: str | None = None,  # noqa: ARG002
    ) -> tuple[str, ...]:
        """Return the splits of the copy, or of the preferred source."""
        if self.local is not None:
            return split_names.in_order(self._copied(self.local))
        return split_names.in_order(self.entry.sources[0].splits)

    def expected_rows(self, split: str) -> int | None:
        """Return what the registry says of the preferred source, or of the copy's likeliest."""
        name = split_names.canonical(split)
        sources = self.entry.sources if self.local is None else _alike(self.entry, self.local)
        return next((s.splits[name].rows for s in sources if name in s.splits), None)

    def expected_classes(self) -> int:
        """Return what the registry says."""
        return self.entry.classes

    def download_bytes(self, splits: Iterable[str]) -> int | None:
        """Return the bytes of what is not in the hub's cache, by the hub's own sizes."""
        total = 0
        for split in splits if self.local is None else ():
            name = split_names.canonical(split)
            sources = [s for s in self.entry.sources if name in s.splits]
            if not sources or any(fetch.at_hand(s, name) for s in sources):
                continue
            size = fetch.download_size(sources[0], name)
            if size is None:
                return None
            total += size
        return total

    def at_hand(self) -> tuple[str, ...]:
        """Return the splits that need no download."""
        if self.local is not None:
            return self.split_names()
        return tuple(
            name
            for name in self.split_names()
            if any(name in s.splits and fetch.at_hand(s, name) for s in self.entry.sources)
        )

    def open(
        self,
        split: str,
        *,
        class_names_file: Path | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        hash_cache: Path | None = None,
    ) -> Split:
        """Open a split, with our class names in our order.

        A file of class names takes the place of all that: it names the source's own classes in the
        source's own order, as for any data set on disk.

        Raises:
            DataError: it is unavailable; a class cannot be matched with ours; rows or classes are
                not as many as they should be, which `--accept-different-data` lets pass.
        """
        name = split_names.canonical(split)
        place = self._fetched(name) if self.local is None else self._copy(self.local, name)
        given = place.sources[0] if self.local is None else None
        options = Options(
            image_column=image_column or (given.image_column if given else None),
            label_column=label_column or (given.label_column if given else None),
            hash_cache=hash_cache,
            files=None if place.files is None else {place.split: place.files},
        )
        rows = on_disk.open_rows(place.root, place.kind, place.split, options)
        if class_names_file is not None:
            names, notes = on_disk.named(rows, place.root, class_names_file)
            classes = len(names)
        else:
            rows, names, classes = _matched(rows, self.entry, place)
            notes = ()
        wrong = _differences(self.entry, place, rows=len(rows.sample_id), classes=classes)
        if wrong and not self.accept_different_data:
            raise DataError(
                f"split {name} of {self.key} from {place.called} has {' and '.join(wrong)}; get the right copy, or go on with --accept-different-data"
            )
        accepted = (f"accepted {' and '.join(wrong)}",) if wrong else ()
        opened = on_disk.make_split(
            place.root,
            place.kind,
            dataclasses.replace(rows, split=name),
            names,
            (*place.notes, *notes, *accepted),
        )
        origin = {"source": "local" if self.local is not None else place.called}
        if wrong:
            origin["accepted"] = " and ".join(wrong)
        return dataclasses.replace(opened, origin=origin)

    def _fetched(self, split: str) -> _Place:
        """Get a split from the first source that is available."""
        sources = [s for s in self.entry.sources if split in s.splits]
        if not sources:
            known = {name for s in self.entry.sources for name in s.splits}
            raise DataError(
                f"no split {split!r} of {self.key}; its sources have {', '.join(split_names.in_order(known))}: choose one with --split"
            )
        missed: list[str] = []
        unreachable = ""
        for source in sources:
            try:
                found = fetch.at_hand(source, split)
                if found is None and unreachable:
                    continue
                found = found or fetch.download(source, split)
            except fetch.UnavailableError as problem:
                missed.append(str(problem))
                continue
            except fetch.UnreachableError as problem:
                unreachable = f"{source.id} cannot be downloaded ({problem})"
                missed.append(unreachable)
                continue
            # The sources divide some data sets differently: train of one may be test of another.
            if self._used.setdefault("id", source.id) != source.id:
                raise DataError(
                    f"split {split} of {self.key} would come from {source.id}, the others came from {self._used['id']} ({'; '.join(missed)}); leave it out with --split, or give a copy with --source {self.key}=PATH"
                )
            rows = source.splits[split].rows
            return _Place(
                root=found.root,
                kind=source.format,
                split=split_names.canonical(source.splits[split].name),
                files=found.files,
                sources=(source,),
                rows=frozenset() if rows is None else frozenset({rows}),
                called=f"{source.id}@{found.commit}",
                notes=tuple(f"{problem}: {source.id} takes its place" for problem in missed),
            )
        again = "run it again with a network, which goes on where it stopped, or " * bool(
            unreachable
        )
        raise DataError(
            f"split {split} of {self.key} is unavailable: {'; '.join(missed)}; {again}give a copy with --source {self.key}=PATH"
        )

    def _copied(self, local: Path) -> dict[str, str]:
        """Return our name of each split of a copy -> the name there."""
        there = set(on_disk.splits(local))
        # The source that explains most of what is there; the first of several.
        maps = [
            {
                ours: name
                for ours, split in source.splits.items()
                if (name := split_names.canonical(split.name)) in there
            }
            for source in _alike(self.entry, local)
        ]
        best = max(maps, key=len)
        ours = {name for source in self.entry.sources for name in source.splits}
        if not best and len(there) == len(ours) == 1:  # an unsplit folder of a test set
            best = {ours.pop(): next(iter(there))}
        rest = {name: name for name in there if name not in best.values()}
        return rest | best

    def _copy(self, local: Path, split: str) -> _Place:
        """Find a split in the user's copy."""
        ours, theirs = split_names.pick(self._copied(local), split, local)
        return _Place(
            root=local,
            kind=on_disk.kind_of(local),
            split=theirs,
            files=None,
            sources=_alike(self.entry, local),
            rows=self.entry.rows(ours),
            called=str(local),
        )


def _alike(entry: Entry, local: Path) -> tuple[Source, ...]:
    """Return the sources that a local copy may be of, by how it is stored."""
    kind = on_disk.kind_of(local)
    stored = {"saved": "parquet"}.get(kind, kind)  # `save_to_disk` keeps what parquet holds
    return tuple(s for s in entry.sources if s.format == stored) or entry.sources


def _matched(rows: Rows, entry: Entry, place: _Place) -> tuple[Rows, tuple[str, ...], int]:
    """Give rows our labels.

    Returns:
        The rows; the class names; how many classes the source has.
    """
    home = place.root if place.root.is_dir() else place.root.parent
    listed = beside(home, rows.identifiers)
    told = listed[0] if listed else rows.identifiers
    if entry.class_names is None:
        # Only the sources know the names; their order is the folders' sorted names everywhere.
        names, _ = on_disk.named(rows, place.root, None)
        return rows, names, len(names)
    numbers = numbering(told, entry, place.sources, place.called)
    row = int(rows.labels.argmax())
    if rows.labels[row] >= len(numbers):
        raise DataError(
            f"row {row} ({rows.sample_id[row]}) of {place.called} has label {rows.labels[row]}, but there are {count(len(numbers), 'class')}; give another copy with --source {entry.key}=PATH"
        )
    renumbered = dataclasses.replace(rows, labels=numbers[rows.labels], identifiers=None)
    return renumbered, entry.class_names, len(numbers)


def _differences(entry: Entry, place: _Place, *, rows: int, classes: int) -> list[str]:
    """Return what is not as the registry says: `8 rows where 1,880 were expected`."""
    wrong = []
    if place.rows and rows not in place.rows:
        expected = " or ".join(f"{n:,}" for n in sorted(place.rows))
        wrong.append(f"{rows:,} rows where {expected} were expected")
    if classes != entry.classes:
        wrong.append(f"{count(classes, 'class')} where {entry.classes} were expected")
    return wrong
