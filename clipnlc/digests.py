"""The one JSON text of a value, and the digest that shows whether it was altered."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: object) -> str:
    """Write `value` as the one JSON text it has: sorted names, no spaces, no NaN.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: a value is not JSON (an array, a path, a name that is no string).

    >>> canonical_json({"b": (1, 2.0), "a": None})
    '{"a":null,"b":[1,2.0]}'
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_digest(value: object) -> str:
    """Return 32 hexadecimal digits (blake2b) that name the JSON `value`.

    >>> content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()


def with_digest(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with one more name, `digest`: that of all the others.

    Raises:
        ValueError: a number is NaN or infinite, or a text is no Unicode.
        TypeError: a value is not JSON.

    >>> with_digest({"rows": 3})
    {'rows': 3, 'digest': '47b702429120a0b9ee229045e2b9cd07'}
    """
    return {**tree, "digest": content_digest(tree)}


def matches_digest(tree: Mapping[str, Any]) -> bool:
    """Return whether a JSON object says what it said when `with_digest` made it.

    >>> matches_digest(with_digest({"rows": 3}) | {"rows": 4})
    False
    """
    try:
        return tree.get("digest") == content_digest(
            {name: value for name, value in tree.items() if name != "digest"}
        )
    except (ValueError, RecursionError):  # NaN, half a character, thousands of levels
        return False


def read_exactly(text: str | bytes) -> Any:  # noqa: ANN401  (any JSON)
    """Read JSON whose numbers are spelled as Python spells them: shortest, and read back the same.

    Two spellings of one number would pass for one content; here a changed digit is never unseen.
    A name must not be repeated in an object: only the second would be read.

    Raises:
        ValueError: the text is no JSON, a number is spelled otherwise, or a name is repeated.
    """
    return json.loads(
        text, parse_float=_as_written, parse_constant=_no_number, object_pairs_hook=_named_once
    )


def _as_written(text: str) -> float:
    value = float(text)
    if repr(value) != text:
        raise ValueError(f"the number {text} is spelled {value!r}")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated in an object")
    return found


def _plain(value: object) -> object:
    """Check that `value` is JSON all the way down; tuples become lists."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"names must be strings, found {list(value)!r}")
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    raise TypeError(f"not a JSON value: {type(value).__name__} {value!r}")
