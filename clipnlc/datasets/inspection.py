"""What an encoded image is: its format, mode, size, and what looks wrong with it.

`clipnlc.datasets.images` decodes the same bytes for the backbones; nothing is decided here, an
image is only described.
"""

import io
import struct
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from PIL import Image

from clipnlc.datasets.images import MAX_PIXELS, load

TINY: Final = 16  # pixels of the shorter side; a 224-pixel input blows each up fourteenfold

_ORIENTATION: Final = 274  # EXIF tag
_UPRIGHT: Final = (None, 0, 1)
_FORMATS: Final = {
    ".apng": "PNG",
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".j2k": "JPEG2000",
    ".jfif": "JPEG",
    ".jp2": "JPEG2000",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
_ALSO: Final = {"MPO": "JPEG"}  # what phones call a JPEG with more than one picture


@dataclass(frozen=True)
class ImageFacts:
    """What one encoded image is.

    Attributes:
        format: Pillow's name of the content's format (`JPEG`, `PNG`).
        promised: the format that the name's suffix says; None where it says none.
        mode: Pillow's mode as stored (`RGB`, `L`, `CMYK`, `I;16`).
        width, height: pixels as stored.
        dark: whether it has more than 8 bits, of which the highest four are never used.
        one_colour: whether every pixel is the same.
        turned: whether EXIF says to turn or mirror it, which open_clip does not do.
    """

    format: str
    promised: str | None
    mode: str
    width: int
    height: int
    dark: bool
    one_colour: bool
    turned: bool

    @property
    def misnamed(self) -> bool:
        """Whether the content has another format than the name says."""
        return self.promised is not None and self.promised != self.format

    @property
    def tiny(self) -> bool:
        """Whether the shorter side has fewer than `TINY` pixels."""
        return min(self.width, self.height) < TINY


def inspect_image(data: bytes, sample_id: str, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Describe an encoded image; all of it is decoded.

    Args:
        data: the bytes of the file.
        sample_id: its name, whose suffix is compared with the content; named in the error.
        max_pixels: a larger image is refused.

    Raises:
        ImageError: the image cannot be decoded; see `images.load`.
    """
    image = load(data, sample_id, max_pixels=max_pixels)
    with Image.open(io.BytesIO(data)) as header:
        name, mode, turned = header.format or "", header.mode, _is_turned(header)
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return ImageFacts(
        format=_ALSO.get(name, name),
        promised=_FORMATS.get(PurePosixPath(sample_id).suffix.lower()),
        mode=mode,
        width=image.width,
        height=image.height,
        dark=mode.startswith("I") and max(high for _, high in bands) < 1 << 4,
        one_colour=all(low == high for low, high in bands),
        turned=turned,
    )


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION) not in _UPRIGHT
    except (OSError, SyntaxError, ValueError, struct.error):  # damaged EXIF turns nothing
        return False
