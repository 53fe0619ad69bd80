"""Colours, and the random numbers every nano image is drawn from."""

import zlib
from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

T = TypeVar("T")

SIZE: Final = 32
"""Side of every nano image, in pixels."""

SEED: Final = 20261121

Colour = tuple[int, int, int]
Pixels = UInt8[np.ndarray, "32 32 3"]

COLOURS: Final[dict[str, Colour]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (245, 220, 40),
    "orange": (250, 140, 20),
    "purple": (130, 40, 170),
    "pink": (250, 130, 190),
    "brown": (125, 75, 35),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
    "gray": (130, 130, 130),
    "cyan": (40, 210, 220),
}


def generator(section: str, index: int) -> np.random.Generator:
    """Make the generator of one image, so that no image depends on how many came before it."""
    return np.random.default_rng([SEED, zlib.crc32(section.encode()), index])


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Pick one option (without numpy turning it into an array element)."""
    return options[int(rng.integers(len(options)))]


def jitter(rng: np.random.Generator, colour: Colour, spread: float = 18.0) -> Colour:
    """Move each channel by up to `spread` of 255."""
    r, g, b = (int(np.clip(c + rng.uniform(-spread, spread), 0, 255)) for c in colour)
    return r, g, b


def contrasting(rng: np.random.Generator, at_least: int) -> tuple[str, str]:
    """Draw two colour names whose channels differ by `at_least` in sum (of 765)."""
    names = list(COLOURS)
    while True:
        i, j = rng.choice(len(names), 2, replace=False)
        a, b = names[i], names[j]
        if sum(abs(x - y) for x, y in zip(COLOURS[a], COLOURS[b], strict=True)) > at_least:
            return a, b


def to_pixels(values: Float[np.ndarray, "32 32 3"]) -> Pixels:
    """Clip to [0, 255] and truncate to bytes."""
    pixels: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    return pixels
