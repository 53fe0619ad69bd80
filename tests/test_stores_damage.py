"""A file is complete and whole, or refused in one line: never a traceback, never a wrong number."""

import errno
import os
import random
import shutil
from dataclasses import replace
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from stores_examples import (
    feature_rows,
    fit_store,
    given_store,
    labels_of,
    logit_store,
    quick_disk,  # noqa: F401  (a fixture)
    same,
    sample_ids,
    write_features,
)

from clipnlc.digests import content_digest
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores import _h5
from clipnlc.stores._h5 import blocks, reading, writing
from clipnlc.stores.combined import read_combined
from clipnlc.stores.features import open_features, read_feature_header, read_features
from clipnlc.stores.fits import add_fits, read_fit_header, read_fits
from clipnlc.stores.given import add_given, read_given, read_given_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import open_logits, read_logit_header, read_logits, write_logits
from clipnlc.stores.shards import Shard, read_shard, read_shard_header, shard_files, write_shard
from clipnlc.stores.verify import verify_file

V1 = Path(__file__).parent / "data" / "archives" / "v1"
STRIDE = 43  # of the bytes flipped; every byte of the files below has been tried by hand


def write_small_features(layout):
    path = layout.features("cub", "test", "RN50")
    write_features(path, feature_rows(4))
    return path


def write_small_shard(layout):
    path = layout.features("cub", "test", "RN50")
    key = Key.of({"precision": "fp32"})
    write_shard(path, key, Shard(0, 4, feature_rows(4), labels_of(4), sample_ids(4)))
    return shard_files(path)[0]


def write_small_logits(layout):
    path = layout.logits("cub", "linear", "RN50")
    store = logit_store(4)
    write_logits(path, replace(store, splits={"test": store.splits["test"]}))
    return path


def write_small_fits(layout):
    path = layout.fits("cub", "linear", "two", "no-labels")
    store = fit_store(("nlc",))
    learnt = {"weight_": np.arange(12.0).reshape(4, 3)}
    add_fits(path, replace(store, fits={"nlc": replace(store.fits["nlc"], learnt=learnt)}))
    return path


def write_small_given(layout):
    path = layout.given("cub", "test", source="cub", head="linear", members="two", run="no-labels")
    add_given(path, given_store(("log-avg",), rows=4))
    return path


def write_small_combined(layout):
    path = layout.combined("cub", "linear", "no-labels")
    path.parent.mkdir(parents=True)
    return Path(shutil.copy(V1 / "combined.h5", path))


def read_some_features(path):
    with open_features(path) as file:
        return {"columns": file.columns(), "rows": file.read(np.array([3, 0]))}


def read_some_logits(path):
    with open_logits(path, "test") as file:
        return {"columns": file.columns(), "rows": file.read(np.array([3, 0]))}


KINDS = {
    "features": (write_small_features, read_features, read_feature_header),
    "shard": (write_small_shard, read_shard, read_shard_header),
    "logits": (write_small_logits, read_logits, read_logit_header),
    "fits": (write_small_fits, read_fits, read_fit_header),
    "given": (write_small_given, read_given, read_given_header),
    "combined": (write_small_combined, read_combined, read_fit_header),
}


@pytest.fixture(params=KINDS)
def sealed(request, tmp_path, monkeypatch):
    """Give a small sealed file with matrices of several blocks, its reader and its header's."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 24)
    write, read, read_header = KINDS[request.param]
    return write(Layout(tmp_path)), read, read_header


def outcome(read, path):
    """Return what a reader gives, or the one line with which it refuses."""
    try:
        return read(path)
    except StoreError as error:
        message = str(error)
        assert "\n" not in message
        assert str(path) in message
        assert "update clipnlc" in message or "delete the file and run `clipnlc " in message
        return None


@pytest.mark.slow
def test_a_flipped_byte_is_refused_or_harmless(sealed):
    path, *readers = sealed
    content = path.read_bytes()
    good = [read(path) for read in readers]
    refused = 0
    start = random.Random(0).randrange(STRIDE)
    assert b"block_rows" in content or "combined" in path.parts
    for offset in range(start, len(content), STRIDE):
        damaged = bytearray(content)
        damaged[offset] ^= 0xFF
        path.write_bytes(damaged)
        found = [outcome(read, path) for read in readers]
        assert all(f is None or same(f, g) for f, g in zip(found, good, strict=True)), offset
        refused += found[0] is None
    assert refused


def test_every_bit_of_the_numbers_is_covered(tmp_path):
    path = write_small_features(Layout(tmp_path))
    content = path.read_bytes()
    values = feature_rows(4).tobytes()
    first = content.index(values)
    for offset in range(first, first + len(values)):
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[offset] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(StoreError, match="checksum of 'features' does not match"):
                verify_file(path)


PARTS = {"features": read_some_features, "logits": read_some_logits}


@pytest.mark.parametrize("kind", PARTS)
def test_a_flipped_byte_changes_no_part(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 24)
    path, read = KINDS[kind][0](Layout(tmp_path)), PARTS[kind]
    content, good = path.read_bytes(), read(path)
    refused = 0
    for offset in range(random.Random(1).randrange(STRIDE), len(content), STRIDE):
        damaged = bytearray(content)
        damaged[offset] ^= 0xFF
        path.write_bytes(damaged)
        found = outcome(read, path)
        assert found is None or same(found, good), offset
        refused += found is None
    assert refused


def test_a_truncated_file_is_refused(sealed):
    path, *readers = sealed
    content = path.read_bytes()
    for length in [0, 7, 8, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        assert [outcome(read, path) for read in readers] == [None, None], length


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"not HDF5 at all", b"PK\x03\x04" * 99])
def test_a_foreign_file_is_refused(sealed, content):
    path, *readers = sealed
    path.write_bytes(content)
    for read in readers:
        with pytest.raises(
            StoreError, match="is not an HDF5 file; delete the file and run `clipnlc"
        ):
            read(path)


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def set_attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            set_attribute("format-version", 4),
            "format-version 4, this clipnlc reads up to 3: update clipnlc$",
        ),
        (set_attribute("format-version", 0), "format-version 0, expected 1 to 3; delete"),
        (set_attribute("format", "anndata"), "is not one plain value"),
        (set_attribute("format", np.bytes_("anndata")), "has format 'anndata', expected 'clipnlc-"),
        (lambda file: file.attrs.__delitem__("format"), "is damaged or foreign: expected format"),
        (set_attribute("complete", 0), "was never completed"),
        (lambda file: file.attrs.__delitem__("complete"), "was never completed"),
        (set_attribute("digest", np.bytes_("00")), "checksum of the root attributes"),
        (set_attribute("more", 1.5), "checksum of the root attributes"),
        (set_attribute("more", "of variable length"), "'more' is not one plain value"),
        (set_attribute("more", np.zeros(3)), "'more' is not one plain value"),
    ],
)
def test_a_header_that_was_edited_is_refused(sealed, change, problem):
    path, *readers = sealed
    edit(path, change)
    for read in readers:
        with pytest.raises(StoreError, match=problem):
            read(path)


def replace_with(make):
    """Put what `make` gives in the place of an array with the same values."""

    def change(file):
        values = file["texts"][...]
        del file["texts"]
        make(file, values)

    return change


def move_to_external_file(file, values):
    with h5py.File(f"{file.filename}.other", "w") as other:
        other["texts"] = values
    file["texts"] = h5py.ExternalLink(f"{file.filename}.other", "/texts")


def move_behind_soft_link(file, values):
    file["elsewhere"] = values
    file["texts"] = h5py.SoftLink("/elsewhere")


def make_virtual(file, values):
    with h5py.File(f"{file.filename}.other", "w") as other:
        other["texts"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(f"{file.filename}.other", "texts", values.shape)
    file.create_virtual_dataset("texts", layout)


def make_external_storage(file, values):
    raw = Path(f"{file.filename}.raw")
    raw.write_bytes(values.tobytes())
    external = [(str(raw), 0, values.nbytes)]
    file.create_dataset("texts", values.shape, values.dtype, external=external)


def make_chunked(file, values):
    file.create_dataset("texts", data=values, chunks=True, compression="gzip")


def make_objects(file, values):
    file.create_dataset("texts", data=["a", "b", "c"], dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (move_to_external_file, "'texts' is a link"),
        (move_behind_soft_link, "holds 'elsewhere', which its contents do not list"),
        (make_virtual, "'texts' is not stored contiguously in this file"),
        (make_external_storage, "'texts' is not stored contiguously in this file"),
        (make_chunked, "'texts' is not stored contiguously in this file"),
        (make_objects, "'texts' is of type object"),
        (
            lambda file, _values: file.create_group("texts"),
            "'texts' is missing|is not|has no attribute",
        ),
        (
            lambda file, values: file.create_dataset("texts", data=values[:2]),
            "another type or shape",
        ),
        (lambda file, values: file.create_dataset("texts", data=values + 1), "checksum of 'texts'"),
        (lambda _file, _values: None, "'texts' is missing"),
        (lambda file, values: file.update(texts=values, more=values), "holds 'more', which its"),
    ],
)
def test_nothing_but_plain_arrays_in_the_file_is_read(tmp_path, make, problem):
    path = write_small_features(Layout(tmp_path))
    edit(path, replace_with(make))
    with pytest.raises(StoreError, match=f"{problem}.*; delete the file and run `clipnlc import"):
        read_features(path)


def test_a_checksum_that_promises_objects_gives_none(tmp_path):
    path = tmp_path / "x.h5"
    _h5.write_sealed(path, "clipnlc-logits", attributes={}, datasets={"a": np.ones(2)})
    listed = '{"arrays":{"a":{"blake2b":"","dtype":"|O","shape":[2]}},"groups":{}}'
    root = {"contents": listed, "format": "clipnlc-logits", "format-version": 1}

    def change(file):
        del file["a"]
        file.create_dataset("a", data=["x", "y"], dtype=h5py.string_dtype())
        for name, value in {**root, "digest": content_digest(root)}.items():
            file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value

    edit(path, change)
    with pytest.raises(StoreError, match=r"is not stored contiguously|is of type object"):
        _h5.read(path, "clipnlc-logits")


def test_a_directory_or_an_unreadable_file_is_told(tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=r"cannot read .*: a folder, not a regular file"):
        read_features(tmp_path)
    path = write_small_features(Layout(tmp_path))

    def refuse(*_args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(reading, "open_regular", refuse)
    with pytest.raises(
        StoreError, match=r"cannot read .*: Permission denied; .* fix its permissions"
    ):
        read_features(path)


def test_a_path_below_a_file_is_missing(tmp_path):
    path = write_small_features(Layout(tmp_path))
    with pytest.raises(MissingStageError, match="is not there"):
        read_features(path / "x.h5")


# Writing ---------------------------------------------------------------------------------------


class FullDisk(FileIO):
    """A file on a disk that takes so many bytes and no more."""

    space = 0

    def write(self, data):
        if self.space < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        self.space -= len(data)
        return super().write(data)


def fill_the_disk_after(monkeypatch, space):
    def start(sink, raw):
        make(sink, FullDisk(raw.fileno(), "r+b", closefd=False))
        sink.raw.space = space

    make = writing.Sink.__init__
    monkeypatch.setattr(writing.Sink, "__init__", start)


@pytest.mark.parametrize("space", [0, 100, 1000, 3000, 4500])
def test_a_full_disk_leaves_what_was_there(sealed, space, monkeypatch, capfd):
    path, read, _ = sealed
    content = path.read_bytes()
    fill_the_disk_after(monkeypatch, space)
    with pytest.raises(
        StoreError, match=r"no space left on the disk of .*; everything sealed so far stays"
    ):
        _h5.write_sealed(path, "clipnlc-logits", attributes={}, datasets={"a": np.ones(999)})
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    assert read(path)
    assert capfd.readouterr().err == ""


def test_a_disk_that_fills_at_the_sync_is_told(tmp_path, monkeypatch):
    def refuse(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="no space left"):
        _h5.write_sealed(tmp_path / "x.h5", "clipnlc-logits", attributes={}, datasets={})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "cub").write_text("a file where a directory should be")
    with pytest.raises(StoreError, match=r"cannot write .*; .* choose another --store"):
        write_small_features(Layout(tmp_path))


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def blocks():
        yield np.ones((2, 3))
        raise KeyboardInterrupt("stopped")

    rows = _h5.Rows((4, 3), np.dtype(np.float64), blocks())
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        _h5.write_sealed(tmp_path / "x.h5", "clipnlc-logits", attributes={}, datasets={"a": rows})
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_place_in_the_format_is_a_programming_error(tmp_path):
    path = tmp_path / "x.h5"
    with pytest.raises(ValueError, match="is of type object; expected numbers or strings"):
        _h5.write_sealed(path, "f", attributes={}, datasets={"a": np.array([None])})
    with pytest.raises(ValueError, match="put a digest of the long value in it"):
        _h5.write_sealed(path, "f", attributes={"key": "x" * 70_000}, datasets={})
    with pytest.raises(ValueError, match="NUL"):
        _h5.write_sealed(path, "f", attributes={}, datasets={"a": ("x\0y",)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "array", [np.array(3.0), np.zeros((0, 4)), np.zeros(0, np.int8), np.arange(5)[::2]]
)
def test_arrays_of_any_shape_come_back(tmp_path, array):
    path = tmp_path / "x.h5"
    _h5.write_sealed(path, "f", attributes={"empty": ""}, datasets={"a": array, "texts": ()})
    content = _h5.read(path, "f")
    assert same(content.arrays["a"], np.ascontiguousarray(array).reshape(array.shape))
    assert content.strings("texts") == ()
    assert content.header.attribute("empty", str) == ""
