"""SigLIP-like towers, prompt for prompt as open_clip uses them.

A small architecture with everything that SigLIP has: a timm image tower with attention pooling, a
text tower without causal mask that reads the last of a fixed number of tokens, canonicalised text,
and a bias. The tokenizer is of words; the code around it is open_clip's own.
"""

import json
import string
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_backbones import load, open_clip, save

from clipnlc.backbones import parse
from clipnlc.backbones.loaded import describe
from clipnlc.backbones.openclip import tokenizer
from clipnlc.errors import BackboneError
from clipnlc.heads.zero_shot import ZeroShotHead

NAME = "tiny-siglip"
CONTEXT = 12
WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "the", "cat", "dog", "red", "two", "cats"]
PROMPTS = [
    "a photo of a cat.",
    "A photo, of the RED dog!",
    "cat",
    "",
    "two cats of a photo",
    "zebra",
]
CONFIG = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "init_logit_scale": 2.3,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": len(WORDS),
        "hf_tokenizer_name": "nobody/tiny-siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 64,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-06},
    },
}


class Words:
    """What `transformers.AutoTokenizer` gives, for words: an end token, then padding as asked."""

    def __init__(self, pad):
        self.pad = pad

    def batch_encode_plus(self, texts, *, max_length, padding, truncation, return_tensors):
        assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
        rows = []
        for text in texts:
            words = [WORDS.index(word) if word in WORDS else 2 for word in text.split()]
            row = [*words[: max_length - 1], 1]
            rows.append(row + [self.pad] * (max_length - len(row)))
        return SimpleNamespace(input_ids=torch.tensor(rows))

    __call__ = batch_encode_plus


@pytest.fixture(params=[1, 0], ids=["padded with its end", "padded with zeros"])
def words(request, monkeypatch):
    """Make open_clip's HFTokenizer find a tokenizer of words: SigLIP's pads with 1, SigLIP 2's with 0."""
    given = []

    def from_pretrained(name, **_):
        given.append(name)
        return Words(request.param)

    library = SimpleNamespace(
        AutoTokenizer=SimpleNamespace(from_pretrained=from_pretrained), __spec__=object()
    )
    monkeypatch.setitem(sys.modules, "transformers", library)
    return given


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip().add_model_config(path)
    return save(folder, NAME).partition("@")[2]


def own(file):
    """Open_clip's own model, transform and tokenizer."""
    model, _, transform = open_clip().create_model_and_transforms(NAME, pretrained=str(file))
    return model.eval(), transform, open_clip().get_tokenizer(NAME)


def pictures():
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (*sides, 3), dtype=np.uint8))
        for sides in ((50, 70), (200, 170), (160, 160))
    ]


def test_texts_images_and_logits_are_open_clips(words, file):
    ours = load(f"{NAME}@{file}")
    model, transform, tokenize = own(file)
    tokens = tokenize(PROMPTS)
    images = torch.stack([transform(one) for one in pictures()])
    with torch.inference_mode():
        texts = model.encode_text(tokens, normalize=True).numpy()
        features = model.encode_image(images).numpy()
        logits, _ = model.get_logits(images, tokens)
    found = ours.embed_prompts(PROMPTS)
    np.testing.assert_allclose(found, texts, atol=1e-6)
    resize = ours.preprocessing.resizer()
    embedded = ours.embed_images(np.stack([resize(one) for one in pictures()]))
    np.testing.assert_allclose(embedded, features, atol=1e-5)
    head = ZeroShotHead().fit_to_texts(
        texts=ours.embed_classes([[one] for one in PROMPTS]),
        logit_scale=ours.logit_scale,
        logit_bias=ours.logit_bias,
    )
    assert (ours.logit_bias, ours.logit_scale) == (-10, pytest.approx(np.exp(2.3)))
    np.testing.assert_allclose(head.logits(embedded), logits.numpy(), atol=1e-4)
    assert words == ["nobody/tiny-siglip"] * 2


def test_what_else_is_in_a_batch_does_not_matter(words, file):
    ours = load(f"{NAME}@{file}")
    together = ours.embed_prompts(PROMPTS)
    alone = np.concatenate([ours.embed_prompts([one]) for one in PROMPTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    # Cut to its own tokens, as a causal tower's prompts are, the last token would be another.
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_text_is_canonicalised_as_open_clip_does(words, file):
    ours = load(f"{NAME}@{file}")
    loud = [one.upper().replace(" ", "  ") + string.punctuation for one in PROMPTS[:3]]
    found, plain = ours.embed_prompts(loud), ours.embed_prompts(PROMPTS[:3])
    np.testing.assert_array_equal(found, plain)


def test_prompts_that_are_cut_are_refused(words, file):
    ours = load(f"{NAME}@{file}")
    ours.embed_prompts(["cat " * (CONTEXT - 1)])
    with pytest.raises(BackboneError, match=f"and the text tower reads {CONTEXT}"):
        ours.embed_prompts(["cat", "cat " * CONTEXT])


def test_a_tokenizer_beside_the_weights_is_read(words, file, tmp_path):
    weights = tmp_path / "open_clip_model.safetensors"
    weights.symlink_to(file)
    (tmp_path / "tokenizer.json").write_text("{}")
    load(f"{NAME}@{weights}")
    assert words == [str(tmp_path)]


def test_what_is_missing_is_said(words, file, monkeypatch):
    def fail(*_, **__):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nand more")

    monkeypatch.setattr(sys.modules["transformers"].AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(BackboneError, match=r"couldn't connect.*put tokenizer.json and"):
        load(f"{NAME}@{file}")
    monkeypatch.delitem(sys.modules, "transformers")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackboneError, match=r"needs the package transformers, .* pip install"):
        load(f"{NAME}@{file}")


def test_it_is_described_without_its_tokenizer(file):
    assert describe(parse(f"{NAME}@{file}"))["dim"] == 64


def test_a_tokenizer_of_transformers(file, tmp_path):
    """The same with the library itself, where it is installed: a file saved here, read from the disk."""
    pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>")  # noqa: S106
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    weights = tmp_path / "open_clip_model.safetensors"
    weights.symlink_to(file)
    tokenize = tokenizer(NAME, beside=tmp_path)
    assert tokenize(["A photo, of the CAT."]).tolist() == [[3, 4, 5, 6, 7, 1, *[1] * 6]]
    model, *_ = open_clip().create_model_and_transforms(NAME, pretrained=str(file))
    with torch.inference_mode():
        expected = model.eval().encode_text(tokenize(PROMPTS), normalize=True).numpy()
    found = load(f"{NAME}@{weights}").embed_prompts(PROMPTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
