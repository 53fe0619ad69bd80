"""Weights of tags in a folder, OpenAI's TorchScript archives, and the activation they ask for."""

import os
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import save_file
from tiny_backbones import load, published, register

from clipnlc.backbones import GROUPS, parse, resolve
from clipnlc.backbones.folders import OPENAI_FILE, OPENAI_HUB, find_weights
from clipnlc.backbones.identity import identity
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.backbones.openclip import untrained
from clipnlc.backbones.weights import has_quick_gelu, is_torchscript, weights_file
from clipnlc.errors import BackboneError

MEAN = (0.1, 0.2, 0.3)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An architecture with two tags: `openai` with QuickGELU and a mean of its own, and `gelu`."""
    name = f"tiny-{tmp_path.name}"
    for architecture, settings in ((name, {}), (f"{name}-quickgelu", {"quick_gelu": True})):
        register(tmp_path, architecture, **settings)
        tags = {
            "openai": {"url": f"https://example.org/{name}.pt", "quick_gelu": True, "mean": MEAN},
            "gelu": {"hf_hub": f"somebody/{name}/"},
        }
        monkeypatch.setitem(_PRETRAINED, architecture, tags)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
    return name


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "weights"
    path.mkdir()
    return path


def write(model, file):
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    else:
        torch.save(model.state_dict(), file)


def loaded(name, folder):
    (backbone,) = resolve(name, folder)
    return LoadedBackbone(backbone, device="cpu", precision="fp32")


def with_activation(name, tensors, *, quick_gelu):
    """The same weights through open_clip alone."""
    model = open_clip.create_model(name, force_quick_gelu=quick_gelu)
    model.load_state_dict(tensors)
    return model.eval()


def features(backbone, model):
    """Ours and open_clip's, of the same images."""
    x = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        theirs = model.encode_image(backbone.finish(x)).numpy()
    return backbone.embed_images(x), theirs


class TestFolder:
    @pytest.mark.parametrize(
        "file",
        [
            "{a}.openai.safetensors",
            "{a}.openai.pt",
            "{a}.openai.bin",
            "{a}.openai/open_clip_model.safetensors",
            "{a}.openai/open_clip_pytorch_model.bin",
            "{a}.safetensors",
            "{a}.pt",
        ],
    )
    def test_a_tag_is_loaded_from_it_as_itself(self, tiny, folder, file):
        model = untrained(tiny, seed=0)
        path = folder / file.format(a=tiny)
        write(model, path)
        (backbone,) = resolve(f"{tiny}.openai", folder)
        assert (backbone.name, backbone.file) == (f"{tiny}.openai", path)
        found = loaded(f"{tiny}.openai", folder)
        assert found.name == f"{tiny}.openai"
        assert found.preprocessing.mean == MEAN
        ours, quick = features(found, with_activation(tiny, model.state_dict(), quick_gelu=True))
        _, plain = features(found, with_activation(tiny, model.state_dict(), quick_gelu=False))
        np.testing.assert_array_equal(ours, quick)
        assert np.abs(ours - plain).max() > 1e-4

    def test_a_tag_trained_with_gelu_keeps_it(self, tiny, folder):
        model = untrained(tiny, seed=0)
        write(model, folder / f"{tiny}.gelu.safetensors")
        ours, plain = features(
            loaded(f"{tiny}.gelu", folder),
            with_activation(tiny, model.state_dict(), quick_gelu=False),
        )
        np.testing.assert_array_equal(ours, plain)

    def test_the_most_telling_name_wins(self, tmp_path):
        names = ["RN50.openai.safetensors", "RN50.openai.pt", "RN50.pt", "RN50.safetensors"]
        (tmp_path / "resnet50_clip.openai").mkdir()
        names.insert(2, "resnet50_clip.openai/open_clip_model.safetensors")
        for name in names:
            (tmp_path / name).touch()
        for name in names:
            assert find_weights(tmp_path, "RN50", "openai") == tmp_path / name
            (tmp_path / name).unlink()
        assert find_weights(tmp_path, "RN50", "openai") is None

    def test_names_of_openai_are_openais_alone(self, tmp_path):
        (tmp_path / "ViT-L-14-336px.pt").touch()
        found = find_weights(tmp_path, "ViT-L-14-336", "openai")
        assert found == find_weights(tmp_path, "ViT-L-14-336-quickgelu", "openai")
        assert found == tmp_path / "ViT-L-14-336px.pt"
        assert find_weights(tmp_path, "ViT-L-14-336", "other") is None

    def test_open_clip_agrees_on_openais_names(self):
        assert sorted(f"{a}.openai" for a in OPENAI_HUB) == sorted(GROUPS["all"])
        for architecture, hub in OPENAI_HUB.items():
            config = open_clip.get_pretrained_cfg(architecture, "openai")
            assert Path(config["hf_hub"]).name == hub
            file = OPENAI_FILE.get(architecture, f"{architecture}.pt")
            assert Path(config["url"]).name == file

    def test_a_file_that_is_not_there_is_named_and_not_downloaded(self, tiny, folder, monkeypatch):
        monkeypatch.setattr(open_clip, "download_pretrained", lambda _: pytest.fail("downloads"))
        (backbone,) = resolve(f"{tiny}.gelu", folder)
        with pytest.raises(BackboneError, match=r"neither in .* nor in the hub's cache") as error:
            weights_file(backbone)
        message = str(error.value)
        assert f"in {folder} nor" in message
        assert f"as {tiny}.gelu.safetensors or {tiny}.gelu.pt" in message
        assert "\n" not in message

    def test_the_hubs_cache_is_looked_at_as_well(self, tiny, folder, tmp_path, monkeypatch):
        cached = tmp_path / "cached.safetensors"
        write(untrained(tiny, seed=0), cached)
        monkeypatch.setattr("clipnlc.backbones.weights.at_hand", lambda _: True)
        monkeypatch.setattr(open_clip, "download_pretrained", lambda _: str(cached))
        assert weights_file(resolve(f"{tiny}.gelu", folder)[0]) == cached

    def test_a_folder_must_exist(self, tmp_path):
        with pytest.raises(BackboneError, match="is not a folder; give an existing one"):
            resolve("RN50.openai", tmp_path / "none")

    def test_one_file_is_not_two_tags(self, tiny, folder):
        (folder / f"{tiny}.pt").touch()
        with pytest.raises(BackboneError, match=r"would both be read from .*; name the files ARCH"):
            resolve(f"{tiny}.openai,{tiny}.gelu", folder)
        (folder / f"{tiny}.gelu.pt").touch()
        assert len(resolve(f"{tiny}.openai,{tiny}.gelu", folder)) == 2

    def test_other_backbones_do_not_mind_it(self, folder):
        assert resolve("nano", folder) == resolve("nano")

    def test_the_identity_is_the_files(self, tiny, folder, tmp_path):
        memory = tmp_path / "memory.json"
        told = []
        for seed in range(2):
            write(untrained(tiny, seed=seed), folder / f"{tiny}.openai.safetensors")
            told.append(identity(resolve(f"{tiny}.openai", folder)[0], memory))
        assert told[0]["quick_gelu"] is True
        assert told[0]["preprocessing"]["mean"] == list(MEAN)
        assert {k for k in told[0] if told[0][k] != told[1][k]} == {"weights"}
        moved = tmp_path / "elsewhere"
        folder.rename(moved)
        assert identity(resolve(f"{tiny}.openai", moved)[0], memory) == told[1]


class TestPublishedArchives:
    @pytest.mark.parametrize("how", ["tag", "file"])
    def test_they_load_with_quick_gelu(self, tiny, folder, how):
        model = untrained(tiny, seed=0)
        file = folder / f"{tiny}.pt"
        published(model, file)
        assert is_torchscript(file)
        found = loaded(f"{tiny}.openai" if how == "tag" else f"{tiny}@{file}", folder)
        halves = {k: v.half().float() for k, v in model.state_dict().items()}
        ours, quick = features(found, with_activation(tiny, halves, quick_gelu=True))
        np.testing.assert_array_equal(ours, quick)
        assert found.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)

    def test_one_of_another_architecture_is_refused(self, tiny, folder, tmp_path):
        register(tmp_path, "tiny-wider", embed_dim=16)
        published(untrained("tiny-wider", seed=0), folder / f"{tiny}.pt")
        with pytest.raises(BackboneError, match=f"does not load as {tiny}.*belong together") as e:
            loaded(f"{tiny}.openai", folder)
        assert "\n" not in str(e.value)

    def test_a_damaged_one_is_refused(self, tiny, folder):
        file = folder / f"{tiny}.pt"
        published(untrained(tiny, seed=0), file)
        content = bytearray(file.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 1000] = bytes(1000)
        file.write_bytes(content[: -len(content) // 4])
        with pytest.raises(BackboneError, match=r"is a truncated or damaged zip archive, .*again"):
            loaded(f"{tiny}.openai", folder)

    def test_nothing_is_unpickled(self, tiny, folder):
        class Trap:
            def __reduce__(self):
                return (os.mkdir, (str(folder / "sprung"),))

        torch.save({"state_dict": Trap()}, folder / f"{tiny}.pt")
        with pytest.raises(BackboneError, match=r"holds a Python object \(posix.mkdir\) beside"):
            loaded(f"{tiny}.openai", folder)
        assert not (folder / "sprung").exists()

    def test_other_files_are_none(self, tiny, folder):
        write(untrained(tiny, seed=0), folder / "w.pt")
        (folder / "text.pt").write_text("no weights")
        assert not is_torchscript(folder / "w.pt")
        assert not is_torchscript(folder / "text.pt")


class TestActivation:
    @pytest.mark.parametrize(
        ("file", "quick"),
        [
            ("w.safetensors", False),
            ("RN50.openai.safetensors", True),
            ("openai.safetensors", False),
            ("resnet50_clip.openai/open_clip_model.safetensors", True),
        ],
    )
    def test_a_file_tells_it_only_by_openais_name(self, tiny, folder, file, quick):
        model = untrained(tiny, seed=0)
        write(model, folder / file)
        name = f"{tiny}@{folder / file}"
        assert has_quick_gelu(parse(name), folder / file) is quick
        ours, theirs = features(
            load(name), with_activation(tiny, model.state_dict(), quick_gelu=quick)
        )
        np.testing.assert_array_equal(ours, theirs)

    def test_an_architecture_tells_it(self, tiny, folder):
        write(untrained(tiny, seed=0), folder / "w.safetensors")
        name = f"{tiny}-quickgelu@{folder / 'w.safetensors'}"
        assert has_quick_gelu(parse(name), folder / "w.safetensors")

    def test_a_quick_architecture_with_a_tag_trained_otherwise_is_refused(self, tiny, folder):
        write(untrained(tiny, seed=0), folder / f"{tiny}-quickgelu.gelu.safetensors")
        with pytest.raises(BackboneError, match=f"trained with GELU, .*; use {tiny}.gelu"):
            loaded(f"{tiny}-quickgelu.gelu", folder)
