"""Encoded bytes to pixels, exactly as open_clip and torchvision see them."""

import io
import struct
import zlib

from PIL import Image

from clipnlc.errors import DataError

# What Pillow's readers raise on damaged files, besides OSError.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    NotImplementedError,
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


def load(data: bytes, sample_id: str = "image") -> Image.Image:
    """Decode an image file held in memory in the mode it is stored in (open_clip resizes that).

    EXIF orientation is not applied; of an animation the first frame is taken.

    Args:
        data: the bytes of the file (JPEG, PNG, WebP, whatever Pillow reads).
        sample_id: named in the error.

    Raises:
        ImageError: the bytes are no image, or the image is truncated or damaged.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            # Transparency never reaches RGB; kept, it only makes Pillow warn about palettes.
            image.info.pop("transparency", None)
            return image.copy()
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify image file" in reason:
            reason = "not an image, or of an unknown format"
        raise ImageError(
            f"cannot decode {sample_id} ({len(data)} bytes): {reason}; replace or remove it, or use --on-bad-image skip",
            reason,
        ) from error


def decode(data: bytes, sample_id: str = "image") -> Image.Image:
    """Decode an image file held in memory to RGB (see `load`).

    Grayscale, palette, RGBA, CMYK and 16-bit images become RGB by `Image.convert("RGB")`.

    Raises:
        DataError: the bytes are no image, or the image is truncated or damaged.
    """
    return load(data, sample_id).convert("RGB")
