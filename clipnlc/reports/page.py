"""HTML pages that need no server and no network: everything is in the one file.

A page is `pages/base.html` around `pages/<name>.html`, with the styles `pages/base.css` and
`pages/<name>.css` and the script `pages/<name>.js`, where there are such files. What it shows is
handed to the script as JSON; texts reach the document as text, never as markup. To add a page, add its
files and call `render`.
"""

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any, Final

GENERATOR: Final = "clipnlc"
_FOLDER: Final = files("clipnlc.reports") / "pages"


def render(name: str, *, title: str, data: Mapping[str, Any]) -> str:
    """Return a page as one HTML text.

    Args:
        name: of its files in `pages/`.
        title: of the document, plain text.
        data: what its script reads (`JSON.parse` of the element `data`).

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return Template(_text("base.html")).substitute(
        generator=generator(name),
        title=html.escape(title),
        style=_text("base.css") + _text(f"{name}.css"),
        body=_text(f"{name}.html"),
        data=script_json(data),
        script=_text(f"{name}.js"),
    )


def generator(name: str) -> str:
    """Return the element by which a page of this name is known as ours."""
    return f'<meta name="generator" content="{GENERATOR} {name}">'


def script_json(data: Mapping[str, Any]) -> str:
    r"""Spell JSON so that nothing in it can end the script element that it stands in.

    >>> script_json({"class": "</script>"}) == r'{"class": "\u003c/script\u003e"}'
    True
    """
    text = json.dumps(data, allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _text(name: str) -> str:
    place = _FOLDER / name
    return place.read_text("utf-8") if place.is_file() else ""
