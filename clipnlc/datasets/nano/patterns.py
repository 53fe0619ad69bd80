"""Rendered textures in two colours, in kind like the Describable Textures."""

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float
from PIL import Image

from clipnlc.datasets.nano.palette import COLOURS, SIZE, Pixels, jitter, to_pixels

_SIDE: Final = SIZE * 3

Plane = Float[np.ndarray, "96 96"]
Pattern = Callable[[np.random.Generator, Plane, Plane, Plane, Plane, float], Plane]


def _bands(u: Plane) -> Plane:
    bands: Plane = np.floor(u * 2) % 2
    return bands


def _diagonal(
    rng: np.random.Generator, u: Plane, v: Plane, _x: Plane, _y: Plane, f: float
) -> Plane:
    return _bands((u + (1 if rng.random() < 0.5 else -1) * v) * f * 0.7)


def _dots(rng: np.random.Generator, u: Plane, v: Plane, _x: Plane, _y: Plane, f: float) -> Plane:
    square = ((u * f * 1.3) % 1 - 0.5) ** 2 + ((v * f * 1.3) % 1 - 0.5) ** 2
    return (square < rng.uniform(0.05, 0.11)) * 1.0


def _grid(rng: np.random.Generator, u: Plane, v: Plane, _x: Plane, _y: Plane, f: float) -> Plane:
    width = rng.uniform(0.14, 0.26)
    return (((u * f * 1.2) % 1 < width) | ((v * f * 1.2) % 1 < width)) * 1.0


def _bricks(_rng: np.random.Generator, u: Plane, v: Plane, _x: Plane, _y: Plane, f: float) -> Plane:
    row = np.floor(v * f * 2)
    mortar = ((v * f * 2) % 1 < 0.18) | ((u * f + 0.5 * (row % 2)) % 1 < 0.12)
    return 1.0 - mortar


def _circles(rng: np.random.Generator, _u: Plane, _v: Plane, x: Plane, y: Plane, f: float) -> Plane:
    return _bands(np.hypot(x - rng.uniform(0.35, 0.65), y - rng.uniform(0.35, 0.65)) * f * 1.6)


def _rays(rng: np.random.Generator, _u: Plane, _v: Plane, x: Plane, y: Plane, f: float) -> Plane:
    angle = np.arctan2(y - rng.uniform(0.35, 0.65), x - rng.uniform(0.35, 0.65))
    return _bands(angle / (2 * np.pi) * round(f * 2))


def _speckles(
    rng: np.random.Generator, _u: Plane, _v: Plane, _x: Plane, _y: Plane, f: float
) -> Plane:
    cells = int(f * 5)
    spots = Image.fromarray((rng.random((cells, cells)) < 0.3).astype(np.uint8) * 255)
    return np.asarray(spots.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)) / 255.0


def _gradient(
    rng: np.random.Generator, _u: Plane, _v: Plane, x: Plane, y: Plane, _f: float
) -> Plane:
    angle = rng.uniform(0, 2 * np.pi)
    slope: Plane = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    return np.clip(0.5 + 0.7 * slope, 0, 1)


def _triangles(
    _rng: np.random.Generator, u: Plane, v: Plane, _x: Plane, _y: Plane, f: float
) -> Plane:
    return (np.abs((u * f * 1.3) % 1 - 0.5) * 2 < (v * f * 1.3) % 1) * 1.0


PATTERNS: Final[dict[str, Pattern]] = {
    "horizontal stripes": lambda _r, _u, v, _x, _y, f: _bands(v * f),
    "vertical stripes": lambda _r, u, _v, _x, _y, f: _bands(u * f),
    "diagonal stripes": _diagonal,
    "checkerboard": lambda _r, u, v, _x, _y, f: (np.floor(u * f * 2) + np.floor(v * f * 2)) % 2,
    "polka dots": _dots,
    "grid": _grid,
    "zigzag": lambda _r, u, v, _x, _y, f: _bands(v * f + np.abs((u * f) % 1 - 0.5) * 1.3),
    "waves": lambda _r, u, v, _x, _y, f: _bands(v * f + 0.28 * np.sin(u * f * 2 * np.pi)),
    "bricks": _bricks,
    "concentric circles": _circles,
    "rays": _rays,
    "speckles": _speckles,
    "triangles pattern": _triangles,
    "gradient": _gradient,
}


def pattern(
    rng: np.random.Generator,
    name: str,
    *,
    colours: tuple[str, str],
    frequency: float,
    shifted: bool = False,
) -> Pixels:
    """Draw a texture; `shifted` tilts it more, lowers the contrast and adds noise (test sets)."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float64) / _SIDE
    tilt = rng.uniform(-0.12, 0.12) * (1.6 if shifted else 1)
    u = x * np.cos(tilt) - y * np.sin(tilt) + rng.random()
    v = x * np.sin(tilt) + y * np.cos(tilt) + rng.random()
    plane = np.clip(PATTERNS[name](rng, u, v, x, y, frequency), 0, 1)
    small = Image.fromarray((plane * 255).astype(np.uint8)).resize(
        (SIZE, SIZE), Image.Resampling.BOX
    )
    mask = np.asarray(small).astype(np.float64)[..., None] / 255
    first, second = (np.array(jitter(rng, COLOURS[c], 30.0)) for c in colours)
    image = mask * first + (1 - mask) * second
    if shifted:
        contrast = rng.uniform(0.35, 0.8)
        image = image.mean((0, 1)) * (1 - contrast) + image * contrast
    noise = rng.normal(0, rng.uniform(10, 35) if shifted else 5, (SIZE, SIZE, 3))
    return to_pixels(image + noise)
