"""Every kind of source gives the same rows; fingerprints, ranges and notes."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import datasets as hf
import numpy as np
import pytest
from datasets_on_disk import CLASSES, WRITERS, png, put, rows_of, write, write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipnlc.datasets import fingerprints, open_dataset, resolve, store_keys
from clipnlc.datasets.source import open_split, splits
from clipnlc.errors import DataError


@pytest.fixture(autouse=True)
def hf_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_gives_the_same_pixels_labels_and_class_names(tmp_path, kind, split):
    root = write(kind, tmp_path / "photos [1] #é")
    opened = open_split(root, split)
    rows = rows_of(split)
    assert splits(root) == ("train", "test")
    assert opened.kind == kind.split("-")[0]
    assert opened.name == split
    assert [n.replace("_", " ") for n in opened.class_names] == ["cat", "dog", "test tube"]
    assert opened.labels.tolist() == [label for _, label, _ in rows]
    samples = list(opened.read())
    assert [s.data for s in samples] == [data for _, _, data in rows]
    assert [s.label for s in samples] == opened.labels.tolist()
    assert [s.sample_id for s in samples] == list(opened.sample_id)
    assert len(set(opened.sample_id)) == len(opened) == len(rows)
    assert samples[0].image().mode == "RGB"


@pytest.mark.parametrize("kind", WRITERS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(start=st.integers(0, 9), length=st.integers(0, 9))
def test_a_row_range_is_a_slice_of_the_whole(tmp_path, kind, start, length):
    root = tmp_path / "set"
    opened = open_split(root if root.exists() else write(kind, root), "train")
    part = [s.data for s in opened.read(start, start + length)]
    assert part == [data for _, _, data in rows_of("train")][start : start + length]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_fingerprint_follows_content_but_neither_place_nor_time(tmp_path, kind):
    one = write(kind, tmp_path / "one")
    two = tmp_path / "elsewhere" / "two"
    shutil.copytree(one, two)
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
    first, second = open_split(one, "test"), open_split(two, "test")
    assert first.fingerprint == second.fingerprint
    assert first.content == second.content
    assert first.sample_id == second.sample_id
    assert open_split(one, "train").fingerprint != first.fingerprint


def test_the_fingerprint_changes_with_bytes_names_labels_and_class_names(tmp_path):
    def fingerprint(change, file=None):
        root = tmp_path / change.__name__
        write_folder(root)
        change(root)
        return open_split(root, "test", class_names_file=file)

    def nothing(root):
        pass

    def other_bytes(root):
        put(root / "test" / "cat" / "00.png", png(999))

    def other_name(root):
        (root / "test" / "cat" / "00.png").rename(root / "test" / "cat" / "a.png")

    def other_label(root):
        (root / "test" / "cat" / "00.png").rename(root / "test" / "dog" / "00.png")

    def other_words(root):
        (tmp_path / "names.txt").write_text("kitten\npuppy\nflask\n")

    base = fingerprint(nothing)
    changed = [fingerprint(c) for c in (other_bytes, other_name, other_label)]
    renamed = fingerprint(other_words, tmp_path / "names.txt")
    assert len({base.fingerprint, renamed.fingerprint, *(c.fingerprint for c in changed)}) == 5
    assert renamed.content == base.content


def test_a_changed_file_with_its_old_size_and_time_is_seen(tmp_path):
    root = write("tars-one", tmp_path / "set")
    tar = root / "test" / "0.tar"
    before = open_split(root, "test", hash_cache=tmp_path / "cache")
    stat = tar.stat()
    data = tar.read_bytes()
    old, new = rows_of("test")[0][2], rows_of("test")[0][2][:-1] + b"\x00"
    tar.write_bytes(data.replace(old, new))
    os.utime(tar, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = open_split(root, "test", hash_cache=tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert next(after.read()).data == new


@pytest.mark.parametrize("kind", WRITERS)
def test_a_second_call_hashes_only_what_changed(tmp_path, kind, monkeypatch):
    root = write(kind, tmp_path / "set")
    first = open_split(root, "test", hash_cache=tmp_path / "deep" / "cache")
    read = []
    hash_file = fingerprints.hash_file
    monkeypatch.setattr(fingerprints, "hash_file", lambda p: read.append(p) or hash_file(p))
    again = open_split(root, "test", hash_cache=tmp_path / "deep" / "cache")
    assert read == []
    assert again.fingerprint == first.fingerprint == open_split(root, "test").fingerprint
    assert read
    read.clear()
    if kind == "folder":
        put(root / "test" / "cat" / "00.png", png(5))
        open_split(root, "test", hash_cache=tmp_path / "deep" / "cache")
        assert read == [root / "test" / "cat" / "00.png"]


@pytest.mark.parametrize("column", ["root", "name", "size", "mtime_ns", "sha256", "digest"])
def test_an_altered_row_of_the_hash_cache_is_not_believed(tmp_path, column):
    cache, names = tmp_path / "cache", ["a.png", "b.png"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    hashes = fingerprints.hash_files(tmp_path, names, cache)
    with sqlite3.connect(cache) as connection:
        change = f"UPDATE file_hashes SET {column} = {column} || '0' WHERE name = 'b.png'"  # noqa: S608
        connection.execute(change)
    connection.close()
    with pytest.raises(DataError, match=r"the row of 'b.png0?' does not match its digest; delete"):
        fingerprints.verify_cache(cache)
    assert fingerprints.hash_files(tmp_path, names, cache) == hashes


def test_hashes_of_before_their_digests_are_not_believed(tmp_path):
    """The table of clipnlc 0.1.0."""
    file, cache = tmp_path / "a.png", tmp_path / "cache"
    file.write_bytes(b"a")
    stat = file.stat()
    with sqlite3.connect(cache) as connection:
        connection.execute(
            "CREATE TABLE hashes (root TEXT, name TEXT, size INTEGER, mtime_ns INTEGER,"
            " ctime_ns INTEGER, sha256 TEXT, PRIMARY KEY (root, name)) WITHOUT ROWID"
        )
        row = (str(tmp_path), "a.png", stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, "false")
        connection.execute("INSERT INTO hashes VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.close()
    assert "carry no digest" in fingerprints.verify_cache(cache)
    for _ in range(2):
        assert fingerprints.hash_files(tmp_path, ["a.png"], cache) == (
            fingerprints.hash_file(file),
        )
    assert fingerprints.verify_cache(cache) is None


def test_a_hash_cache_that_is_not_ours_is_refused(tmp_path):
    write_folder(tmp_path / "set")
    (tmp_path / "cache").write_text("hello, this is no database " * 50)
    with pytest.raises(DataError, match=r"cannot use the cache of file hashes .*, or delete it"):
        open_split(tmp_path / "set", "test", hash_cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", WRITERS)
def test_split_aliases_and_an_absent_split(tmp_path, kind):
    root = write(kind, tmp_path / "set")
    assert open_split(root, "Testing").name == "test"
    with pytest.raises(DataError, match=r"no split 'validation' in .*; it has train, test: "):
        open_split(root, "validation")


@pytest.mark.parametrize("kind", WRITERS)
def test_opened_splits_can_be_sent_to_another_machine(tmp_path, kind, monkeypatch):
    opened = open_split(write(kind, tmp_path / "set"), "test")
    data = [s.data for s in opened.read()]
    sent = ForkingPickler.dumps(opened)
    # There the cache of `datasets` is another one; only the data set itself is shared.
    shutil.rmtree(tmp_path / "hf-cache", ignore_errors=True)
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "other-cache")
    copy = ForkingPickler.loads(sent)
    assert [s.data for s in copy.read()] == data
    assert (copy.fingerprint, copy.origin) == (opened.fingerprint, {})


@pytest.mark.parametrize("kind", ["parquet-hf", "saved-dict", "tars-one"])
def test_nothing_is_printed_and_no_connection_is_tried(tmp_path, kind, monkeypatch, capfd):
    tried = []
    monkeypatch.setattr(socket.socket, "connect", lambda *a: tried.append(a))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **_: tried.append(a) or [])
    list(open_split(write(kind, tmp_path / "set"), "test").read())
    out, err = capfd.readouterr()
    kept = [line for line in err.splitlines() if "Saving" not in line and "Creating" not in line]
    assert (out, "".join(kept).strip()) == ("", "")
    assert tried == []


def test_labels_and_fingerprints_of_parquet_do_not_need_the_heavy_library(tmp_path):
    root = write("parquet-hf", tmp_path / "set")
    code = (
        "import sys; from clipnlc.datasets.source import open_split;"
        f"open_split({str(root)!r}, 'test').fingerprint;"
        "print([m for m in ('torch', 'datasets', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_path_that_is_no_data_set_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; give an existing folder"):
        open_split(tmp_path / "nowhere", "test")
    with pytest.raises(DataError, match=r"a.zip is a file; expected a folder, a .parquet file"):
        open_split(put(tmp_path / "a.zip"), "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in .*empty; expected split/class/image") as e:
        open_split(tmp_path / "empty", "test")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("kind", "file"), [("parquet-hf", "data/test-00000-of-00001.parquet"), ("tars-one", "test/0.tar")])  # fmt: skip
def test_one_file_is_a_data_set(tmp_path, kind, file):
    root = write(kind, tmp_path / "set")
    shutil.copy(root / file, tmp_path)
    (tmp_path / "classnames.txt").write_text("\n".join(CLASSES))
    one = tmp_path / file.rsplit("/", 1)[-1]
    (name,) = splits(one)
    opened = open_split(one, name)
    assert [s.data for s in opened.read()] == [data for _, _, data in rows_of("test")]
    assert opened.labels.dtype == np.int64


def test_classes_of_one_name_are_told(tmp_path):
    for number, name in enumerate(("red_fox", "red fox", "Red fox", "wolf")):
        put(tmp_path / "test" / name / "0.png", png(number))
    (note,) = [n for n in open_split(tmp_path, "test").notes if "hardly tells apart" in n]
    assert note.startswith("classes 'Red fox' (label 0) and 'red fox' (label 1) and 'red fox' (lab")
    assert note.endswith("; give each a name of its own with --class-names FILE")


@pytest.mark.parametrize("names", ["", "  ", "digits,", ",digits"])
def test_an_empty_name_is_not_the_current_folder(names):
    for read in (resolve, store_keys):
        with pytest.raises(
            DataError, match=r"a name of a data set is empty in .*; give keys, groups"
        ):
            read(names)
    if not names.strip():
        with pytest.raises(DataError, match=r"a name of a data set is empty"):
            open_dataset(names)
