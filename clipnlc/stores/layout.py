"""Where each file of a store lies, and which command makes it.

    <store>/<dataset>/features/<split>/<backbone>.h5
    <store>/<dataset>/features/<split>/<backbone>.shards/AAAAAAAAA-BBBBBBBBB.h5
    <store>/<dataset>/logits/<head>[/<run>]/<backbone>.h5
    <store>/<dataset>/fits/<head>/<members>/<run>.h5
    <store>/<dataset>/given/<source>/<head>/<members>/<run>/<split>.h5
    <store>/<dataset>/records/*.json
    <store>/.texts/<backbone>/<key>.h5

Version 1 kept what was learnt and what it gave in <store>/<dataset>/combined/<head>/<run>.h5.

Names are percent-encoded where a character would not be safe in a file name, so every name can
be read back from its path.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, unquote

from clipnlc.commands import command, is_own_name
from clipnlc.errors import DataError, StoreError
from clipnlc.labels import Labels
from clipnlc.stores.key import Key
from clipnlc.view import crop_number

Kind = Literal["features", "shards", "logits", "fits", "given", "combined", "texts"]

TEXTS = ".texts"  # no data set's folder: those never start with a dot
IMPORTED = "imported"  # in the place of a head: logits that a backbone came with
LONGEST_PART = 200  # bytes; leaves room for `.h5.<pid>.partial` within the usual limit of 255
SHARD_NAME = re.compile(r"(\d{9})-(\d{9})\.h5")


def as_part(name: str) -> str:
    """Spell `name` as one safe path part; `from_part` reads it back.

    Raises:
        StoreError: the name is empty or too long for a file name.

    >>> as_part("RN50@weights.pt"), as_part("hf-hub:timm/ViT"), as_part("..")
    ('RN50@weights.pt', 'hf-hub%3Atimm%2FViT', '%2E.')
    """
    part = quote(name, safe="@+=,", errors="surrogateescape")
    if part.startswith("."):
        part = f"%2E{part[1:]}"
    if not part or len(part) > LONGEST_PART:
        found = "is empty" if not part else f"takes {len(part)} characters as a file name"
        raise StoreError(
            f"the name {name!r} {found}; expected 1 to {LONGEST_PART}: give it a shorter name"
        )
    return part


def from_part(part: str) -> str:
    """Read back the name that `as_part` spelled."""
    return unquote(part, errors="surrogateescape")


@dataclass(frozen=True)
class Location:
    """What a path in a store says about its file.

    Attributes:
        store: the store's root.
        kind: the format; `shards` is a directory of unmerged features or one file in it, `combined`
            what version 1 kept of a run.
        dataset: its name; empty for texts, which data sets share.
        split, head, backbone, run: names, None where the kind has none.
        members: the ensemble that a run was fitted on, as in the path.
        source: the data set whose fits gave this.
    """

    store: Path
    kind: Kind
    dataset: str
    split: str | None = None
    head: str | None = None
    backbone: str | None = None
    run: str | None = None
    members: str | None = None
    source: str | None = None

    @property
    def command(self) -> str:
        """The command that makes this file."""
        if self.kind in ("fits", "combined"):
            return command(
                "train-nlc", dataset=self.dataset, head=self.head, store=self.store, **self.drawn
            )
        if self.kind == "given":
            source = self.source if self.source != self.dataset else None
            options = {"fitted_on": source, "dataset": self.dataset, "head": self.head}
            return command("evaluate", store=self.store, **options)
        if self.is_imported:
            return import_command(self)
        if self.kind == "logits" and self.head != "zero-shot":
            return command(
                "train-heads", dataset=self.dataset, head=self.head, store=self.store, **self.drawn
            )
        if not self.dataset:
            return command("extract --dataset …", backbones=self.backbone, store=self.store)
        crop = crop_number(self.split or "")
        return command(
            "extract",
            dataset=self.dataset,
            backbones=self.backbone,
            crops=None if crop is None else crop + 1,
            store=self.store,
        )

    @property
    def is_imported(self) -> bool:
        """Whether `import` makes this file."""
        own = self.kind == "features" and is_own_name(self.backbone or "")
        return own or self.head == IMPORTED

    @property
    def drawn(self) -> dict[str, str]:
        """The options that draw the labels of this run; none for a name that is no run's."""
        with suppress(DataError):
            return Labels.options([Labels.parse(self.run)] if self.run else [])
        return {}

    def __str__(self) -> str:
        """Name the content: `features of RN50.openai on cub/test`."""
        if self.kind == "combined":
            return f"combined {self.head} logits on {self.dataset}, {self.run}"
        if self.kind == "fits":
            return f"fits of {self.members} on {self.head} logits of {self.dataset}, {self.run}"
        if self.kind == "given":
            return (
                f"what fits of {self.members} on {self.head} logits of {self.source} give on "
                f"{self.dataset}/{self.split}, {self.run}"
            )
        if self.kind == "logits":
            run = f", {self.run}," if self.run else ""
            return f"{self.head} logits{run} of {self.backbone} on {self.dataset}"
        if self.kind == "texts":
            return f"texts of {self.backbone}"
        return f"{self.kind} of {self.backbone} on {self.dataset}/{self.split}"


def import_command(place: Location) -> str:
    """Spell the command that imports the arrays of a file again; the person's file is not known."""
    return command(
        "import …",
        backbone=place.backbone,
        dataset=place.dataset,
        split=place.split,
        store=place.store,
    )


def without_import(place: Location) -> str:
    """Spell what to do where an imported backbone lacks a split or its logits."""
    assert place.backbone is not None
    remove = command(
        "import", remove=True, backbone=place.backbone, dataset=place.dataset, store=place.store
    )
    return f"or take {place.backbone} out of {place.dataset} with `{remove}`"


def locate(path: Path) -> Location | None:
    """Read the names back from a path; None where it is no place of a store's file.

    >>> str(locate(Path("store/cub/features/test/RN50.openai.h5")))
    'features of RN50.openai on cub/test'
    """
    if path.suffix == ".h5" and path.parent.suffix == ".shards":
        path = path.parent
    if path.suffix == ".h5" and path.parent.parent.name == TEXTS:
        root = path.parent.parent.parent
        return Location(root, "texts", "", backbone=from_part(path.parent.name))
    if path.suffix not in (".h5", ".shards"):
        return None
    last = from_part(path.stem)
    # From the most to the least common; no head is called like a family.
    for family, names in _PLACES:
        depth = len(names)  # of the file below its family
        if len(path.parts) < depth + 2 or path.parts[-depth - 1] != family:
            continue
        dataset, *parts = (from_part(part) for part in path.parts[-depth - 2 : -1])
        found = dict(zip(names, [*parts[1:], last], strict=True))
        kind: Kind = "shards" if path.suffix == ".shards" else family
        if kind == "shards" and family != "features":
            return None
        return Location(path.parents[depth + 1], kind, dataset, **found)
    return None


_PLACES: Final[tuple[tuple[Kind, tuple[str, ...]], ...]] = (
    ("features", ("split", "backbone")),
    ("logits", ("head", "backbone")),
    ("combined", ("head", "run")),
    ("logits", ("head", "run", "backbone")),
    ("fits", ("head", "members", "run")),
    ("given", ("source", "head", "members", "run", "split")),
)
"""Families of files, and the names below each, the last one being the file's."""


def maker(path: Path) -> str:
    """Spell the command that makes the file at a path; that of its stage where it is no place."""
    place = locate(path)
    return place.command if place else command("extract --dataset …")


def maker_of_test(store: Path, dataset: str, backbones: Sequence[str] | str = ()) -> str:
    """Spell how a data set that has only other splits in a store gets a test split."""
    divided = command("extract", dataset=dataset, backbones=backbones, test_share=0.3, store=store)
    own = command("extract", dataset=dataset, backbones=backbones, split="test", store=store)
    return f"`{divided}`, or, if it has one of its own, extract that with `{own}`"


def without_train(store: Path, dataset: str, backbones: Sequence[str] | str = ()) -> str:
    """Spell what to do with a data set that has no train split in a store.

    What surely works comes first: the store does not know whether the source has a train split.
    """
    fit = command("train-nlc", dataset=dataset, combiners="parameter-free", store=store)
    own = command("extract", dataset=dataset, backbones=backbones, split="train", store=store)
    return f"fit what needs no labels with `{fit}`, or, if it has one, extract it with `{own}`"


def shards_of(features: Path) -> Path:
    """Return the directory of the unmerged shards of one feature file."""
    return features.with_suffix(".shards")


def shard_path(features: Path, start: int, stop: int) -> Path:
    """Return the file of the shard with rows `[start, stop)` of one feature file."""
    return shards_of(features) / f"{start:09d}-{stop:09d}.h5"


@dataclass(frozen=True)
class Layout:
    """The paths below one store's root; nothing is opened, nothing need exist.

    >>> Layout(Path("store")).logits("cub", "zero-shot", "RN50.openai").as_posix()
    'store/cub/logits/zero-shot/RN50.openai.h5'
    """

    root: Path

    def dataset(self, dataset: str) -> Path:
        """Return the directory of one dataset."""
        return self.root / as_part(dataset)

    def features(self, dataset: str, split: str, backbone: str) -> Path:
        """Return the feature file of one backbone on one split."""
        return self.dataset(dataset) / "features" / as_part(split) / f"{as_part(backbone)}.h5"

    def logits(self, dataset: str, head: str, backbone: str, run: str | None = None) -> Path:
        """Return the logit file of one backbone under one head; it holds every split.

        A head that is fitted for each run by itself has files for each.
        """
        folder = self.dataset(dataset) / "logits" / as_part(head)
        return (folder / as_part(run) if run else folder) / f"{as_part(backbone)}.h5"

    def texts(self, backbone: str, key: Key) -> Path:
        """Return the file of one backbone's view of one list of classes and prompts."""
        return self.root / TEXTS / as_part(backbone) / f"{key.digest}.h5"

    def fits(self, dataset: str, head: str, members: str, run: str) -> Path:
        """Return the file of what the combiners of one run learnt (`labels.Labels.name`)."""
        folder = self.dataset(dataset) / "fits" / as_part(head) / as_part(members)
        return folder / f"{as_part(run)}.h5"

    def given(
        self, dataset: str, split: str, *, source: str, head: str, members: str, run: str
    ) -> Path:
        """Return the file of what the fits of `source` give on a split of `dataset`."""
        folder = self.dataset(dataset) / "given" / as_part(source) / as_part(head)
        return folder / as_part(members) / as_part(run) / f"{as_part(split)}.h5"

    def combined(self, dataset: str, head: str, run: str) -> Path:
        """Return where version 1 kept a run: what was learnt, and what it gave on test."""
        return self.dataset(dataset) / "combined" / as_part(head) / f"{as_part(run)}.h5"

    def records(self, dataset: str) -> Path:
        """Return the directory of what evaluate and diversity measured."""
        return self.dataset(dataset) / "records"

    def relative(self, path: Path) -> str:
        """Spell a file's path below the root with `/`, as the key field `inputs` names it."""
        return path.relative_to(self.root).as_posix()

    def datasets(self) -> tuple[str, ...]:
        """List the datasets present, sorted; leaving out other folders (plots)."""
        families = ("features", "logits", "fits", "given", "combined", "records")
        found = _names(self.root, "")
        return tuple(d for d in found if any((self.dataset(d) / f).is_dir() for f in families))

    def splits(self, dataset: str) -> tuple[str, ...]:
        """List the splits with features (finished or not), sorted; not their crops."""
        found = _names(self.dataset(dataset) / "features", "")
        return tuple(split for split in found if crop_number(split) is None)

    def crops(self, dataset: str) -> tuple[str, ...]:
        """List the crops with features (finished or not), as splits are named, by number."""
        found = _names(self.dataset(dataset) / "features", "")
        numbers = {split: number for split in found if (number := crop_number(split)) is not None}
        return tuple(sorted(numbers, key=lambda split: (numbers[split], split)))

    def backbones(self, dataset: str, split: str) -> tuple[str, ...]:
        """List the backbones with a finished feature file for this split, sorted."""
        return _names(self.dataset(dataset) / "features" / as_part(split), ".h5")

    def own_backbones(self, *datasets: str) -> frozenset[str]:
        """Return the imported backbones of some data sets, by default of all; see `is_own_name`."""
        return frozenset(
            name
            for dataset in datasets or self.datasets()
            for split in self.splits(dataset)
            for name in self.backbones(dataset, split)
            if is_own_name(name)
        )

    def logit_backbones(self, dataset: str, head: str, run: str | None = None) -> tuple[str, ...]:
        """List the backbones with a logit file under this head, or of one of its runs, sorted."""
        return _names(self.logits(dataset, head, "any", run).parent, ".h5")

    def logit_runs(self, dataset: str, head: str) -> tuple[str, ...]:
        """List the runs that this head was fitted for by itself, sorted."""
        return _names(self.logits(dataset, head, "any").parent, "")

    def members(self, dataset: str, head: str) -> tuple[str, ...]:
        """List the ensembles with fits on this head's logits, sorted."""
        return _names(self.dataset(dataset) / "fits" / as_part(head), "")

    def runs(self, dataset: str, head: str, members: str) -> tuple[str, ...]:
        """List the runs of one ensemble, sorted."""
        folder = self.dataset(dataset) / "fits" / as_part(head) / as_part(members)
        return _names(folder, ".h5")

    def combined_runs(self, dataset: str, head: str) -> tuple[str, ...]:
        """List the runs that version 1 kept, sorted."""
        return _names(self.dataset(dataset) / "combined" / as_part(head), ".h5")


def _names(directory: Path, suffix: str) -> tuple[str, ...]:
    """List what lies in `directory`: files with `suffix`, or visible directories without one."""
    if not directory.is_dir():
        return ()
    found = (p for p in directory.iterdir() if not p.name.startswith("."))
    wanted = (p for p in found if (p.suffix == suffix if suffix else p.is_dir()))
    return tuple(sorted(from_part(p.name.removesuffix(suffix)) for p in wanted))
