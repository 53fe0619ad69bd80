"""nano: the embedded miniature of the paper, prompted with the captions that it was trained on.

Its captions are of few forms and without a full stop (`datasets/nano/corpus.py`), and a word is
known in those forms alone: a colour stands before a noun, a letter behind "the letter". So the
templates follow one rule: where a subject of the corpus has all of the class names, its captions,
with at most one other word in them, filled in with each word that stood there; else the captions
that name no subject. The rule was written down without a look at any test set (`docs/nano.md`).
"""

from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import ClassVar, Final

from clipnlc.backbones import nano
from clipnlc.backbones.families.open_clip import OpenClip

COLOURS: Final = (
    *("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown"),
    *("black", "white", "gray", "cyan"),
)
SHAPES: Final = (
    *("circle", "square", "triangle", "star", "hexagon", "cross", "diamond"),
    *("crescent", "ring", "heart"),
)
PLURALS: Final = tuple(f"{s}es" if s.endswith("s") else f"{s}s" for s in SHAPES)
NUMBERS: Final = ("one", "two", "three", "four", "five", "six")
DIGITS: Final = ("zero", *NUMBERS, "seven", "eight", "nine")

SUBJECTS: Final[dict[str, tuple[frozenset[str], tuple[str, ...]]]] = {
    "colours": (
        frozenset(COLOURS),
        (
            *(f"{{c}} {noun}" for noun in PLURALS),
            "one {c} object",
            *(f"{number} {{c}} objects" for number in NUMBERS[1:]),
        ),
    ),
    "shapes": (
        frozenset(SHAPES),
        ("a picture of {c}", "a picture of one {c}", *(f"{colour} {{c}}" for colour in COLOURS)),
    ),
    "several shapes": (
        frozenset(PLURALS),
        (
            "a picture of {c}",
            *(f"a picture of {number} {{c}}" for number in NUMBERS[1:]),
            *(f"{colour} {{c}}" for colour in COLOURS),
        ),
    ),
    "counts": (
        frozenset(NUMBERS),
        (
            "{c} objects",
            *(f"a picture of {{c}} {noun}" for noun in PLURALS),
            *(f"{{c}} {colour} objects" for colour in COLOURS),
        ),
    ),
    "digits": (frozenset(DIGITS), ("{c}", "the digit {c}", "the number {c}")),
    "numerals": (frozenset("0123456789"), ("the digit {c}",)),
    "letters": (
        frozenset(ascii_lowercase),
        ("{c}", "the letter {c}", "the uppercase letter {c}", "the lowercase letter {c}"),
    ),
    "clothes": (
        frozenset(
            (
                *("t-shirt", "tee shirt top", "trousers", "pants", "pullover", "sweater"),
                *("dress", "long dress", "coat", "jacket coat", "sandal", "open sandal shoe"),
                *("shirt", "buttoned shirt", "sneaker", "sport shoe", "bag", "handbag"),
                *("ankle boot", "boot"),
            )
        ),
        ("{c}", "a photo of a {c}", "a gray picture of a {c}", "clothing: {c}"),
    ),
    "patterns": (
        frozenset(
            (
                *("horizontal stripes", "vertical stripes", "diagonal stripes", "checkerboard"),
                *("polka dots", "grid", "zigzag", "waves", "bricks", "concentric circles"),
                *("rays", "speckles", "triangles pattern", "gradient"),
            )
        ),
        ("{c}", "a pattern of {c}", "a texture with {c}"),
    ),
}
"""The words of each subject of the corpus, and its captions around one of them."""

ANY: Final = ("{c}", "a photo of a {c}", "a picture of {c}", "an icon of {c}", "an emoji of {c}")
"""The captions that name no subject."""


class Nano(OpenClip):
    """The nine embedded backbones."""

    name: ClassVar[str] = "nano"
    meaning: ClassVar[str] = "nine miniatures in the package: shapes, colours, letters, emoji"
    needs: ClassVar[str] = "nothing; weights are in the package"

    def names(self) -> Iterator[str]:
        """Yield the nine."""
        yield from nano.NAMES

    def templates(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """Return the captions of the subjects that have all of the classes, else those without one.

        >>> Nano().templates(["0", "1"]), len(Nano().templates(["cat", "dog"]))
        (('the digit {c}',), 5)
        """
        names = {name.casefold() for name in class_names}
        found = [
            template
            for words, forms in SUBJECTS.values()
            if names and names <= words
            for template in forms
        ]
        return tuple(dict.fromkeys(found)) or ANY
