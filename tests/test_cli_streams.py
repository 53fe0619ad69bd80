"""Standard streams that are closed, full, gone, or of another encoding: for every command."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from command_line import BACKBONES, command, environment, good, write_photos

FULL = "cannot write standard output: No space left on device"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where commands run: photos of classes that ASCII cannot show, and a store of them."""
    root = tmp_path_factory.mktemp("streams")
    write_photos(root / "photos", train=3, test=3)
    for split in ("train", "test"):
        (root / f"photos/{split}/red").rename(root / f"photos/{split}/rosé \N{MULTIPLICATION SIGN}")
    store = ("--store", root / "store", "--quiet")
    good("extract", "--dataset", root / "photos", "--backbones", BACKBONES, *store)
    good("train-nlc", "--shots", "1", "--seeds", "2", "--combiners", "c-conf,log-avg", *store)
    good("evaluate", *store)
    return root


CACHED = {
    "help": ["--help"],
    "help of extract": ["extract", "--help"],
    "version": ["--version"],
    "datasets": ["datasets"],
    "status": ["status"],
    "verify": ["verify", "--json"],
    "extract": ["extract", "-d", "photos", "-b", BACKBONES],
    "train-nlc": ["train-nlc", "--shots", "1", "--seeds", "2", "--combiners", "c-conf,log-avg"],
    "evaluate": ["evaluate"],
    "evaluate --json": ["evaluate", "--json"],
    "diversity": ["diversity"],
    "doctor": ["doctor", "./photos"],
    "export": ["export", "--combiner", "c-conf", "--shots", "1", "--out", "ensemble", "--force"],
}
SLOW = {
    "backbones": ["backbones", "nano"],
    "extract anew": ["extract", "-d", "photos", "-b", "nano-RN50", "--store", "another"],
    "train-heads": ["train-heads", "--epochs", "1"],
    "predict": ["predict", "photos", "--combiner", "log-avg"],
    "predict --json": ["predict", "photos", "--combiner", "c-conf", "--json"],
}


def each(*slow):
    """Try every command; of those that load a model, only these by default."""
    marks = {name: pytest.mark.slow if name in slow else pytest.mark.long for name in SLOW}
    return pytest.mark.parametrize(
        "name", [*CACHED, *(pytest.param(name, marks=marks[name]) for name in SLOW)]
    )


def end(name, folder, *, close=(), **more):
    """Run a command in the folder, with some of its streams closed."""
    shell = "".join(f" {number}>&-" for number in close)
    line = ["bash", "-c", f'exec "$@"{shell}', "bash", *command(*{**CACHED, **SLOW}[name])]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {
        key: more.pop(key) for key in ("stdout", "stderr") if key in more
    }
    outer = environment(CLIPNLC_STORE="store", **more)
    return subprocess.run(line, cwd=folder, env=outer, check=False, timeout=600, **streams)


@contextlib.contextmanager
def full():
    with Path("/dev/full").open("w") as device:
        yield device


@pytest.mark.slow
@each("extract anew", "predict")
def test_a_full_standard_output_is_named(name, folder):
    with full() as device:
        ended = end(name, folder, stdout=device)
    assert ended.returncode == 2
    assert ended.stderr.decode().startswith(f"error: {FULL}; ")
    assert ended.stderr.count(b"\n") == 1


@each("train-heads", "predict --json")
def test_a_pipe_without_a_reader_ends_quietly(name, folder):
    reader, writer = os.pipe()
    os.close(reader)
    ended = end(name, folder, stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.slow
@each("backbones", "predict --json")
@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1251", marks=pytest.mark.long)])
def test_an_encoding_that_lacks_characters(name, encoding, folder):
    ended = end(name, folder, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, b"")
    said = ended.stdout.decode(encoding)
    if "--json" in name or name == "verify":
        plain = end(name, folder).stdout.decode()
        if name != "predict --json":
            said, plain = ([json.loads(text)] for text in (said, plain))
        assert said == plain


@pytest.mark.parametrize(
    "name", ["evaluate", "status", pytest.param("predict", marks=pytest.mark.slow)]
)
def test_a_locale_without_utf_8(name, folder):
    ended = end(name, folder, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.isascii()


def test_tables_of_ascii(folder):
    said = end("evaluate", folder, PYTHONIOENCODING="ascii").stdout.decode("ascii")
    assert "+-" in said
    assert "\\u" not in said


@pytest.mark.parametrize(
    "name",
    [
        *("help", "extract", "train-nlc", "evaluate"),
        pytest.param("predict", marks=pytest.mark.long),
        pytest.param("extract anew", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("close", [(1,), (0, 1, 2)], ids=str)
def test_closed_streams_are_the_null_device(name, close, folder, here):
    ended = end(name, folder, close=close)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert bool(ended.stdout) == (1 not in close)
    # No file of the store took the number of a stream, and with it what is printed.
    assert "no damage" in good("verify", "--store", folder / "store", by=here)


def test_errors_keep_their_code_where_standard_error_is_full_or_closed(folder):
    for line in (["evaluate", "--head", "x"], ["evaluate", "--nothing"], ["predict", "nowhere"]):
        CACHED["refused"] = line
        with full() as device:
            assert end("refused", folder, stderr=device).returncode == 2
        assert end("refused", folder, close=[2]).returncode == 2
        with full() as device:
            assert end("refused", folder, stdout=device, stderr=device).returncode == 2
    del CACHED["refused"]


def test_a_full_disk_for_a_table_names_its_option(folder):
    CACHED["to a table"] = ["evaluate", "--csv", "/dev/full", "--markdown", "table.md"]
    ended = end("to a table", folder)
    del CACHED["to a table"]
    assert ended.returncode == 2
    assert b"cannot write /dev/full: No space left on device; give --csv" in ended.stderr
