"""A nano set as `open_dataset` gives it: train, test, and a confirmation split for those who ask."""

import json
from dataclasses import dataclass
from pathlib import Path

from clipnlc.datasets.dataset import LocalDataset
from clipnlc.datasets.nano import CONFIRMATION, confirmation_root, confirmed
from clipnlc.errors import DataError


@dataclass(frozen=True)
class NanoDataset(LocalDataset):
    """A nano set. `split_names` does not list its confirmation split, which opens by name only."""

    def place(self, split: str) -> Path:
        """Return the folder of a split: the confirmation split has one of its own.

        Raises:
            DataError: this set has no confirmation split.
        """
        if split != CONFIRMATION:
            return self.root
        if self.key not in confirmed():
            raise DataError(
                f"{self.key} has no {CONFIRMATION} split, for its source has no other images; "
                f"choose among {','.join(confirmed())} with --dataset"
            )
        return confirmation_root(self.key)

    def expected_rows(self, split: str) -> int | None:
        """Return what the card says."""
        if split != CONFIRMATION:
            return super().expected_rows(split)
        card = json.loads((self.place(split) / "dataset.json").read_text("utf-8"))
        return int(card["rows"][CONFIRMATION])
