"""JSON as a value of a given type: dataclasses, tuples, mappings, literals, numbers, text.

Nothing is converted: a boolean is no number, and a number is no text. What is wrong is named by its
place in the tree, as in `datasets[0].rows[3].accuracy`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from clipnlc.labels import KINDS, Labels

LARGEST = 2**53
"""Of an integer; every float holds those below exactly."""


def typed(kind: Any, tree: object, where: str = "it") -> Any:  # noqa: ANN401  (of the kind)
    """Return a JSON tree as a value of this type.

    Args:
        kind: a dataclass, or a type that a field of one has.
        tree: JSON, as `json.loads` gives it.
        where: what the tree is called in errors.

    Raises:
        ValueError: it is no such value; names the place in the tree.
        DataError: labels have an amount that cannot be.

    >>> typed(tuple[float | None, ...], [0.5, None])
    (0.5, None)
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if NoneType in arguments:
        (one,) = [argument for argument in arguments if argument is not NoneType]
        return None if tree is None else typed(one, tree, where)
    if origin in _READERS:
        return _READERS[origin](arguments, tree, where)
    if kind is Labels:
        return _labels(tree, where)
    return (_dataclass if is_dataclass(kind) else _checked)(kind, tree, where)


def _literal(arguments: tuple[Any, ...], tree: object, where: str) -> object:
    if tree not in arguments or not isinstance(tree, str):
        raise ValueError(f"{where} is {_shown(tree)}, expected one of {', '.join(arguments)}")
    return tree


def _mapping(arguments: tuple[Any, ...], tree: object, where: str) -> dict[str, Any]:
    found = _checked(dict, tree, where)
    return {name: typed(arguments[1], one, f"{where}.{name}") for name, one in found.items()}


def _tuple(arguments: tuple[Any, ...], tree: object, where: str) -> tuple[Any, ...]:
    found = _checked(list, tree, where)
    kinds = arguments[:1] * len(found) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(found):
        raise ValueError(f"{where} has {len(found)} entries, expected {len(kinds)}")
    pairs = zip(kinds, found, strict=True)
    return tuple(typed(kind, one, f"{where}[{i}]") for i, (kind, one) in enumerate(pairs))


_READERS: dict[Any, Callable[[tuple[Any, ...], object, str], Any]] = {
    Literal: _literal,
    tuple: _tuple,
    Mapping: _mapping,
}


def _dataclass(kind: Any, tree: object, where: str) -> Any:  # noqa: ANN401  (of the kind)
    found = _checked(dict, tree, where)
    known, optional = _fields(kind)
    for name in sorted(found.keys() ^ known.keys()):
        if name not in optional or name in found:
            raise ValueError(f"{where} {'has' if name in found else 'lacks'} the field {name!r}")
    within = "" if where == "it" else f"{where}."
    return kind(**{name: typed(known[name], one, within + name) for name, one in found.items()})


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:  # noqa: ANN401  (a dataclass)
    """Return the types of all fields by name, and the names of those that may be absent."""
    hints = get_type_hints(kind)
    optional = frozenset(field.name for field in fields(kind) if field.default is not MISSING)
    return {field.name: hints[field.name] for field in fields(kind)}, optional


def _labels(tree: object, where: str) -> Labels:
    """Return which labels were drawn, whatever the seed."""
    found = _checked(dict, tree, where)
    if found.keys() != {"kind", "amount"}:
        raise ValueError(f"{where} is {_shown(tree)}, expected a kind of labels and an amount")
    _literal(KINDS, found["kind"], f"{where}.kind")
    amount = found["amount"]
    _checked(float, amount, f"{where}.amount")
    if found["kind"] in ("none", "all") and amount:
        raise ValueError(f"{where} are {found['kind']}, and their amount is {amount}")
    return Labels(found["kind"], amount)


def _checked(kind: Any, tree: object, where: str) -> Any:  # noqa: ANN401  (of the kind)
    allowed = (int, float) if kind is float else (kind,)
    if type(tree) not in allowed:  # not isinstance: a boolean is no number here
        raise ValueError(f"{where} is {_shown(tree)}, expected {_TITLES[kind]}")
    if isinstance(tree, int) and abs(tree) > LARGEST:
        raise ValueError(f"{where} is too large a number")
    if isinstance(tree, float) and not math.isfinite(tree):
        raise ValueError(f"{where} is {tree}, expected a number")
    return float(tree) if kind is float and isinstance(tree, int) else tree


_SHOWN = 40
"""Characters of a value in an error."""

_TITLES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def _shown(tree: object) -> str:
    """Spell a value in a few characters."""
    if isinstance(tree, list | dict):
        return f"{_TITLES[type(tree)]} of {len(tree)}"
    text = "null" if tree is None else repr(tree)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
