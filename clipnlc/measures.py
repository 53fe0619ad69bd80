"""What is measured of predictions: one row of facts per measure, which is the registry's row.

A measure is a function of one block of samples alone, which gives one or more values per sample,
and a function that sums the values of all samples up. So it never needs all scores in memory, and
what it needs of them can be stored.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from clipnlc.registry import unknown_name

Unit = Literal["%", "nats", ""]
Direction = Literal["higher", "lower"]

Values = Float[np.ndarray, "samples values"]


@dataclass(frozen=True)
class Measure:
    """One measure of scores against labels.

    Attributes:
        title: as a table's title says it, without unit and direction.
        unit: `%` for a share in [0, 1] that tables print in per cent; `nats`; or none.
        better: which direction is.
        bounds: the lowest and the highest value there can be.
        each: `module:function` of `(scores [samples, classes], labels [samples])`, float64 values
            `[samples, values]`. `softmax` of the scores is taken for the probabilities. A row's
            values depend on that row alone.
        total: `module:function` of `(values [samples, values], labels [samples])`, one float; the
            mean of the first value where it is empty.
        pooled: over several data sets all samples are put together; else each data set's own
            total counts once.
    """

    title: str
    unit: Unit
    better: Direction
    bounds: tuple[float, float]
    each: str
    total: str = ""
    pooled: bool = False

    def values(
        self, scores: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
    ) -> Values:
        """Return the values of each sample, float64; the same bits whatever the block."""
        found: np.ndarray = _loaded(self.each)(scores, labels)
        return found

    def sum_up(self, values: Values, labels: Int[np.ndarray, " samples"]) -> float:
        """Return the measure of all samples from the values of each."""
        return float(_loaded(self.total)(values, labels) if self.total else values[:, 0].mean())

    def __call__(
        self, scores: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
    ) -> float:
        """Return the measure of these scores."""
        return self.sum_up(self.values(scores, labels), labels)


@dataclass(frozen=True)
class Measures:
    """The table of a family of measures: `name -> Measure`, in the order of the output."""

    table: Mapping[str, Measure]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the table's order."""
        return iter(self.table)

    def __contains__(self, name: object) -> bool:
        """Tell whether `name` is a measure."""
        return name in self.table

    def get(self, name: str) -> Measure:
        """Return the measure called `name`.

        Raises:
            UnknownNameError: no measure has this name.
        """
        if name not in self.table:
            raise unknown_name("measure", name, self.table)
        return self.table[name]


def _loaded(place: str) -> Any:  # noqa: ANN401  (functions of two kinds)
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)
