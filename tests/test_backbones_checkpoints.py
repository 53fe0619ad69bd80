"""Weights files are told apart by their content, whatever they are called; bad ones are named."""

import argparse
import io
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from tiny_backbones import load, published, register

from clipnlc.backbones import parse
from clipnlc.backbones.checkpoints import read_checkpoint
from clipnlc.backbones.openclip import untrained
from clipnlc.cli import main
from clipnlc.errors import BackboneError, UnknownNameError

SUFFIXES = (".pt", ".safetensors", ".bin", "")


@pytest.fixture
def tiny(tmp_path):
    name = f"tiny-{tmp_path.name}"
    register(tmp_path, name)
    return name


@pytest.fixture
def tensors(tiny):
    return {k: v.contiguous() for k, v in untrained(tiny, seed=0).state_dict().items()}


def prefixed(tensors, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


def refused(tiny, file, data=None):
    """Load a file that cannot be used; return the one line that says why."""
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(BackboneError, match=r"\A[^\n]+\Z") as error:
        load(f"{tiny}@{file}")
    assert str(file) in str(error.value)
    return str(error.value)


def saved(tree, **settings):
    stream = io.BytesIO()
    torch.save(tree, stream, **settings)
    return stream.getvalue()


class TestForms:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("form", ["safetensors", "torch", "torch before 1.6", "torchscript"])
    def test_each_is_read_whatever_it_is_called(self, tiny, tensors, tmp_path, form, suffix):
        file = tmp_path / f"w{suffix}"
        if form == "safetensors":
            file.write_bytes(save(tensors))
        elif form == "torchscript":
            published(untrained(tiny, seed=0), file)
        else:
            new = form == "torch"
            file.write_bytes(saved(tensors, _use_new_zipfile_serialization=new))
        found = read_checkpoint(file)
        assert tensors.keys() <= found.keys()
        assert np.isfinite(load(f"{tiny}@{file}").embed_images(pixels())).all()

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda t: prefixed(t, "_orig_mod."),
            lambda t: prefixed(t, "module."),
            lambda t: prefixed(t, "module._orig_mod."),
            lambda t: {
                "epoch": 3,
                "name": "x",
                "state_dict": prefixed(t, "module."),
                "optimizer": {"a": {}},
            },
            lambda t: {"state_dict": prefixed(t, "model."), "hyper_parameters": {"lr": 1e-3}},
            lambda t: {"state_dict": prefixed(t, "model.module.clip.")},
            lambda t: {"state_dict": prefixed(t, "visual."), "pytorch-lightning_version": "2.4"},
            lambda t: {"model": t, "optimizer": {"state": {}}, "step": torch.tensor(3)},
            lambda t: {"model_state_dict": t, "loss": 0.5},
            lambda t: {"model": {"state_dict": t}},
            lambda t: {k.replace("visual.", "visual._orig_mod."): v for k, v in t.items()},
        ],
    )
    def test_training_checkpoints_give_the_same_features(self, tiny, tensors, tmp_path, wrap):
        (tmp_path / "plain.safetensors").write_bytes(save(tensors))
        (tmp_path / "wrapped.pt").write_bytes(saved(wrap(tensors)))
        plain, wrapped = (
            load(f"{tiny}@{tmp_path / n}") for n in ("plain.safetensors", "wrapped.pt")
        )
        assert wrapped.embed_images(pixels()).tobytes() == plain.embed_images(pixels()).tobytes()
        prompts = ["a cat", "two dogs"]
        assert wrapped.embed_prompts(prompts).tobytes() == plain.embed_prompts(prompts).tobytes()

    def test_prefixes_that_not_all_names_share_stay(self, tiny, tensors, tmp_path):
        two = prefixed(tensors, "model.") | prefixed(tensors, "ema.")
        said = refused(tiny, tmp_path / "w.pt", saved({"state_dict": two}))
        assert "none of its" in said
        assert "(its names begin with ema, model)" in said
        said = refused(tiny, tmp_path / "w.pt", saved(prefixed(tensors, "_orig_mod.") | tensors))
        assert "holds a compiled model and another" in said
        said = refused(tiny, tmp_path / "w.pt", saved({"model": tensors, "module": tensors}))
        assert "holds several models (model, module)" in said


PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1709\n"


class TestOtherFiles:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (PAGE, "is an HTML page: the download failed or needs a login; give a checkpoint that"),
            (POINTER, "is a Git-LFS pointer: fetch the file it stands for (git lfs pull)"),
            (b'{"error": "Repository not found"}', "is a JSON file; give a checkpoint that"),
            (b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "is a JSON file"),
            (b"Not Found", "is text; give"),
            (b"", "is empty: the download is not finished; fetch it again"),
            (bytes(5000), "begins with nothing but zeros: the download is not finished"),
            (b"\x1f\x8b\x08" + bytes(range(99)), "is a gzip archive: unpack it"),
            (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
            (b"GGUF" + bytes(99), "is a GGUF file"),
            (b"\x93NUMPY\x01\x00", "is a numpy array"),
            (bytes(range(128, 256)), "is no checkpoint; give"),
        ],
    )
    def test_they_are_named(self, tiny, tmp_path, data, said, suffix):
        assert said in refused(tiny, tmp_path / f"w{suffix}", data)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("form", ["safetensors", "torch"])
    def test_truncated(self, tiny, tensors, tmp_path, form, suffix):
        data = save(tensors) if form == "safetensors" else saved(tensors)
        for kept in (len(data) - 1, len(data) // 2, len(data) // 20, 12):
            assert "truncated" in refused(tiny, tmp_path / f"w{suffix}", data[:kept])

    def test_a_zip_that_is_no_checkpoint(self, tiny, tmp_path):
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            archive.writestr("RN50.safetensors", "x")
        said = refused(tiny, tmp_path / "w.pt")
        assert "is a zip archive that is no checkpoint (it holds RN50.safetensors)" in said

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize(
        ("tree", "said"),
        [
            (
                {"args": argparse.Namespace(lr=1)},
                "holds a Python object (argparse.Namespace) beside",
            ),
            (torch.nn.Linear(2, 2), "holds a Python object (torch.nn.modules.linear.Linear)"),
            ({"epoch": 3, "optimizer": {}}, "holds no weights (it has 'epoch', 'optimizer')"),
            ([torch.zeros(3)], "holds a list, not a state dict"),
            (torch.zeros(3), "holds a Tensor, not a state dict"),
            ({}, "holds no weights (it has nothing)"),
        ],
    )
    def test_what_torch_saved_that_is_no_state_dict(self, tiny, tmp_path, tree, said, legacy):
        data = saved(tree, _use_new_zipfile_serialization=not legacy)
        assert said in refused(tiny, tmp_path / "w.pt", data)

    def test_a_folder_is_no_file(self, tiny, tmp_path):
        with pytest.raises(
            BackboneError, match=r"names the folder .*; give the weights file in it"
        ):
            parse(f"{tiny}@{tmp_path}")


class TestValues:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("name", ["visual.proj", "logit_scale"])
    def test_nan_and_infinity(self, tiny, tensors, tmp_path, value, name):
        tensors[name].view(-1)[0] = value
        said = refused(tiny, tmp_path / "w.pt", saved(tensors))
        assert (
            f"has weights that are NaN or infinite: 1 of {tensors[name].numel()} in {name}" in said
        )

    def test_a_tail_of_zeros(self, tiny, tensors, tmp_path):
        data = save(tensors)
        said = refused(tiny, tmp_path / "w.pt", data[: len(data) // 2] + bytes(len(data) // 2))
        assert "has nothing but zeros in" in said

    def test_quantised_weights(self, tiny, tensors, tmp_path):
        tensors["visual.proj"] = tensors["visual.proj"].mul(100).to(torch.int8)
        said = refused(tiny, tmp_path / "w.pt", saved(tensors))
        assert "visual.proj is torch.int8 there, as in quantised weights" in said

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            ({"image_size": 32}, "visual.positional_embedding is [17, 16] there and [5, 16] in"),
            ({"embed_dim": 16}, "text_projection is [8, 16] there and [8, 8] in"),
            ({"text": {"layers": 2}}, "it has transformer.resblocks.1"),
            ({"text": {"context_length": 20}}, "positional_embedding is [20, 8] there and [16, 8]"),
            ({"resnet": True}, "it lacks visual.class_embedding and"),
        ],
    )
    def test_weights_of_another_architecture(self, tiny, tmp_path, other, said):
        register(tmp_path, f"{tiny}-other", **other)
        model = untrained(f"{tiny}-other", seed=0)
        assert said in refused(tiny, tmp_path / "w.pt", saved(model.state_dict()))

    def test_towers_alone_and_other_libraries(self, tiny, tensors, tmp_path):
        alone = {k: v for k, v in tensors.items() if k.startswith("visual.")}
        said = refused(tiny, tmp_path / "w.pt", saved(alone))
        assert "it has an image tower and no text tower" in said
        other = {"text_model.encoder.x": torch.ones(2), "vision_model.y": torch.ones(2)}
        save_file(other, tmp_path / "model.safetensors")
        said = refused(tiny, tmp_path / "model.safetensors")
        assert "is a CLIP in the form of the transformers library" in said
        said = refused(tiny, tmp_path / "w.pt", saved({"fc.weight": torch.ones(2)}))
        assert "none of its 1 tensors (fc.weight, …) is in" in said


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ViT-B-32", "ViT-B-32.openai"),
        ("RN50", "RN50.openai"),
        ("rn50x4", "RN50x4.openai"),
        ("ViT-B/16", "ViT-B-16.openai"),
        ("ViT-L/14@336px", "ViT-L-14-336.openai"),
        ("openai/clip-vit-base-patch32", "ViT-B-32.openai"),
        ("resnet50", "RN50.openai"),
        ("RN50-openai", "RN50.openai"),
        ("ViT-B-33", "ViT-B-32.openai"),
        ("ViT-H-14", r"ViT-H-14.\w+"),
    ],
)
def test_a_name_without_weights_is_not_a_miniature(name, meant):
    with pytest.raises(UnknownNameError, match=f"unknown backbone '.*'; did you mean '{meant}'"):
        parse(name)


def test_the_cli_says_what_a_file_is(tmp_path, capsys):
    (tmp_path / "w.safetensors").write_bytes(POINTER)
    asked = ["extract", "-d", "digits", "-b", f"RN50@{tmp_path / 'w.safetensors'}"]
    assert main([*asked, "--limit", "2", "--quiet", "--store", str(tmp_path / "store")]) == 2
    assert "is a Git-LFS pointer: fetch the file" in capsys.readouterr().err
