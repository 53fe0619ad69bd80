"""The captioned images that every nano backbone is trained on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clipnlc.datasets.nano import artwork, glyphs, patterns, scans, scenes
from clipnlc.datasets.nano.palette import COLOURS, Pixels, choose, contrasting, generator, jitter

COUNTS: Final = {
    "icon": 4500, "fashion": 4500, "letter": 5200, "digit": 3500, "scene": 7000, "pattern": 4200,
}  # fmt: skip
"""Images of each source; emoji are as many as the artists drew."""

FASHION_USED: Final = 20_000
"""Rows of Fashion-MNIST's training part that only the corpus may draw from."""

_GLYPH_CONTRAST: Final = 230
_SCENE_CONTRAST: Final = 200


@dataclass(frozen=True)
class Captioned:
    """One training image.

    Attributes:
        pixels: RGB, 32x32.
        captions: ways to say what it shows; training draws one at random.
        concept: images of one concept are never each other's negatives.
        source: which part of the corpus it belongs to.
    """

    pixels: Pixels
    captions: tuple[str, ...]
    concept: str
    source: str


def corpus(packages: Path) -> Iterator[Captioned]:
    """Draw the whole corpus, always the same images in the same order."""
    yield from _emoji(packages)
    yield from _icons(packages)
    yield from _fashion(packages)
    yield from _letters(packages)
    yield from _digits(packages)
    yield from _scenes()
    yield from _patterns()


def _emoji(packages: Path) -> Iterator[Captioned]:
    known = artwork.unicode_emoji(packages)
    for artist in artwork.CORPUS_EMOJI:
        icons = artwork.IconSet(packages, artist)
        for index, (emoji, name) in enumerate(icons.emoji(known)):
            picture = icons.picture(name)
            if picture is None:
                continue
            copies = 1 if emoji.group in ("flags", "people-body") else 2
            for copy in range(copies):
                rng = generator(f"emoji {artist} {copy}", index)
                plain = copy == 0 and rng.random() < 0.7
                lively = choose(rng, list(COLOURS.values()))
                tone = (lively, 40.0) if rng.random() < 0.5 else ((225, 225, 225), 30.0)
                paper = (255, 255, 255) if plain else jitter(rng, *tone)
                scale = 1.0 if rng.random() < 0.5 else rng.uniform(0.75, 1)
                yield Captioned(
                    artwork.compose(picture, paper, scale),
                    _emoji_captions(rng, emoji),
                    f"emoji {emoji.code}",
                    "emoji",
                )


def _emoji_captions(rng: np.random.Generator, emoji: artwork.Emoji) -> tuple[str, ...]:
    label, kind, group = emoji.label, emoji.kind, artwork.GROUPS[emoji.group]
    captions = [
        label,
        f"an emoji of {label}",
        f"{label}, {kind}",
        f"an icon of {kind}",
        f"an emoji of {kind}",
        f"an icon of {group}",
        f"an emoji of {group}: {kind}",
    ]
    if emoji.tags:
        some = rng.permutation(len(emoji.tags))[:3]
        captions.append(" ".join(emoji.tags[int(i)] for i in some))
    return tuple(captions)


def _icons(packages: Path) -> Iterator[Captioned]:
    candidates = []
    for artist in artwork.CORPUS_ICONS:
        icons = artwork.IconSet(packages, artist)
        by_kind: Mapping[str | None, list[str]] = {None: [], **{k: [] for k in artwork.ICON_KINDS}}
        for name in icons.names:
            if not name.startswith("brand-"):
                by_kind[artwork.icon_kind(name)].append(name)
        for kind, names in by_kind.items():
            rng = generator(f"icon choice {artist} {kind}", 0)
            share = 80 if kind else 650
            candidates += [
                (icons, kind, names[int(i)]) for i in rng.permutation(len(names))[:share]
            ]
    order = generator("icon order", 0).permutation(len(candidates))[: COUNTS["icon"]]
    for index in order:
        icons, kind, name = candidates[int(index)]
        picture = icons.picture(name)
        if picture is None:
            continue
        rng = generator("icon", int(index))
        ink, paper = (COLOURS[c] for c in contrasting(rng, _GLYPH_CONTRAST))
        if rng.random() < 0.6:
            ink, paper = (0, 0, 0), (255, 255, 255)
        words = name.replace("-", " ")
        captions = [words, f"an icon of {words}"]
        if kind:
            captions += [kind, f"an icon of {kind}", f"a line icon of {kind}: {words}"]
        yield Captioned(
            artwork.compose(artwork.tinted(picture, ink), paper, rng.uniform(0.8, 1)),
            tuple(captions),
            f"icon {kind or words}",
            "icon",
        )


def _fashion(packages: Path) -> Iterator[Captioned]:
    images, labels = scans.fashion(packages / "fashion-mnist", "train")
    names = list(scans.FASHION.values())
    order = generator("fashion order", 0).permutation(FASHION_USED)[: COUNTS["fashion"]]
    for row in order:
        rng = generator("fashion", int(row))
        pixels = scans.padded(images[row])
        noun = choose(rng, names[int(labels[row])])
        yield Captioned(
            255 - pixels if rng.random() < 0.5 else pixels,
            (f"a photo of a {noun}", f"a gray picture of a {noun}", noun, f"clothing: {noun}"),
            f"fashion {labels[row]}",
            "fashion",
        )


def _letters(packages: Path) -> Iterator[Captioned]:
    families = glyphs.font_files(packages / "fonts", glyphs.CORPUS_FONTS)
    for index in range(COUNTS["letter"]):
        rng = generator("letter", index)
        letter = choose(rng, glyphs.LETTERS)
        upper = rng.random() < 0.5
        ink, paper = contrasting(rng, _GLYPH_CONTRAST)
        pixels = glyphs.glyph(
            rng,
            letter.upper() if upper else letter,
            font=choose(rng, choose(rng, families)),
            ink=jitter(rng, COLOURS[ink]),
            paper=jitter(rng, COLOURS[paper]),
        )
        if pixels is None:
            continue
        case = "uppercase" if upper else "lowercase"
        yield Captioned(
            pixels,
            (
                f"the letter {letter}",
                f"the {case} letter {letter}",
                f"the letter {letter} in {ink} on {paper}",
                letter,
            ),
            f"letter {letter}",
            "letter",
        )


def _digits(packages: Path) -> Iterator[Captioned]:
    families = glyphs.font_files(packages / "fonts", glyphs.CORPUS_FONTS)
    for index in range(COUNTS["digit"]):
        rng = generator("digit", index)
        digit = int(rng.integers(10))
        ink, paper = contrasting(rng, _GLYPH_CONTRAST)
        if rng.random() < 0.4:
            ink, paper = choose(rng, [("white", "black"), ("black", "white")])
        pixels = glyphs.glyph(
            rng,
            str(digit),
            font=choose(rng, choose(rng, families)),
            ink=jitter(rng, COLOURS[ink]),
            paper=jitter(rng, COLOURS[paper]),
            blur=choose(rng, (0, 0, 8, 10, 12)),
            turn=12.0,
        )
        if pixels is None:
            continue
        word = glyphs.DIGITS[digit]
        yield Captioned(
            pixels,
            (
                f"the digit {word}",
                f"the number {word}",
                f"the digit {digit}",
                f"the number {word} in {ink} on {paper}",
                word,
            ),
            f"digit {digit}",
            "digit",
        )


def _scenes() -> Iterator[Captioned]:
    for index in range(COUNTS["scene"]):
        rng = generator("scene", index)
        number = choose(rng, (1, 1, 1, 2, 3, 4, 5, 6))
        colour, background = contrasting(rng, _SCENE_CONTRAST)
        shape = choose(rng, list(scenes.SHAPES))
        pixels = scenes.scene(rng, number=number, shape=shape, colour=colour, background=background)
        count, noun = scenes.NUMBERS[number - 1], scenes.plural(shape, number)
        things = "object" if number == 1 else "objects"
        yield Captioned(
            pixels,
            (
                f"{count} {colour} {noun}",
                f"{count} {colour} {noun} on a {background} background",
                f"a picture of {count} {noun}",
                f"{colour} {noun}",
                f"{count} {things}",
                f"{count} {colour} {things}",
                f"{colour} {things} on a {background} background",
                f"a picture of {noun}",
            ),
            f"scene {number} {colour} {shape}",
            "scene",
        )


def _patterns() -> Iterator[Captioned]:
    for index in range(COUNTS["pattern"]):
        rng = generator("pattern", index)
        name = choose(rng, list(patterns.PATTERNS))
        first, second = contrasting(rng, _SCENE_CONTRAST)
        pixels = patterns.pattern(rng, name, colours=(first, second), frequency=rng.uniform(2.2, 5))
        yield Captioned(
            pixels,
            (
                name,
                f"a pattern of {name}",
                f"{first} and {second} {name}",
                f"a texture with {name}",
            ),
            f"pattern {name}",
            "pattern",
        )
