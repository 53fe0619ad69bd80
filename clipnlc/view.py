"""Which pixels of the images a feature file is made of: as they are, perturbed, or a crop.

A view is spelled into the name of the split (`test`, `test~gaussian-blur-3`, `train~crop-2`), so
every view of a split has files of its own, and into the key only when it is not plain.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from clipnlc.errors import DataError

ViewKind = Literal["plain", "perturbed", "crop"]

_MARK = "~"
_SPELLED = re.compile(r"(?P<name>[a-z]+(?:-[a-z]+)*)-(?P<number>\d+)")
_CROP = "crop"

LEAST_AREA: Final = 0.5
"""Share of an image's area that a crop shows at least."""

MOST_ASPECT: Final = 4 / 3
"""The longer side of a crop by the shorter one, at most; both in the image's pixels."""

FLIPS: Final = 0.5
"""Share of the crops that are mirrored."""


@dataclass(frozen=True, order=True)
class View:
    """Which pixels: plain, a perturbation and its severity, or one of several augmented crops.

    Attributes:
        kind: `plain`, `perturbed` or `crop`.
        perturbation: its name, lower-case words joined by hyphens; empty unless perturbed.
        number: severity of the perturbation, from 1, or the crop's number, from 0; 0 when plain.

    >>> View().split_name("test"), View.perturbed("gaussian-blur", 3).split_name("test")
    ('test', 'test~gaussian-blur-3')
    >>> View.of_split("train~crop-2")
    ('train', View(kind='crop', perturbation='', number=2))
    """

    kind: ViewKind = "plain"
    perturbation: str = ""
    number: int = 0

    @classmethod
    def perturbed(cls, perturbation: str, severity: int) -> "View":
        """Return the view of a perturbation at a severity of at least 1.

        Raises:
            DataError: the name is not lower-case words joined by hyphens, or the severity below 1.
        """
        view = cls("perturbed", perturbation, severity)
        unnamed = perturbation in ("", _CROP)
        if severity < 1 or unnamed or not _SPELLED.fullmatch(view._spelled()):
            raise DataError(
                f"no perturbation {perturbation!r} of severity {severity}; expected lower-case "
                "words joined by hyphens, and a severity of at least 1"
            )
        return view

    @classmethod
    def crop(cls, number: int) -> "View":
        """Return the view of one augmented crop, numbered from 0."""
        return cls("crop", "", number)

    @property
    def is_plain(self) -> bool:
        """Whether the pixels are the images' own."""
        return self.kind == "plain"

    def split_name(self, split: str) -> str:
        """Spell the view into the name of a split; the plain view leaves it as it is."""
        return split if self.is_plain else f"{split}{_MARK}{self._spelled()}"

    @classmethod
    def of_split(cls, name: str) -> tuple[str, "View"]:
        """Read back what `split_name` spelled: the split's own name, and the view."""
        split, mark, spelled = name.rpartition(_MARK)
        found = _SPELLED.fullmatch(spelled)
        if not mark or not split or found is None:
            return name, cls()
        number = int(found["number"])
        if found["name"] == _CROP:
            return split, cls.crop(number)
        return (split, cls("perturbed", found["name"], number)) if number else (name, cls())

    def key(self) -> dict[str, dict[str, str | int | float]]:
        """Return the field that the view adds to a key; none when plain."""
        if self.is_plain:
            return {}
        if self.kind == _CROP:
            drawn = {"least_area": LEAST_AREA, "most_aspect": MOST_ASPECT, "flips": FLIPS}
            return {"view": {"crop": self.number, **drawn}}
        return {"view": {"perturbation": self.perturbation, "severity": self.number}}

    def _spelled(self) -> str:
        return f"{self.perturbation or self.kind}-{self.number}"


def crop_number(split: str) -> int | None:
    """Return the number of the crop that a split's name spells; None for any other split.

    >>> crop_number("train~crop-2"), crop_number("train"), crop_number("test~blur-3")
    (2, None, None)
    """
    view = View.of_split(split)[1]
    return view.number if view.kind == _CROP else None
