"""Decoding: what Pillow's `convert("RGB")` gives, nothing turned, nothing half read."""

import io

import numpy as np
import pytest
from datasets_on_disk import png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipnlc.datasets.images import decode
from clipnlc.datasets.source import Sample
from clipnlc.errors import DataError


def encode(image, fmt, **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def noise(mode="RGB", size=(24, 20)):
    return Image.open(io.BytesIO(png(3, size=size))).convert(mode)


JPEG = encode(noise(size=(200, 150)), "JPEG")


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize(
    ("image", "fmt", "options"),
    [
        (noise("1"), "PNG", {}),
        (noise("L"), "PNG", {}),
        (noise("L"), "PNG", {"transparency": 7}),
        (noise("LA"), "PNG", {}),
        (noise("P"), "PNG", {}),
        (noise("P"), "PNG", {"transparency": bytes(range(256))}),
        (noise("RGB"), "PNG", {"transparency": (1, 2, 3)}),
        (noise("RGBA"), "PNG", {}),
        (noise("CMYK"), "JPEG", {}),
        (noise("RGB"), "WEBP", {}),
        (noise("P"), "GIF", {"save_all": True, "append_images": [noise("P")]}),
        (Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 130), "PNG", {}),
        (Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 130), "TIFF", {}),
    ],
)
def test_every_mode_becomes_rgb_as_pillow_converts_it(image, fmt, options):
    data = encode(image, fmt, **options)
    decoded = decode(data)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(expected))


@pytest.mark.filterwarnings("error")
def test_transparent_palettes_do_not_warn():
    decode(encode(noise("P"), "PNG", transparency=bytes(range(256))))


def test_the_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    data = encode(noise(), "JPEG", exif=exif)
    assert decode(data).size == (24, 20)


def test_a_truncated_image_names_the_sample():
    sample = Sample("test/cat/7.jpg", 0, JPEG[: len(JPEG) // 2])
    with pytest.raises(DataError, match=r"cannot decode test/cat/7.jpg \(\d+ bytes\): image file is truncated") as e:  # fmt: skip
        sample.image()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg/>"])
def test_what_is_no_image_is_said(data):
    with pytest.raises(
        DataError, match=r"cannot decode image \(\d+ bytes\): .*--on-bad-image skip"
    ):
        decode(data)


def test_an_image_of_absurd_size_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"cannot decode image .*exceeds limit"):
        decode(png(0))


@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=8),
    st.booleans(),
)
def test_damaged_files_decode_or_raise_one_line(fmt, where, patch, cut):
    data = bytearray(encode(noise(), fmt))
    at = int(where * len(data))
    data[at : at + len(patch)] = patch
    try:
        image = decode(bytes(data[:at] if cut else data), "x")
    except DataError as error:
        assert str(error).startswith("cannot decode x (")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert image.mode == "RGB"
