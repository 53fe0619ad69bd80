"""The description of an exported ensemble: a JSON object becomes an `Export`, or says what is wrong.

`docs/formats/ensemble.md` describes it; `stores.export` reads and writes the folder around it.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar, get_args

import numpy as np

from clipnlc.export import (
    Estimate,
    Export,
    ExportedFit,
    ExportedHead,
    Measurement,
    TaughtBy,
)
from clipnlc.labels import Labels

ROUNDING: Final = 1e-9
"""How far an accuracy may lie outside its bounds."""

_IDENTITY: Final[dict[str, type]] = {
    "architecture": str,
    "weights": str,
    "precision": str,
    "preprocessing": dict,
}
T = TypeVar("T")


def export_of_tree(tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Export:
    """Build an export from the JSON object of its description and the arrays beside it.

    Args:
        tree: the description, whose digest was checked.
        arrays: by name: `combiner/NAME`, or `heads/NUMBER/NAME`.

    Raises:
        KeyError, TypeError, ValueError: the object lacks something, or does not fit the arrays.
    """
    backbones = _objects(tree, "backbones")
    learnt: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        owner, _, own_name = name.rpartition("/")
        learnt.setdefault(owner, {})[own_name] = array
    if not backbones:
        raise ValueError("there are no backbones")
    strangers = learnt.keys() - {"combiner", *(f"heads/{n}" for n in range(len(backbones)))}
    if strangers:
        raise ValueError(f"there are arrays {min(strangers)}, and {len(backbones)} backbones")
    heads = tuple(_head(one, learnt.get(f"heads/{n}", {})) for n, one in enumerate(backbones))
    names = [head.backbone for head in heads]
    if len(set(names)) != len(names):
        raise ValueError(f"backbones are {', '.join(names)}, expected none twice")
    return Export(
        dataset=take(tree, "dataset", str),
        class_names=_texts(tree, "classes"),
        templates=_texts(tree, "prompts"),
        head=take(tree, "head", str),
        heads=heads,
        fit=_exported_fit(take(tree, "combiner", dict), learnt.get("combiner", {})),
        measured=tuple(_measurement(one) for one in _objects(tree, "measured")),
        keeps_features=take(tree, "keeps_features", bool),
        probabilistic=take(tree, "probabilistic", bool),
        clipnlc=take(tree, "clipnlc", str),
        head_package=_package(tree, "head_package"),
    )


def _head(tree: Mapping[str, Any], learnt: Mapping[str, np.ndarray]) -> ExportedHead:
    identity = take(tree, "identity", dict)
    for name, kind in _IDENTITY.items():
        take(identity, name, kind)
    return ExportedHead(
        backbone=take(tree, "name", str),
        identity=identity,
        settings=take(tree, "head_settings", dict),
        learnt=learnt,
        teacher=_taught_by(take(tree, "teacher", dict)) if "teacher" in tree else None,
    )


def _taught_by(tree: Mapping[str, Any]) -> TaughtBy:
    return TaughtBy(take(tree, "combiner", str), _texts(tree, "backbones"))


def _exported_fit(tree: Mapping[str, Any], learnt: Mapping[str, np.ndarray]) -> ExportedFit:
    facts = take(tree, "facts", dict)
    if not all(isinstance(fact, str | int | float) for fact in facts.values()):
        raise ValueError("a fact is neither number nor text")
    return ExportedFit(
        combiner=take(tree, "name", str),
        settings=take(tree, "settings", dict),
        learnt=learnt,
        backbones=_texts(tree, "backbones"),
        class_names=_texts(tree, "classes"),
        labels=Labels.parse(take(tree, "labels", str)),
        facts=facts,
        package=_package(tree, "package"),
    )


def _package(tree: Mapping[str, Any], name: str) -> dict[str, str] | None:
    if name not in tree:
        return None
    package = take(tree, name, dict)
    return {field: take(package, field, str) for field in ("name", "version")}


def _measurement(tree: Mapping[str, Any]) -> Measurement:
    images = take(tree, "images", int)
    low, accuracy, high = (take(tree, name, float) for name in ("low", "accuracy", "high"))
    ordered = -ROUNDING <= low <= accuracy + ROUNDING and accuracy <= high + ROUNDING
    if images < 1 or not ordered or high > 1 + ROUNDING:
        raise ValueError(f"an accuracy on {images} images is {accuracy}, {low} to {high}")
    return Measurement(
        dataset=take(tree, "dataset", str),
        split=take(tree, "split", str),
        images=images,
        accuracy=accuracy,
        low=low,
        high=high,
        estimate=_estimate(tree),
    )


def _estimate(tree: Mapping[str, Any]) -> Estimate:
    """Return how an accuracy was obtained; older descriptions only have held-out ones."""
    found = tree.get("estimate", "held-out")
    if found not in get_args(Estimate):
        raise ValueError(f"estimate is {found!r}, expected one of {', '.join(get_args(Estimate))}")
    known: Estimate = found
    return known


def _objects(tree: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = take(tree, name, list)
    if not all(isinstance(value, dict) for value in values):
        raise TypeError(f"{name} are not a list of objects")
    return values


def _texts(tree: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = take(tree, name, list)
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} are not a list of texts")
    return tuple(values)


def take(tree: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a member of a JSON object, of this type; a float may be written as an integer.

    Raises:
        KeyError: there is no such member.
        TypeError: it is of another type.
    """
    value = tree[name]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:  # not isinstance: a boolean is no number here
        raise TypeError(f"{name} is of type {type(value).__name__}, expected {kind.__name__}")
    return value
