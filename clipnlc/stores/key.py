"""The key of a store: every resolved input by name, defaults included.

Same key, same content: a stage that finds its key in a store answers "cached". A field called
`inputs` holds `{path in the store: digest of that file}` for a store made from other stores;
`clipnlc.stores.status` judges staleness from it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final

from clipnlc.digests import canonical_json

Json = str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None

SHOWN = 60  # characters of a value that a difference shows before it is shortened
ABSENT = "(absent)"


@dataclass(frozen=True)
class Key:
    """An immutable, hashable tree of named JSON values; make one with `Key.of`.

    Attributes:
        json: the canonical JSON text, as stored in the attribute `key`.

    >>> key = Key.of({"precision": "fp32", "resize": {"size": 224}})
    >>> key.fields["resize"]
    {'size': 224}
    >>> key == Key.of({"resize": {"size": 224}, "precision": "fp32"})
    True
    """

    json: str

    @classmethod
    def of(cls, fields: Mapping[str, Json]) -> "Key":
        """Make a key of `fields`; lists that run long belong in it as a digest.

        Raises:
            ValueError: a number is NaN or infinite.
            TypeError: a value is not JSON.
        """
        return cls(canonical_json(fields))

    @property
    def fields(self) -> dict[str, Any]:
        """A fresh copy of the named values."""
        fields: dict[str, Any] = json.loads(self.json)
        return fields

    @property
    def digest(self) -> str:
        """16 hexadecimal digits (blake2b) that name this key."""
        return hashlib.blake2b(self.json.encode(), digest_size=8).hexdigest()

    @property
    def inputs(self) -> dict[str, str]:
        """The field `inputs`: `{path in the store: digest}`; empty for a store made from none."""
        return dict(self.fields.get("inputs", {}))


def check_fields(fields: Mapping[str, Any]) -> None:
    """Check that the fields of a key that is read have the types of those that are written.

    Which fields there are is not looked at: that depends on what the key is of, and on its version.

    Raises:
        ValueError: names the field.
    """
    if _is_deep(fields, _DEEPEST):
        raise ValueError("values are nested too deeply")
    canonical_json(fields).encode()  # every text in it is text
    _check_types("", fields, {name: kind for name, kind in _TYPES.items() if name in fields})
    for place, digest in fields.get("inputs", {}).items():
        if not isinstance(digest, str) or not _is_place(place):
            raise ValueError(f"inputs name {_shortened(repr(place))}")
    images, classes = fields.get("images"), fields.get("classes")
    if images is not None:
        _check_types("images.", images, _IMAGES)
        if not 0 < images["samples"] <= _LARGEST:
            raise _odd("images.samples", images["samples"])
    if isinstance(classes, dict):
        _check_types("classes.", classes, _CLASSES)
        if not all(isinstance(text, str) for text in classes["templates"]):
            raise _odd("classes.templates", classes["templates"])
    _check_packages(fields)
    share = fields.get("division", {}).get("test_share")
    if not isinstance(share, float | int | None):
        raise _odd("division.test_share", share)


def _check_packages(fields: Mapping[str, Any]) -> None:
    """Check `package`, and `packages` by measure, which messages repeat."""
    every = dict(fields.get("packages", {}))
    if "package" in fields:
        every[""] = fields["package"]
    for name, package in every.items():
        where = f"packages.{name}" if name else "package"
        if not isinstance(package, dict):
            raise _odd(where, package)
        _check_types(f"{where}.", package, _PACKAGE)


_DEEPEST: Final = 50
_LARGEST: Final = 2**53
_LONGEST: Final = 255  # bytes of a file's name
_Types = Mapping[str, type | UnionType]
_TYPES: Final[_Types] = {
    **dict.fromkeys(
        ("inputs", "settings", "images", "division", "origin", "package", "packages"), dict
    ),
    **dict.fromkeys(("backbone", "head", "combiner", "labels", "run", "fitted_on"), str),
    "classes": dict | str,
    "backbones": list,
    "measures": list,
}
_IMAGES: Final[_Types] = {"backbone": str, "split": str, "content": str, "samples": int}
_PACKAGE: Final[_Types] = {"name": str, "version": str}
_CLASSES: Final[_Types] = {"labels": str, "names": str, "templates": list}


def _is_deep(value: object, left: int) -> bool:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left == 0 or any(_is_deep(one, left - 1) for one in below)


def _check_types(where: str, fields: Mapping[str, Any], types: _Types) -> None:
    for name, kind in types.items():
        value = fields.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _odd(f"{where}{name}", value)


def _odd(where: str, value: object) -> ValueError:
    return ValueError(f"{where} is {_shortened(repr(value))}")


def _is_place(name: str) -> bool:
    """Return whether it can be the path of a file below a store, and a part of it."""
    path = name.partition("#")[0]
    parts = path.split("/")
    return path.isprintable() and all(
        0 < len(part.encode()) <= _LONGEST and part != ".." for part in parts
    )


def differences(old: Key, new: Key) -> list[str]:
    """Say field by field what changed from `old` to `new`; an empty list means equal keys.

    >>> differences(Key.of({"precision": "fp32"}), Key.of({"precision": "fp16", "limit": 10}))
    ['limit: (absent) -> 10', 'precision: fp32 -> fp16']
    """
    before, after = _leaves(old.fields), _leaves(new.fields)
    return [
        f"{name}: {_change(before.get(name), after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten to `{dotted name: canonical JSON}`; lists and empty mappings are leaves."""
    leaves: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            leaves.update(_leaves(value, f"{prefix}{name}."))
        else:
            leaves[prefix + name] = canonical_json(value)
    return leaves


def _change(old: str | None, new: str | None) -> str:
    texts = [_readable(old), _readable(new)]
    if texts[0] == texts[1]:  # the string "1" became the number 1: show the quotes
        texts = [ABSENT if leaf is None else leaf for leaf in (old, new)]
    return " -> ".join(_shortened(text) for text in texts)


def _readable(leaf: str | None) -> str:
    if leaf is None:
        return ABSENT
    value = json.loads(leaf)
    return " ".join(value.split()) if isinstance(value, str) else leaf


def _shortened(text: str) -> str:
    """Cut a long text, with a digest so that two long texts never look the same."""
    if len(text) <= SHOWN:
        return text
    tag = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    return f"{text[: SHOWN // 2]}… ({len(text)} characters, {tag})"
