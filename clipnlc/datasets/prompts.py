"""Prompt templates: the sentences a class name is put into."""

import json
from collections.abc import Sequence
from pathlib import Path

from clipnlc.datasets.class_names import read_card
from clipnlc.errors import DataError

DEFAULT_TEMPLATES = ("a photo of a {c}.",)


def read_templates(file: Path) -> tuple[str, ...]:
    """Read templates, one a line, each with the placeholder `{c}` (or `{}`) for the class name.

    Blank lines and lines that start with `#` are left out.

    Raises:
        DataError: the file cannot be read, holds no template, or a line has no placeholder.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the templates {file}: {error}; give a UTF-8 text file with --templates"
        ) from error
    numbered = [(i, line.strip()) for i, line in enumerate(lines, start=1)]
    kept = [(i, line) for i, line in numbered if line and not line.startswith("#")]
    if not kept:
        raise DataError(f"{file} holds no template; write one a line, such as: a photo of a {{c}}.")
    return tuple(_checked(line, f"{file}, line {i}") for i, line in kept)


def templates_of(root: Path) -> tuple[str, ...]:
    """Return the templates that a data set brings in its `dataset.json`, or the default.

    Raises:
        DataError: a template there has no placeholder.
    """
    templates = read_card(root).get("templates", DEFAULT_TEMPLATES)
    return tuple(
        _checked(template, f"{root / 'dataset.json'}, template {i}")
        for i, template in enumerate(templates, start=1)
    )


def fill(templates: Sequence[str], class_name: str) -> tuple[str, ...]:
    """Put a class name into every template. Braces in the name are kept as they are.

    >>> fill(("a photo of a {c}.", "a drawing of a {}."), "test tube")
    ('a photo of a test tube.', 'a drawing of a test tube.')
    """
    return tuple(t.replace("{c}", "{}").replace("{}", class_name) for t in templates)


def _checked(template: str, where: str) -> str:
    if "{c}" not in template and "{}" not in template:
        raise DataError(
            f"{where}: {json.dumps(template, ensure_ascii=False)} has no place for the class name; write {{c}} there"
        )
    return template
