"""Files are written whole or not at all."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clipnlc.cli.output import write
from clipnlc.errors import DataError
from clipnlc.files import open_regular, read_regular, remove_left, replacing, write_whole


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


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(tmp_path):
    path = tmp_path / "x.json"
    left, other = tmp_path / "x.json.1.partial", tmp_path / "y.json.1.partial"
    for file in (left, other):
        file.write_text("half")
    with replacing(path) as partial:
        partial.write_text("new")
        assert not left.exists()
        assert not remove_left(partial)
        renamed = partial.with_name("x.json.2.partial")
        partial.rename(renamed)  # as another process sees it
        write_whole(tmp_path / "x.json", "theirs")
        assert renamed.exists()
        renamed.rename(partial)
    assert path.read_text() == "new"
    assert {each.name for each in tmp_path.iterdir()} == {"x.json", other.name}
    assert remove_left(other)


def test_a_writer_that_is_killed_holds_nothing(tmp_path):
    path = tmp_path / "x.json"
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom clipnlc.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    write_whole(path, "whole")
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


def no_file(kind, folder):
    """Make something that is no regular file."""
    path = folder / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "x")
        path.symlink_to(folder / "x")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "dangling link":
        path.symlink_to(folder / "nowhere")
    elif kind == "link loop":
        path.symlink_to(path)
    else:
        path = folder / kind
    return path


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("folder", "a folder, not a regular file"),
        ("pipe", "a named pipe, not a regular file"),
        ("link to a pipe", "a named pipe, not a regular file"),
        ("link to a device", "a device, not a regular file"),
        ("socket", "a socket, not a regular file"),
        ("dangling link", "No such file or directory"),
        ("link loop", "Too many levels of symbolic links"),
        ("nothing", "No such file or directory"),
        ("a\0b", "no file can have this name"),
        ("a\ud800b", "no file can have this name"),
    ],
)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, kind, problem):
    path = no_file(kind, tmp_path)
    with pytest.raises(OSError, match=problem) as found:
        open_regular(path)
    assert found.value.strerror == problem
    with pytest.raises(OSError, match=problem):
        read_regular(path, at_most=10)


def test_a_regular_file_is_read_up_to_a_size(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    (tmp_path / "link").symlink_to(path)
    assert read_regular(path, at_most=3) == read_regular(tmp_path / "link", at_most=3) == b"abc"
    with pytest.raises(OSError, match="too large: 3 bytes, where at most 2 are read"):
        read_regular(path, at_most=2)


def test_a_file_that_a_pipe_replaces_while_it_is_opened_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    there = os.stat

    def replaced_after(place, *args, **options):
        facts = there(place, *args, **options)
        if place == path:
            path.unlink()
            os.mkfifo(path)
        return facts

    monkeypatch.setattr(os, "stat", replaced_after)
    with pytest.raises(OSError, match="a named pipe, not a regular file"):
        open_regular(path)
