"""Files are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from clipnlc.cli.output import write
from clipnlc.errors import DataError
from clipnlc.files import replacing, write_whole


@pytest.mark.parametrize(
    ("content", "data"), [("Käfer\n", "Käfer\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")]
)
def test_a_file_is_written_and_written_over(tmp_path, content, data):
    path = tmp_path / "new" / "folder" / "x.json"
    for _ in range(2):
        write_whole(path, content)
        assert path.read_bytes() == data
        assert list(path.parent.iterdir()) == [path]


def test_the_name_in_between_is_in_the_same_folder_and_of_this_process(tmp_path):
    path = tmp_path / "x.json"
    with replacing(path) as partial:
        assert partial == tmp_path / f"x.json.{os.getpid()}.partial"
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def write_half(path, data):
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    full()


@pytest.mark.parametrize(
    ("where", "name", "fail"),
    [(Path, "write_bytes", write_half), (os, "fsync", full), (Path, "replace", full)],
)
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, where, name, fail):
    path = tmp_path / "x.json"
    path.write_text("old")
    monkeypatch.setattr(where, name, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new and longer")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")

    def stop():
        with replacing(path) as partial:
            partial.write_text("new")
            raise KeyboardInterrupt("stopped")

    with pytest.raises(KeyboardInterrupt, match="stopped"):
        stop()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_option_asks_for_is_written_whole(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("old")
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    write("--csv", link, "new")
    assert (path.read_text(), link.is_symlink()) == ("new", True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*: No space left .*; give --csv another"):
        write("--csv", path, "newer")
    assert path.read_text() == "new"
    assert {each.name for each in tmp_path.iterdir()} == {"table.csv", "link.csv"}


def test_a_device_is_written_to_and_stays(tmp_path):
    read, sent = os.pipe()
    write("--csv", Path(f"/dev/fd/{sent}"), "rows")
    os.close(sent)
    with os.fdopen(read) as end:
        assert end.read() == "rows"
    write("--csv", Path(os.devnull), "rows")
    assert not Path(os.devnull).is_file()
