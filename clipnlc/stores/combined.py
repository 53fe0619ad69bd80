"""The combined store of version 1: what each combiner of one run learnt and gave on test.

`docs/formats/combined-store.md` is the format. It is read for ever and no longer written: what was
learnt lies in `fits` now, and what it gives in `given`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from clipnlc.stores import _h5, checks
from clipnlc.stores.fitted import Fact, combiners_of, group_of, read_facts, read_learnt
from clipnlc.stores.key import Key
from clipnlc.wording import quoted

FORMAT = "clipnlc-combined"


@dataclass(frozen=True)
class Combination:
    """What one combiner learnt in a run, and what it gave on the test split.

    Exactly one of `weights` and `scores` is there.

    Attributes:
        key: every resolved input by name; `inputs` names the files it was made from.
        learnt: fitted arrays by name; empty for a combiner that learns nothing.
        facts: settings, number of labels used, digest of the fitted sample ids.
        weights: factor of each backbone's logits in each sample's sum.
        scores: higher is better; their scale is the combiner's own.
    """

    key: Key
    learnt: Mapping[str, np.ndarray]
    facts: Mapping[str, Fact]
    weights: Float32[np.ndarray, "samples backbones"] | None = None
    scores: Float32[np.ndarray, "samples classes"] | None = None

    def __post_init__(self) -> None:
        """Check that the combiner gave one thing."""
        assert (self.weights is None) != (self.scores is None), "either weights or scores"

    @property
    def given(self) -> tuple[str, Float32[np.ndarray, "samples _"]]:
        """What the combiner gave: `weights` or `scores`, and the array."""
        if self.weights is not None:
            return "weights", self.weights
        assert self.scores is not None
        return "scores", self.scores


@dataclass(frozen=True)
class CombinedStore:
    """All combiners of one run on one head's logits. Labels are not in it.

    Attributes:
        sample_id: of the test rows.
        backbones: the ensemble, in the order of `weights`.
        class_names: in the order of `scores`.
        combinations: by combiner.
        digest: names the content of the file; empty until it is read from one.
    """

    sample_id: tuple[str, ...]
    backbones: tuple[str, ...]
    class_names: tuple[str, ...]
    combinations: Mapping[str, Combination]
    digest: str = ""


def read_combined(path: Path) -> CombinedStore:
    """Read and check a whole combined file.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    content = _h5.read(path, FORMAT)
    store = CombinedStore(
        sample_id=content.strings("sample_id"),
        backbones=content.strings("backbones"),
        class_names=content.strings("class_names"),
        combinations={n: _combination(content, n) for n in combiners_of(content.header)},
        digest=content.header.digest,
    )
    _check(store, lambda problem: _h5.damaged(path, f"breaks the format: {problem}"))
    return store


def _combination(content: _h5.Content, name: str) -> Combination:
    group = group_of(name)
    given = {
        what: content.array(f"{group}/{what}", "<f4", dimensions=2)
        for what in ("weights", "scores")
        if f"{group}/{what}" in content.arrays
    }
    if len(given) != 1:
        problem = f"holds {' and '.join(given) or 'neither weights nor scores'} of {quoted(name)}"
        raise _h5.damaged(content.header.path, f"{problem}, expected one of them")
    return Combination(
        key=content.header.key(group),
        learnt=read_learnt(content, group),
        facts=read_facts(content.header, group),
        **given,
    )


def _check(store: CombinedStore, refuse: checks.Refuse) -> None:
    checks.check_names("sample_id", store.sample_id, refuse)
    checks.check_names("backbone", store.backbones, refuse)
    checks.check_text("class name", store.class_names, refuse)
    widths = {"weights": len(store.backbones), "scores": len(store.class_names)}
    for name, combination in store.combinations.items():
        what, array = combination.given
        rows = {"sample ids": len(store.sample_id), f"rows of {name} {what}": len(array)}
        checks.check_lengths(rows, refuse)
        columns = {f"columns of {name} {what}": array.shape[1], "expected columns": widths[what]}
        checks.check_lengths(columns, refuse)
        checks.check_finite(f"{name} {what}", array, store.sample_id, refuse)
