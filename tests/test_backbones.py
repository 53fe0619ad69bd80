"""Backbones: names, loading, and agreement with open_clip's own preprocessing and classifier."""

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_backbones import load, register, save

from clipnlc.backbones import GROUPS, loaded, nano, parse, resolve
from clipnlc.backbones import identity as identities
from clipnlc.backbones.catalogue import catalogue
from clipnlc.backbones.identity import identity, verify_memory
from clipnlc.backbones.loaded import choose_device, choose_precision, describe
from clipnlc.backbones.openclip import quiet, tokenizer, untrained
from clipnlc.backbones.preprocessing import Preprocessing, preprocessing_of
from clipnlc.backbones.weights import pretrained_config, weights_file
from clipnlc.cli import main
from clipnlc.datasets.images import load as load_image
from clipnlc.datasets.prompts import fill
from clipnlc.errors import BackboneError, UnknownNameError
from clipnlc.heads.zero_shot import ZeroShotHead

NANO = "nano-RN50"
NANO_FILE = nano.WEIGHTS / f"{NANO}.safetensors"


@pytest.fixture(scope="module")
def resnet():
    return load(NANO)


@pytest.fixture(scope="module")
def reference():
    """The same weights through open_clip alone: model, transform, tokenizer."""
    model, _, transform = open_clip.create_model_and_transforms(
        NANO, pretrained=str(NANO_FILE), require_pretrained=True
    )
    return (
        model.eval(),
        transform,
        open_clip.get_tokenizer(NANO, bpe_path=str(nano.VOCABULARY)),
    )


def pixels(rows, size=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, size, size, 3), dtype=np.uint8)


def one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


class TestNames:
    def test_three_ways_to_name_weights(self, tmp_path):
        file = tmp_path / "mine.v2.safetensors"
        file.touch()
        assert parse(NANO).file == NANO_FILE
        tagged = parse("ViT-B-32.laion2b_s34b_b79k")
        assert (tagged.architecture, tagged.tag) == ("ViT-B-32", "laion2b_s34b_b79k")
        filed = parse(f"RN50@{file}")
        assert (filed.name, filed.architecture, filed.file) == ("RN50@mine.v2", "RN50", file)

    def test_groups_are_spelled_out_once(self):
        assert [b.name for b in resolve("nano")] == list(nano.NAMES)
        assert [b.name for b in resolve("nano-vits, nano-ViT-B-32")] == list(nano.VITS)
        assert len(resolve("all")) == len(resolve(["resnets", "vits"])) == 9

    def test_every_group_resolves(self):
        for members in GROUPS.values():
            assert tuple(b.name for b in resolve(members)) == members

    def test_unknown_names_get_a_hint(self):
        with pytest.raises(UnknownNameError, match=r"did you mean 'nano-RN50'\?.*known: nano-RN50"):
            resolve("nano-RN05")
        with pytest.raises(UnknownNameError, match="unknown backbone ''"):
            resolve("nano,")

    def test_a_weights_file_must_exist(self, tmp_path):
        with pytest.raises(BackboneError, match="which does not exist; give ARCHITECTURE@FILE"):
            resolve(f"RN50@{tmp_path / 'none.pt'}")

    def test_two_files_of_one_name_are_refused(self, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "w.pt").touch()
        with pytest.raises(BackboneError, match="both be called 'RN50@w'; rename one"):
            resolve([f"RN50@{tmp_path}/a/w.pt", f"RN50@{tmp_path}/b/w.pt"])

    def test_an_unknown_architecture_is_named(self, tmp_path):
        file = tmp_path / "w.safetensors"
        file.touch()
        for name in (f"RN51@{file}", "RN51.openai"):
            with pytest.raises(UnknownNameError, match="unknown architecture 'RN51'; did you mean"):
                describe(resolve(name)[0])
        with pytest.raises(UnknownNameError, match="unknown architecture 'RN51'"):
            load(f"RN51@{file}")

    def test_an_unknown_tag_lists_the_known_ones(self):
        with pytest.raises(
            BackboneError, match=r"RN50 has no weights called 'openi'; known: openai"
        ):
            pretrained_config(parse("RN50.openi"))


class TestCatalogue:
    def test_the_nano_family(self):
        rows = catalogue("nano")
        assert [r.name for r in rows] == list(nano.NAMES)
        assert len({r.input for r in rows}) >= 2
        assert len({r.parameters for r in rows}) >= 5
        assert all(r.dim > 0 and "nano" in r.groups for r in rows)
        assert {r.name: r.at_hand for r in rows}[NANO]

    def test_a_tag_is_at_hand_only_when_downloaded(self):
        (row,) = catalogue("RN50.openai")
        assert (row.dim, row.input) == (1024, 224)
        assert row.parameters == pytest.approx(102e6, rel=0.01)
        assert set(row.groups) == {"all", "resnets", "small"}


class TestLoading:
    def test_the_model_is_in_eval_mode(self, resnet):
        assert not any(module.training for module in resnet._model.modules())

    def test_describe_and_preprocessing_agree_with_the_loaded_model(self, resnet):
        (backbone,) = resolve(NANO)
        facts = describe(backbone)
        model = untrained(NANO, seed=0)
        assert facts["parameters"] == sum(p.numel() for p in model.parameters())
        assert facts["dim"] == resnet.dim == resnet.embed_images(pixels(1)).shape[1]
        assert preprocessing_of(backbone) == resnet.preprocessing

    @pytest.mark.parametrize(
        "name", ["RN50.openai", "ViT-L-14-336.openai", "ViT-B-16-SigLIP.webli"]
    )
    def test_preprocessing_of_a_tag_is_open_clips(self, name):
        (backbone,) = resolve(name)
        found = preprocessing_of(backbone)
        tag = open_clip.get_pretrained_cfg(backbone.architecture, backbone.tag)
        for field in ("mean", "std", "interpolation", "resize_mode"):
            if tag.get(field) is not None:
                given = getattr(found, field)
                assert given == (tuple(tag[field]) if isinstance(given, tuple) else tag[field])
        assert found.size == (describe(backbone)["input"],) * 2

    @pytest.mark.parametrize(
        ("architecture", "tag"),
        [("ViT-B-16-SigLIP", "webli"), ("MobileCLIP-S1", "datacompdr"), ("ViT-B-32", "openai")],
    )
    def test_a_file_is_prepared_as_all_tags_of_its_architecture(self, architecture, tag, tmp_path):
        (tmp_path / "w.safetensors").touch()
        (file,) = resolve(f"{architecture}@{tmp_path / 'w.safetensors'}")
        (tagged,) = resolve(f"{architecture}.{tag}")
        assert preprocessing_of(file) == preprocessing_of(tagged)

    def test_features_do_not_depend_on_batch_or_neighbours(self, resnet):
        x = pixels(9)
        together = resnet.embed_images(x)
        alone = np.concatenate([resnet.embed_images(x[i : i + 1]) for i in range(9)])
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
        others = resnet.embed_images(np.concatenate([x[:1], pixels(8, seed=1)]))
        np.testing.assert_allclose(together[0], others[0], rtol=1e-5, atol=1e-5)

    def test_the_same_pixels_give_the_same_bits(self, resnet):
        assert resnet.embed_images(pixels(3)).tobytes() == resnet.embed_images(pixels(3)).tobytes()
        assert (
            load(NANO).embed_images(pixels(3)).tobytes() == resnet.embed_images(pixels(3)).tobytes()
        )

    def test_prompts_do_not_depend_on_their_neighbours(self, resnet):
        prompts = ["a cat", "the digit seven, in green on dark", "b"] * 100
        together = resnet.embed_prompts(prompts)
        np.testing.assert_allclose(together[:3], resnet.embed_prompts(prompts[:3]), atol=1e-6)
        np.testing.assert_allclose(together[0], resnet.embed_prompts(["a cat"])[0], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)

    def test_loading_leaves_logging_and_warnings_alone(self, caplog):
        before = (logging.getLogger().level, logging.getLogger().handlers[:], warnings.filters[:])
        load(NANO)
        after = (logging.getLogger().level, logging.getLogger().handlers[:], warnings.filters[:])
        assert after == before
        assert caplog.records == []

    @pytest.mark.slow
    @pytest.mark.parametrize("architecture", ["RN50", "ViT-B-32"])
    def test_full_size_architectures_load_from_a_local_file(self, tmp_path, architecture):
        backbone = load(save(tmp_path, architecture))
        x = pixels(2, backbone.preprocessing.size[0])
        assert np.isfinite(backbone.embed_images(x)).all()
        assert backbone.embed_classes([["a cat"], ["a dog"]]).shape == (
            2,
            describe(resolve(f"{architecture}.openai")[0])["dim"],
        )
        assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


class TestBadWeights:
    """Whatever is wrong with the weights, no model with random ones comes out."""

    def test_weights_of_another_architecture(self):
        with pytest.raises(BackboneError, match="does not load as nano-ViT-B-16") as error:
            load(f"nano-ViT-B-16@{NANO_FILE}")
        one_line(error, str(NANO_FILE), "check that architecture and file belong together")

    def test_a_file_that_lacks_a_tensor(self, tmp_path):
        tensors = load_file(NANO_FILE)
        del tensors["visual.conv1.weight"]
        save_file(tensors, tmp_path / "w.safetensors")
        with pytest.raises(BackboneError, match=r"visual\.conv1\.weight") as error:
            load(f"{NANO}@{tmp_path / 'w.safetensors'}")
        one_line(error)

    def test_a_missing_embedded_file(self, monkeypatch, tmp_path):
        monkeypatch.setattr(nano, "WEIGHTS", tmp_path)
        with pytest.raises(BackboneError, match="are missing; install clipnlc again"):
            load(NANO)

    def test_nothing_is_unpickled(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "sprung"),))

        torch.save({"state_dict": Trap()}, tmp_path / "w.pt")
        with pytest.raises(BackboneError, match="which is not read because it could run") as error:
            load(f"{NANO}@{tmp_path / 'w.pt'}")
        one_line(error)
        assert not (tmp_path / "sprung").exists()

    def test_a_pt_file_loads_as_well_as_safetensors(self, tmp_path, resnet):
        torch.save(load_file(NANO_FILE), tmp_path / "w.pt")
        again = load(f"{NANO}@{tmp_path / 'w.pt'}")
        assert again.embed_images(pixels(2)).tobytes() == resnet.embed_images(pixels(2)).tobytes()

    def test_no_network_is_one_line(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        wanted = ["--backbones", "ViT-B-32.laion400m_e31", "--dataset", "digits"]
        assert main(["extract", *wanted, "--store", str(tmp_path / "store")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: the weights of ViT-B-32.laion400m_e31 are not on disk and")
        assert "as ViT-B-32.laion400m_e31.safetensors or ViT-B-32.laion400m_e31.pt and give" in line
        assert "give --weights-dir FOLDER, or rehearse with --backbones nano" in line


class TestDevices:
    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_half_precision_on_a_cpu_without_it_is_refused(self, precision, monkeypatch):
        monkeypatch.setattr(loaded, "_CPU", Path("/nowhere"))
        with pytest.raises(BackboneError, match=f"{precision} is many times slower.*fp32"):
            choose_precision(precision, "cpu")

    def test_a_cpu_that_knows_bf16_takes_it(self, tmp_path, monkeypatch):
        (tmp_path / "cpuinfo").write_text("flags : avx512f avx512_bf16")
        monkeypatch.setattr(loaded, "_CPU", tmp_path / "cpuinfo")
        assert choose_precision("bf16", "cpu") == "bf16"
        assert choose_precision("auto", "cpu") == "fp32"
        with pytest.raises(BackboneError, match="fp16 is many times slower"):
            choose_precision("fp16", "cpu")

    def test_auto(self):
        assert choose_precision("auto", "cpu") == "fp32"
        assert choose_precision("auto", "cuda:1") == "fp16"

    def test_unknown_ones(self):
        with pytest.raises(BackboneError, match="unknown precision 'fp8'; choose auto"):
            choose_precision("fp8", "cpu")
        with pytest.raises(
            BackboneError, match=r"device 'gpu' cannot be used .*; try --device cpu"
        ):
            choose_device("gpu")


ODD_SIZES = [(48, 48), (1, 1), (7, 5), (33, 200), (301, 47)]
MODES = ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16"]


def picture(mode, size, seed=0):
    """Encode a random image of a mode."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16)).save(buffer, "PNG")
    else:
        image = Image.fromarray(wide, "RGBA")
        image = image.convert("RGB").convert(mode) if mode != "RGBA" else image
        options = {"transparency": 3} if mode == "P" else {}
        image.save(buffer, "TIFF" if mode == "CMYK" else "PNG", **options)
    return buffer.getvalue()


class TestPixels:
    @pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
    @pytest.mark.parametrize("mode", MODES)
    def test_bit_equal_to_open_clip(self, mode, resize_mode, resnet):
        config = {"interpolation": "bicubic", "resize_mode": resize_mode, "fill_color": 0}
        ours = Preprocessing(
            size=(48, 48), mean=resnet.preprocessing.mean, std=resnet.preprocessing.std, **config
        )
        theirs = image_transform_v2(
            PreprocessCfg(size=48, mean=ours.mean, std=ours.std, **config), is_train=False
        )
        resize, expected, given = ours.resizer(), [], []
        for size in ODD_SIZES:
            data = picture(mode, size)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, of palettes with transparency
                image = Image.open(io.BytesIO(data))
                if mode == "I;16":  # which Pillow, and so open_clip, cuts off at 255
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                expected.append(theirs(image).numpy())
            given.append(resize(load_image(data)))
        finished = resnet.finish(np.stack(given))
        np.testing.assert_array_equal(finished.numpy(), np.stack(expected))

    def test_what_is_shared_is_told_by_the_geometry(self, resnet):
        other = Preprocessing(
            size=(48, 48),
            interpolation="bicubic",
            resize_mode="shortest",
            fill_color=0,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )
        assert other != resnet.preprocessing
        assert other.geometry == resnet.preprocessing.geometry


class TestAgainstOpenClip:
    def test_features(self, resnet, reference):
        model, transform, _ = reference
        images = [load_image(picture("RGB", size)) for size in ODD_SIZES]
        resize = resnet.preprocessing.resizer()
        with torch.no_grad():
            expected = model.encode_image(torch.stack([transform(i) for i in images])).numpy()
        found = resnet.embed_images(np.stack([resize(i) for i in images]))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_class_embeddings(self, resnet, reference):
        model, _, tokenize = reference
        names = ["cat", "hot dog", "X-ray {of}", "Käfer", "ankle boot", "b", "ccc"]
        templates = ("a photo of a {}.", "the {}", "an icon of {}", "{}")
        expected = open_clip.build_zero_shot_classifier(
            model, tokenize, names, [t.format for t in templates]
        )
        found = resnet.embed_classes([fill(templates, n) for n in names])
        np.testing.assert_allclose(found, expected.numpy().T, atol=1e-6)

    def test_logit_scale(self, resnet, reference):
        assert resnet.logit_scale == pytest.approx(reference[0].logit_scale.exp().item())
        assert resnet.logit_bias == 0.0

    @pytest.mark.parametrize("bias", [None, -3.5])
    @pytest.mark.parametrize("scale", [1.0, 2.0])
    def test_another_models_scale_and_bias_are_its_own(self, tmp_path, bias, scale):
        name = f"tiny-scale-{scale}-{bias}"
        given = {} if bias is None else {"init_logit_bias": bias}
        register(tmp_path, name, init_logit_scale=scale, **given)
        backbone = load(save(tmp_path, name))
        assert backbone.logit_scale == pytest.approx(np.exp(scale))
        assert backbone.logit_bias == (bias or 0.0)
        x, sentences = pixels(4, 16), ["a cat", "a dog"]
        head = ZeroShotHead().fit_to_texts(
            texts=backbone.embed_classes([[s] for s in sentences]),
            logit_scale=backbone.logit_scale,
            logit_bias=backbone.logit_bias,
        )
        found = head.logits(backbone.embed_images(x))
        model = untrained(name, seed=0).eval()
        config = model.visual.preprocess_cfg
        mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
        images = (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - mean) / std
        with torch.no_grad():
            expected, _ = model.get_logits(images, tokenizer(name)(sentences))
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


class TestIdentity:
    @pytest.fixture
    def backbone(self, tmp_path):
        register(tmp_path, f"tiny-{tmp_path.name}")
        return resolve(save(tmp_path, f"tiny-{tmp_path.name}"))[0]

    def test_it_is_remembered_and_told_without_torch(self, backbone, tmp_path):
        memory = tmp_path / "memory.json"
        first = identity(backbone, memory)
        assert first["preprocessing"]["size"] == [16, 16]
        script = (
            "import sys\nfrom pathlib import Path\n"
            "from clipnlc.backbones import resolve\n"
            "from clipnlc.backbones.identity import identity\n"
            "import json\n"
            f"print(json.dumps(identity(resolve('{backbone.architecture}@{backbone.file}')[0],"
            f" Path({str(memory)!r}))))\n"
            "assert 'torch' not in sys.modules"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == first

    def test_other_weights_are_another_identity(self, backbone, tmp_path):
        memory = tmp_path / "memory.json"
        first = identity(backbone, memory)
        save_file(untrained(backbone.architecture, seed=1).state_dict(), backbone.file)
        second = identity(backbone, memory)
        assert {k for k in first if first[k] != second[k]} == {"weights"}

    def test_a_flipped_byte_in_the_memory_is_never_believed(self, backbone, tmp_path):
        memory = tmp_path / "memory.json"
        first = identity(backbone, memory)
        content = memory.read_bytes()
        for at in range(0, len(content), 5):
            memory.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert identity(backbone, memory) == first, at
            if memory.read_bytes() != content:  # still harmless, or made anew and written
                assert verify_memory(memory) is None

    def test_sound_entries_beside_a_damaged_one_are_kept(self, backbone, tmp_path, monkeypatch):
        memory = tmp_path / "memory.json"
        other = resolve("nano-RN50")[0]
        first = [identity(one, memory) for one in (backbone, other)]
        memory.write_text(memory.read_text().replace(first[1]["weights"], "0" * 64))
        again = []
        digest = identities._digest
        monkeypatch.setattr(identities, "_digest", lambda file: again.append(file) or digest(file))
        assert [identity(one, memory) for one in (backbone, other)] == first
        assert [file.name for file in again] == [weights_file(other).name]

    def test_a_memory_of_before_the_digests_is_not_believed(self, backbone, tmp_path):
        memory = tmp_path / "memory.json"
        first = identity(backbone, memory)
        (entry,) = json.loads(memory.read_text())
        old = {name: entry[name] for name in ("file", "stamp", "identity")}
        old["identity"] = {**first, "weights": "0" * 64}
        memory.write_text(json.dumps({entry["entry"]: old}))
        assert identity(backbone, memory) == first
        assert verify_memory(memory) is None

    @pytest.mark.parametrize("content", ["", "[]", '{"a', "\x00"])
    def test_a_damaged_memory_is_made_anew(self, backbone, tmp_path, content):
        memory = tmp_path / "memory.json"
        first = identity(backbone, memory)
        memory.write_text(content)
        assert identity(backbone, memory) == first

    def test_missing_weights_are_told(self, backbone, tmp_path):
        backbone.file.unlink()
        with pytest.raises(BackboneError, match="are missing"):
            identity(backbone, tmp_path / "memory.json")


def test_quiet_makes_a_quick_gelu_mismatch_an_error():
    with pytest.raises(UserWarning, match="QuickGELU"), quiet():
        warnings.warn("QuickGELU mismatch between …", UserWarning, stacklevel=1)


def test_weights_of_a_file_are_that_file(tmp_path):
    (tmp_path / "w.pt").touch()
    assert weights_file(parse(f"RN50@{tmp_path / 'w.pt'}")) == tmp_path / "w.pt"
