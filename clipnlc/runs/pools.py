"""The rows without labels that methods learn from: those of train, and images that have no label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from clipnlc.ensemble import Ensemble
from clipnlc.labels import canonical_rows, ranks

if TYPE_CHECKING:
    from jaxtyping import Int

    from clipnlc.stores.aligned import AlignedSplit

POOL_CELLS: Final = 2**27
"""Numbers of the unlabelled rows, logits and features together, that a fit may hold: 0.5 GB."""


def read_pool(
    splits: Sequence[AlignedSplit], *, features: bool, classes: Int[np.ndarray, " classes"]
) -> Ensemble:
    """Read all rows of some splits in canonical order, or as many at random as `POOL_CELLS` allows.

    Args:
        splits: of the same backbones and classes; no sample is in two of them.
        features: read the features too.
        classes: numbers of the classes, in the order in which fits see them.
    """
    first = splits[0]
    width = len(first.backbones) * len(classes) + (first.feature_width if features else 0)
    names = [name for split in splits for name in split.sample_id]
    chosen = np.argsort(ranks(names, draw="pool"))[: max(1, POOL_CELLS // width)]
    chosen = chosen[canonical_rows([names[row] for row in chosen])]
    if len(splits) == 1:
        return first.ensemble(chosen, features=features, classes=classes)
    starts = np.cumsum([0, *(len(split.sample_id) for split in splits)])
    parts = [
        split.ensemble(
            chosen[(chosen >= start) & (chosen < stop)] - start, features=features, classes=classes
        )
        for split, start, stop in zip(splits, starts, starts[1:], strict=False)
    ]
    ids = tuple(name for part in parts for name in part.sample_id)
    joined = Ensemble(
        logits=np.concatenate([part.logits for part in parts], axis=1),
        features=tuple(
            np.concatenate(blocks)
            for blocks in zip(*(part.features for part in parts), strict=True)
        ),
        sample_id=ids,
        backbones=parts[0].backbones,
        class_names=parts[0].class_names,
    )
    return joined.rows(canonical_rows(ids))
