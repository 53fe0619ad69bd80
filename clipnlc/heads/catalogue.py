"""Which heads `train-heads` makes, by what they learn from."""

from collections.abc import Callable, Mapping
from typing import Final

from clipnlc.heads import HEADS, Head

_GROUPS: Final[Mapping[str, Callable[[type[Head]], bool]]] = {
    "": lambda cls: cls.needs_labels and not cls.per_draw,
    "on the combiners' own labels: ": lambda cls: cls.per_draw and not cls.needs_teacher,
    "with a teacher: ": lambda cls: cls.needs_teacher,
}
"""What the help says in front of each group; no head is in two."""


def trained_heads() -> str:
    """List clipnlc's own heads that are trained, for the help; those of packages come after them.

    >>> trained_heads()
    "linear, linear-cv, class-mean; on the combiners' own labels: linear-few, linear-cv-few, \
class-mean-few, logistic-few, auto, clap, gda, lp-plus-plus, rla, tip-adapter, tip-adapter-f; with a \
teacher: distilled"
    """
    heads = {name: HEADS.get(name) for name in HEADS.table}
    groups = {
        words: [name for name, cls in heads.items() if is_of(cls)]
        for words, is_of in _GROUPS.items()
    }
    return "; ".join(words + ", ".join(names) for words, names in groups.items())
