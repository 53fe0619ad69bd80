"""Letters and digits rendered from open fonts; only the rendered glyphs ship.

The fonts of the test sets are other families than those of the corpus, chosen by look, not by
name: several families are near copies of one another.
"""

import string
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clipnlc.datasets.nano.palette import SIZE, Colour, Pixels, to_pixels

DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS: Final = tuple(string.ascii_lowercase)

CORPUS_FONTS: Final = (
    "architects-daughter", "bitter", "caveat", "comic-neue", "crimson-text", "handlee",
    "inconsolata", "indie-flower", "josefin-sans", "kalam", "lato", "libre-baskerville", "lora",
    "merriweather", "nunito", "open-sans", "oswald", "patrick-hand", "permanent-marker",
    "playfair-display", "pt-serif", "quicksand", "raleway", "roboto", "schoolbell",
    "source-code-pro", "special-elite", "ubuntu",
)  # fmt: skip
HELD_OUT_FONTS: Final = (
    "alegreya", "amaranth", "cabin", "courier-prime", "exo-2", "gloria-hallelujah", "philosopher",
    "shadows-into-light-two", "vollkorn", "zilla-slab",
)  # fmt: skip

_LEGIBLE: Final = 3  # a narrower or flatter glyph, in pixels of the doubled canvas, is not drawn


@cache
def font_files(folder: Path, families: tuple[str, ...]) -> tuple[tuple[Path, ...], ...]:
    """List each family's regular, bold and italic Latin files, in a fixed order."""
    styles = ("400-normal", "700-normal", "400-italic")
    return tuple(
        tuple(
            file
            for style in styles
            if (file := folder / family / "files" / f"{family}-latin-{style}.woff").is_file()
        )
        for family in families
    )


def glyph(
    rng: np.random.Generator,
    character: str,
    *,
    font: Path,
    ink: Colour,
    paper: Colour,
    blur: int = 0,
    noise: float = 0.0,
    turn: float = 6.0,
) -> Pixels | None:
    """Draw one character; `None` where the font has nothing legible for it.

    Args:
        rng: drawn from for size, place and rotation.
        character: a letter or a digit.
        font: a font file.
        ink: colour of the glyph.
        paper: colour of the ground.
        blur: side, in pixels, that the image is squeezed through; 0 for none.
        noise: standard deviation of the noise, in grey levels.
        turn: largest rotation, in degrees.
    """
    side = SIZE * 2
    face = ImageFont.truetype(str(font), int(rng.uniform(0.6, 1.05) * side))
    left, top, right, bottom = face.getbbox(character)
    if right - left < _LEGIBLE or bottom - top < _LEGIBLE:
        return None
    mask = Image.new("L", (side * 2, side * 2), 0)
    middle = (side - (left + right) / 2, side - (top + bottom) / 2)
    ImageDraw.Draw(mask).text(middle, character, font=face, fill=255)
    mask = mask.rotate(rng.uniform(-turn, turn), resample=Image.Resampling.BICUBIC)
    x, y = (side // 2 + int(d) for d in rng.integers(-5, 6, 2))
    image = Image.new("RGB", (side, side), paper)
    image.paste(Image.new("RGB", (side, side), ink), (0, 0), mask.crop((x, y, x + side, y + side)))
    if blur:
        image = image.resize((blur, blur), Image.Resampling.BOX)
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    values = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)).astype(np.float64)
    return to_pixels(values + rng.normal(0, noise, values.shape) if noise else values)
