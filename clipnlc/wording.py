"""How messages and notes spell numbers of things, names, and lists of them.

What is repeated of a file's content may be of any length, and hold what a terminal obeys.
"""

from collections.abc import Iterable

SHOWN = 3
"""Names of a list that a message shows before it counts the rest."""

_LONGEST = 80
"""Characters of one text that a message repeats."""

_KEEP_Y = "aeiou"


def count(number: int, thing: str, things: str = "") -> str:
    """Spell a number of things; `things` is the plural where it is not regular.

    >>> count(1, "image"), count(2, "class"), count(0, "copy"), count(2, "row of x", "rows of x")
    ('1 image', '2 classes', '0 copies', '2 rows of x')
    """
    return f"{number} {thing if number == 1 else things or _plural(thing)}"


def some(names: Iterable[str], most: int = SHOWN) -> str:
    """List the first few names and count the rest.

    >>> some("abc"), some("abcde")
    ('a, b, c', 'a, b, c and 2 more')
    """
    every = list(names)
    rest = len(every) - most
    return ", ".join(map(shown, every[:most])) + (f" and {rest} more" if rest > 0 else "")


def printable(text: str) -> str:
    r"""Escape control characters, and bytes that are no Unicode.

    >>> printable(f"a{chr(27)}b") == r"a\x1bb"
    True
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    r"""Spell what was found on one short line, escaped.

    >>> shown("cat"), shown(7), shown("x" * 1000)[-17:], shown("a" + chr(10) + "b") == r"a\nb"
    ('cat', '7', 'x... (1000 chars)', True)
    """
    return printable(_cut(str(value)))


def quoted(value: object) -> str:
    r"""Spell what was found as `shown` does, a text in quotes.

    >>> quoted("cat"), quoted("a" + chr(10))
    ("'cat'", "'a\\n'")
    """
    return repr(_cut(value)) if isinstance(value, str) else shown(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} chars)"


def _plural(thing: str) -> str:
    if thing.endswith("y") and thing[-2:-1] not in _KEEP_Y:
        return f"{thing[:-1]}ies"
    return thing + ("es" if thing.endswith(("s", "x", "ch", "sh")) else "s")
