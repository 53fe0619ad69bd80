"""Snapshots of the hub against transformers' own models, tokenizers and image processors."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from hf_snapshots import CONTEXT, write
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_backbones import load

from clipnlc.backbones import parse, snapshots
from clipnlc.backbones.catalogue import catalogue
from clipnlc.backbones.costs import costs, image_gflops
from clipnlc.backbones.families import family, family_of
from clipnlc.backbones.identity import identity
from clipnlc.errors import BackboneError, ClipnlcError, UnknownNameError
from clipnlc.extraction.request import Request
from clipnlc.heads.zero_shot import ZeroShotHead
from clipnlc.runs.able import able_to_fit
from clipnlc.stages.extract import extract
from clipnlc.stages.predict.members import find_backbones
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

TYPES = {
    "clip": "clip",
    "siglip": "siglip",
    "siglip2": "siglip",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2_with_registers",
}
TEXTS = ("clip", "siglip", "siglip2")
PROMPTS = ["a photo of a cat.", "A photo of the RED dog!", "cat", "two cats", "", "zebra " * 3]


@pytest.fixture(scope="session")
def folder(once):
    """A folder of all snapshots."""
    return once("hf-snapshots", lambda to: [write(to / kind, kind) for kind in TYPES])


@pytest.fixture
def copy(folder, tmp_path):
    def make(kind):
        return shutil.copytree(folder / kind, tmp_path / kind)

    return make


def name(folder, kind):
    return f"hf-{TYPES[kind]}@{folder / kind}"


def pictures():
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (*sides, 3), dtype=np.uint8))
        for sides in ((50, 70), (300, 201), (32, 32), (61, 60), (36, 37))
    ]


def theirs(folder, kind):
    """The model, and pixels, as transformers has them."""
    model = transformers.AutoModel.from_pretrained(folder / kind).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder / kind, backend="pil")
    return model, processor(pictures(), return_tensors="pt").pixel_values


@pytest.mark.parametrize("kind", TYPES)
def test_pixels_and_features_are_transformers_own(folder, kind):
    model, pixels = theirs(folder, kind)
    ours = load(name(folder, kind))
    resize = ours.preprocessing.resizer()
    resized = np.stack([resize(one) for one in pictures()])
    np.testing.assert_allclose(ours.finish(resized).numpy(), pixels.numpy(), atol=1e-5)
    with torch.inference_mode():
        found = model.get_image_features(pixels) if kind in TEXTS else model(pixels)
    np.testing.assert_allclose(
        ours.embed_images(resized), found.pooler_output.numpy(), rtol=1e-4, atol=1e-5
    )
    (entry,) = catalogue(name(folder, kind))
    assert (entry.dim, entry.input, entry.texts) == (ours.dim, 32, kind in TEXTS)
    assert entry.parameters == sum(one.numel() for one in model.parameters())
    assert costs(parse(name(folder, kind))).image_flops > 100_000


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_and_logits_are_transformers_own(folder, kind):
    model, pixels = theirs(folder, kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / kind)
    # transformers' tokenizer of that name lowers; the published snapshots name another, which does not.
    lower = str.lower if kind == "siglip2" else str
    assert (kind == "siglip2") == (tokenizer("Cat").input_ids != tokenizer("cat").input_ids)
    tokens = tokenizer(
        [lower(one) for one in PROMPTS],
        padding="max_length",
        max_length=CONTEXT,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    with torch.inference_mode():
        found = model(input_ids=tokens, pixel_values=pixels)
    ours = load(name(folder, kind))
    texts = ours.embed_prompts(PROMPTS)
    np.testing.assert_allclose(texts, found.text_embeds.numpy(), atol=1e-5)
    head = ZeroShotHead().fit_to_texts(
        texts=texts, logit_scale=ours.logit_scale, logit_bias=ours.logit_bias
    )
    resize = ours.preprocessing.resizer()
    features = ours.embed_images(np.stack([resize(one) for one in pictures()]))
    np.testing.assert_allclose(
        head.logits(features), found.logits_per_image.numpy(), rtol=1e-4, atol=1e-4
    )
    assert (ours.logit_bias == -3.0) == (kind != "clip")
    with pytest.raises(
        BackboneError, match=rf"tokens, and the text tower reads {CONTEXT}; shorten"
    ):
        ours.embed_prompts(["cat " * CONTEXT])
    assert ours._text.cuts == (kind == "clip")


def test_siglip_2_is_lowered_as_transformers_tokenizer_of_that_name_does(folder):
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "a": 4, "A": 5}
    its = transformers.Siglip2Tokenizer(vocab=vocabulary, merges=[])
    assert its("A").input_ids == its("a").input_ids
    found = load(name(folder, "siglip2")).embed_prompts(
        ["a photo of the cat", "A Photo of The CAT"]
    )
    np.testing.assert_array_equal(found[0], found[1])


def test_two_towers_beside_one_without_texts_in_one_store(folder, photos, tmp_path):
    names = [name(folder, "siglip2"), name(folder, "dinov2")]
    request = Request(store=tmp_path, dataset=[str(photos)], backbones=names)
    extract(request)
    layout = Layout(tmp_path)
    stored = read_features(layout.features(photos.name, "test", "hf-siglip@siglip2"))
    images = stored.key.fields["images"]
    assert (images["transformers"], "open_clip" in images) == (transformers.__version__, False)
    assert images["preprocessing"]["interpolation"] == "bilinear"
    assert layout.logits(photos.name, "zero-shot", "hf-siglip@siglip2").exists()
    assert not layout.logits(photos.name, "zero-shot", "hf-dinov2@dinov2").exists()
    assert all(one.cached for one in extract(request))
    said = []
    combiners = ("log-avg", "cascade")
    able = able_to_fit(layout, photos.name, ["hf-siglip@siglip2"], combiners, said.append)
    assert able == ("log-avg",)
    assert "what hf-siglip@siglip2 costs is not known" in said[0]
    with pytest.raises(UnknownNameError, match="known: hf-clip@FOLDER, hf-siglip@FOLDER"):
        image_gflops("hf-siglip@siglip2")


@pytest.mark.parametrize(
    ("file", "fact"),
    [
        ("config.json", "config"),
        ("preprocessor_config.json", "preprocessor"),
        ("tokenizer_config.json", "tokenizer"),
        ("model.safetensors", "weights"),
    ],
)
def test_every_file_is_in_the_identity_and_a_change_is_seen(copy, tmp_path, file, fact):
    backbone = parse(f"hf-siglip@{copy('siglip')}")
    memory = tmp_path / "backbones.json"
    before = identity(backbone, memory)
    path = backbone.file.with_name(file)
    if path.suffix == ".json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "longer"}))
    else:
        save_file({**load_file(path), "logit_bias": torch.ones(1)}, path)
        path.touch()
    after = identity(backbone, memory)
    assert [one for one in before if before[one] != after[one]] == [fact]


def test_names_of_snapshots(folder):
    assert family_of("hf-siglip@siglip2") == "hf"
    assert parse(f"hf-clip@{folder}/clip/").name == "hf-clip@clip"
    assert parse("hf-clip@clip", weights_dir=folder).file == folder / "clip" / "model.safetensors"
    assert family("hf").release() == transformers.__version__
    with pytest.raises(
        UnknownNameError, match="unknown backbone 'hf-siglip'; did you mean 'hf-sig"
    ):
        parse("hf-siglip")
    with pytest.raises(
        BackboneError, match="names the snapshot no, which is no folder; give hf-TYPE"
    ):
        parse("hf-clip@no")
    with pytest.raises(BackboneError, match=r"of the type siglip; write hf-siglip@.*/siglip2$"):
        parse(f"hf-clip@{folder}/siglip2")


def edit(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_other_types_of_model_are_named(copy):
    folder = copy("dinov2")
    edit(folder / "config.json", model_type="siglip2")
    with pytest.raises(
        BackboneError, match=r"'siglip2', which is not supported; supported are clip, .* not NaFlex"
    ):
        parse(f"hf-siglip2@{folder}")
    edit(folder / "config.json", model_type="blip")
    with pytest.raises(BackboneError, match="type 'blip', which is not supported; supported are"):
        parse(f"hf-blip@{folder}")
    (folder / "config.json").write_text("[")
    with pytest.raises(BackboneError, match=r"config.json is no JSON object; fetch the snapshot"):
        parse(f"hf-dinov2@{folder}")


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setattr(type(family("hf")), "release", lambda _: None)
    with pytest.raises(
        BackboneError,
        match=r"needs the package transformers.* run: pip install --upgrade 'clipnlc\[transf",
    ):
        parse(name(folder, "clip"))


def test_what_is_not_a_whole_snapshot_is_one_line(copy):
    folder = copy("siglip")
    given = f"hf-siglip@{folder}"
    file, weights = folder / "model.safetensors", load_file(folder / "model.safetensors")

    def refused(match):
        with pytest.raises(ClipnlcError, match=match) as said:
            load(given)
        assert "\n" not in str(said.value)

    save_file({**weights, "more": torch.ones(2)}, file)
    refused("does not load as SiglipModel: it has more; check that it belongs to the config.json")
    save_file({key: its for key, its in weights.items() if key != "logit_bias"}, file)
    refused("does not load as SiglipModel: it lacks logit_bias; check")
    save_file({**weights, "logit_bias": torch.ones(2)}, file)
    refused("the size of logit_bias is another")
    torch.save(weights, file)
    refused("is no safetensors file, and no other is read of a snapshot")
    file.rename(folder / "pytorch_model.bin")
    refused(r"lacks model.safetensors, .* \(it has pytorch_model.bin\); save it with transformers")
    save_file(weights, file)
    edit(folder / "tokenizer_config.json", padding_side="left")
    refused("pads on the left; CLIP and SigLIP read prompts padded on the right")
    (folder / "spiece.model").unlink()
    refused("the tokenizer of .* cannot be read")
    edit(folder / "preprocessor_config.json", size={"height": 40, "width": 40})
    refused(r"makes images of 40 by 40 pixels, and .*config.json reads 32 by 32")
    edit(folder / "config.json", quantization_config={"bits": 4})
    refused("is of quantised weights")


def test_no_code_of_a_snapshot_is_run(copy, tmp_path):
    folder = copy("siglip2")
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nclass Mine:\n    pass\n"
    (folder / "mine.py").write_text(code)
    own = {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}
    edit(folder / "config.json", auto_map=own)
    assert load(f"hf-siglip@{folder}").embed_prompts(["cat"]).shape == (1, 32)
    edit(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["mine.Mine", None]},
        tokenizer_class="Mine",
    )
    with pytest.raises(BackboneError, match=r"\(auto_map\), and no code of a snapshot is run"):
        load(f"hf-siglip@{folder}")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "asks for the image processor ViTImage"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"do_normalize": False}, "a step is left out or added"),
        ({"size": {"longest_edge": 30}}, "size {'longest_edge': 30} with a crop"),
        ({"crop_size": 40}, "a crop of 40 by 40 of an edge of 35"),
        ({"resample": 5}, "resample 5"),
        ({"image_std": [0.5]}, "image_std"),
        ({"image_std": [0.5, 0, 1]}, "image_std"),
    ],
)
def test_images_that_are_prepared_otherwise_are_refused(copy, fields, match):
    folder = copy("clip")
    edit(folder / "preprocessor_config.json", **fields)
    with pytest.raises(BackboneError, match=match):
        snapshots.read_preprocessing(folder)


def test_old_and_new_forms_of_how_images_are_prepared(copy):
    folder = copy("clip")
    expected = snapshots.read_preprocessing(folder)
    file = folder / "preprocessor_config.json"
    mean, std = expected.mean, expected.std
    file.write_text(
        json.dumps(
            # As OpenAI's first snapshots say it, and the hub has it to this day.
            {"crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True}
            | {"feature_extractor_type": "CLIPFeatureExtractor", "image_mean": mean}
            | {"image_std": std, "resample": 3, "size": 35}
        )
    )
    assert snapshots.read_preprocessing(folder) == expected
    new = {"image_processor": json.loads(file.read_text()), "processor_class": "CLIPProcessor"}
    file.unlink()
    with pytest.raises(BackboneError, match=r"lacks preprocessor_config.json, which says how"):
        snapshots.read_preprocessing(folder)
    (folder / "processor_config.json").write_text(json.dumps(new))
    assert snapshots.read_preprocessing(folder) == expected


def test_a_predictor_finds_snapshots_by_the_folder_they_are_in(folder):
    names, its = ["hf-clip@clip", "hf-dinov2@dinov2"], folder / "clip" / "model.safetensors"
    assert find_backbones(names, (), folder)[0].file == its
    with pytest.raises(
        BackboneError, match=r"--backbones hf-clip@FOLDER/clip,hf-dinov2@FOLDER/dinov2$"
    ):
        find_backbones(names, (), None)
    with pytest.raises(BackboneError, match=r"--backbones RN50@FOLDER/mine.safetensors$"):
        find_backbones(["RN50@mine"], (), folder)
