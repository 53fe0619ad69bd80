"""Decoding: what Pillow's `convert("RGB")` gives, but for grey of more than 8 bits."""

import io
import logging
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from datasets_on_disk import png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from clipnlc.datasets.images import ImageError, decode, load
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
    ],
)
def test_every_mode_becomes_rgb_as_pillow_converts_it(image, fmt, options):
    data = encode(image, fmt, **options)
    decoded = decode(data)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(expected))


# Grey values of more than 8 bits: the files are written here, byte by byte where Pillow does not
# write them, and what they hold is compared with arithmetic on the values.

GREY = np.random.default_rng(5).integers(0, 256, (20, 24)).astype(np.uint8)
FILLING = np.random.default_rng(6).integers(0, 256, GREY.shape).astype(np.uint8)  # the low bits


def tiff(
    values, *, bits, sample_format=None, photometric=1, order="<", raw=None, compression=1, more=()
):
    """Write grey values as an uncompressed TIFF of one strip."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes() if raw is None else raw
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, compression),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(data)),
        *more,
        *([(339, 3, sample_format)] if sample_format else []),
    ]
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + struct.pack(
            order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,))
        )
        for tag, kind, value in tags
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def png_of(values, kind):
    """Write values of 16 bits as a PNG; `kind` is its colour type."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def packed_12(values):
    """Pack pairs of 12-bit values into three bytes."""
    one, two = values.reshape(-1, 2).T.astype(np.uint16)
    packed = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], axis=1)
    return packed.astype(np.uint8).tobytes()


def wide(low):
    return GREY.astype(np.uint16) << 8 | low


WIDE = {
    "PNG": lambda v: png_of(v, 0),
    "PNG of Pillow's": lambda v: encode(Image.fromarray(v), "PNG"),
    "TIFF": lambda v: tiff(v, bits=16),
    "TIFF of Pillow's": lambda v: encode(Image.fromarray(v), "TIFF"),
    "TIFF, big-endian": lambda v: tiff(v, bits=16, order=">"),
    "TIFF, unsigned by tag": lambda v: tiff(v, bits=16, sample_format=1),
    "TIFF, white is zero": lambda v: tiff(65535 - v, bits=16, photometric=0),
    "TIFF, LZW": lambda v: encode(Image.fromarray(v), "TIFF", compression="tiff_lzw"),
    "TIFF of 12 bits": lambda v: tiff(v, bits=12, raw=packed_12(v >> 4)),
    "PGM": lambda v: b"P5 24 20 65535\n" + v.astype(">u2").tobytes(),
    "PGM in words": lambda v: b"P2 24 20 65535\n" + " ".join(map(str, v.ravel())).encode(),
    "JPEG 2000": lambda v: encode(Image.fromarray(v), "JPEG2000"),
}


@pytest.mark.parametrize("low", [0, 255, FILLING], ids=["low", "high", "noise"])
@pytest.mark.parametrize("form", WIDE)
def test_grey_of_16_bits_is_scaled_by_the_depth_that_the_file_declares(form, low):
    image = load(WIDE[form](wide(low)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), GREY)
    np.testing.assert_array_equal(
        np.asarray(decode(WIDE[form](wide(low)))), GREY[..., None].repeat(3, 2)
    )


@pytest.mark.parametrize("most", [256, 1023, 4095, 40000])
def test_a_pgm_is_scaled_by_its_own_maximum(most):
    values = np.linspace(0, most, 480).astype(np.uint16).reshape(20, 24)
    data = f"P5 24 20 {most}\n".encode() + values.astype(">u2").tobytes()
    expected = values / most * 255
    assert np.abs(np.asarray(load(data)) - expected).max() <= 1


@pytest.mark.parametrize("kind", [2, 4, 6], ids=["RGB", "grey and alpha", "RGBA"])
def test_colours_of_16_bits_have_the_pixels_of_their_highest_8(kind):
    channels = {2: 3, 4: 2, 6: 4}[kind]
    high = np.random.default_rng(kind).integers(0, 256, (20, 24, channels)).astype(np.uint8)
    data = png_of(high.astype(np.uint16) << 8 | 77, kind)
    mode = {2: "RGB", 4: "LA", 6: "RGBA"}[kind]
    expected = Image.frombytes(mode, (24, 20), high.tobytes()).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(expected))


def test_12_bits_in_a_file_of_16_are_read_by_the_16_that_it_declares():
    image = load(png_of(wide(FILLING) >> 4, 0))
    np.testing.assert_array_equal(np.asarray(image), GREY >> 4)


FLOATS = (GREY / 255).astype(np.float32)
WORDS = GREY.astype(np.int32) << 16


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encode(Image.fromarray(FLOATS), "TIFF"), "TIFF of floating point"),
        (tiff(FLOATS, bits=32, sample_format=3, order=">"), "TIFF of floating point"),
        (tiff(FLOATS * np.nan, bits=32, sample_format=3), "TIFF of floating point"),
        (b"Pf\n24 20\n-1.0\n" + FLOATS.tobytes(), "PPM of floating point"),
        (encode(Image.fromarray(WORDS), "TIFF"), "TIFF of signed integers"),
        (tiff(WORDS.astype(np.uint32), bits=32), "TIFF of 32-bit integers"),
        (tiff(wide(0).astype(np.int16), bits=16, sample_format=2), "TIFF of signed integers"),
        (tiff(GREY.astype(np.int8), bits=8, sample_format=2), "TIFF of signed integers"),
    ],
)
def test_what_does_not_say_which_values_are_black_and_white_is_refused(data, what):
    with pytest.raises(
        ImageError,
        match=rf"cannot decode x \(\d+ bytes\): {what}: nothing says .* convert it to 8 bits; ",
    ) as found:
        load(data, "x")
    assert found.value.reason.startswith(what)


def test_premultiplied_grey_becomes_rgb():
    pixels = np.stack([GREY // 2, np.full_like(GREY, 128)], axis=2)
    data = encode(Image.frombytes("LA", (24, 20), pixels.tobytes()), "TIFF")
    straight, premultiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    assert straight in data
    again = decode(data.replace(straight, premultiplied))
    expected = Image.frombytes("La", (24, 20), pixels.tobytes()).convert("LA").convert("RGB")
    np.testing.assert_array_equal(np.asarray(again), np.asarray(expected))


@pytest.mark.filterwarnings("error")
def test_transparent_palettes_do_not_warn():
    decode(encode(noise("P"), "PNG", transparency=bytes(range(256))))


@pytest.mark.filterwarnings("default")
def test_libraries_print_nothing_of_their_own(capfd):
    """libtiff writes to standard error from C, Pillow by warnings and by logging."""
    sound = encode(noise("L"), "TIFF", compression="tiff_lzw", tiffinfo={65000: "odd"})
    damaged = sound[:20] + b"\xff" * 40 + sound[60:]
    with pytest.raises(ImageError, match="the image data are damaged"):
        load(damaged)
    for cut in range(0, len(sound), 7):
        with suppress(ImageError):
            load(sound[:cut])
    logging.getLogger("PIL.TiffImagePlugin").warning("more samples than can be decoded")
    assert capfd.readouterr() == ("", "")


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


BLACK = encode(Image.new("1", (9500, 9500)), "PNG")
"""90 million pixels, of which Pillow warns, in some kB."""


@pytest.mark.parametrize(
    ("data", "limit", "pixels"),
    [(png(0), 34, 35), (BLACK, 90_249_999, 90_250_000), (BLACK, 10_000_000, 90_250_000)],
)
def test_an_image_of_more_pixels_than_allowed_is_not_decoded(data, limit, pixels, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(
        ImageError,
        match=rf"cannot decode x \(.*Image size \({pixels} pixels\) exceeds limit of {limit} pixels; "
        "allow more with --max-pixels; replace or remove it",
    ):
        load(data, "x", max_pixels=limit)


def test_an_image_that_pillow_would_refuse_is_decoded_where_it_is_allowed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # no absurd image is needed
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert load(png(0), max_pixels=35).size == (7, 5)
        assert load(BLACK).size == (9500, 9500)
        warnings.warn("ours", stacklevel=1)
    assert [str(one.message) for one in told] == ["ours"]


@pytest.mark.parametrize("size", [(1_000_000, 1), (1, 3_000_000), (201, 1), (2, 401)])
def test_an_image_that_resizing_would_blow_up_is_not_decoded(size, monkeypatch):
    data = encode(Image.new("L", size), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(
        ImageError,
        match=f"{size[0]} x {size[1]} pixels: one side is more than 200 times the other; crop it",
    ):
        load(data)


def test_an_icon_that_holds_a_longer_image_than_it_says_is_refused():
    line = encode(Image.new("RGB", (2000, 1)), "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(line), 22)
    with pytest.raises(ImageError, match="2000 x 1 pixels: one side is more than 200 times"):
        load(struct.pack("<HHH", 0, 1, 1) + entry + line)


@pytest.mark.parametrize("size", [(200, 1), (1, 200), (2, 400)])
def test_a_long_image_is_decoded(size):
    assert load(encode(Image.new("L", size), "PNG")).size == size


def test_a_tile_larger_than_the_image_is_allowed_is_not_decoded():
    """Tiles are held whole, so a file of 200 bytes can ask for gigabytes."""
    tags = [(322, 4, 60_000), (323, 4, 60_000), (324, 4, 8), (325, 4, 480)]
    with pytest.raises(ImageError, match=r"size \(3600000000 pixels\) exceeds limit"):
        load(tiff(GREY, bits=8, compression=5, more=tags))


def test_what_another_program_would_draw_is_refused():
    data = encode(noise(), "EPS")
    with pytest.raises(ImageError, match="EPS is not read: a program, not an image"):
        load(data)


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
