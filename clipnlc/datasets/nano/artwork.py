"""Real artwork: emoji of six artists and line icons of three, rasterised from their SVG files."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from clipnlc.datasets.nano.palette import SIZE, Colour, Pixels

CORPUS_EMOJI: Final = ("noto", "twemoji", "emojione", "fxemoji")
HELD_OUT_EMOJI: Final = ("fluent-emoji-flat", "openmoji")
CORPUS_ICONS: Final = ("tabler", "mdi")
HELD_OUT_ICONS: Final = "ph"
ICON_STYLES: Final = ("", "-bold", "-fill", "-duotone")
"""Four of the held-out artist's six styles; the other two are nearly the first."""

GROUPS: Final = {
    "smileys-emotion": "a smiley or emotion",
    "people-body": "a person or body part",
    "animals-nature": "an animal or plant",
    "food-drink": "food or drink",
    "travel-places": "a place or vehicle",
    "activities": "an activity or sport",
    "objects": "an object",
    "symbols": "a symbol",
    "flags": "a flag",
}
"""Unicode's emoji groups, as a caption says them."""

KINDS: Final = {
    "a mammal": ("animal-mammal",),
    "a bird": ("animal-bird",),
    "a bug": ("animal-bug",),
    "a sea animal": ("animal-marine",),
    "a plant": ("plant-flower", "plant-other"),
    "a fruit": ("food-fruit",),
    "a vegetable": ("food-vegetable",),
    "a meal": ("food-prepared", "food-asian"),
    "a sweet dessert": ("food-sweet",),
    "a drink": ("drink",),
    "a land vehicle": ("transport-ground",),
    "a boat or aircraft": ("transport-water", "transport-air"),
    "a building": ("place-building", "place-religious"),
    "the sky or weather": ("sky-weather",),
    "a clock": ("time",),
    "clothing": ("clothing",),
    "a musical instrument": ("musical-instrument", "music"),
    "a tool": ("tool",),
    "an arrow": ("arrow",),
    "a sport": ("sport",),
    "a heart": ("heart",),
    "a hand": (
        "hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed",
        "hands", "hand-prop",
    ),
    "a face": (
        "face-smiling", "face-affection", "face-tongue", "face-hand", "face-neutral-skeptical",
        "face-sleepy", "face-unwell", "face-concerned", "face-negative",
    ),
    "a book or paper": ("book-paper", "writing"),
    "an office item": ("office",),
    "a zodiac sign": ("zodiac",),
    "a person with a job": ("person-role",),
}  # fmt: skip
"""Kinds of emoji, made of Unicode's subgroups: the classes of `emoji_kind`."""

OTHER_KINDS: Final = {
    "animal-reptile": "a reptile", "animal-amphibian": "an amphibian", "dishware": "dishware",
    "event": "a celebration", "award-medal": "a medal", "game": "a game", "mail": "mail",
    "money": "money", "light-video": "a camera or light", "household": "a household item",
    "phone": "a phone", "computer": "a computer", "av-symbol": "a player button",
    "transport-sign": "a sign", "alphanum": "a letter button", "geometric": "a geometric shape",
    "warning": "a warning sign", "religion": "a religious symbol", "country-flag": "a country flag",
    "person-sport": "a person doing sport", "person": "a person", "family": "a family",
    "person-gesture": "a gesturing person", "person-activity": "an active person",
    "person-fantasy": "a fantasy person", "face-hat": "a face", "face-glasses": "a face",
    "face-costume": "a costume face", "cat-face": "a cat face", "monkey-face": "a monkey face",
}  # fmt: skip
"""Subgroups that no class of `emoji_kind` covers, as a caption says them."""

ICON_KINDS: Final = {
    "an arrow": "arrow|arrows|caret|chevron",
    "a file": "file",
    "a folder": "folder",
    "a number": "number|numeric",
    "a hand": "hand|hands",
    "a person": "user|users|person|account|human",
    "a battery": "battery",
    "a speech bubble": "chat|message|comment",
    "money": "currency|money|coin|coins|cash|wallet|bank|piggy",
    "a cloud": "cloud",
    "a telephone": "phone|cellphone",
    "a loudspeaker": "speaker|volume|megaphone",
    "a chart": "chart|presentation",
    "a clock": "clock|timer|hourglass|alarm|watch",
    "a map": "map|globe|compass|navigation",
    "a pen": "pen|pencil|paint|marker",
    "a building": "building|buildings|house|home|church|factory|hospital|warehouse|castle",
    "a vehicle": "car|truck|bus|train|taxi|van|bicycle|motorcycle|tractor|jeep|ambulance|moped",
    "a camera": "camera|video|webcam|film",
    "a calendar": "calendar",
}
"""Kinds of icon, by the first word of the icon's name: the classes of `icon_kind`."""

_KIND_OF_SUBGROUP: Final = {s: kind for kind, subgroups in KINDS.items() for s in subgroups}


@dataclass(frozen=True)
class Emoji:
    """What Unicode says of an emoji, whoever draws it."""

    code: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str

    @property
    def kind(self) -> str:
        """The subgroup in the words of a caption."""
        known = _KIND_OF_SUBGROUP.get(self.subgroup) or OTHER_KINDS.get(self.subgroup)
        return known or "a " + self.subgroup.replace("-", " ")


def icon_kind(name: str) -> str | None:
    """Tell an icon's kind by the first word of its name.

    >>> icon_kind("arrow-left"), icon_kind("shield-check")
    ('an arrow', None)
    """
    first = name.split("-", maxsplit=1)[0]
    return next((kind for kind, words in ICON_KINDS.items() if first in words.split("|")), None)


class IconSet:
    """One artist's icons: names, and their pictures as RGBA images of twice the nano size."""

    def __init__(self, packages: Path, name: str) -> None:
        self.name = name
        self._folder = packages / f"iconify-json-{name}"

    @cached_property
    def _icons(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self._folder / "icons.json").read_text("utf-8"))
        return loaded

    @property
    def names(self) -> tuple[str, ...]:
        """Every icon and alias."""
        return (*self._icons["icons"], *self._icons.get("aliases", {}))

    def emoji(self, known: Mapping[str, Emoji]) -> Iterator[tuple[Emoji, str]]:
        """Match this artist's pictures to Unicode's emoji, by code point or else by name."""
        chars = json.loads((self._folder / "chars.json").read_text("utf-8"))
        matched: dict[str, str] = {}
        if chars:
            for code, name in chars.items():
                matched.setdefault(code.lower().replace("-fe0f", ""), name)
        else:
            by_label = {_plain(e.label): code for code, e in known.items()}
            for name in self.names:
                code = by_label.get(_plain(name))
                if code is None and name.startswith("flag-for-"):
                    code = by_label.get(_plain("flag" + name.removeprefix("flag-for-")))
                if code is not None:
                    matched.setdefault(code, name)
        for code in sorted(matched):
            if code in known:
                yield known[code], matched[code]

    def picture(self, name: str) -> Image.Image | None:
        """Rasterise an icon to a square RGBA image; `None` for a turned or missing one."""
        icon = self._icons["icons"].get(name)
        if icon is None:
            alias = self._icons.get("aliases", {}).get(name, {"rotate": True})
            if alias.keys() & {"rotate", "hFlip", "vFlip"}:
                return None
            icon = self._icons["icons"][alias["parent"]]
        width = icon.get("width", self._icons.get("width", 16))
        height = icon.get("height", self._icons.get("height", 16))
        left, top = icon.get("left", 0), icon.get("top", 0)
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
            f"{icon['body']}</svg>"
        )
        return _rasterise(svg, SIZE * 2)


def _rasterise(svg: str, side: int) -> Image.Image | None:
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=side)
    except ValueError:  # a drawing that resvg refuses is left out, as the recipe's counts say
        return None
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if image.width != image.height:
        square = Image.new("RGBA", (max(image.size),) * 2, (0, 0, 0, 0))
        corner = ((square.width - image.width) // 2, (square.height - image.height) // 2)
        square.paste(image, corner)
        image = square
    return image.resize((side, side), Image.Resampling.BICUBIC)


def _plain(label: str) -> str:
    return re.sub("[^a-z0-9]", "", label.lower())


def unicode_emoji(packages: Path) -> dict[str, Emoji]:
    """Read every emoji's label, tags and group, by code point without variation selectors."""
    folder = packages / "emojibase-data"
    meta = json.loads((folder / "meta" / "groups.json").read_text("utf-8"))
    known = {}
    for entry in json.loads((folder / "en" / "data.json").read_text("utf-8")):
        group = meta["groups"].get(str(entry.get("group")), "component")
        if group == "component":
            continue
        code = entry["hexcode"].lower().replace("-fe0f", "")
        known[code] = Emoji(
            code=code,
            label=entry["label"],
            tags=tuple(entry.get("tags", ())),
            group=group,
            subgroup=meta["subgroups"][str(entry["subgroup"])],
        )
    return known


def compose(picture: Image.Image, paper: Colour, scale: float = 1.0) -> Pixels:
    """Lay a picture, scaled, in the middle of a nano image."""
    canvas = Image.new("RGBA", (SIZE, SIZE), (*paper, 255))
    side = int(SIZE * scale)
    corner = ((SIZE - side) // 2,) * 2
    canvas.alpha_composite(picture.resize((side, side), Image.Resampling.LANCZOS), corner)
    return np.asarray(canvas.convert("RGB"))


def tinted(picture: Image.Image, ink: Colour) -> Image.Image:
    """Colour a one-colour icon: its opacity stays, its ink becomes `ink`."""
    coloured = Image.new("RGBA", picture.size, (*ink, 0))
    coloured.putalpha(picture.getchannel("A"))
    return coloured
