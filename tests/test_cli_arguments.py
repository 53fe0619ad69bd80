"""Nasty values for every option of every command: refused by name or used, never a fault of ours."""

import os
import random
import resource
import shutil
import time

import numpy as np
import pytest
import typer
from command_line import Ended

from clipnlc.cli.app import app

VALUES = (
    *("", " ", ",", "\0", "a" * 10_000, "-1", "0", "nan", "1e400", "-inf", "9" * 5000, "999999999"),
    *(
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        ".",
        "..",
        "/nowhere",
        "~",
        "caf\udce9",
        "a\nb",
        "\x1b[31m",
    ),
    *("a=b=c", "train=1,train=2", "0:0", "5:1", ":", "=", "@", "RN50@", "a" * 300, "\u0663", "1.5"),
)
"""`\u0663` is a digit for Python, not for people."""

# Words that make each command answer within a second: what is cached, or is refused late.
BASE = {
    "run": ["photos", "--backbones", "nano-RN50", "--quiet"],
    "extract": ["--dataset", "photos", "--backbones", "nano-RN50", "--limit", "2", "--quiet"],
    "doctor": ["photos"],
    "import": ["rows.npz", "-b", "forest", "--dataset", "photos", "--split", "val"],
    "train-nlc": ["--shots", "1,2", "--seeds", "2", "--workers", "1", "--combiners", "log-avg"],
    "train-heads": ["--epochs", "1"],
    "predict": ["photos", "--combiner", "none"],
    "label": ["photos", "--classes", "red,green,blue", "--count", "0"],
    "export": ["--out", "ensemble", "--combiner", "c-conf", "--shots", "1", "--force"],
    "pretrain": ["--data", "photos", "--backbone", "nano-RN50", "--out", "weights"],
    "nano-data": ["--out", "made", "--packages", "made"],
}
COMMANDS = typer.main.get_command(app).commands
OPTIONS = [
    (name, parameter.opts[0] if parameter.param_type_name == "option" else "")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
]
MEMORY = 8 * 2**30  # bytes of addresses; torch takes some without using them
SLOWEST = 60.0  # seconds of the processor's time


@pytest.fixture(scope="module")
def folder(first_fitted, photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("arguments") / "folder"
    shutil.copytree(first_fitted, root / "clipnlc-store")
    shutil.copytree(photos, root / "photos")
    names = ["blue", "green", "red"]
    np.savez(root / "rows.npz", logits=np.eye(3), labels=np.arange(3), class_names=names)
    return root


def line_with(name, option, value):
    """Return the words of a command with one option, or its argument, set to a value."""
    words = list(BASE.get(name, []))
    if not option:
        return [name, value, *words[words[:1] != [] and not words[0].startswith("-") :]]
    if option in words:
        del words[words.index(option) : words.index(option) + 2]
    return [name, *words, f"{option}={value}"]


def check(name, option, value, ended: Ended, seconds):
    said = (name, option, value[:40], ended)
    assert ended.code in (0, 2), said
    assert "Traceback" not in ended.err + ended.out, said
    assert seconds < SLOWEST, (seconds, said)
    if ended.code == 2:
        assert ended.err.splitlines()[-1].startswith("error: "), said
        assert len(ended.err) < 4000, said
        assert ended.err.isprintable() or ended.err.count("\n") > 0, said
    if ended.code == 2 and option and value in ("\0", "caf\udce9", "a" * 10_000, "9" * 5000):
        assert option in ended.err or option == "--classes", said


@pytest.fixture
def inside(folder, tmp_path, here, monkeypatch):
    """Run commands in a copy of the folder, with little memory and without the network."""
    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.devnull)  # no npm
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    yield here
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), OPTIONS)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_nasty_values(every, name, option, inside):
    values = VALUES if every else random.Random(f"{name} {option}").sample(VALUES, 4)
    for value in values:
        began = time.process_time()
        ended = inside(*line_with(name, option, value))
        check(name, option, value, ended, time.process_time() - began)
