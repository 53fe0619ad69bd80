"""The value that combiners and measures see: arrays and names, no files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from collections.abc import Sequence

Logits = Float[np.ndarray, "backbones samples classes"]


@dataclass(frozen=True)
class Ensemble:
    """Several backbones' view of the same samples.

    Attributes:
        logits: float32, already multiplied by each backbone's own logit scale (plus its bias);
            never probabilities.
        features: one array `[samples, dim]` per backbone (widths differ), as the backbone gave
            them (not normalised). Empty tuple when no features were loaded.
        sample_id: one identifier per row, the same order in every array.
        backbones: names, unique; empty for arrays of unknown origin, whose given order counts.
        class_names: one per class, may repeat; empty for arrays of unknown origin, whose given
            order counts.
        gflops: what each backbone's image tower takes for one image, in billions of operations;
            empty where nobody asked.

    `clipnlc.ensemble_of` makes one of arrays, checked, and with names.

    >>> import clipnlc
    >>> made = clipnlc.ensemble_of({"a": np.eye(3), "b": 2 * np.eye(3)})
    >>> made.rows([0, 2]).members([1]).logits.tolist()
    [[[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]]]
    """

    logits: Float[np.ndarray, "backbones samples classes"]
    features: tuple[Float[np.ndarray, "samples _"], ...]
    sample_id: tuple[str, ...]
    backbones: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    gflops: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check that every array has one row per sample and one feature block per backbone."""
        backbones, samples, classes = self.logits.shape
        assert len(self.sample_id) == samples, "one sample_id per row"
        assert len(self.features) in (0, backbones), "one feature block per backbone"
        assert all(len(f) == samples for f in self.features), "one feature row per sample"
        assert len(self.backbones) in (0, backbones), "one name per backbone"
        assert len(self.class_names) in (0, classes), "one name per class"
        assert len(self.gflops) in (0, backbones), "one cost per backbone"

    def rows(self, index: Int[np.ndarray, " rows"] | Sequence[int]) -> Ensemble:
        """Return the rows of these numbers, in that order.

        Raises:
            IndexError: there is no such row.
        """
        i = np.asarray(index, dtype=np.int64)
        return Ensemble(
            logits=self.logits[:, i],
            features=tuple(f[i] for f in self.features),
            sample_id=tuple(self.sample_id[j] for j in i),
            backbones=self.backbones,
            class_names=self.class_names,
            gflops=self.gflops,
        )

    def members(self, index: Int[np.ndarray, " members"] | Sequence[int]) -> Ensemble:
        """Return the backbones of these numbers, in that order.

        Raises:
            IndexError: there is no such backbone.
        """
        i = [int(j) for j in index]
        if i == list(range(len(self.logits))):
            return self
        return Ensemble(
            logits=self.logits[i],
            features=tuple(self.features[j] for j in i) if self.features else (),
            sample_id=self.sample_id,
            backbones=tuple(self.backbones[j] for j in i) if self.backbones else (),
            class_names=self.class_names,
            gflops=tuple(self.gflops[j] for j in i) if self.gflops else (),
        )

    def classes(self, index: Int[np.ndarray, " chosen"] | Sequence[int]) -> Ensemble:
        """Return the classes of these numbers, in that order.

        Raises:
            IndexError: there is no such class.

        >>> import clipnlc
        >>> made = clipnlc.ensemble_of({"a": np.eye(2)}, class_names=["cat", "dog"])
        >>> made.classes([1, 0]).class_names, made.classes([1, 0]).logits.tolist()
        (('dog', 'cat'), [[[0.0, 1.0], [1.0, 0.0]]])
        """
        i = [int(j) for j in index]
        if i == list(range(self.logits.shape[2])):
            return self
        return Ensemble(
            logits=np.ascontiguousarray(self.logits[:, :, i]),
            features=self.features,
            sample_id=self.sample_id,
            backbones=self.backbones,
            class_names=tuple(self.class_names[j] for j in i) if self.class_names else (),
            gflops=self.gflops,
        )

    def with_features(self, features: Sequence[Float[np.ndarray, "samples _"]]) -> Ensemble:
        """Return the same samples with other features, an array `[samples, dim]` a backbone.

        >>> import clipnlc
        >>> made = clipnlc.ensemble_of({"a": np.eye(2), "b": np.eye(2)})
        >>> made = made.with_features([np.ones((2, 5)), np.zeros((2, 0))])
        >>> [its.shape for its in made.features]
        [(2, 5), (2, 0)]
        """
        return replace(self, features=tuple(features))

    def canonical(self) -> Canonical:
        """Sort backbones and classes by name; what has no names stays in its given order.

        Classes of the same name keep their order. No array is copied that is in order already.

        >>> import clipnlc
        >>> found = clipnlc.ensemble_of({"b": np.eye(2), "a": 2 * np.eye(2)}).canonical()
        >>> found.backbones.tolist(), found.ensemble.logits[:, 0, 0].tolist()
        ([1, 0], [2.0, 1.0])
        """
        backbones, classes = by_name(self.backbones), by_name(self.class_names)
        ordered = self.members(backbones) if self.backbones else self
        ordered = ordered.classes(classes) if self.class_names else ordered
        members, _, width = self.logits.shape
        return Canonical(
            replace(ordered, backbones=(), class_names=()),
            backbones if self.backbones else np.arange(members),
            classes if self.class_names else np.arange(width),
        )

    def concatenated(
        self, rows: Int[np.ndarray, " rows"] | None = None
    ) -> Float[np.ndarray, "rows width"]:
        """Concatenate the features of all or some rows, each backbone's L2-normalised, in float32.

        Raises:
            ValueError: the ensemble was opened without features.

        >>> import clipnlc
        >>> made = clipnlc.ensemble_of({"a": np.eye(2)}, features={"a": np.array([[3, 4.0], [0, 2]])})
        >>> made.concatenated().round(3).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
        """
        if not self.features:
            raise ValueError("this ensemble holds no features; open it with features")
        widths = [f.shape[1] for f in self.features]
        count = len(self.sample_id) if rows is None else len(rows)
        found = np.empty((count, sum(widths)), dtype=np.float32)
        start = 0
        for block, width in zip(self.features, widths, strict=True):
            plain = block if rows is None else block[rows]
            plain = plain.astype(np.float32) if plain.dtype == np.float16 else plain
            lengths = np.linalg.norm(plain, axis=1, keepdims=True)
            found[:, start : start + width] = plain / np.maximum(lengths, 1e-12)
            start += width
        return found


class Canonical(NamedTuple):
    """An ensemble in the order of names, and how to come back.

    Attributes:
        ensemble: the same ensemble without names: its given order is the canonical one.
        backbones: the number that each of its backbones had before.
        classes: the number that each of its classes had before.
    """

    ensemble: Ensemble
    backbones: Int[np.ndarray, " backbones"]
    classes: Int[np.ndarray, " classes"]

    def labels(self, labels: Int[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
        """Number the classes as in the canonical order."""
        renumbered: np.ndarray = np.argsort(self.classes)[labels]
        return renumbered


def by_name(names: Sequence[str]) -> Int[np.ndarray, " names"]:
    """Return the numbers of the names in their order; equal names keep theirs.

    >>> by_name(["b", "a", "b"]).tolist()
    [1, 0, 2]
    """
    return np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
