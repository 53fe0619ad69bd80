"""The labelled rows of one backbone, as one value that can be cut and fitted on."""

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float, Int

from clipnlc.heads.base import Head


@dataclass(frozen=True)
class LabelledRows:
    """The labelled rows of one backbone, and what else a head is fitted on.

    The attributes are the arguments of `Head.fit`.
    """

    features: Float[np.ndarray, "samples dim"]
    labels: Int[np.ndarray, " samples"]
    sample_id: tuple[str, ...]
    texts: Float[np.ndarray, "classes dim"] | None
    logit_scale: float | None
    logit_bias: float = 0.0
    views: Float[np.ndarray, "samples dim"] | None = None
    targets: Float[np.ndarray, "samples classes"] | None = None
    classes: int | None = None

    def take(self, rows: Int[np.ndarray, " rows"]) -> "LabelledRows":
        """Return these rows alone, in this order."""
        return replace(
            self,
            features=self.features[rows],
            labels=self.labels[rows],
            sample_id=tuple(self.sample_id[row] for row in rows),
            views=None if self.views is None else self.views[rows],
            targets=None if self.targets is None else self.targets[rows],
        )

    def fit(self, head: Head) -> Head:
        """Fit a head on these rows and return it; only one that has a teacher is told of it."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if not head.needs_teacher:
            del given["targets"]
        return head.fit(**given)
