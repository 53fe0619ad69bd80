"""Forwards that torch compiles: the same features but for rounding, whatever the batch."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from command_line import good, refusal
from extracting import write_images
from tiny_backbones import register, save

from clipnlc.backbones import compiled, resolve
from clipnlc.backbones.compiled import Compiled
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.errors import BackboneError
from clipnlc.stores.features import read_feature_header, read_features
from clipnlc.stores.layout import Layout

BATCH = 6
COMPILER_CHECK = "from torch._inductor.cpp_builder import get_cpp_compiler; get_cpp_compiler()"


@pytest.fixture(scope="module", autouse=True)
def compiler():
    """Skip where torch finds no C++ compiler."""
    done = subprocess.run([sys.executable, "-c", COMPILER_CHECK], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("torch finds no C++ compiler here")


@pytest.fixture(scope="module", params=["resnet", "vit"])
def both(request, tmp_path_factory):
    """One backbone twice: as it is, and compiled for batches of six."""
    folder = tmp_path_factory.mktemp(request.param)
    name = f"tiny-{folder.name}"
    register(folder, name, resnet=request.param == "resnet")
    (backbone,) = resolve(save(folder, name))
    plain = LoadedBackbone(backbone, device="cpu", precision="fp32")
    return plain, LoadedBackbone(backbone, device="cpu", precision="fp32", compile_for=BATCH)


def pixels(backbone, rows):
    shape = (rows, *backbone.preprocessing.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_features_are_the_same_but_for_rounding(both):
    plain, fast = both
    images = pixels(plain, BATCH)
    expected = plain.embed_images(images)
    np.testing.assert_allclose(fast.embed_images(images), expected, atol=1e-5, rtol=1e-4)


def test_the_batch_does_not_matter(both):
    _, fast = both
    images = pixels(fast, BATCH)
    whole = fast.embed_images(images)
    for rows in (1, 2, BATCH - 1):
        np.testing.assert_array_equal(fast.embed_images(images[:rows]), whole[:rows])


def test_threads_share_it(both):
    _, fast = both
    images = pixels(fast, BATCH)
    whole = fast.embed_images(images)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(fast.embed_images, [images] * 16):
            np.testing.assert_array_equal(found, whole)


class Tower:
    """One function for many weights, as the classes of open_clip are."""

    def __init__(self, weight):
        self.weight = weight

    def encode(self, x):
        return (x * self.weight).mean((2, 3))


def embed_with(towers):
    x = torch.ones(2, 3, 4, 4)
    return [Compiled(f"{i}", tower.encode, 2)(x)[0, 0].item() for i, tower in enumerate(towers)]


def test_more_backbones_than_torch_keeps_by_default():
    weights = [torch.full((3, 1, 1), float(i)) if i % 2 else float(i) for i in range(12)]
    assert embed_with(map(Tower, weights)) == list(range(12))


def test_nothing_goes_on_uncompiled_in_silence(monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(compiled, "_VARIANTS", 0)
    refused = pytest.raises(BackboneError, match=r"cannot compile 2 here .*; leave out --compile")
    with torch._dynamo.config.patch(recompile_limit=2), refused:
        embed_with([Tower(1.0), Tower(2.5), Tower(3.0), Tower(4.0)])
    torch.compiler.reset()


@pytest.mark.slow
def test_as_a_user_types_it(tmp_path):
    data = write_images(tmp_path / "many", train=4, test=7)
    store = ["--store", tmp_path / "store"]
    line = ["extract", "-d", data, "-b", "nano-ViT-B-16", "--batch-size", 4, "--split", "test"]
    path = Layout(tmp_path / "store").features("many", "test", "nano-ViT-B-16")
    good(*line, *store)
    plain = read_features(path)
    assert "compiled" not in read_feature_header(path).key.fields["images"]
    said = good(*line, "--compile", *store)
    assert "compiled" in said, "what changed is told"
    fast = read_features(path)
    assert read_feature_header(path).key.fields["images"]["compiled"] is True
    np.testing.assert_allclose(fast.features, plain.features, atol=1e-4, rtol=1e-3)
    np.testing.assert_array_equal(fast.texts, plain.texts)
    assert "cached" in good(*line, "--compile", *store)


@pytest.mark.long
def test_two_processes_compile_to_the_same_bytes(tmp_path):
    made = []
    for devices in ("cpu", "cpu,cpu"):
        store = tmp_path / devices
        line = ["extract", "-d", "digits", "-b", "nano-ViT-B-16,nano-RN50", "--split", "test"]
        good(*line, "--limit", 40, "--compile", "--devices", devices, "--store", store)
        made.append({p.relative_to(store): p.read_bytes() for p in store.rglob("*.h5")})
    assert made[0] == made[1]
    assert len(made[0]) > 2


def test_no_compiler_is_one_line_with_the_cure(tmp_path):
    line = ["extract", "-d", "digits", "--split", "test", "--limit", 3, "--compile"]
    line += ["-b", "nano-ViT-B-16", "--store", tmp_path / "store"]
    cache = str(tmp_path / "cache")  # else what other tests compiled would be found
    said = refusal(*line, CXX="/nowhere/c++", TORCHINDUCTOR_CACHE_DIR=cache)
    assert said.startswith("error: torch cannot compile nano-ViT-B-16 here (")
    assert said.endswith("; leave out --compile")
