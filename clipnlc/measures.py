"""What is measured of predictions: one row of facts per measure, which is the registry's row.

A measure is a function of one block of samples alone, which gives one or more values per sample,
and a function that sums the values of all samples up. So it never needs all scores in memory, and
what it needs of them can be stored. A pairwise measure compares the backbones with each other.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.fitting import log_softmax
from clipnlc.plugins import Plugin, Plugins
from clipnlc.registry import unknown_name

Unit = Literal["%", "nats", ""]
Direction = Literal["higher", "lower"]
Bounds = tuple[float | None, float | None]

Values = Float[np.ndarray, "samples values"]
Square = Float[np.ndarray, "backbones backbones"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What tables, pictures and records need to know of a measure.

    Attributes:
        title: as a table's title says it, without unit and direction.
        unit: `%` for a share in [0, 1] that tables print in per cent; `nats`; or none.
        better: which direction is better; of a pairwise measure, which is diverse.
        bounds: the lowest and the highest value there can be; None for no bound.
        meaning: what is measured, as a phrase below a table.
        heading: of a column, where the title is too long for one.
    """

    title: str
    unit: Unit
    better: Direction
    bounds: Bounds
    meaning: str
    heading: str = ""

    @property
    def facts(self) -> "Facts":
        """These facts alone, without the functions of a row."""
        return Facts(**{field.name: getattr(self, field.name) for field in fields(Facts)})


@dataclass(frozen=True)
class Block:
    """Some samples: their scores and labels, and what measures derive from them, derived once.

    Attributes:
        scores: the class with the highest is predicted; -inf for a class that cannot be.
        labels: class numbers.
    """

    scores: Float[np.ndarray, "samples classes"]
    labels: Int[np.ndarray, " samples"]

    @cached_property
    def predicted(self) -> Int[np.ndarray, " samples"]:
        """The class with the highest score; the first of equals."""
        found: np.ndarray = self.scores.argmax(axis=1)
        return found

    @cached_property
    def right(self) -> Bool[np.ndarray, " samples"]:
        """Whether the predicted class is the label."""
        found: np.ndarray = self.predicted == self.labels
        return found

    @cached_property
    def log_probs(self) -> Float[np.ndarray, "samples classes"]:
        """Log of the softmax of the scores, float64."""
        # In C order each row is summed on its own, in one order, however many rows there are.
        return log_softmax(np.array(self.scores, dtype=np.float64, order="C"))

    @cached_property
    def probs(self) -> Float[np.ndarray, "samples classes"]:
        """The softmax of the scores, float64, in [0, 1]."""
        found: np.ndarray = np.exp(self.log_probs)
        return found


@dataclass(frozen=True, kw_only=True)
class Measure(Facts):
    """One measure of scores against labels.

    Attributes:
        each: `module:function` of a `Block`, float64 values `[samples, values]`. A row's values
            depend on that row alone.
        total: `module:function` of `(values [samples, values], labels [samples])`, one float; the
            mean of the first value where it is empty.
        pooled: over several data sets all samples are put together, so `total` must not look at
            the labels; else each data set's own total counts once.
    """

    each: str
    total: str = ""
    pooled: bool = False

    def values(self, block: Block) -> Values:
        """Return the values of each sample, float64; the same bits whatever the block."""
        found: np.ndarray = _loaded(self.each)(block)
        return found

    def sum_up(self, values: Values, labels: Int[np.ndarray, " samples"]) -> float:
        """Return the measure of all samples from the values of each."""
        return float(_loaded(self.total)(values, labels) if self.total else values[:, 0].mean())

    def __call__(
        self, scores: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
    ) -> float:
        """Return the measure of these scores."""
        return self.sum_up(self.values(Block(scores, labels)), labels)


@dataclass(frozen=True, kw_only=True)
class PairMeasure(Facts):
    """One measure of pairs of backbones.

    Attributes:
        function: `module:function` that returns a symmetric `[backbones, backbones]` matrix, nan
            where undefined; of `(predictions [backbones, samples], labels [samples])`, or of the
            tuple of the backbones' features.
        reads: which of the two.
    """

    function: str
    reads: Literal["predictions", "features"] = "predictions"

    def __call__(self, *arrays: Any) -> Square:  # noqa: ANN401  (arrays of two kinds)
        """Return the matrix of what is given: predictions and labels, or the features."""
        found: np.ndarray = _loaded(self.function)(*arrays)
        return found


M = TypeVar("M", bound=Facts)


@dataclass(frozen=True)
class Measures(Generic[M]):
    """The table of a family of measures: `name -> row`, in the order of the output.

    Attributes:
        table: clipnlc's own measures.
        plugins: what other packages add; they come last, sorted by name.
        reserved: names that no measure may have.
    """

    table: Mapping[str, M]
    plugins: Plugins = field(default_factory=Plugins)
    reserved: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the table's order."""
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is a measure."""
        return name in self._rows

    def get(self, name: str) -> M:
        """Return the measure called `name`.

        Raises:
            UnknownNameError: no measure has this name.
            PluginError: another package has it, and it cannot be used.
        """
        if name in self.table:
            return self.table[name]
        found: M | None = self.plugins.load(name, self._taken)
        if found is None:
            raise unknown_name("measure", name, self)
        return found

    def plugin(self, name: str) -> Plugin | None:
        """Return which package has a measure; None for clipnlc's own."""
        return self.plugins.declared()[name][0] if name in self._added else None

    @property
    def facts(self) -> dict[str, Facts]:
        """The facts of every measure, as a record holds them."""
        return {name: row.facts for name, row in self._rows.items()}

    @property
    def _rows(self) -> Mapping[str, M]:
        return {**self.table, **self._added}

    @cached_property
    def _added(self) -> Mapping[str, M]:
        return self.plugins.members(self._taken)

    @property
    def _taken(self) -> tuple[str, ...]:
        return (*self.table, *self.reserved)


def _loaded(place: str) -> Any:  # noqa: ANN401  (functions of two kinds)
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)
