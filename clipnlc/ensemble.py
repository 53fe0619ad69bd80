"""The value that combiners and measures see: arrays only, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        features: one float32 array `[samples, dim]` per backbone (widths differ), as the
            backbone gave them (not normalised). Empty tuple when no features were loaded.
        sample_id: one identifier per row, the same order in every array.
    """

    logits: Float[np.ndarray, "backbones samples classes"]
    features: tuple[Float[np.ndarray, "samples _"], ...]
    sample_id: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that every array has one row per sample and one feature block per backbone."""
        backbones, samples, _ = self.logits.shape
        assert len(self.sample_id) == samples, "one sample_id per row"
        assert len(self.features) in (0, backbones), "one feature block per backbone"
        assert all(len(f) == samples for f in self.features), "one feature row per sample"

    def rows(self, index: Int[np.ndarray, " rows"] | Sequence[int]) -> Ensemble:
        """Return the rows named by `index`, in that order."""
        i = np.asarray(index, dtype=np.int64)
        return Ensemble(
            logits=self.logits[:, i],
            features=tuple(f[i] for f in self.features),
            sample_id=tuple(self.sample_id[j] for j in i),
        )

    def backbones(self, index: Sequence[int]) -> Ensemble:
        """Return the backbones named by `index`, in that order."""
        i = list(index)
        return Ensemble(
            logits=self.logits[i],
            features=tuple(self.features[j] for j in i) if self.features else (),
            sample_id=self.sample_id,
        )

    def concatenated(self) -> Float[np.ndarray, "samples width"]:
        """Concatenate the features, each backbone's L2-normalised (the NLC's input).

        Raises:
            ValueError: the ensemble was opened without features.
        """
        if not self.features:
            raise ValueError("this ensemble holds no features; open it with features")
        blocks = [
            f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12) for f in self.features
        ]
        return np.concatenate(blocks, axis=1).astype(np.float32)
