"""Stores that the tests of several commands start from; each is made once and copied."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: several test processes share few cores, and idle threads of OpenMP spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from browsing import chromium
from command_line import BACKBONES, QUICK, Ended, good, write_photos
from filelock import FileLock
from hypothesis import HealthCheck, settings

from clipnlc import cli

# A busy machine is no fault of a property's.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# How archives were made, once, by code that is no longer there.
collect_ignore_glob = ["data/*"]


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a folder once for all processes of pytest-xdist; whoever changes it copies it first."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def shared(path: str, make: Callable[[Path], object]) -> Path:
        folder = root / "made-once" / path
        made = folder.with_name(f"{folder.name}.made")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a failure left
                make(folder)
                made.touch()
        return folder

    return shared


@pytest.fixture(scope="session")
def photos(once):
    """A folder of photos of three classes."""
    return once("data/photos", write_photos)


@pytest.fixture(scope="session")
def first_extracted(once, photos):
    def make(store):
        good("extract", "--dataset", photos, "--backbones", BACKBONES, "--store", store)

    return once("extracted/store", make)


@pytest.fixture(scope="session")
def first_fitted(once, first_extracted):
    def make(store):
        shutil.copytree(first_extracted, store)
        good("train-nlc", *QUICK, "--store", store)

    return once("fitted/store", make)


@pytest.fixture
def here(capfd, monkeypatch):
    """Run a command within this process, which is quicker and else the same."""
    monkeypatch.delenv("CLIPNLC_STORE", raising=False)
    # As on one core, where no worker is started unless the command asks for it.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0}, raising=False)

    def run(*arguments):
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def browser():
    """A real browser, for the HTML pages; skipped where there is none, unless it is required.

    Not longer than a module: while it is open, an event loop runs in this thread.
    """
    with chromium() as opened:
        yield opened


@pytest.fixture
def extracted(first_extracted, tmp_path):
    """A store after `extract`, to be changed at will."""
    return shutil.copytree(first_extracted, tmp_path / "store")


@pytest.fixture
def fitted(first_fitted, tmp_path):
    """A store after `extract` and `train-nlc`, to be changed at will."""
    return shutil.copytree(first_fitted, tmp_path / "store")
