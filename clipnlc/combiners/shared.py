"""What the fits on one pool of unlabelled rows have in common, computed once for all of them.

A run fits on many draws of labels, and on the same pool each time. What no label changes is kept
until it is asked for with other inputs, under a digest of everything that it is computed from: so a
fit learns the same, whatever was fitted before it.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
from jaxtyping import Float, Float32, Int

from clipnlc.combiners.kernel import Widths, centred_rows, joint_kernel
from clipnlc.ensemble import Ensemble
from clipnlc.logistic import DOUBLE_ROWS

SHARED_ROWS = 8192
"""Rows of the largest pool whose kernel is kept: a quarter of a gigabyte."""

Found = TypeVar("Found")

_KEPT: dict[str, tuple[bytes, object]] = {}


def once(
    name: str,
    compute: Callable[[], Found],
    arrays: Sequence[Float[np.ndarray, "..."]],
    settings: object,
) -> Found:
    """Return `compute()`, or what it gave the last time if arrays and settings were the same.

    Args:
        name: of what is computed; one result of each name is kept.
        compute: gives it. Nobody may change it afterwards.
        arrays: what it depends on, by content.
        settings: what else it depends on; their `repr` must tell all of it.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    key = digest.digest()
    kept, found = _KEPT.pop(name, (b"", None))
    if kept != key:
        del found  # before the new one is made: both may not fit
        found = compute()
    _KEPT[name] = (key, found)
    return cast("Found", found)


def rows_within(ensemble: Ensemble, pool: Ensemble) -> Int[np.ndarray, " rows"] | None:
    """Return which rows of the pool the rows of an ensemble are; None unless all are among them."""
    numbers = {name: number for number, name in enumerate(pool.sample_id)}
    if not numbers.keys() >= set(ensemble.sample_id):
        return None
    places = np.array([numbers[name] for name in ensemble.sample_id], dtype=np.int64)
    alike = (
        np.array_equal(own, all_of_it[places])
        for own, all_of_it in zip(ensemble.features, pool.features, strict=True)
    )
    return places if all(alike) else None


def pool_kernel(
    pool: Ensemble, mean: Float[np.ndarray, " width"], *, beta: float, widths: Widths
) -> Float32[np.ndarray, "pool pool"]:
    """Return the kernel of a pool's rows, centred on a mean, with themselves; it may not be changed."""

    def compute() -> np.ndarray:
        rows = centred_rows(pool.features, mean)
        found = joint_kernel(rows, beta=beta, widths=widths, dtype=np.float32)
        found.flags.writeable = False
        return found

    return once("pool kernel", compute, (*pool.features, mean), (beta, tuple(widths)))


def shares_kernel(rows: int, pool: int) -> bool:
    """Return whether a fit on so many labelled rows takes its kernel from that of such a pool.

    With few rows their own kernel is cheaper, and it is float64.
    """
    return rows > DOUBLE_ROWS and pool <= SHARED_ROWS
