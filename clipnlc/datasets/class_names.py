"""Class names: from identifiers (folder names, `ClassLabel`), a list beside the data, or the user.

An identifier (`test_tube`) says which class a label is; a class name (`test tube`) is what goes
into a prompt. Identifiers become names by turning `_` into a space; lists are taken verbatim.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipnlc.errors import DataError

_SHOWN = 5


def display_name(identifier: str) -> str:
    """Turn a class identifier into the words for a prompt.

    >>> display_name("test_tube")
    'test tube'
    """
    return identifier.replace("_", " ")


def read_card(root: Path) -> dict[str, Any]:
    """Return what a data set's own `dataset.json` says, restricted to what we use.

    The keys are `class_names` (in label order) and `templates`, each a list of strings. A file of
    that name with something else in it is not ours and is passed over.
    """
    file = root / "dataset.json"
    if not file.is_file():
        return {}
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    if not isinstance(card, dict):
        return {}
    return {
        key: tuple(card[key])
        for key in ("class_names", "templates")
        if isinstance(card.get(key), list) and all(isinstance(text, str) for text in card[key])
    }


def beside(root: Path, identifiers: Sequence[str] | None) -> tuple[tuple[str, ...], Path] | None:
    """Return the class names that lie beside the data, and the file they are from.

    That is `dataset.json`, or, where labels are bare numbers, `classnames.txt` (the custom of
    webdataset repositories). None when there is neither.
    """
    card = read_card(root)
    if "class_names" in card:
        return card["class_names"], root / "dataset.json"
    file = root / "classnames.txt"
    if identifiers is None and file.is_file():
        return _lines(_read(file)), file
    return None


def name_classes(
    identifiers: Sequence[str] | None, root: Path, user_file: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Decide the class names: the user's file, else a list beside the data, else the identifiers.

    Args:
        identifiers: one per class in label order; None when labels are bare numbers.
        root: the data set's root.
        user_file: `--class-names`: names one a line or as a JSON list, both in label order; or
            `identifier = name` lines or a JSON object, which map by name.

    Returns:
        The names in label order, and notes for the user.

    Raises:
        DataError: there are no names, or their number or their identifiers do not fit.
    """
    if user_file is not None:
        given = _read_user_file(user_file)
        if isinstance(given, dict):
            return _by_identifier(given, identifiers, user_file), ()
        return _by_position(given, identifiers, user_file)
    found = beside(root, identifiers)
    if found is not None:
        names, file = found
        if identifiers is not None and len(names) != len(identifiers):
            raise DataError(
                f"{file} has {len(names)} class names, the data has {len(identifiers)} classes ({_some(identifiers)}); make them agree or give --class-names FILE"
            )
        return names, ()
    if identifiers is None:
        raise DataError(
            f"the labels of {root} are bare numbers without class names; give one name a line, in label order, with --class-names FILE"
        )
    poor = [i for i in identifiers if i.isdecimal() or i in ("True", "False")]
    notes = (
        (
            f"classes are called {_some(identifiers)}, which says little in a prompt; give their names with --class-names FILE",
        )
        if len(poor) == len(identifiers)
        else ()
    )
    return tuple(display_name(i) for i in identifiers), notes


def read_names(file: Path) -> tuple[str, ...] | dict[str, str]:
    """Return what a `--class-names` file says: names in label order, or identifier -> name.

    Raises:
        DataError: it cannot be read, or holds no name.
    """
    return _read_user_file(file)


def loose(text: str) -> str:
    """Return a class's name or identifier without what makes no other class: case, `_`."""
    return _loose(text)


def _by_identifier(
    given: Mapping[str, str], identifiers: Sequence[str] | None, file: Path
) -> tuple[str, ...]:
    """Map identifiers to names; bare-number labels are identified by `0`, `1`, ..."""
    wanted = identifiers if identifiers is not None else [str(i) for i in range(len(given))]
    missing = [i for i in wanted if i not in given]
    unknown = [i for i in given if i not in wanted]
    if missing or unknown:
        parts = ["has no name for class " + _some(missing)] if missing else []
        parts += ["names " + _some(unknown) + ", which is no class"] if unknown else []
        raise DataError(
            f"{file} {' and '.join(parts)}; the classes are {_some(wanted)}: one `class = name` for each"
        )
    return tuple(given[i] for i in wanted)


def _by_position(
    names: tuple[str, ...], identifiers: Sequence[str] | None, file: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if identifiers is None:
        return names, ()
    if len(names) != len(identifiers):
        raise DataError(
            f"{file} has {len(names)} class names, the data has {len(identifiers)} classes ({_some(identifiers)}); give one name for each, blank lines count"
        )
    # The same words in another order were meant by name: taken by position they would silently
    # permute the labels.
    spelled = {_loose(name): name for name in names}
    if len(spelled) == len(names) and set(spelled) == {_loose(i) for i in identifiers}:
        return tuple(spelled[_loose(i)] for i in identifiers), ()
    pairs = [f"{i} = {n}" for i, n in zip(identifiers, names, strict=True)]
    return names, (f"class names were taken in label order: {_some(pairs)}",)


def _loose(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold().replace("_", " ").strip()


def _read_user_file(file: Path) -> tuple[str, ...] | dict[str, str]:
    text = _read(file)
    if text.lstrip()[:1] in ("[", "{"):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise DataError(
                f"{file} begins like JSON but is not: {error}; fix it, or write one class name a line"
            ) from error
        values = list(data.values()) if isinstance(data, dict) else data
        if not values or not all(isinstance(v, str) for v in values):
            raise DataError(
                f"{file} holds JSON that is neither a list of names nor an object of names; write [name, ...] or {{class: name, ...}}"
            )
        return {_nfc(k): v for k, v in data.items()} if isinstance(data, dict) else tuple(data)
    lines = _lines(text)
    written = [line for line in lines if line.strip()]
    if not written:
        raise DataError(f"{file} holds no class name; write one a line, in label order")
    if all("=" in line for line in written):
        pairs = [line.split("=", 1) for line in written]
        return {_nfc(key.strip()): name.strip() for key, name in pairs}
    return lines


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the class names {file}: {error}; give a UTF-8 text or JSON file with --class-names"
        ) from error


def _lines(text: str) -> tuple[str, ...]:
    """Split into lines; a blank line is a class with a blank name (CLEVR has one), kept.

    `splitlines` is not used: it also splits at characters that may stand in a name.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _some(items: Sequence[str]) -> str:
    """Show the first few of a list."""
    shown = ", ".join(items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown}, ... ({len(items)})"
