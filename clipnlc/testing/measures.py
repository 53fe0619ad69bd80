"""What every measure must do, as functions of its row."""

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.measures import Block, Facts, Measure, PairMeasure
from clipnlc.testing.checking import close, equal, same

_ROUNDING: Final = 1e-9
_SIZES: Final = ((1, 2), (7, 3), (60, 5), (200, 10))
"""Samples and classes."""


def _drawn(
    samples: int, classes: int, seed: int = 0
) -> tuple[Float[np.ndarray, "samples classes"], Int[np.ndarray, " samples"]]:
    random = np.random.default_rng([samples, classes, seed])
    return random.normal(0, 3, (samples, classes)), random.integers(0, classes, samples)


def check_measure(measure: Measure | PairMeasure) -> None:
    """Run every check on a measure: its values, and what tables and records need of it.

    Of a `Measure`: its values are float64, `[samples, values]`, finite, each row's by itself; the
    total is a finite float within the bounds, blind to the order of samples, and to that of the
    classes; scores of -inf, for classes that cannot be, are as if they were not there; a measure that
    is pooled looks at no label in its total. Of a `PairMeasure`: a symmetric float64 matrix within the
    bounds where it is defined, blind to the order of samples and moving with that of the backbones.

    Args:
        measure: the row that an entry point names.

    Raises:
        AssertionError: a check failed; the message says which.

    >>> from clipnlc.metrics import METRICS
    >>> check_measure(METRICS.get("brier"))
    """
    if isinstance(measure, Measure):
        for check in MEASURE_CHECKS:
            _run(lambda check=check: check(measure), check.__name__)  # type: ignore[misc]
    else:
        for check_pair in PAIR_MEASURE_CHECKS:
            _run(lambda check=check_pair: check(measure), check_pair.__name__)  # type: ignore[misc]


def _run(check: Callable[[], None], name: str) -> None:
    try:
        check()
    except AssertionError as problem:
        problem.add_note(f"in {name}")
        raise


def _says_what_a_table_needs(measure: Facts) -> None:
    assert measure.title, "the title is empty"
    assert measure.meaning, "the meaning is empty"
    assert measure.unit in ("%", "nats", ""), f"the unit is {measure.unit!r}"
    assert measure.better in ("higher", "lower"), f"better is {measure.better!r}"
    low, high = measure.bounds
    assert low is None or high is None or low < high, f"the bounds are {low} and {high}"
    if measure.unit == "%":
        equal(measure.bounds, (0.0, 1.0), "the bounds of a share")


def _gives_each_sample_values(measure: Measure) -> None:
    for samples, classes in _SIZES:
        values = measure.values(Block(*_drawn(samples, classes)))
        equal(values.dtype, np.dtype(np.float64), "the type of the values")
        equal((values.ndim, len(values)), (2, samples), "dimensions and rows of the values")
        assert np.isfinite(values).all(), "values are finite"
        none = measure.values(Block(*_drawn(0, classes)))
        equal(none.shape, (0, values.shape[1]), "the shape of the values of no samples")


def _leaves_its_inputs_alone(measure: Measure) -> None:
    scores, labels = _drawn(60, 5)
    measure(scores, labels)
    same(scores, _drawn(60, 5)[0], "the scores that were given")
    same(labels, _drawn(60, 5)[1], "the labels that were given")


def _gives_a_sample_the_same_bits_in_any_block(measure: Measure) -> None:
    scores, labels = _drawn(200, 10)
    whole = measure.values(Block(scores, labels))
    for length in (1, 3, 128):
        parts = [
            measure.values(Block(scores[i : i + length], labels[i : i + length]))
            for i in range(0, 200, length)
        ]
        same(np.concatenate(parts), whole, f"values of blocks of {length}")


def _is_within_its_bounds(measure: Measure) -> None:
    for samples, classes in _SIZES:
        for scale in (0.0, 0.01, 1.0, 100.0):
            scores, labels = _drawn(samples, classes)
            for given in (scale * scores, scale * 30 * np.eye(classes)[labels]):
                _inside(measure, measure(given, labels))


def _does_not_hang_on_the_order_of_samples(measure: Measure) -> None:
    scores, labels = _drawn(200, 10)
    order = np.random.default_rng(0).permutation(200)
    _close(measure(scores[order], labels[order]), measure(scores, labels), "in another order")


def _does_not_hang_on_the_order_of_classes(measure: Measure) -> None:
    scores, labels = _drawn(200, 10)
    order = np.random.default_rng(0).permutation(10)
    found = measure(scores[:, order], np.argsort(order)[labels])
    _close(found, measure(scores, labels), "of classes in another order")


def _passes_over_classes_that_cannot_be(measure: Measure) -> None:
    scores, labels = _drawn(60, 5)
    masked = np.concatenate([scores, np.full((60, 2), -np.inf)], axis=1)
    _close(measure(masked, labels), measure(scores, labels), "with classes that cannot be")


def _looks_at_no_label_where_pooled(measure: Measure) -> None:
    if not measure.pooled:
        return
    scores, labels = _drawn(200, 10)
    values = measure.values(Block(scores, labels))
    other = measure.sum_up(values, np.roll(labels, 1))
    equal(other, measure.sum_up(values, labels), "the total with other labels, of a pooled measure")


MEASURE_CHECKS: Final[tuple[Callable[[Measure], None], ...]] = (
    _says_what_a_table_needs,
    _gives_each_sample_values,
    _leaves_its_inputs_alone,
    _gives_a_sample_the_same_bits_in_any_block,
    _is_within_its_bounds,
    _does_not_hang_on_the_order_of_samples,
    _does_not_hang_on_the_order_of_classes,
    _passes_over_classes_that_cannot_be,
    _looks_at_no_label_where_pooled,
)
"""Each takes a `Measure`, and raises AssertionError with what was expected."""


def _pair_inputs(measure: PairMeasure, order: Int[np.ndarray, " samples"]) -> tuple[object, ...]:
    """Make what the measure reads, of three backbones, two of which are alike."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 60)
    guesses = np.where(random.random((3, 60)) < 0.6, labels, random.integers(0, 4, (3, 60)))  # noqa: PLR2004
    guesses[2] = guesses[0]
    if measure.reads == "predictions":
        return guesses[:, order], labels[order]
    one, other = random.normal(size=(60, 6)), random.normal(size=(60, 9))
    return (tuple(each[order].astype(np.float32) for each in (one, other, one)),)


def _is_a_symmetric_matrix_within_its_bounds(measure: PairMeasure) -> None:
    found = measure(*_pair_inputs(measure, np.arange(60)))
    equal(found.shape, (3, 3), "the shape of the matrix")
    equal(found.dtype, np.dtype(np.float64), "the type of the matrix")
    same(found, found.T, "the matrix is symmetric")
    for value in found[np.isfinite(found)]:
        _inside(measure, float(value))
    assert np.isfinite(found[0, 1]), "the value of two unlike backbones is finite"


def _treats_equal_backbones_alike(measure: PairMeasure) -> None:
    found = measure(*_pair_inputs(measure, np.arange(60)))
    _close(found[1, 2], found[1, 0], "of two backbones that are the same")


def _pairs_do_not_hang_on_the_order_of_samples(measure: PairMeasure) -> None:
    order = np.random.default_rng(1).permutation(60)
    found, plain = (measure(*_pair_inputs(measure, rows)) for rows in (order, np.arange(60)))
    close(found, plain, "of samples in another order", rtol=1e-9, atol=1e-9)


PAIR_MEASURE_CHECKS: Final[tuple[Callable[[PairMeasure], None], ...]] = (
    _says_what_a_table_needs,
    _is_a_symmetric_matrix_within_its_bounds,
    _treats_equal_backbones_alike,
    _pairs_do_not_hang_on_the_order_of_samples,
)
"""Each takes a `PairMeasure`, and raises AssertionError with what was expected."""


def _inside(measure: Facts, value: float) -> None:
    low, high = measure.bounds
    assert np.isfinite(value), f"{measure.title} is {value}, expected a finite number"
    inside = (low is None or value >= low - _ROUNDING) and (
        high is None or value <= high + _ROUNDING
    )
    assert inside, f"{measure.title} is {value}, outside of its bounds {low} and {high}"


def _close(one: float, other: float, what: str) -> None:
    close(np.array(one), np.array(other), f"the value {what}", rtol=1e-9, atol=1e-9)
