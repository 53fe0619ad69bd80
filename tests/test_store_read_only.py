"""A store that may not be written: what is there is used, what is lacking is refused in one line."""

import os
import shutil
import subprocess

import pytest
from command_line import BACKBONES, QUICK, contents, good, refusal


@pytest.fixture
def read_only(fitted, photos):
    """A finished store on a disk that is mounted read-only; without root, without permissions."""
    good("extract", "--dataset", photos, "--backbones", BACKBONES, "--store", fitted)
    for stage in ("evaluate", "diversity"):
        good(stage, "--store", fitted)
    if os.geteuid():
        subprocess.run(["chmod", "-R", "a-w", fitted], check=True)
        yield fitted
        subprocess.run(["chmod", "-R", "u+w", fitted], check=True)
        return
    binding = ["mount", "--bind", fitted, fitted]
    if (
        shutil.which("mount") is None
        or subprocess.run(binding, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting is refused here")
    subprocess.run(["mount", "-o", "remount,ro,bind", fitted], check=True)
    yield fitted
    subprocess.run(["umount", fitted], check=True)


@pytest.mark.slow
def test_what_is_finished_is_cached_and_what_is_lacking_refused(read_only, photos, tmp_path):
    before = contents(read_only)
    at = ("--store", read_only)
    extract = ("extract", "--dataset", photos, "--backbones")
    assert "2 backbones cached" in good(*extract, BACKBONES, *at)
    assert "made" not in good("train-nlc", *QUICK, *at)
    for stage in ("evaluate", "diversity"):
        assert "(cached)" in good(stage, *at)
    good("status", *at)
    good("verify", *at)
    more = shutil.copytree(photos, tmp_path / "more" / photos.name)
    (more / "test/red/more.png").write_bytes((more / "train/red/00.png").read_bytes())
    extract = ("extract", "--dataset", more, "--backbones")
    for command in ((*extract, BACKBONES), (*extract, "nano-RN101"), ("train-nlc", "--shots", 3)):
        said = refusal(*command, "--quiet", *at)
        assert "choose another --store" in said
        assert str(read_only) in said
    assert contents(read_only) == before
