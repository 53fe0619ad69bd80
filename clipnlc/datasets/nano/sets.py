"""The nano classification sets: in kind like the paper's, each shifted from the corpus.

The shift is held out by construction: other artists (emoji, icons), other fonts, other rows
(fashion), handwriting where the corpus has print (digits), and noise, uneven light, rotation or
low contrast where the corpus is clean (rendered sets).

Seven sets can also draw a confirmation split: images that neither train, test nor the corpus has,
from the distribution of test. The artists of the other three drew no more.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clipnlc.datasets.nano import CONFIRMATION, artwork, glyphs, patterns, scans, scenes
from clipnlc.datasets.nano.corpus import FASHION_USED
from clipnlc.datasets.nano.palette import COLOURS, Pixels, choose, contrasting, generator, jitter

POOL: Final = 32
"""Training images per class, where the source has them."""

_LETTERS_TESTED: Final = 40
_GLYPH_CONTRAST: Final = 230
_SCENE_CONTRAST: Final = 200


@dataclass(frozen=True)
class Row:
    """One labelled image. `part` is its file: `train`, `test-openmoji`, `confirmation`."""

    identifier: str
    pixels: Pixels
    label: int
    part: str


Draw = Callable[[Path], Iterator[Row]]


@dataclass(frozen=True)
class Definition:
    """A classification set: its words, where it came from, and how to draw it.

    `confirmation` draws the confirmation split; None where the source has no images left. Sets with
    drawings in common are of one `cluster`: what is measured on them counts as one.
    """

    key: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    kind: str
    note: str
    licence: str
    rows: Draw
    confirmation: Draw | None = None
    cluster: str = ""


def _held_out_share(
    names: list[str], section: str, *, pool: int, test: int, share: float = 0.5
) -> dict[str, str]:
    """Deal names to `train` and `test`: half to each at most, and no more than asked."""
    order = [names[int(i)] for i in generator(section, 0).permutation(len(names))]
    trained = min(pool, int(len(order) * share))
    dealt = dict.fromkeys(order[:trained], "train")
    dealt.update(dict.fromkeys(order[trained : trained + test], "test"))
    return dealt


def _emoji_group(packages: Path) -> Iterator[Row]:
    icons = artwork.IconSet(packages, "fluent-emoji-flat")
    by_group: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for emoji, name in icons.emoji(artwork.unicode_emoji(packages)):
        by_group[emoji.group].append((emoji.code, name))
    for label, group in enumerate(list(artwork.GROUPS)[:8]):
        drawn = {
            code: picture
            for code, name in by_group[group]
            if (picture := icons.picture(name)) is not None
        }
        dealt = _held_out_share(list(drawn), f"emoji_group {group}", pool=POOL, test=128)
        for code, part in sorted(dealt.items()):
            pixels = artwork.compose(drawn[code], (255, 255, 255))
            yield Row(f"fluent-{code}", pixels, label, part)


def _emoji_kind(packages: Path) -> Iterator[Row]:
    known = artwork.unicode_emoji(packages)
    artists = {a: artwork.IconSet(packages, a) for a in artwork.HELD_OUT_EMOJI}
    drawn = {a: {e.code: name for e, name in s.emoji(known)} for a, s in artists.items()}
    for label, (kind, subgroups) in enumerate(artwork.KINDS.items()):
        codes = sorted(
            code
            for code, emoji in known.items()
            if emoji.subgroup in subgroups and any(code in names for names in drawn.values())
        )
        # Dealt by emoji, not by picture: one artist's apple never trains for another's.
        dealt = _held_out_share(codes, f"emoji_kind {kind}", pool=30, test=30)
        for code, part in sorted(dealt.items()):
            for artist, names in drawn.items():
                picture = artists[artist].picture(names[code]) if code in names else None
                if picture is not None:
                    pixels = artwork.compose(picture, (255, 255, 255))
                    short = artist.split("-")[0]
                    yield Row(f"{short}-{code}", pixels, label, f"{part}-{short}")


def _icon_kind(packages: Path) -> Iterator[Row]:
    icons = artwork.IconSet(packages, artwork.HELD_OUT_ICONS)
    present = set(icons.names)
    styled = tuple(s for s in ("-bold", "-duotone", "-fill", "-light", "-thin"))
    plain = [n for n in icons.names if not n.endswith(styled)]
    for label, kind in enumerate(artwork.ICON_KINDS):
        names = sorted(n for n in plain if artwork.icon_kind(n) == kind)
        # Dealt by icon, not by picture: an icon's bold style never trains for its thin one.
        dealt = _held_out_share(names, f"icon_kind {kind}", pool=POOL // 4, test=12)
        for name, part in sorted(dealt.items()):
            for style in artwork.ICON_STYLES:
                picture = icons.picture(name + style) if name + style in present else None
                if picture is not None:
                    pixels = artwork.compose(picture, (255, 255, 255))
                    yield Row(f"phosphor-{name}{style}", pixels, label, part)


def _fashion(packages: Path) -> Iterator[Row]:
    folder = packages / "fashion-mnist"
    for part, rows, source in (("train", POOL, "train"), ("test", 100, "t10k")):
        images, labels = scans.fashion(folder, source)
        first = FASHION_USED if part == "train" else 0
        for label in range(len(scans.FASHION)):
            for row in np.flatnonzero(labels[first:] == label)[:rows] + first:
                yield Row(f"{source}-{row}", scans.padded(images[row]), label, part)


def _fashion_confirmation(packages: Path) -> Iterator[Row]:
    """Take the rows of each class that follow those of test."""
    images, labels = scans.fashion(packages / "fashion-mnist", "t10k")
    for label in range(len(scans.FASHION)):
        for row in np.flatnonzero(labels == label)[100:200]:
            yield Row(f"t10k-{row}", scans.padded(images[row]), label, CONFIRMATION)


def _digits(_packages: Path) -> Iterator[Row]:
    images, labels = scans.handwritten_digits()
    for label in range(len(glyphs.DIGITS)):
        rows = np.flatnonzero(labels == label)
        rows = rows[generator(f"digits {label}", 0).permutation(len(rows))]
        for place, row in enumerate(rows):
            part = "train" if place < POOL else "test"
            yield Row(f"optdigits-{row}", scans.padded(images[row]), label, part)


def _digits_confirmation(packages: Path) -> Iterator[Row]:
    """Take digits of other writers, as many as test has."""
    images, labels = scans.other_digits(packages / "keel-digits")
    for label in range(len(glyphs.DIGITS)):
        rows = np.flatnonzero(labels == label)
        rows = rows[generator(f"{CONFIRMATION} digits {label}", 0).permutation(len(rows))[:150]]
        for row in rows:
            yield Row(f"optdigits-tra-{row}", scans.padded(images[row]), label, CONFIRMATION)


def _letters(packages: Path) -> Iterator[Row]:
    families = glyphs.font_files(packages / "fonts", glyphs.HELD_OUT_FONTS)
    for label, letter in enumerate(glyphs.LETTERS):
        for index in range(POOL + _LETTERS_TESTED):
            pixels = _letter(generator(f"letters {letter}", index), letter, index, families)
            part = "train" if index < POOL else "test"
            yield Row(f"{letter}-{index}", pixels, label, part)


def _letters_confirmation(packages: Path) -> Iterator[Row]:
    families = glyphs.font_files(packages / "fonts", glyphs.HELD_OUT_FONTS)
    for label, letter in enumerate(glyphs.LETTERS):
        for index in range(_LETTERS_TESTED):
            rng = generator(f"{CONFIRMATION} letters {letter}", index)
            pixels = _letter(rng, letter, index, families)
            yield Row(f"{CONFIRMATION}-{letter}-{index}", pixels, label, CONFIRMATION)


def _letter(
    rng: np.random.Generator, letter: str, index: int, families: tuple[tuple[Path, ...], ...]
) -> Pixels:
    pixels = None
    while pixels is None:
        ink, paper = contrasting(rng, _GLYPH_CONTRAST)
        pixels = glyphs.glyph(
            rng,
            letter.upper() if index % 2 else letter,
            font=choose(rng, choose(rng, families)),
            ink=jitter(rng, COLOURS[ink], 35.0),
            paper=jitter(rng, COLOURS[paper], 35.0),
            noise=rng.uniform(5, 30),
            turn=18.0,
        )
    return pixels


def _rendered(
    key: str, classes: int, test: int, draw: Callable[[np.random.Generator, int], Pixels]
) -> tuple[Draw, Draw]:
    """A set whose images are drawn by `draw(rng, label)`, and its confirmation split."""

    def rows(_packages: Path) -> Iterator[Row]:
        for label in range(classes):
            for index in range(POOL + test):
                pixels = draw(generator(f"{key} {label}", index), label)
                part = "train" if index < POOL else "test"
                yield Row(f"{label}-{index}", pixels, label, part)

    def confirmation(_packages: Path) -> Iterator[Row]:
        for label in range(classes):
            for index in range(test):
                pixels = draw(generator(f"{CONFIRMATION} {key} {label}", index), label)
                yield Row(f"{CONFIRMATION}-{label}-{index}", pixels, label, CONFIRMATION)

    return rows, confirmation


def _shape(rng: np.random.Generator, label: int) -> Pixels:
    colour, background = contrasting(rng, _SCENE_CONTRAST)
    return scenes.scene(
        rng,
        number=choose(rng, (1, 1, 2, 3)),
        shape=list(scenes.SHAPES)[label],
        colour=colour,
        background=background,
        shifted=True,
    )


def _count(rng: np.random.Generator, label: int) -> Pixels:
    colour, background = contrasting(rng, _SCENE_CONTRAST)
    return scenes.scene(
        rng,
        number=label + 1,
        shape=choose(rng, list(scenes.SHAPES)),
        colour=colour,
        background=background,
        shifted=True,
    )


def _colour(rng: np.random.Generator, label: int) -> Pixels:
    wanted = list(COLOURS)[label]
    colour, background = contrasting(rng, _SCENE_CONTRAST)
    while colour != wanted:
        colour, background = contrasting(rng, _SCENE_CONTRAST)
    return scenes.scene(
        rng,
        number=choose(rng, (1, 2, 3)),
        shape=choose(rng, list(scenes.SHAPES)),
        colour=colour,
        background=background,
        shifted=True,
    )


def _pattern(rng: np.random.Generator, label: int) -> Pixels:
    return patterns.pattern(
        rng,
        list(patterns.PATTERNS)[label],
        colours=contrasting(rng, _SCENE_CONTRAST),
        frequency=rng.uniform(1.8, 6.5),
        shifted=True,
    )


_FLUENT_EMOJI: Final = "fluent-emoji"
_RENDERED_LICENCE: Final = "MIT (rendered by clipnlc)"

SETS: Final = (
    Definition(
        "colors",
        tuple(COLOURS),
        ("a {c} shape", "{c} objects", "two {c} objects"),
        "rendered",
        "colour of the shapes, on shaded and noisy backgrounds",
        _RENDERED_LICENCE,
        *_rendered("colors", len(COLOURS), 60, _colour),
    ),
    Definition(
        "counts",
        scenes.NUMBERS,
        ("{c} objects", "a picture of {c} shapes"),
        "rendered",
        "number of shapes, one to six, on shaded and noisy backgrounds",
        _RENDERED_LICENCE,
        *_rendered("counts", len(scenes.NUMBERS), 110, _count),
    ),
    Definition(
        "digits",
        glyphs.DIGITS,
        ("the digit {c}", "the number {c}", "{c}"),
        "real images",
        "handwritten digits; the backbones have seen printed ones only",
        "CC-BY-4.0 (UCI optdigits, through scikit-learn)",
        _digits,
        _digits_confirmation,
    ),
    Definition(
        "emoji_group",
        tuple(artwork.GROUPS[g] for g in list(artwork.GROUPS)[:8]),
        ("{c}", "an icon of {c}", "an emoji of {c}", "a picture of {c}"),
        "real artwork",
        "Unicode's eight emoji groups, drawn by an artist the backbones have not seen",
        "MIT (Fluent Emoji)",
        _emoji_group,
        cluster=_FLUENT_EMOJI,
    ),
    Definition(
        "emoji_kind",
        tuple(artwork.KINDS),
        ("{c}", "an icon of {c}", "an emoji of {c}", "a picture of {c}"),
        "real artwork",
        "27 kinds of emoji, drawn by two artists the backbones have not seen",
        "MIT (Fluent Emoji); the files *-openmoji.parquet: CC-BY-SA-4.0 (OpenMoji)",
        _emoji_kind,
        cluster=_FLUENT_EMOJI,
    ),
    Definition(
        "fashion",
        tuple(scans.FASHION),
        ("a photo of a {c}", "{c}", "a gray picture of a {c}", "clothing: {c}"),
        "real images",
        "product photographs, rows that no backbone was trained on",
        "MIT (Fashion-MNIST)",
        _fashion,
        _fashion_confirmation,
    ),
    Definition(
        "icon_kind",
        tuple(artwork.ICON_KINDS),
        ("{c}", "an icon of {c}", "a line icon of {c}", "a picture of {c}"),
        "real artwork",
        "20 kinds of interface icon, drawn by an artist the backbones have not seen",
        "MIT (Phosphor Icons)",
        _icon_kind,
    ),
    Definition(
        "letters",
        glyphs.LETTERS,
        ("the letter {c}", "the uppercase letter {c}", "the lowercase letter {c}"),
        "rendered",
        "letters of held-out font families, turned and noisy",
        "MIT (rendered by clipnlc from OFL fonts)",
        _letters,
        _letters_confirmation,
    ),
    Definition(
        "patterns",
        tuple(patterns.PATTERNS),
        ("{c}", "a pattern of {c}", "a texture with {c}"),
        "rendered",
        "textures of low contrast, with noise and other frequencies",
        _RENDERED_LICENCE,
        *_rendered("patterns", len(patterns.PATTERNS), 60, _pattern),
    ),
    Definition(
        "shapes",
        tuple(scenes.plural(s) for s in scenes.SHAPES),
        ("{c}", "a picture of {c}", "a picture of two {c}", "a picture of three {c}"),
        "rendered",
        "ten shapes on shaded and noisy backgrounds",
        _RENDERED_LICENCE,
        *_rendered("shapes", len(scenes.SHAPES), 70, _shape),
    ),
)
"""Every nano set, in alphabetical order."""

WITHOUT_CONFIRMATION: Final = {
    "emoji_group": "3 of 8 groups have no emoji of this artist that neither train nor test has",
    "emoji_kind": "24 of 27 kinds have no emoji that neither train nor test has",
    "icon_kind": "14 of 20 kinds have no icon of this artist that neither train nor test has",
}
"""The sets without a confirmation split, and why."""
