"""Rendered scenes: a number of equal shapes of one colour on a background of another."""

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from clipnlc.datasets.nano.palette import COLOURS, SIZE, Pixels, jitter, to_pixels

NUMBERS: Final = ("one", "two", "three", "four", "five", "six")

_OVERSAMPLE: Final = 4
_CROWDED: Final = 1000  # tries after which shapes shrink
_HOPELESS: Final = 2000  # tries after which the arrangement starts again

Point = tuple[float, float]
Shape = Callable[[ImageDraw.ImageDraw, float, float, float, float], None]


def _ring(n: int, radius: float, turn: float, inner: float | None = None) -> list[Point]:
    """Corners of a regular polygon, or of a star when `inner` (a share of the radius) is given."""
    corners = n * (2 if inner else 1)
    points = []
    for i in range(corners):
        r = radius * inner if inner and i % 2 else radius
        angle = turn + 2 * np.pi * i / corners - np.pi / 2
        points.append((r * np.cos(angle), r * np.sin(angle)))
    return points


def _polygon(corners: Callable[[float, float], list[Point]]) -> Shape:
    def draw(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, turn: float) -> None:
        pen.polygon([(x + dx, y + dy) for dx, dy in corners(r, turn)], fill=255)

    return draw


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, ink: int = 255) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)


def _circle(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, _turn: float) -> None:
    _disc(pen, x, y, r)


def _annulus(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, _turn: float) -> None:
    _disc(pen, x, y, r)
    _disc(pen, x, y, r * 0.55, ink=0)


def _crescent(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, _turn: float) -> None:
    _disc(pen, x, y, r)
    pen.ellipse((x - r * 0.35, y - r * 0.9, x + r * 1.3, y + r * 0.7), fill=0)


def _cross(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, _turn: float) -> None:
    w = r * 0.38
    pen.rectangle((x - w, y - r, x + w, y + r), fill=255)
    pen.rectangle((x - r, y - w, x + r, y + w), fill=255)


def _heart(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, _turn: float) -> None:
    pen.ellipse((x - r, y - r * 0.9, x + r * 0.08, y + r * 0.15), fill=255)
    pen.ellipse((x - r * 0.08, y - r * 0.9, x + r, y + r * 0.15), fill=255)
    wings = [(-r * 0.93, -r * 0.15), (r * 0.93, -r * 0.15), (0, r * 1.1)]
    pen.polygon([(x + dx, y + dy) for dx, dy in wings], fill=255)


SHAPES: Final[dict[str, Shape]] = {
    "circle": _circle,
    "square": _polygon(lambda r, turn: _ring(4, r * 1.2, np.pi / 4 + turn)),
    "triangle": _polygon(lambda r, turn: _ring(3, r * 1.15, turn)),
    "star": _polygon(lambda r, turn: _ring(5, r * 1.2, turn, inner=0.42)),
    "hexagon": _polygon(lambda r, turn: _ring(6, r * 1.05, turn)),
    "cross": _cross,
    "diamond": _polygon(lambda r, _: [(0, -r * 1.2), (r * 0.75, 0), (0, r * 1.2), (-r * 0.75, 0)]),
    "crescent": _crescent,
    "ring": _annulus,
    "heart": _heart,
}


def plural(shape: str, number: int = 2) -> str:
    """Spell a shape's name for `number` of them.

    >>> plural("cross"), plural("star", 1)
    ('crosses', 'star')
    """
    if number == 1:
        return shape
    return shape + ("es" if shape.endswith("s") else "s")


def _arrange(rng: np.random.Generator, number: int) -> list[tuple[float, float, float]]:
    """Place `number` discs (x, y, radius) that do not touch, on the oversampled canvas."""
    side = SIZE * _OVERSAMPLE
    room = side * 0.4 if number == 1 else side * 0.36 / np.ceil(np.sqrt(number))
    while True:
        placed: list[tuple[float, float, float]] = []
        for attempt in range(_HOPELESS):
            r = room * rng.uniform(0.55, 0.95) * (1 if attempt < _CROWDED else 0.7)
            x, y = rng.uniform(r * 1.1, side - r * 1.1, 2)
            if all((x - a) ** 2 + (y - b) ** 2 > ((r + q) * 1.12) ** 2 for a, b, q in placed):
                placed.append((float(x), float(y), r))
            if len(placed) == number:
                return placed


def _shaded(rng: np.random.Generator) -> Float[np.ndarray, "32 32 1"]:
    """An uneven light: a linear slope plus smooth blotches, in grey levels."""
    ramp = np.linspace(-1, 1, SIZE)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * ramp[:, None] + np.sin(angle) * ramp[None]) * rng.uniform(15, 45)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 6), dtype=np.uint8))
    blotches = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) * 0.22 - 28
    light: Float[np.ndarray, "32 32 1"] = (slope + blotches)[..., None]
    return light


def scene(
    rng: np.random.Generator,
    *,
    number: int,
    shape: str,
    colour: str,
    background: str,
    shifted: bool = False,
) -> Pixels:
    """Draw `number` shapes; `shifted` adds rotation, uneven light and strong noise (test sets)."""
    side = SIZE * _OVERSAMPLE
    canvas = Image.new("L", (side, side), 0)
    turn = 0.5 if shifted else 0.25
    for x, y, r in _arrange(rng, number):
        # Each shape on its own layer: rings and crescents cut holes into themselves only.
        layer = Image.new("L", (side, side), 0)
        SHAPES[shape](ImageDraw.Draw(layer), x, y, r, rng.uniform(-turn, turn))
        canvas.paste(layer, (0, 0), layer)
    small = canvas.resize((SIZE, SIZE), Image.Resampling.BOX)
    mask = np.asarray(small).astype(np.float64)[..., None] / 255
    ground = np.ones((SIZE, SIZE, 3)) * np.array(jitter(rng, COLOURS[background], 25.0))
    ink = np.array(jitter(rng, COLOURS[colour], 25.0))
    if shifted:
        ground = ground + _shaded(rng)
    noise = rng.normal(0, rng.uniform(5, 25) if shifted else 3, (SIZE, SIZE, 3))
    return to_pixels(mask * ink + (1 - mask) * ground + noise)
