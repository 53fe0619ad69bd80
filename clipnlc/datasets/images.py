"""Encoded bytes to pixels, exactly as open_clip and torchvision see them.

One exception: Pillow cuts grey values of more than 8 bits off at 255, which makes most images
white. Here they are scaled by the depth that the file declares; what declares none is refused.
"""

import ctypes
import errno
import io
import logging
import re
import struct
import warnings
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, _imaging

from clipnlc.errors import DataError
from clipnlc.files import read_regular

MAX_PIXELS: Final = 178_956_970
"""Of an image that is decoded unless the user allows more; also Pillow's own limit."""

MAX_ASPECT: Final = 200
"""The longer side by the shorter one. Resizing fits the shorter side to a backbone's input, so its
memory grows with this ratio. The limit is one for all backbones, since all must skip the same
images; at 448 x 448, the largest input of OpenAI's, it lets an image of 40 million pixels be made."""

# What Pillow's readers raise on damaged files, besides OSError.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class ImageError(DataError):
    """An image that cannot be decoded.

    Attributes:
        reason: why, without the image's name.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        """Take the whole message; `reason` has a default because unpickling gives the message."""
        super().__init__(message)
        self.reason = reason


_SIXTEEN: Final = frozenset({"PNG", "PPM", "TIFF", "JPEG2000"})
"""Formats whose grey images of more than 8 bits are unsigned and fill the range they declare."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO: Final = 0
_UNSIGNED: Final = 1
_SAMPLES: Final = {2: "signed integers", 3: "floating point"}
_RANGELESS: Final = {"I": "32-bit integers", "F": "floating point"}


_FOREIGN: Final = {"EPS": "a program, not an image", "FITS": "of unlimited size when unpacked"}
"""Formats of Pillow's that are not read: EPS is run by Ghostscript."""

_TILE = 322, 323  # TIFF tags: a tile is held in memory, however small the image

# Pillow warns of damage where the pixels are sound, and of sizes that are checked here.
_PILLOWS: Final = "PIL(\\.|$)"


LARGEST_FILE: Final = 2**31
"""Bytes of an image file that is read; none that Pillow opens is larger, and files are read whole."""


def read_image_file(path: Path) -> bytes:
    """Read an image file, or a link to one, into memory.

    Raises:
        OSError: it cannot be read, or is empty, too large, or no regular file (a named pipe, a
            device); `strerror` says which, without the file's name.
    """
    data = read_regular(path, at_most=LARGEST_FILE)
    if not data:
        raise OSError(errno.ENODATA, "the file is empty", str(path))
    return data


def load(
    data: bytes,
    sample_id: str = "image",
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
) -> Image.Image:
    """Decode an image file held in memory in the mode it is stored in (open_clip resizes that).

    EXIF orientation is not applied; of an animation the first frame is taken. Grey values of more
    than 8 bits become 8: the high ones, as Pillow does with colours of 16.

    Args:
        data: the bytes of the file (JPEG, PNG, WebP, whatever Pillow reads).
        sample_id: named in the error.
        max_pixels: a larger image is refused before it is decoded.
        at_least: pixels a side that are enough; a JPEG is then decoded at a half, a quarter or an
            eighth of its size, many times faster.

    Raises:
        ImageError: the bytes are no image, the image is truncated or damaged, too large or too
            long, or nothing says which of its values are black and white.
    """
    _prepare_pillow(max_pixels)
    try:
        if not data:
            raise ValueError("the file is empty")
        with Image.open(io.BytesIO(data)) as header:
            _check_size(header, max_pixels)
            if at_least is not None:
                header.draft(None, (at_least, at_least))
            header.load()
            _check_size(header, max_pixels)  # an icon holds another image, of any size
            image = _eight_bits(header)
            # Transparency never reaches RGB; kept, it only makes Pillow warn about palettes.
            image.info.pop("transparency", None)
            return image
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify image file" in reason:
            reason = "not an image, or of an unknown format"
        elif reason.startswith("decoder error"):  # of libtiff, a number
            reason = "the image data are damaged"
        elif isinstance(error, Image.DecompressionBombError):
            pixels = re.findall(r"\d+", reason)[0]
            reason = f"{reason.split(',')[0]}; allow it with --max-pixels {pixels}"
        raise ImageError(
            f"cannot decode {sample_id} ({len(data)} bytes): {reason}; replace or remove it, or use --on-bad-image skip",
            reason,
        ) from error


def decode(data: bytes, sample_id: str = "image") -> Image.Image:
    """Decode an image file held in memory to RGB (see `load`).

    Grayscale, palette, RGBA and CMYK images become RGB by `Image.convert("RGB")`.

    Raises:
        ImageError: as `load`.
    """
    return load(data, sample_id).convert("RGB")


def _prepare_pillow(max_pixels: int) -> None:
    """Let Pillow open what is allowed here, without a word."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # it refuses what has more than twice that
    # Not `catch_warnings`, which is for one thread only.
    known = (getattr(module, "pattern", None) for _, _, _, module, _ in warnings.filters)
    if _PILLOWS not in known:
        warnings.filterwarnings("ignore", module=_PILLOWS)
    _quiet_libraries()


@cache
def _quiet_libraries() -> None:
    """Keep what names no file off standard error: what cannot be decoded is refused by name."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # libtiff writes by itself. Where Pillow has it built in, it cannot be told otherwise.
    with suppress(OSError, AttributeError, TypeError):
        pillow = ctypes.CDLL(_imaging.__file__)
        for set_handler in (pillow.TIFFSetErrorHandler, pillow.TIFFSetWarningHandler):
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


def _check_size(header: Image.Image, max_pixels: int) -> None:
    """Check what decoding and resizing would take, before either.

    Raises:
        ValueError: it is more than is allowed.
        DecompressionBombError: likewise, by the number of pixels.
    """
    if header.format in _FOREIGN:
        raise ValueError(f"{header.format} is not read: {_FOREIGN[header.format]}")
    width, height = header.size
    tags = getattr(header, "tag_v2", {})
    tile = [_numbers(tags.get(tag, 0))[0] for tag in _TILE]
    for what, pixels in (("Image", width * height), ("Tile", tile[0] * tile[1])):
        if pixels > max_pixels:
            raise Image.DecompressionBombError(
                f"{what} size ({pixels} pixels) exceeds limit of {max_pixels} pixels"
            )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other; crop it"
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a decoded image with 8 bits a channel, in a mode that becomes RGB.

    Raises:
        ValueError: nothing says which values are black and white.
    """
    tags: dict[int, Any] = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    for kind in _numbers(tags.get(_SAMPLE_FORMAT, _UNSIGNED)):
        if kind != _UNSIGNED:
            raise _rangeless(f"TIFF of {_SAMPLES.get(kind, f'sample format {kind}')}")
    if image.mode == "La":  # premultiplied; Pillow knows no way from it to RGB
        return image.convert("LA")
    if image.mode not in _RANGELESS and not image.mode.startswith("I;"):
        return image
    is_wide = image.mode != "F" and not (image.format == "TIFF" and image.mode == "I")
    if image.format not in _SIXTEEN or not is_wide:
        raise _rangeless(f"{image.format} of {_RANGELESS.get(image.mode, image.mode)}")
    bits = _numbers(tags.get(_BITS, 16))[0]  # what is neither TIFF nor of 16 bits, Pillow scales
    values = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    # Pillow inverts such images where they have 8 bits, but not where they have more.
    is_inverted = bool(tags) and tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO
    return Image.fromarray(255 - values if is_inverted else values)


def _rangeless(what: str) -> ValueError:
    return ValueError(
        f"{what}: nothing says which values are black and white; convert it to 8 bits"
    )


def _numbers(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
