"""What fits on heads that are fitted per draw stand beside: the backbones' answers without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Int

from clipnlc.errors import StoreError
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.runs.finding import CROSS_FITTED, HOLDOUT, labelled_split
from clipnlc.runs.mixture import FITTED
from clipnlc.stores.logits import open_logits, read_logit_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipnlc.runs.finding import Runs
    from clipnlc.runs.targets import Target
    from clipnlc.stores.layout import Layout

REFERENCE_HEAD: Final = "zero-shot"
"""What heads that are fitted per draw stand beside, so that best single, oracle and gain mean the
same in every column of labels; `auto` stands beside its own answers that need no labels."""


@dataclass(frozen=True)
class Reference:
    """Whose answers best single and oracle are made of.

    Attributes:
        head: whose logits.
        run: of a head that is fitted per draw, whose files are read.
        fitted: backbones whose answers are fitted on labels, so that they are no part of it.
        backbones: the others; all where every one is fitted.
        note: what a reader should know of it; may be empty.
    """

    head: str
    run: str | None
    fitted: tuple[str, ...]
    backbones: tuple[str, ...]
    note: str = ""


def reference_of(runs: Runs) -> Reference:
    """Return the reference of some runs: their own logits, unless heads are fitted per draw."""
    if not HEADS.get(runs.head).per_draw:
        return Reference(runs.head, None, (), runs.backbones)
    if not HEADS.get(runs.head).texts_suffice:
        return Reference(REFERENCE_HEAD, None, (), runs.backbones)
    # All runs have the same answers of backbones that need no labels; of others, the best informed.
    run = max(runs.paths, key=lambda name: (_labels(runs, name), -Labels.parse(name).seed))
    parts: Mapping[str, str] = next(
        (key.fields["parts"] for key in runs.headers[run].keys.values() if "parts" in key.fields),
        {},
    )
    fitted = tuple(name for name in runs.backbones if parts.get(name) == FITTED)
    others = tuple(name for name in runs.backbones if name not in fitted)
    which = Labels.parse(run)
    note = (
        f"No backbone answers without labels: best single and oracle are those of heads fitted "
        f"{which.phrase} (seed {which.seed}), whatever the column."
    )
    return Reference(runs.head, run, fitted, others or runs.backbones, note="" if others else note)


def _labels(runs: Runs, run: str) -> int:
    return max(
        (int(facts.get("labels", 0)) for facts in runs.headers[run].facts.values()), default=0
    )


def pool_labels(layout: Layout, runs: Runs) -> Int[np.ndarray, " pool"] | None:
    """Read the labels that the fits' were drawn from; None where the store has them no longer."""
    reference = reference_of(runs)
    of_run = reference.run is not None
    splits = (CROSS_FITTED, HOLDOUT) if of_run else (labelled_split(reference.head),)
    path = layout.logits(runs.dataset, reference.head, runs.backbones[0], reference.run)
    if not path.exists():
        return None
    present = read_logit_header(path).rows
    found = []
    for split in splits:
        if split in present:
            with open_logits(path, split) as file:
                found.append(file.columns().labels)
    return np.concatenate(found) if found else None


def check_same_rows(one: Target, other: Target) -> None:
    """Check that the heads of two kinds predict the same samples.

    Raises:
        StoreError: they do not.
    """
    if one.sample_id != other.sample_id or not np.array_equal(one.labels, other.labels):
        first, second = next(iter(one.logits)), next(iter(other.logits))
        raise StoreError(
            f"{first} and {second} are of other samples of {one.dataset}/{one.split}; expected the "
            "same: extract the data set again, and train its heads again"
        )
