"""Text files that people write: class names and templates, decoded, checked, parsed.

JSON is parsed by `json` and Python by `ast`; nothing is evaluated.
"""

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from clipnlc.errors import DataError
from clipnlc.files import read_regular
from clipnlc.signatures import HEAD, signature

LONGEST: Final = 1000
"""Characters of a class name or template; more are no words for a prompt."""

_AT_MOST: Final = 8_000_000  # bytes of a file: ImageNet-21k's names take one million
_CODE: Final = re.compile(
    r"\s*(from\s+\w|import\s+\w|[A-Za-z_]\w*\s*(:[^=\n]+)?=\s*[\[({])", re.MULTILINE
)
_SHOWN: Final = 60


@dataclass(frozen=True)
class Unreadable:
    """An expression of Python that is neither text, number nor a collection of them."""

    line: int


class Module(dict[str, Any]):
    """The variables that a Python module assigns, with their values."""


@dataclass(frozen=True)
class Line:
    """A line of a file, stripped, with its number."""

    number: int
    text: str


@dataclass(frozen=True)
class TextFile:
    """A text file, checked.

    Attributes:
        path: where it lies.
        text: its content.
        cure: what a user should do if it does not.
    """

    path: Path
    text: str
    cure: str

    def refuse(self, problem: str, line: int | None = None) -> DataError:
        """Make the error for a problem, with its line."""
        place = f"{self.path}, line {line}:" if line is not None else f"{self.path}"
        return DataError(f"{place} {problem}; {self.cure}")

    def numbered(self) -> list[Line]:
        """Return the lines, without blank ones at the end.

        `splitlines` is not used: it also splits at characters that may stand in a name.
        """
        lines = enumerate(self.text.rstrip().split("\n"), start=1)
        return [Line(number, line.strip()) for number, line in lines]

    def tree(self) -> Any:  # noqa: ANN401  (any JSON, or what `ast` gives)
        """Return the value of JSON or Python source; None for text that is neither.

        Of Python, an expression gives its value, a module its assignments as `Module`.

        Raises:
            DataError: it begins like JSON or a Python list, and is neither.
        """
        start = self.text.lstrip()
        if start.startswith(("[", "{")):
            return self._json_or_python()
        code = "\n".join(line for line in start.split("\n") if not line.lstrip().startswith("#"))
        if _CODE.match(code) or code.lstrip().startswith(("(", "[", "{", '"""')):
            try:
                return _module(self.text)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return None
        return None

    def _json_or_python(self) -> Any:  # noqa: ANN401
        try:
            return json.loads(self.text, object_pairs_hook=self._object)
        except json.JSONDecodeError as problem:
            reason, line = problem.msg, problem.lineno
        except RecursionError:
            self._too_deep()
        except ValueError as problem:  # a number of thousands of digits
            raise self.refuse(f"is no JSON: {problem}") from None
        try:
            return _module(self.text)
        except (RecursionError, MemoryError):
            self._too_deep()
        except (SyntaxError, ValueError):
            raise self.refuse(
                f"begins like JSON or a Python list and is neither ({reason})", line
            ) from None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise self.refuse(f"has {shown(name)} twice")
            found[name] = value
        return found

    def _too_deep(self) -> NoReturn:
        raise self.refuse("is nested too deeply for a list of names") from None


def read_text(path: Path, *, what: str, option: str, cure: str) -> TextFile:
    """Read a text file: UTF-8 with or without BOM, any line ends, no control characters.

    Args:
        path: the file.
        what: what it should hold.
        option: with which it was given.
        cure: what a user should do if it does not hold that.

    Raises:
        DataError: it cannot be read, is something else, or holds what no text has.
    """
    try:
        data = read_regular(path, at_most=_AT_MOST)
    except OSError as error:
        raise DataError(
            f"cannot read {what} {path}: {error.strerror or error}; give a UTF-8 text or JSON file "
            f"with {option}"
        ) from None
    if known := signature(data[:HEAD]):
        raise DataError(f"{path} is {known}; give {what} as UTF-8 text or JSON with {option}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{data[problem.start]:02x} is not UTF-8; save the file as "
            "UTF-8 in an editor"
        ) from None
    file = TextFile(path, text.replace("\r\n", "\n").replace("\r", "\n"), cure)
    for number, one in enumerate(file.text.split("\n"), start=1):
        if odd := unusable(one.replace("\t", " ")):
            raise file.refuse(odd, number)
    return file


def unusable(text: str) -> str | None:
    """Return why a text can be no part of a prompt or a store: a character that none has.

    >>> unusable("test tube"), unusable("a" + chr(0))
    (None, 'has the control character U+0000')
    """
    if text.isprintable():
        return None
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs"):
            name = "control character" if category == "Cc" else "half a character"
            return f"has {'the ' * (category == 'Cc')}{name} U+{ord(character):04X}"
    return None


def check_text(file: TextFile, text: str, line: int | None, *, entry: int | None = None) -> str:
    """Return a class name or template that is usable.

    Raises:
        DataError: it has a control character or half a character, or is too long.
    """
    problem = unusable(text)
    if problem is None and len(text) > LONGEST:
        problem = f"{shown(text)} has {len(text)} characters, where at most {LONGEST} are read"
    if problem is None:
        return text
    raise file.refuse(f"entry {entry} {problem}" if entry is not None else problem, line)


def shown(text: str) -> str:
    """Quote a text for a message, shortened and without characters that act on a terminal."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def some(items: Iterable[str], most: int = 5) -> str:
    """Show the first few of a list.

    >>> some(["a", "b", "c"], most=2)
    'a, b, ... (3)'
    """
    found = [item if len(item) <= _SHOWN else f"{item[:_SHOWN]}…" for item in items]
    found = [item if item.isprintable() else ascii(item)[1:-1] for item in found]
    text = ", ".join(found[:most])
    return text if len(found) <= most else f"{text}, ... ({len(found)})"


def expression(text: str) -> Any:  # noqa: ANN401
    """Return the value of one line of Python; None where it is no Python.

    >>> expression("lambda c: f'a photo of a {c}.',")
    'a photo of a {c}.'
    """
    try:
        found = _module(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def _module(text: str) -> Any:  # noqa: ANN401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings
        body = ast.parse(text).body
    named = Module()
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                named[name] = _value(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                named[name] = _value(value)
            case ast.Expr(value=value) if len(body) == 1:
                return _value(value)
            case _:
                pass  # imports, documentation, functions
    return named


def _value(node: ast.expr) -> Any:  # noqa: ANN401
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            found = {}
            for key, held in zip(keys, values, strict=True):
                name = _value(key) if key is not None else None
                if not isinstance(name, str | int) or name in found:
                    return Unreadable(node.lineno)
                found[name] = _value(held)
            return found
        case ast.Lambda(args=ast.arguments(args=[ast.arg(arg=name)]), body=body):
            text = _filled(body, name)
            return Unreadable(node.lineno) if text is None else text
        case _:
            return Unreadable(node.lineno)


def _filled(node: ast.expr, name: str) -> str | None:  # noqa: PLR0911  (one per form)
    """Return what a lambda's body gives for `{c}`; None for what is more than filling in."""
    match node:
        case ast.Name(id=found) if found == name:
            return "{c}"
        case ast.Constant(value=str(text)):
            return None if "{" in text or "}" in text else text
        case ast.JoinedStr(values=parts):
            return _joined(_filled(part, name) for part in parts)
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return _filled(value, name)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined((_filled(left, name), _filled(right, name)))
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod(), right=right):
            one = text.count("%") == text.count("%s") == 1
            return text.replace("%s", "{c}") if one and _filled(right, name) == "{c}" else None
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format"),
            args=[ast.Name(id=found)],
            keywords=[],
        ) if found == name:
            return text.replace("{}", "{c}")
        case _:
            return None


def _joined(parts: Iterable[str | None]) -> str | None:
    found = list(parts)
    return None if None in found else "".join(part or "" for part in found)
