"""Parts of a matrix are read as they stand in the whole, and each part is checked."""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores_examples import quick_disk  # noqa: F401  (a fixture)

from clipnlc.errors import StoreError
from clipnlc.stores import _h5
from clipnlc.stores._h5 import blocks

FORMAT = "clipnlc-logits"
V1 = Path(__file__).parent / "data" / "archives" / "v1"
WIDTH = 2048  # numbers per row: 8 rows of float32 are a block


def write(path, **datasets):
    return _h5.write_sealed(path, FORMAT, attributes={}, datasets=datasets)


def matrix(rows, dtype=np.float32, width=WIDTH):
    return (np.random.default_rng(rows).normal(size=(rows, width)) * 99).astype(dtype)


def rows_of(path, name, rows, **options):
    with _h5.opened(path, FORMAT) as file:
        return file.rows(name, np.array(rows, np.int64), **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.h5"


@settings(max_examples=25, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["<f4", "<f2", "<i2", "<i8"]))
def test_any_rows_in_any_order_are_those_of_the_whole(data, dtype):
    length = blocks.block_length((1, WIDTH), np.dtype(dtype))
    near = st.sampled_from([n * length + d for n in (0, 1, 2, 5) for d in (-1, 0, 1)])
    rows = data.draw(near.filter(lambda n: n >= 0))
    whole = matrix(rows, dtype)
    row = st.integers(0, rows - 1) if rows else st.nothing()
    wanted = np.array(data.draw(st.lists(row, max_size=40) if rows else st.just([])), np.int64)
    columns = np.array(data.draw(st.lists(st.integers(0, WIDTH - 1), max_size=4)), np.int64)
    step = data.draw(st.integers(1, 3 * length))
    cuts = sorted(data.draw(st.sets(st.integers(0, rows))))
    with TemporaryDirectory() as directory:
        path, streamed = Path(directory) / "x.h5", Path(directory) / "y.h5"
        write(path, a=whole)
        pieces = np.split(whole, cuts)
        write(streamed, a=_h5.Rows(whole.shape, whole.dtype, pieces))
        assert path.read_bytes() == streamed.read_bytes()
        with _h5.opened(path, FORMAT) as file:
            assert (file.header.entries["a"].block_rows == length) == (rows > length)
            assert file.content().arrays["a"].tobytes() == whole.tobytes()
            assert file.rows("a", wanted).tobytes() == whole[wanted].tobytes()
            found = file.rows("a", wanted, columns=columns)
            assert found.tobytes() == whole[wanted][:, columns].tobytes()
            read = list(file.blocks("a", step))
    assert np.concatenate([whole[:0], *read]).tobytes() == whole.tobytes()
    assert all(len(block) == step for block in read[:-1])


def test_what_has_blocks_follows_from_shape_and_type(path):
    arrays = {
        "matrix": np.zeros((17, 1000), np.float32),
        "one_block": np.zeros((16, 1000), np.float32),
        "wide": np.zeros((2, 70_000), np.uint8),
        "empty": np.zeros((9, 0)),
        "column": np.zeros(99_999),
        "cube": np.zeros((40, 40, 40)),
        "names": tuple("abc" * 30_000),
    }
    write(path, **arrays)
    entries = _h5.read_header(path, FORMAT).entries
    found = {name: entry.block_rows for name, entry in entries.items()}
    without = dict.fromkeys(["one_block", "empty", "column", "cube", "names"])
    assert found == {"matrix": 16, "wide": 1, **without}


def test_the_digest_names_the_content_of_matrices_with_blocks(path):
    values = matrix(40)
    digest = write(path, a=values)
    assert write(path, a=values.copy()) == digest
    values[33, 5] += 1
    assert write(path, a=values) != digest


def test_rows_go_to_an_array_of_another_type(path):
    values = matrix(20, np.float16)
    write(path, a=values)
    out = np.zeros((3, WIDTH), np.float32)
    assert rows_of(path, "a", [19, 0, 3], out=out) is out
    assert np.array_equal(out, values[[19, 0, 3]])


@pytest.mark.parametrize("row", [-1, 20])
def test_a_row_that_is_not_there_is_a_programming_error(path, row):
    write(path, a=matrix(20))
    with pytest.raises(IndexError, match="'a' has rows 0 to 19"):
        rows_of(path, "a", [3, row])
    with pytest.raises(StoreError, match="has no array 'b'; delete the file"):
        rows_of(path, "b", [3])


# Damage ----------------------------------------------------------------------------------------


def flip(path, values, row):
    """Damage one number of `row`."""
    content = bytearray(path.read_bytes())
    content[content.index(values[row].tobytes()) + 5] ^= 1
    path.write_bytes(content)


def test_damage_is_found_where_it_is_read_and_nowhere_else(path):
    values = matrix(40)
    write(path, a=values)
    flip(path, values, 20)
    said = "checksum of 'a' does not match in rows 16 to 23"
    for row in (16, 20, 23):
        with pytest.raises(StoreError, match=said):
            rows_of(path, "a", [0, row])
    with pytest.raises(StoreError, match=said):
        _h5.read(path, FORMAT)
    others = [39, 24, 0, 15]
    assert np.array_equal(rows_of(path, "a", others), values[others])


def test_no_damaged_block_is_given(path):
    values = matrix(40)
    write(path, a=values)
    flip(path, values, 20)
    given = []
    with (
        pytest.raises(StoreError, match="checksum of 'a' does not match"),
        _h5.opened(path, FORMAT) as file,
    ):
        given.extend(file.blocks("a", 8))
    assert np.array_equal(np.concatenate(given), values[:16])


def replace(make):
    def change(file):
        table = file["blocks/a"][...]
        del file["blocks/a"]
        made = make(file, table)
        if made is not None:
            file["blocks/a"] = made

    return change


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda _file, table: table[::-1], "checksum of 'blocks/a' does not match"),
        (lambda file, _table: file["blocks/b"][...], "checksum of 'blocks/a' does not match"),
        (lambda _file, table: table[:-1], "'blocks/a' has another type or shape"),
        (lambda _file, table: table.astype(np.uint16), "'blocks/a' has another type or shape"),
        (lambda _file, _table: None, "'blocks/a' is missing"),
        (lambda _file, _table: h5py.SoftLink("/blocks/b"), "'blocks/a' is a link|holds"),
        (
            lambda file, table: file.update({"blocks/c": table, "blocks/a": table}),
            "it holds 'blocks/c', which its contents do not list",
        ),
    ],
)
def test_digests_of_blocks_are_checked_too(path, make, problem):
    write(path, a=matrix(40), b=matrix(40) + 1)
    with h5py.File(path, "r+") as file:
        replace(make)(file)
    for read in (lambda: _h5.read(path, FORMAT), lambda: rows_of(path, "a", [0])):
        with pytest.raises(StoreError, match=f"{problem}.*; delete the file and run"):
            read()


def test_a_matrix_and_its_digests_of_another_file_are_refused(path, tmp_path):
    write(path, a=matrix(40))
    write(tmp_path / "other.h5", a=matrix(40) + 1)
    with h5py.File(path, "r+") as file, h5py.File(tmp_path / "other.h5") as other:
        for name in ("a", "blocks/a"):
            file[name][...] = other[name][...]
    with pytest.raises(StoreError, match="checksum of 'blocks/a' does not match"):
        rows_of(path, "a", [0])


def test_every_byte_of_data_and_digests_is_covered(path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8)
    values = matrix(3, width=2)
    write(path, a=values)
    content = path.read_bytes()
    with h5py.File(path) as file:
        spans = [
            (file[n].id.get_offset(), file[n].id.get_storage_size()) for n in ("a", "blocks/a")
        ]
    for start, size in spans:
        for offset in range(start, start + size):
            damaged = bytearray(content)
            damaged[offset] ^= 1
            path.write_bytes(damaged)
            for read in (lambda: _h5.read(path, FORMAT), lambda: rows_of(path, "a", [2, 1, 0])):
                with pytest.raises(StoreError, match=r"checksum of '(blocks/)?a' does not match"):
                    read()


# Matrices without digests of blocks ------------------------------------------------------------


@pytest.fixture
def without_blocks(monkeypatch, path):
    """Give a file with a matrix as version 1 wrote it, and the matrix."""
    values = matrix(40)
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "stored_length", lambda _shape, _dtype: None)
        write(path, a=values)
    assert _h5.read_header(path, FORMAT).entries["a"].block_rows is None
    return path, values


def test_without_digests_the_whole_is_checked_before_a_row_is_given(without_blocks):
    path, values = without_blocks
    assert np.array_equal(rows_of(path, "a", [39, 0, 9]), values[[39, 0, 9]])
    flip(path, values, 20)
    with pytest.raises(StoreError, match="checksum of 'a' does not match"):
        rows_of(path, "a", [0])
    given = []
    with (
        pytest.raises(StoreError, match="checksum of 'a' does not match"),
        _h5.opened(path, FORMAT) as file,
    ):
        given.extend(file.blocks("a", 4))
    assert given == []


def test_without_digests_the_whole_is_read_through_once_and_in_pieces(without_blocks, monkeypatch):
    path, values = without_blocks
    monkeypatch.setattr(blocks, "PIECE_BYTES", 1 << 16)
    read = []
    plain = h5py.Dataset.__getitem__

    def counted(source, key):
        found = plain(source, key)
        read.append(len(found))
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    with _h5.opened(path, FORMAT) as file:
        for row in range(0, 40, 10):
            assert np.array_equal(file.rows("a", np.array([row])), values[[row]])
    assert read == [8] * (5 + 4)  # five blocks once, then the block of each row


@pytest.mark.parametrize(
    ("archive", "file_format", "name"),
    [
        ("features.h5", "clipnlc-features", "features"),
        ("features-float16.h5", "clipnlc-features", "features"),
        ("logits.h5", FORMAT, "splits/test/logits"),
    ],
)
def test_rows_of_files_of_version_1(archive, file_format, name):
    whole = _h5.read(V1 / archive, file_format).arrays[name]
    with _h5.opened(V1 / archive, file_format) as file:
        assert np.array_equal(file.rows(name, np.array([3, 0, 3])), whole[[3, 0, 3]])
        assert np.array_equal(np.concatenate(list(file.blocks(name, 3))), whole)
