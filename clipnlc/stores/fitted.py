"""What several formats share: learnt arrays and facts, and a group per combiner."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from clipnlc.commands import command
from clipnlc.digests import canonical_json
from clipnlc.errors import StoreError
from clipnlc.stores import _h5
from clipnlc.stores.checks import Refuse
from clipnlc.stores.key import Key
from clipnlc.stores.layout import as_part, from_part, locate, maker
from clipnlc.wording import quoted

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
        StoreError: they are missing, or one is neither number nor string.
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
        raise refuse(f"its learnt array {quoted(name)} holds something other than finite numbers")


@runtime_checkable
class Keyed(Protocol):
    """What one combiner left in a file, under a key."""

    @property
    def key(self) -> Key:
        """Every resolved input by name."""
        ...


One = TypeVar("One", bound=Keyed)


def current(old: Mapping[str, One], new: Mapping[str, One]) -> dict[str, One]:
    """Choose what is there already that no input of the new ones contradicts."""
    inputs: dict[str, str] = {}
    for one in new.values():
        inputs.update(one.key.inputs)
    return {
        name: one
        for name, one in old.items()
        if all(inputs.get(place, digest) == digest for place, digest in one.key.inputs.items())
    }


def not_written(path: Path) -> Callable[[str], StoreError]:
    """Return what turns a problem into the error for a file that was not written."""
    place = locate(path)
    verify = command("verify", store=place.store if place else None)
    return lambda problem: StoreError(
        f"{path} not written: {problem}; expected finite numbers and unique names: check what it "
        f"was made from with `{verify}`, then run `{maker(path)}` again"
    )


def combiners_of(header: _h5.Header) -> tuple[str, ...]:
    """List the combiners that a file has a group of, sorted."""
    return tuple(from_part(part) for part in header.members("combiners"))


def group_of(combiner: str) -> str:
    """Return the group of a combiner in a file."""
    return f"combiners/{as_part(combiner)}"
