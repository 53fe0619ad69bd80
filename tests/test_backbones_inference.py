"""Finished tensors, and batch normalisation folded into convolutions."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_backbones import load, register, save
from torch import nn
from torchvision.transforms.functional import normalize, to_tensor

from clipnlc.backbones import resolve
from clipnlc.backbones.folding import fold_batch_norms, is_foldable
from clipnlc.backbones.identity import identity
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.backbones.openclip import untrained

# Folding rounds each weight once more: a few units in the last place (6e-8) of the largest value.
FOLDED = 3e-6


@pytest.fixture
def vit(tmp_path):
    register(tmp_path, f"tiny-vit-{tmp_path.name}")
    return load(save(tmp_path, f"tiny-vit-{tmp_path.name}"))


@pytest.fixture
def resnet(tmp_path):
    register(tmp_path, f"tiny-rn-{tmp_path.name}", resnet=True)
    return load(save(tmp_path, f"tiny-rn-{tmp_path.name}"))


def pixels(backbone, rows=4, seed=0):
    shape = (rows, *backbone.preprocessing.size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def unsettled(visual, seed=0):
    """Give every batch normalisation statistics and weights as training would leave them."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in visual.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.05, 2, generator=generator)
        nn.init.uniform_(norm.weight, 0.3, 1.5, generator=generator)
        nn.init.normal_(norm.bias, generator=generator)


def batch_norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


class TestFinish:
    @pytest.mark.parametrize("kind", ["vit", "resnet"])
    def test_bit_equal_to_torchvision_for_every_value(self, kind, request):
        backbone = request.getfixturevalue(kind)
        height, width = backbone.preprocessing.size
        x = np.resize(np.arange(256, dtype=np.uint8), (height * width * 9,))
        x = x.reshape(3, height, width, 3)
        x[1], x[2] = x[1] + 85, x[2] + 170  # each channel sees every value
        found = backbone.finish(x)
        mean, std = backbone.preprocessing.mean, backbone.preprocessing.std
        expected = torch.stack([normalize(to_tensor(i), mean, std) for i in x])
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)

    def test_backbones_of_one_input_share_a_tensor(self, tmp_path):
        found = {}
        for name, settings in (("a", {}), ("b", {"embed_dim": 16}), ("c", {"image_size": 24})):
            register(tmp_path, f"tiny-share-{name}", **settings)
            found[name] = load(save(tmp_path, f"tiny-share-{name}"))
        a, b, c = found.values()
        assert a.input == b.input != c.input
        assert (a.dim, b.dim) == (8, 16)
        finished = a.finish(pixels(a))
        assert b.forward(finished).tobytes() == b.embed_images(pixels(b)).tobytes()

    def test_another_mean_is_another_input(self, vit, monkeypatch):
        before = vit.input
        other = type(vit.preprocessing)(**{**vars(vit.preprocessing), "mean": (0.0, 0.0, 0.0)})
        monkeypatch.setattr(vit, "preprocessing", other)
        assert vit.input != before
        assert other.geometry == before[:4]

    @pytest.mark.parametrize("kind", ["vit", "resnet"])
    def test_threads_give_the_same_bits(self, kind, request):
        backbone = request.getfixturevalue(kind)
        batches = [pixels(backbone, seed=seed) for seed in range(32)]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(backbone.embed_images, batches))
        alone = [backbone.embed_images(batch) for batch in batches]
        assert [t.tobytes() for t in together] == [a.tobytes() for a in alone]

    def test_channels_last_changes_no_bit_of_a_vit(self, vit):
        finished = vit.finish(pixels(vit))
        model = untrained(vit.name.partition("@")[0], seed=0).eval()
        with torch.inference_mode():
            expected = model.encode_image(finished.contiguous()).numpy()
        assert vit.forward(finished).tobytes() == expected.tobytes()


class TestFolding:
    def folded(self, architecture, size):
        model = untrained(architecture, seed=0)
        unsettled(model.visual)
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = model.eval().visual(x)
        fold_batch_norms(model.visual)
        assert batch_norms(model) == []
        with torch.inference_mode():
            found = model.eval().visual(x)
        return found, expected

    def test_features_are_equal_but_for_rounding(self, tmp_path):
        register(tmp_path, "tiny-fold", resnet=True)
        found, expected = self.folded("tiny-fold", 32)
        deviation = (found - expected).abs().max()
        assert deviation < FOLDED * expected.abs().max()
        assert deviation < expected.diff(dim=0).abs().max() / 100  # the two images differ by more

    @pytest.mark.slow
    def test_full_size(self):
        found, expected = self.folded("RN50", 224)
        assert (found - expected).abs().max() < FOLDED * expected.abs().max()
        assert nn.functional.cosine_similarity(found, expected).min() > 0.9999999

    def test_a_loaded_resnet_is_folded_and_in_eval_mode(self, resnet):
        assert batch_norms(resnet._model) == []
        assert not any(module.training for module in resnet._model.modules())

    def test_half_precision_is_not(self):
        (backbone,) = resolve("nano-RN50")
        assert batch_norms(LoadedBackbone(backbone, device="cpu", precision="bf16")._model)

    def test_other_towers_are_left_alone(self, vit):
        assert not is_foldable(vit._model.visual)

    def test_a_store_can_tell(self, tmp_path):
        memory = tmp_path / "memory.json"
        told = {
            n: identity(resolve(n)[0], memory)["inference"] for n in ("nano-RN50", "nano-ViT-B-32")
        }
        assert told == {
            "nano-RN50": "batch norm folded in fp32",
            "nano-ViT-B-32": "as in open_clip",
        }
