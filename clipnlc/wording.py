"""How messages and notes spell numbers of things and lists of names."""

from collections.abc import Iterable

SHOWN = 3
"""Names of a list that a message shows before it counts the rest."""

_KEEP_Y = "aeiou"


def count(number: int, thing: str, things: str = "") -> str:
    """Spell a number of things; `things` is the plural where it is not regular.

    >>> count(1, "image"), count(2, "class"), count(0, "copy"), count(2, "row of x", "rows of x")
    ('1 image', '2 classes', '0 copies', '2 rows of x')
    """
    return f"{number} {thing if number == 1 else things or _plural(thing)}"


def some(names: Iterable[str], shown: int = SHOWN) -> str:
    """List the first few names and count the rest.

    >>> some("abc"), some("abcde")
    ('a, b, c', 'a, b, c and 2 more')
    """
    every = list(names)
    rest = len(every) - shown
    return ", ".join(every[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _plural(thing: str) -> str:
    if thing.endswith("y") and thing[-2:-1] not in _KEEP_Y:
        return f"{thing[:-1]}ies"
    return thing + ("es" if thing.endswith(("s", "x", "ch", "sh")) else "s")
