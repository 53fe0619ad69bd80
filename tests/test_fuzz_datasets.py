"""Images and tables that are damaged in one place open, or are refused: never anything else.

A valid file, and one field of it replaced, one stretch overwritten, or the rest cut off. Each
reader takes some hundred of them; thousands where the marker `long` is asked for. Nothing but
`ClipnlcError` may leave a reader, and nothing may be printed.
"""

import copy
import io
import json
import shutil
import struct
import zlib
from functools import cache

import datasets as hf
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_on_disk import hf_dataset, png, put, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clipnlc.backbones.preprocessing import Preprocessing
from clipnlc.datasets.images import ImageError, load
from clipnlc.datasets.inspection import inspect_image
from clipnlc.datasets.source import open_split, splits
from clipnlc.errors import ClipnlcError

MOST = 1_000_000_000
"""Bytes that a reader may add to the process."""


def examples(few, many):
    """Make settings for a fast run and for a long one."""
    return [
        pytest.param(few, id="some"),
        pytest.param(many, id="many", marks=pytest.mark.long),
    ]


def fuzz(check, count, *strategies):
    """Run a check on so many examples."""
    run = given(*strategies)(check)
    settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(run)()


def check_message(problem, start=""):
    """Check that an error is one line of bearable length."""
    message = str(problem)
    assert message.startswith(start)
    assert "\n" not in message
    assert len(message) < 1000


@st.composite
def damages(draw):
    """Say where a file is damaged, and how: (place in [0, 1), bytes to write there, cut off)."""
    place = draw(st.floats(0, 1, exclude_max=True))
    patch = draw(
        st.one_of(
            st.binary(min_size=1, max_size=4),
            st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]),
        )
    )
    return place, patch, draw(st.booleans())


def damaged(data, damage):
    place, patch, cut = damage
    at = int(place * len(data))
    return data[:at] if cut else data[:at] + patch + data[at + len(patch) :]


# Images ------------------------------------------------------------------------------------------


def encode(image, fmt, **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


@cache
def files():
    """Write one small image in every form that people have."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (20, 24), dtype=np.uint16))
    exif = Image.Exif()
    exif[274] = 6
    made = [
        encode(pixels, "PNG"),
        encode(pixels.convert("P"), "PNG", transparency=bytes(range(256))),
        encode(wide, "PNG"),
        encode(pixels, "JPEG", exif=exif),
        encode(pixels, "JPEG", progressive=True),
        encode(pixels.convert("CMYK"), "JPEG"),
        encode(pixels, "WEBP"),
        encode(pixels, "WEBP", lossless=True, save_all=True, append_images=[pixels.rotate(90)]),
        encode(pixels, "GIF", save_all=True, append_images=[pixels.rotate(90)]),
        encode(pixels, "TIFF"),
        encode(pixels.convert("1"), "TIFF", compression="group4"),
        encode(pixels, "TIFF", compression="jpeg"),
        encode(pixels, "TIFF", compression="tiff_lzw"),
        encode(wide, "TIFF", compression="tiff_adobe_deflate"),
        encode(wide.convert("F"), "TIFF"),
        encode(pixels, "BMP"),
        encode(pixels, "PPM"),
        encode(wide, "PPM"),
        b"P2 24 20 255\n" + b" ".join(b"%d" % (i % 256) for i in range(480)),
        encode(pixels, "JPEG2000"),
        encode(pixels, "ICO", sizes=[(16, 16)]),
        encode(pixels, "TGA", compression="tga_rle"),
        encode(pixels, "PCX"),
        encode(pixels, "SGI"),
        encode(pixels, "MPO", save_all=True, append_images=[pixels]),
        *([encode(pixels, "AVIF")] if "AVIF" in Image.SAVE else []),
    ]
    return tuple(made)


RESIZES = [
    Preprocessing(
        size=(
            112,
            112,
        ),  # `longest` has no pixel left of an image 200 times as long as wide below 100
        interpolation="bicubic",
        resize_mode=mode,
        fill_color=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ).resizer()
    for mode in ("shortest", "longest", "squash")
]


@pytest.mark.parametrize("count", examples(500, 20_000))
def test_images(count, capfd):
    process = psutil.Process()

    def check(number, damage):
        data = damaged(files()[number % len(files())], damage)
        before = process.memory_info().rss
        try:
            image = load(data, "x")
        except ImageError as problem:
            check_message(problem, "cannot decode x (")
        else:
            for resize in RESIZES:
                assert resize(image).shape == (112, 112, 3)
            inspect_image(data, "x.png")
        assert process.memory_info().rss - before < MOST

    fuzz(check, count, st.integers(0, 99), damages())
    assert capfd.readouterr() == ("", "")


SIDES = st.sampled_from([0, 1, 2, 7, 255, 1000, 20_000, 65_535, 10**6, 2**31 - 1, 2**32 - 1])


def png_header(width, height, depth, kind):
    """Write a PNG that claims to be of any size and kind."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def headers(width, height, depth, kind):
    narrow, low = width & 0xFFFF, height & 0xFFFF
    yield png_header(width & 2**31 - 1, height & 2**31 - 1, depth, kind)
    yield b"P5 %d %d %d\n" % (width, height, 2**depth - 1) + bytes(1000)
    yield b"GIF89a" + struct.pack("<HH", narrow, low) + encode(Image.new("L", (9, 9)), "GIF")[10:]
    yield b"BM" + struct.pack("<IIIIIIHHIIIIII", 1054, 0, 54, 40, width, height, 1, depth, 0, 0, 0, 0, 0, 0) + bytes(1000)  # fmt: skip


@pytest.mark.parametrize("count", examples(150, 5_000))
def test_images_that_claim_any_size(count, capfd):
    process = psutil.Process()

    def check(width, height, depth, kind):
        for data in headers(width, height, depth, kind):
            before = process.memory_info().rss
            try:
                image = load(data, "x", max_pixels=20_000_000)
            except ImageError:
                pass
            else:
                for resize in RESIZES:
                    resize(image)
            assert process.memory_info().rss - before < MOST

    depths = st.sampled_from([1, 2, 4, 8, 16, 24, 32])
    fuzz(check, count, SIDES, SIDES, depths, st.sampled_from([0, 2, 3, 4, 6]))
    assert capfd.readouterr() == ("", "")


# Tables ------------------------------------------------------------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["", "a\0b", "\ud800", "../x", "x" * 5000, 10**40, [], {}, [[]], [1], {"": {}}]
    ),
)


def paths_of(tree, here=()):
    """List the places of every value in a tree of JSON."""
    yield here
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():  # fmt: skip
        yield from paths_of(value, (*here, key))


def replaced(tree, path, value):
    """Return a copy of a tree with one value replaced, or removed where it is `...`."""
    if not path:
        return {} if value is ... else value
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


def opened(root):
    """Open and read all of every split, or be refused."""
    try:
        for name in splits(root):
            split = open_split(root, name)
            for sample in split.read():
                assert isinstance(sample.data, bytes)
    except ClipnlcError as problem:
        check_message(problem)


@pytest.fixture(autouse=True)
def hf_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def trees(tree):
    """Draw a tree with one of its values replaced or removed."""
    places = list(paths_of(tree))
    return st.builds(
        lambda place, value: replaced(tree, places[place % len(places)], value),
        st.integers(0, 10_000),
        st.one_of(ODD, st.just(...)),
    )


@pytest.mark.parametrize("count", examples(150, 3_000))
def test_parquet_with_one_field_of_its_features_replaced(tmp_path, count, capfd):
    root = tmp_path / "set"
    root.mkdir()
    table = hf_dataset("test").with_format("arrow")[:]
    tree = json.loads(table.schema.metadata[b"huggingface"])

    def check(changed):
        text = json.dumps(changed)
        pq.write_table(table.replace_schema_metadata({"huggingface": text}), root / "test.parquet")
        opened(root)

    fuzz(check, count, trees(tree))
    assert capfd.readouterr() == ("", "")


COLUMNS = st.sampled_from(
    [
        pa.array([1, 2, 3]),
        pa.array([1.5, None, 3]),
        pa.array(["a", "b\0", "c"]),
        pa.array([b"a", b"\xff", b""]),
        pa.array([b"a", b"\xff", b"b"]).view(pa.string()),
        pa.array([None, None, None]),
        pa.array([[1], [], None]),
        pa.array([2**64 - 1, 0, 1], pa.uint64()),
        pa.array([{"bytes": png(1), "path": None}, None, {"bytes": None, "path": "x"}]),
        pa.array([{"bytes": 1}, {"bytes": 2}, {"bytes": 3}]),
        pa.array([{"bytes": "a"}, {"bytes": "b"}, {"bytes": "c"}]),
        pa.array([{"path": "a"}, {"path": "b"}, {"path": "c"}]),
        pa.array([png(1), png(2), png(3)]),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([1, 2, 3], pa.timestamp("s")),
        pa.array([True, False, None]),
    ]
)
NAMES = st.sampled_from(["image", "label", "id", "sample_id", "", "a\0b", "img"])


@pytest.mark.parametrize("count", examples(150, 3_000))
def test_parquet_of_any_columns(tmp_path, count, capfd):
    root = tmp_path / "set"
    root.mkdir()

    def check(one, two):
        for number, columns in enumerate((one, two)):
            names = [name for name, _ in columns]
            pq.write_table(pa.table([c for _, c in columns], names), root / f"{number}.parquet")
        opened(root)

    shard = st.lists(st.tuples(NAMES, COLUMNS), min_size=1, max_size=3)
    fuzz(check, count, shard, shard)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", examples(150, 3_000))
def test_parquet_damaged_in_one_place(tmp_path, count, capfd):
    root = tmp_path / "set"
    root.mkdir()
    hf_dataset("test").to_parquet(root / "test.parquet")
    data = (root / "test.parquet").read_bytes()
    capfd.readouterr()

    def check(damage):
        (root / "test.parquet").write_bytes(damaged(data, damage))
        opened(root)

    fuzz(check, count, damages())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", examples(200, 3_000))
@pytest.mark.parametrize("file", ["dataset_dict.json", "test/state.json", "test/dataset_info.json"])
def test_saved_folders_with_one_field_replaced(tmp_path, count, file, capfd):
    root = tmp_path / "set"
    hf.DatasetDict(test=hf_dataset("test")).save_to_disk(root)
    tree = json.loads((root / file).read_bytes())
    capfd.readouterr()

    def check(changed):
        put(root / file, json.dumps(changed).encode())
        opened(root)

    fuzz(check, count, trees(tree))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", examples(200, 3_000))
def test_saved_folders_damaged_in_one_place(tmp_path, count, capfd):
    root, whole = tmp_path / "set", tmp_path / "whole"
    hf.DatasetDict(test=hf_dataset("test")).save_to_disk(whole)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*.*") if path.is_file())
    capfd.readouterr()

    def check(number, damage):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(whole, root)
        name = names[number % len(names)]
        put(root / name, damaged((whole / name).read_bytes(), damage))
        opened(root)

    fuzz(check, count, st.integers(0, 99), damages())
    assert capfd.readouterr() == ("", "")


MEMBER = st.tuples(
    st.sampled_from(["s0", "s1", "s2", "a.b", "", "../s", "/s", "s\xff"]),
    st.sampled_from(["cls", "png", "jpg", "json", "txt", "npy", "", "tar", "pth", "pkl"]),
    st.sampled_from(
        [b"0", b"1", b"-1", b"9" * 30, b"9" * 5000, b"x", b"", b"[" * 5000, b"\xff", png(1), png(2)]
    ),
)


@pytest.mark.parametrize("count", examples(60, 2_000))
def test_tars_of_any_members(tmp_path, count, capfd):
    root = tmp_path / "set"
    put(root / "classnames.txt", b"a\nb\nc\n")
    sound = [
        (f"k{i}.{extension}", data)
        for i in range(3)
        for extension, data in (("cls", b"%d" % i), ("png", png(i)))
    ]

    def check(members, at):
        odd = [(f"{key}.{extension}", data) for key, extension, data in members]
        write_tar(root / "test" / "0.tar", [*sound[:at], *odd, *sound[at:]])
        opened(root)

    fuzz(check, count, st.lists(MEMBER, max_size=3), st.integers(0, 6))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", examples(60, 2_000))
def test_tars_damaged_in_one_place(tmp_path, count, capfd):
    root = tmp_path / "set"
    put(root / "classnames.txt", b"a\nb\nc\n")
    members = [(f"k{i}.{e}", d) for i in range(3) for e, d in (("cls", b"%d" % i), ("png", png(i)))]
    data = write_tar(root / "test" / "0.tar", members).read_bytes()

    def check(damage):
        put(root / "test" / "0.tar", damaged(data, damage))
        opened(root)

    fuzz(check, count, damages())
    assert capfd.readouterr() == ("", "")
