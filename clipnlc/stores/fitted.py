"""What a head or a combiner learnt, as arrays and facts; two formats store it the same way."""

from collections.abc import Mapping

import numpy as np

from clipnlc.digests import canonical_json
from clipnlc.stores import _h5
from clipnlc.stores.checks import Refuse
from clipnlc.stores.key import Key

Fact = float | str | int


def fitted_attributes(key: Key, facts: Mapping[str, Fact]) -> dict[str, _h5.Attribute]:
    """Spell key and facts as attributes."""
    return {"key": key.json, "facts": canonical_json(facts)}


def fitted_datasets(
    learnt: Mapping[str, np.ndarray], refuse: Refuse, group: str = ""
) -> dict[str, _h5.Dataset]:
    """Spell learnt arrays as data sets `[group/]learnt/<name>`.

    Raises:
        StoreError: by `refuse`; an array holds NaN or an infinity.
    """
    prefix = f"{group}/" if group else ""
    for name, array in learnt.items():
        assert name.isidentifier(), "a learnt array is named like an attribute"
        check_learnt(name, array, refuse)
    return {f"{prefix}learnt/{name}": array for name, array in learnt.items()}


def read_learnt(content: _h5.Content, group: str) -> dict[str, np.ndarray]:
    """Return the learnt arrays of `group` by name.

    Raises:
        StoreError: an array holds NaN or an infinity, or is no numbers.
    """
    prefix = f"{group}/learnt/" if group else "learnt/"
    learnt = {n.removeprefix(prefix): a for n, a in content.arrays.items() if n.startswith(prefix)}
    for name, array in learnt.items():
        check_learnt(name, array, lambda p: _h5.damaged(content.header.path, f"is wrong: {p}"))
    return learnt


def read_facts(header: _h5.Header, group: str) -> dict[str, Fact]:
    """Return the facts of `group`.

    Raises:
        StoreError: there are none, or one is neither number nor string.
    """
    facts = header.mapping("facts", group)
    if not all(isinstance(fact, str | int | float) for fact in facts.values()):
        raise _h5.damaged(header.path, f"has a fact that is no number or word in {group}@facts")
    return facts


def check_learnt(name: str, array: np.ndarray, refuse: Refuse) -> None:
    """Check that a learnt array holds finite numbers and nothing else.

    Raises:
        StoreError: by `refuse`; it does not.
    """
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise refuse(f"its learnt array {name!r} holds something other than finite numbers")
