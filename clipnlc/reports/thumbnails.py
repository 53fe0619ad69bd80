"""Small copies of photos that a page carries in itself."""

import base64
import io
from typing import Final

from PIL import Image, ImageOps

SIDE: Final = 320
"""Pixels of the longer side: enough to recognise a photo, and a file takes about 15 kB."""

_QUALITY: Final = 80


def data_uri(image: Image.Image, *, side: int = SIDE) -> str:
    """Return a decoded image as a `data:` URI of a JPEG, upright, on white where it is transparent.

    Args:
        image: as it was decoded, with its EXIF orientation, if any.
        side: pixels of the longer side; a smaller image keeps its size.
    """
    upright = ImageOps.exif_transpose(image)
    upright.thumbnail((side, side))
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.new("RGB", layer.size, "white")
        upright.paste(layer, mask=layer)
    data = io.BytesIO()
    upright.convert("RGB").save(data, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
