"""What `open_dataset` gives: a data set of which nothing has been read yet."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipnlc.datasets import source
from clipnlc.datasets.source import Split


@dataclass(frozen=True)
class Dataset(ABC):
    """A data set that was found.

    Attributes:
        key: its name in the store.
        templates: its prompt templates; None where it brings none, and each family of backbones
            has its own.
    """

    key: str
    templates: tuple[str, ...] | None

    @property
    def path(self) -> Path | None:
        """Where it lies, if that was given as a path (or is in the package)."""
        return None

    @abstractmethod
    def split_names(
        self, *, image_column: str | None = None, label_column: str | None = None
    ) -> tuple[str, ...]:
        """Return the splits there are: train, val, test, then others. Nothing is downloaded.

        Args:
            image_column: as for `open`, where tables list image files.
            label_column: likewise.
        """

    @abstractmethod
    def open(
        self,
        split: str,
        *,
        class_names_file: Path | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        hash_cache: Path | None = None,
    ) -> Split:
        """Open a split, downloaded first where it must be; see `source.open_split`.

        Raises:
            DataError: it is unavailable or cannot be used; the message says what, where, and how to fix it.
        """

    @abstractmethod
    def expected_rows(self, split: str) -> int | None:
        """Return how many images a split should have, if that is known without opening it."""

    @abstractmethod
    def expected_classes(self) -> int | None:
        """Return how many classes there should be, if that is known without opening a split."""

    @abstractmethod
    def download_bytes(self, splits: Iterable[str]) -> int | None:
        """Return what is left to download for these splits; None if unknown."""


@dataclass(frozen=True)
class LocalDataset(Dataset):
    """A path, or (with more to it) a nano set.

    Attributes:
        root: the folder or file it lies in.
    """

    root: Path
    labels: Path | None = None
    classes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The folder or file."""
        return self.root

    def place(self, split: str) -> Path:  # noqa: ARG002  (a nano set's confirmation has its own)
        """Return the folder or file of a split."""
        return self.root

    def split_names(
        self, *, image_column: str | None = None, label_column: str | None = None
    ) -> tuple[str, ...]:
        """Return the splits that lie there."""
        return source.splits(
            self.root,
            image_column=image_column,
            label_column=label_column,
            labels=self.labels,
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
        """Open a split with `source.open_split`."""
        return source.open_split(
            self.place(split),
            split,
            class_names_file=class_names_file,
            image_column=image_column,
            label_column=label_column,
            hash_cache=hash_cache,
            labels=self.labels,
            classes=self.classes,
        )

    def expected_rows(self, split: str) -> int | None:
        """Return what the card of a nano set says; of a path nothing is known."""
        try:
            rows = json.loads((self.root / "dataset.json").read_text("utf-8"))["rows"]
            # A split may lie in several files: train-fluent, train-openmoji.
            return sum(n for part, n in rows.items() if part.split("-")[0] == split) or None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # no card, or somebody else's file of that name

    def expected_classes(self) -> None:
        """Return None: the size is known only after opening a split, which is cheap."""

    def download_bytes(self, splits: Iterable[str]) -> int:  # noqa: ARG002
        """Return 0: it is on disk."""
        return 0
