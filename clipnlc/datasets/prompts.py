"""Prompt templates: the sentences a class name is put into.

A file has them one a line, or as a list of JSON or Python: CLIP's notebook, open_clip's
`lambda c: f'a photo of a {c}.'`, CLIP_benchmark's JSON of one data set.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from clipnlc.datasets.class_names import read_card
from clipnlc.datasets.text_files import (
    Module,
    TextFile,
    Unreadable,
    check_text,
    expression,
    read_text,
)
from clipnlc.digests import canonical_json
from clipnlc.wording import quoted, some

_AT_MOST: Final = 48_000
"""Bytes of all templates: they stand in the key of every file, which HDF5 keeps within 64 KiB."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_CLASS: Final = re.compile(r"|0|c|cls|(class|label|category)([ _]?name)?|name|object|concept")
_BEGINS_WITH_CLASS: Final = re.compile(r"\{\s*\w*\s*\}")
_QUOTED: Final = re.compile(r"""lambda\b|(['"]).*\1\s*,?\s*(#.*)?$""")
_LEFTOVER: Final = re.compile(r"def\b|import\b|from\b.+\bimport\b|[\[\]()]+,?$|\w+\s*=\s*[\[(]")
_COUNTED: Final = re.compile(r"\d+\s*[.):,;\t]")


def read_templates(file: Path) -> tuple[str, ...]:
    """Read templates, each with one placeholder for the class name: such as `{c}` or `{}`.

    Blank lines and lines that start with `#` are left out.

    Raises:
        DataError: the file cannot be read, holds no template, or one cannot be used; names the line.
    """
    read = read_text(
        file,
        what="the templates",
        option="--templates",
        cure="write one template a line, such as: a photo of a {c}.",
    )
    tree = None if _BEGINS_WITH_CLASS.match(read.text.lstrip()) else read.tree()
    if tree is None:
        found = _lines(read)
    else:
        found = [(None, n, text) for n, text in enumerate(_of_tree(read, tree), start=1)]
    return _checked(read, found)


def templates_of(root: Path) -> tuple[str, ...] | None:
    """Return the templates that a data set brings in its `dataset.json`; None without any.

    Raises:
        DataError: a template there cannot be used.
    """
    templates = read_card(root).get("templates")
    if templates is None:
        return None
    file = TextFile(root / "dataset.json", "", "write {c} where the class name goes")
    return _checked(file, [(None, n, text) for n, text in enumerate(templates, start=1)])


def fill(templates: Sequence[str], class_name: str) -> tuple[str, ...]:
    """Put a class name into every template. Braces in the name are kept as they are.

    >>> fill(("a photo of a {c}.", "a drawing of a {}."), "test tube")
    ('a photo of a test tube.', 'a drawing of a test tube.')
    """
    return tuple(t.replace("{c}", "{}").replace("{}", class_name) for t in templates)


def _lines(file: TextFile) -> list[tuple[int | None, int | None, str]]:
    lines = [one for one in file.numbered() if one.text and not one.text.startswith("#")]
    if lines and lines[0].text in ("templates:", "prompts:"):
        lines = lines[1:]
    if all(one.text.startswith(("- ", "* ")) for one in lines):
        texts = [one.text[2:].strip() for one in lines]
    else:
        texts = [one.text for one in lines]
    if len(lines) > 1 and all(_COUNTED.match(text) for text in texts):
        raise file.refuse(f"{quoted(texts[0])} begins with a number", lines[0].number)
    found: list[tuple[int | None, int | None, str]] = []
    for one, text in zip(lines, texts, strict=True):
        value = expression(text) if _QUOTED.match(text) else text
        if not isinstance(value, str):
            raise file.refuse(f"{quoted(text)} is no template that can be read", one.number)
        if _LEFTOVER.match(text):
            raise file.refuse(f"{quoted(text)} is code, not a template", one.number)
        found.append((one.number, None, value))
    return found


def _of_tree(file: TextFile, tree: Any) -> list[str]:  # noqa: ANN401
    """Return the one list of templates that a file holds.

    Raises:
        DataError: the file holds no list, or several.
    """
    if isinstance(tree, dict):
        lists = {
            str(name): value
            for name, value in tree.items()
            if isinstance(value, list) and (value or not isinstance(tree, Module))
        }
        if isinstance(tree, Module) and len(lists) > 1:  # class names may stand beside them
            lists = {name: value for name, value in lists.items() if _has_place(value)}
        if "templates" in lists:
            lists = {"templates": lists["templates"]}
        if len(lists) != 1:
            raise file.refuse(
                f"holds {len(lists)} lists ({some(lists)}), and which one is not certain; "
                "keep the one list"
            )
        (tree,) = lists.values()
    if not isinstance(tree, list):
        raise file.refuse("holds no list of templates")
    for number, text in enumerate(tree, start=1):
        if isinstance(text, Unreadable):
            raise file.refuse("is an expression that is more than filling in", text.line)
        if not isinstance(text, str):
            raise file.refuse(f"entry {number} is no text")
    return tree


def _has_place(values: list[Any]) -> bool:
    """Return whether a list is one of templates: others, of class names, stand beside it."""
    return any(
        isinstance(one, Unreadable) or (isinstance(one, str) and _PLACEHOLDER.search(one))
        for one in values
    )


def _checked(
    file: TextFile, found: Sequence[tuple[int | None, int | None, str]]
) -> tuple[str, ...]:
    """Return templates that can be used: one kind of placeholder in each, and none twice.

    Raises:
        DataError: no template is given, or one cannot be used.
    """
    if not found:
        raise file.refuse("holds no template")
    kept: dict[str, str] = {}
    for line, entry, text in found:
        place = f"template {entry} " if entry is not None else ""
        template = _with_place(file, check_text(file, text.strip(), line, entry=entry), line, place)
        if (same := template.replace("{}", "{c}")) in kept:
            raise file.refuse(f"{place}repeats {quoted(template)}", line)
        kept[same] = template
    size = len(canonical_json(list(kept.values())).encode())
    if size > _AT_MOST:
        raise file.refuse(
            f"holds {len(kept)} templates of {size:,} bytes, where a store keeps {_AT_MOST:,}; "
            "leave some out"
        )
    return tuple(kept.values())


def _with_place(file: TextFile, text: str, line: int | None, place: str) -> str:
    """Return a template whose placeholder is `{c}` or `{}`."""
    spelled = list(dict.fromkeys(_PLACEHOLDER.findall(text)))
    if not spelled:
        raise file.refuse(f"{place}{quoted(text)} has no place for the class name", line)
    if len(spelled) > 1:
        names = " and ".join(quoted(f"{{{name}}}") for name in spelled[:3])
        raise file.refuse(f"{place}{quoted(text)} has different places: {names}", line)
    (name,) = spelled
    whole = f"{{{name}}}"
    if not _CLASS.fullmatch(name.strip().casefold()):
        raise file.refuse(
            f"{place}{quoted(text)} has {quoted(whole)}, which is no place for the class name", line
        )
    if set(text.replace(whole, "")) & {"{", "}"}:
        raise file.refuse(f"{place}{quoted(text)} has a brace that is no placeholder", line)
    return text if name in ("", "c") else text.replace(whole, "{c}")
