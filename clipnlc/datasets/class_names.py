"""Class names: from identifiers (folder names, `ClassLabel`), a list beside the data, or the user.

An identifier (`test_tube`) says which class a label is; a class name (`test tube`) is what goes
into a prompt. Identifiers become names by turning `_` into a space; lists are taken as they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clipnlc.datasets.name_files import name_file, read_names
from clipnlc.datasets.text_files import check_text, read_text, some
from clipnlc.errors import DataError

_CARD: Final = ("class_names", "templates")


def display_name(identifier: str) -> str:
    """Turn a class identifier into the words for a prompt.

    >>> display_name("test_tube")
    'test tube'
    """
    return identifier.replace("_", " ")


def read_card(root: Path) -> dict[str, tuple[str, ...]]:
    """Return what a data set's own `dataset.json` says, restricted to what we use.

    The keys are `class_names` (in label order) and `templates`, each a list of strings. A file of
    that name that has neither is not ours and is passed over.

    Raises:
        DataError: it has one of them and cannot be used.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return {}
    cure = "fix or delete it, or give --class-names FILE and --templates FILE"
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}; {cure}") from None
    if not any(f'"{key}"'.encode() in data for key in _CARD):
        return {}
    file = read_text(path, what="the data set's card", option="dataset.json", cure=cure)
    card = file.tree()
    if not isinstance(card, dict):
        raise file.refuse("is no JSON object")
    for key in _CARD:
        texts = card.get(key, [""])
        if not (isinstance(texts, list) and texts and all(isinstance(t, str) for t in texts)):
            raise file.refuse(f"`{key}` is no list of strings, or an empty one")
        for entry, text in enumerate(texts, start=1):
            check_text(file, text, None, entry=entry)
    return {key: tuple(card[key]) for key in _CARD if key in card}


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
        read = name_file(file)  # a blank line is a class with a blank name: CLEVR has one
        lines = read.text.removesuffix("\n").split("\n")
        return tuple(check_text(read, one, n) for n, one in enumerate(lines, start=1)), file
    return None


def name_classes(
    identifiers: Sequence[str] | None, root: Path, user_file: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Decide the class names: the user's file, else a list beside the data, else the identifiers.

    Args:
        identifiers: one per class in label order; None when labels are bare numbers.
        root: the data set's root.
        user_file: `--class-names`, in any of the forms of `name_files`.

    Returns:
        The names in label order, and notes for the user.

    Raises:
        DataError: there are no names, or their number or their identifiers do not fit.
    """
    if user_file is not None:
        return read_names(user_file, identifiers)
    found = beside(root, identifiers)
    if found is not None:
        names, file = found
        if identifiers is not None and len(names) != len(identifiers):
            raise DataError(
                f"{file} has {len(names)} class names, the data has {len(identifiers)} classes ({some(identifiers)}); make them agree or give --class-names FILE"
            )
        return names, ()
    if identifiers is None:
        raise DataError(
            f"the labels of {root} are bare numbers without class names; give one name a line, in label order, with --class-names FILE"
        )
    poor = [i for i in identifiers if i.isdecimal() or i in ("True", "False")]
    notes = (
        (
            f"classes are called {some(identifiers)}, which says little in a prompt; give their names with --class-names FILE",
        )
        if len(poor) == len(identifiers)
        else ()
    )
    return tuple(display_name(i) for i in identifiers), notes
