"""Stores that the tests of several commands start from; each is made once and copied."""

import os
import shutil

# Before torch is imported: several test processes share few cores, and idle threads of OpenMP spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from command_line import BACKBONES, QUICK, Ended, good, write_photos
from hypothesis import HealthCheck, settings

from clipnlc import cli

# A busy machine is no fault of a property's.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# How archives were made, once, by code that is no longer there.
collect_ignore_glob = ["data/*"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of photos of three classes."""
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def first_extracted(tmp_path_factory, photos):
    store = tmp_path_factory.mktemp("extracted") / "store"
    good("extract", "--dataset", photos, "--backbones", BACKBONES, "--store", store)
    return store


@pytest.fixture(scope="session")
def first_fitted(tmp_path_factory, first_extracted):
    store = tmp_path_factory.mktemp("fitted") / "store"
    shutil.copytree(first_extracted, store)
    good("train-nlc", *QUICK, "--store", store)
    return store


@pytest.fixture
def here(capfd, monkeypatch):
    """Run a command within this process, which is quicker and else the same."""
    monkeypatch.delenv("CLIPNLC_STORE", raising=False)

    def run(*arguments):
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture
def extracted(first_extracted, tmp_path):
    """A store after `extract`, to be changed at will."""
    return shutil.copytree(first_extracted, tmp_path / "store")


@pytest.fixture
def fitted(first_fitted, tmp_path):
    """A store after `extract` and `train-nlc`, to be changed at will."""
    return shutil.copytree(first_fitted, tmp_path / "store")
