"""What every command checks of its options before it reads them."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from typer.core import TyperCommand

from clipnlc.errors import DataError

LONGEST: Final = 255
"""Bytes of a name: of a file, a data set, a backbone."""

FREE: Final = frozenset({"photos", "classes"})
"""Texts of any length: paths that `predict` lists if it cannot read them, and class names."""

WRITTEN: Final = frozenset({"csv", "markdown"})
"""Paths that may be a device or a pipe; from another, a reader might never come back."""


ADDED: Final = {
    ("extract", "dataset"): "clipnlc.datasets",
    ("doctor", "dataset"): "clipnlc.datasets",
    ("train-heads", "head"): "clipnlc.heads",
    ("train-nlc", "head"): "clipnlc.heads",
    ("train-nlc", "combiners"): "clipnlc.combiners",
}
"""Options of commands whose help lists names, and the entry points that add some."""


TRAINED_HEADS: Final = "{trained_heads}"
"""In a help, what stands for the heads that there are; only that help needs to import them."""


class Checked(TyperCommand):
    """A command that refuses, by the option's name, what no option takes."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the help, with the names that other packages add; none of them is imported."""
        from clipnlc.plugins import declared

        self.fill_help()
        for parameter in self.params:
            group = ADDED.get((self.name or "", parameter.name or ""))
            names = ", ".join(sorted(declared(group))) if group else ""
            if names:
                parameter.help = f"{parameter.help} Of other packages: {names}."  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)

    def fill_help(self) -> None:
        """Put the names of clipnlc's own tables into the help."""
        for parameter in self.params:
            text = getattr(parameter, "help", None) or ""
            if TRAINED_HEADS in text:
                from clipnlc.heads.catalogue import trained_heads

                parameter.help = text.replace(TRAINED_HEADS, trained_heads())  # type: ignore[attr-defined]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (Typer's is private)
        """Read the words of the command line.

        Raises:
            DataError: a value holds NUL or is not UTF-8, is too long, empty or a device where
                a file is expected, or no finite number.
        """
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.params:
            name, value = parameter.name or "", given.get(parameter.name or "")
            if value is None and parameter.envvar:
                value = parameter.value_from_envvar(ctx)
            for text in _texts(value):
                _check(_spelled(parameter), text, free=name in FREE)
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise DataError(f"{_spelled(parameter)} is {value}; give a finite number")
            if isinstance(value, Path):
                _check_path(parameter, value, empty=given.get(parameter.name or "") == "")
        return rest


def _check_path(parameter: Any, path: Path, *, empty: bool) -> None:  # noqa: ANN401
    if empty:
        raise DataError(f"{_spelled(parameter)} is empty; give a path, or leave it out")
    if parameter.name not in WRITTEN and path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(
            f"{_spelled(parameter)} is {path}, a device or a pipe; give a file or a folder"
        )


def _spelled(parameter: Any) -> str:  # noqa: ANN401
    option = parameter.param_type_name == "option"
    return str(parameter.opts[0] if option else parameter.name.upper())


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _check(option: str, text: str, *, free: bool) -> None:
    if "\0" in text:
        raise DataError(f"{option} holds a NUL character: {text!r}; leave it out")
    if free:
        return
    try:
        longest = max((len(part.encode()) for part in re.split("[,/=@:]", text)), default=0)
    except UnicodeEncodeError:
        raise DataError(
            f"{option} is {text!r}, which is not UTF-8; rename the file, or set a locale of UTF-8 "
            "(LC_ALL=C.UTF-8)"
        ) from None
    if longest > LONGEST:
        raise DataError(
            f"{option} is {text!r}, with a part of {longest} bytes; a name has at most {LONGEST}"
        )
