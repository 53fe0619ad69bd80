"""Augmented crops: which part of an image one shows, from the image's own bytes.

As Tip-Adapter takes them of the labelled images (Zhang et al., ECCV 2022; torchvision's
`RandomResizedCrop` and `RandomHorizontalFlip`): a rectangle of a share of the area drawn from
[`LEAST_AREA`, 1] and of a ratio of sides drawn, on a logarithmic scale, from
[1 / `MOST_ASPECT`, `MOST_ASPECT`], at a random place, mirrored every other time. The random numbers
are a hash of the image's bytes and the crop's number, so a crop does not depend on the image's name,
its neighbours, the backbone or the machine.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import shake_128
from typing import Final

from PIL import Image

from clipnlc.view import FLIPS, LEAST_AREA, MOST_ASPECT

_TRIES: Final = 10
"""Rectangles that are drawn until one lies within the image; torchvision's number."""

_BYTES: Final = 7  # of one random number: what a double holds exactly


@dataclass(frozen=True)
class Crop:
    """The part of an image that one crop shows.

    Attributes:
        box: left, upper, right and lower edge in pixels, as Pillow has them.
        mirrored: whether left and right are then exchanged.
    """

    box: tuple[int, int, int, int]
    mirrored: bool

    def of(self, image: Image.Image) -> Image.Image:
        """Return this part of the image, in RGB, before it is resized to a backbone's input."""
        # Not Pillow's `box=` of `resize`, which lets pixels beyond the edge in.
        part = image.convert("RGB").crop(self.box)
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else part


def crop_of(size: tuple[int, int], content: bytes, number: int) -> Crop:
    """Return one of the crops of an image.

    Args:
        size: width and height of the image, in pixels.
        content: digest of the image's bytes.
        number: of the crop, from 0.
    """
    random = _uniform(content, number)
    mirrored = next(random) < FLIPS
    width, height = size
    for _ in range(_TRIES):
        area = width * height * (LEAST_AREA + (1 - LEAST_AREA) * next(random))
        aspect = MOST_ASPECT ** (2 * next(random) - 1)
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left = int((width - across + 1) * next(random))
            upper = int((height - down + 1) * next(random))
            return Crop((left, upper, left + across, upper + down), mirrored)
    # torchvision's: the middle of an image that is longer than any rectangle drawn.
    across = min(width, round(height * MOST_ASPECT))
    down = min(height, round(width * MOST_ASPECT))
    left, upper = (width - across) // 2, (height - down) // 2
    return Crop((left, upper, left + across, upper + down), mirrored)


def _uniform(content: bytes, number: int) -> Iterator[float]:
    """Yield the random numbers of a crop, in [0, 1)."""
    given = shake_128(b"crop-%d:" % number + content).digest(_BYTES * (1 + 4 * _TRIES))
    for begin in range(0, len(given), _BYTES):
        word = int.from_bytes(given[begin : begin + _BYTES], "little")
        yield (word >> 3) / (1 << (8 * _BYTES - 3))
