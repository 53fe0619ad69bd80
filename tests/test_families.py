"""Families of backbones: how each is prompted, and what a family must be."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from command_line import good, refusal
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from tiny_backbones import load

from clipnlc.backbones import parse
from clipnlc.backbones.catalogue import catalogue, families
from clipnlc.backbones.families import FAMILIES, family, family_of
from clipnlc.backbones.families.base import Family
from clipnlc.backbones.families.nano import ANY, SUBJECTS
from clipnlc.backbones.families.open_clip import SIZES
from clipnlc.backbones.identity import identity
from clipnlc.backbones.loaded import describe
from clipnlc.datasets.nano import glyphs, patterns, scans, scenes
from clipnlc.datasets.nano.palette import COLOURS
from clipnlc.errors import BackboneError, UnknownNameError
from clipnlc.extraction.request import Request
from clipnlc.stages.extract import extract
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

WORDINGS = Path(__file__).parents[1] / "benchmarks" / "wordings.py"


def test_the_subjects_of_nano_are_those_of_its_corpus():
    words = {name: set(its) for name, (its, _) in SUBJECTS.items()}
    assert words == {
        "colours": set(COLOURS),
        "shapes": set(scenes.SHAPES),
        "several shapes": {scenes.plural(shape) for shape in scenes.SHAPES},
        "counts": set(scenes.NUMBERS),
        "digits": set(glyphs.DIGITS),
        "numerals": {str(digit) for digit in range(10)},
        "letters": set(glyphs.LETTERS),
        "clothes": {word for words in scans.FASHION.values() for word in words},
        "patterns": set(patterns.PATTERNS),
    }


def test_no_template_of_nano_has_a_full_stop_and_each_has_one_place():
    forms = [form for _, its in SUBJECTS.values() for form in its] + list(ANY)
    assert all(form.count("{c}") == 1 and not form.endswith(".") for form in forms)


@pytest.mark.parametrize(
    ("names", "templates"),
    [
        (
            ("A", "b"),
            ("{c}", "the letter {c}", "the uppercase letter {c}", "the lowercase letter {c}"),
        ),
        (("zero", "two"), ("{c}", "the digit {c}", "the number {c}")),
        (("cat", "red"), ANY),
        ((), ANY),
    ],
)
def test_templates_of_nano(names, templates):
    assert family("nano").templates(names) == templates


def test_words_of_two_subjects_are_prompted_as_both():
    found = family("nano").templates(("one", "two"))
    assert {"{c} objects", "the digit {c}"} <= set(found)


@pytest.mark.slow
def test_nano_on_own_photos_is_within_two_points_of_the_best_wording(tmp_path):
    script = runpy.run_path(WORDINGS)
    found = script["measure"](tmp_path, 6, seed=2)
    rows = {name: np.mean(values) for name, values in found.items()}
    ours = rows.pop(script["FAMILY"])
    assert len(rows) == len(script["WORDINGS"]) == 10
    assert ours > max(rows.values()) - 0.02


# --- timm


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Random weights of small towers, with their classifiers, as timm has them: names by architecture."""
    folder = tmp_path_factory.mktemp("timm")
    found = {}
    for seed, architecture in enumerate(("test_resnet", "test_vit")):
        torch.manual_seed(seed)
        tensors = timm.create_model(architecture).state_dict()
        file = folder / f"{architecture}.safetensors"
        save_file(tensors, file)
        torch.save({"state_dict": tensors}, file.with_suffix(".pth"))
        found[architecture] = f"timm-{architecture}@{file}"
    return found


def pictures():
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (*sides, 3), dtype=np.uint8))
        for sides in ((50, 70), (300, 200), (224, 224), (161, 160))
    ]


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_features_of_timm_are_timms_own(towers, architecture):
    ours = load(towers[architecture])
    model = timm.create_model(
        architecture, checkpoint_path=towers[architecture].partition("@")[2]
    ).eval()
    transform = create_transform(**resolve_data_config(model=model), is_training=False)
    resize = ours.preprocessing.resizer()
    found = ours.embed_images(np.stack([resize(one) for one in pictures()]))
    with torch.inference_mode():
        given = torch.stack([transform(one) for one in pictures()])
        expected = model.forward_head(model.forward_features(given), pre_logits=True).numpy()
    assert found.shape == (4, ours.dim) == (4, describe(parse(towers[architecture]))["dim"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18.a1_in1k",  # bicubic, the middle of 95 %
        "coat_lite_medium_384.in1k",  # squashed
        "deepseek_vit_412m.deepseek_v4_1_flash",  # a border, another mean
        "vit_base_patch14_dinov2.lvd142m",
    ],
)
def test_pixels_of_timm_are_timms_own(name):
    if not timm.list_pretrained(name):
        pytest.skip(f"this timm has no {name}")
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform = create_transform(**config, is_training=False)
    preprocessing = family("timm").preprocessing(parse(f"timm-{name}"))
    resize = preprocessing.resizer()
    mean, std = (np.array(its, np.float32) for its in (preprocessing.mean, preprocessing.std))
    for one in pictures():
        found = (resize(one).astype(np.float32) / 255 - mean) / std
        np.testing.assert_allclose(found.transpose(2, 0, 1), transform(one).numpy(), atol=1e-5)


def test_a_file_of_torch_gives_the_same_features(towers):
    name = towers["test_vit"]
    there = load(name.replace(".safetensors", ".pth"))
    pixels = np.full((1, *there.preprocessing.size, 3), 90, np.uint8)
    np.testing.assert_array_equal(there.embed_images(pixels), load(name).embed_images(pixels))


def test_names_of_timm(tmp_path):
    assert family_of("timm-resnet18@weights") == "timm"
    assert parse("timm/resnet18.a1_in1k") == parse("timm-resnet18.a1_in1k")
    assert family("timm").repository(parse("timm-resnet18.a1_in1k")) == "timm/resnet18.a1_in1k"
    (tmp_path / "resnet18.a1_in1k.safetensors").touch()
    found = parse("timm-resnet18.a1_in1k", weights_dir=tmp_path)
    assert found.file == tmp_path / "resnet18.a1_in1k.safetensors"
    with pytest.raises(UnknownNameError, match=r"did you mean 'timm-resnet18.a1_in1k'"):
        parse("timm-resnet18")
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'timm-resnet18.none'"):
        describe(parse("timm-resnet18.none"))
    with pytest.raises(BackboneError, match=r"names the weights file no.pth, which is no file"):
        parse("timm-resnet18@no.pth")
    missing = parse("timm-resnet18.a1_in1k", weights_dir=tmp_path.parent)
    with pytest.raises(BackboneError, match=r"neither in .* nor in the hub's cache; put them"):
        family("timm").weights_file(missing)


def test_weights_of_another_architecture(towers):
    file = towers["test_vit"].partition("@")[2]
    with pytest.raises(BackboneError, match="does not load as timm's test_resnet"):
        load(f"timm-test_resnet@{file}")


def test_towers_without_texts_beside_one_with(towers, photos, tmp_path):
    names = ["nano-RN50", towers["test_resnet"]]
    extract(Request(store=tmp_path, dataset=[str(photos)], backbones=names))
    layout = Layout(tmp_path)
    stored = read_features(layout.features(photos.name, "test", "timm-test_resnet@test_resnet"))
    assert stored.texts is None
    assert stored.key.fields["classes"]["templates"] == []
    images = stored.key.fields["images"]
    assert (images["timm"], "open_clip" in images) == (timm.__version__, False)
    assert images["preprocessing"]["crop_pct"] == 0.95
    assert not layout.logits(photos.name, "zero-shot", "timm-test_resnet@test_resnet").exists()
    assert layout.logits(photos.name, "zero-shot", "nano-RN50").exists()
    again = extract(Request(store=tmp_path, dataset=[str(photos)], backbones=names))
    assert all(outcome.cached for outcome in again)
    remembered = identity(parse(towers["test_resnet"]), tmp_path / "backbones.json")
    assert remembered == identity(parse(towers["test_resnet"]), None)


def test_prompts_are_refused_where_there_are_no_texts(towers):
    with pytest.raises(BackboneError, match="has an image tower alone and embeds no class names"):
        load(towers["test_vit"]).embed_prompts(["a photo"])


def test_every_family_says_what_it_is():
    for name in FAMILIES:
        its = family(name)
        assert (its.name, bool(its.meaning), bool(its.needs)) == (name, True, True)
        assert bool(its.templates(("cat", "dog"))) == its.embeds_texts


# --- `clipnlc backbones`


def test_families_are_listed_with_what_they_need():
    found = {one.name: one for one in families()}
    assert list(found) == list(FAMILIES)
    assert found["timm"].release == timm.__version__
    assert (found["timm"].texts, found["open_clip"].texts, found["nano"].known) == (False, True, 9)
    assert "transformers" in found["open_clip"].needs


def test_only_the_families_that_were_named_are_listed(here):
    said = good("backbones", "nano,timm", "--families", by=here)
    assert [line.split()[0] for line in said.splitlines() if re.match(" [a-z]", line)] == [
        "family",
        "nano",
        "timm",
    ]
    (one,) = json.loads(good("backbones", "--families", "hf", "--json", by=here))
    assert one["name"] == "hf"
    assert "unknown family 'tim'; did you mean 'timm'" in refusal(
        "backbones", "--families", "tim", by=here
    )


@pytest.mark.parametrize("architecture", SIZES)
def test_the_sizes_that_are_written_down_are_those_of_the_architectures(architecture):
    nano = architecture.startswith("nano-")
    backbone = parse(architecture if nano else f"{architecture}.openai")
    its = family(backbone.family)
    assert its.described(backbone) == Family.described(its, backbone)


def test_backbones_are_found_by_part_of_a_name():
    found = catalogue("SigLIP2-512,nano-RN50,nano-rn50x")
    assert [one.name for one in found if one.family == "open_clip"] == [
        "ViT-B-16-SigLIP2-512.webli",
        "ViT-L-16-SigLIP2-512.webli",
        "ViT-SO400M-16-SigLIP2-512.webli",
    ]
    assert [one.name for one in found if one.family == "nano"] == [
        "nano-RN50",
        *(f"nano-RN50x{size}" for size in (4, 16, 64)),
    ]
    assert [one.dim for one in found if one.name.startswith("nano-RN50")] == [64, None, None, None]
    assert {one.family for one in catalogue("mobilenetv3_small_050")} == {"timm"}
    with pytest.raises(UnknownNameError, match="unknown backbone 'no-such-part'"):
        catalogue("no-such-part")


def test_a_strangers_family_takes_part(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES.table, "toy", "toy_family:Toy")
    weights = tmp_path / "twice.txt"
    weights.write_text("2")
    request = Request(store=tmp_path, dataset=[str(photos)], backbones=[f"toy-mean@{weights}"])
    extract(request)
    found = read_features(Layout(tmp_path).features(photos.name, "test", "toy-mean@twice"))
    assert found.features.shape == (36, 3)
    with Image.open(photos / found.sample_id[0]) as image:
        small = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(found.features[0], small.mean((0, 1)) / 255 * 2, atol=1e-5)
    assert all(one.cached for one in extract(request))
    assert catalogue(f"toy-mean@{weights}")[0].family == "toy"
