"""Prompts in batches cut to their longest, against open_clip's own full-length text towers."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_backbones import load, register, save

from clipnlc.backbones import resolve
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.backbones.openclip import tokenizer, untrained
from clipnlc.backbones.text import TextTower, TooLong
from clipnlc.errors import BackboneError

EOS = {"pool_type": "eos", "eos_id": 49407}
CAUSAL = {
    "plain": {},
    "plain-eos": {"text": EOS},
    "custom-text": {"custom_text": True},
    "custom-text-eos": {"custom_text": True, "text": EOS},
}
OTHERS = {
    "no-mask": {"custom_text": True, "text": {"no_causal_mask": True}},
    "last": {"text": {"pool_type": "last"}},
    "first": {"custom_text": True, "text": {"pool_type": "first"}},
    "class-token": {"custom_text": True, "text": {"embed_cls": True, "output_tokens": False}},
}
PROMPTS = [
    "a photo of a cat.",
    "b",
    "a photo of a large red circle and a cat.",
    "itap of my hen.",
    "",
    "a doodle of a nail.",
]


def tower(folder, name, settings):
    register(folder, name, **settings)
    model = untrained(name, seed=0).eval()
    return model, TextTower(model, tokenizer(name), device="cpu", full_precision=True)


def embedded(text, prompts):
    found = {}
    for rows, block in text.embed(prompts):
        found |= dict(zip(rows.tolist(), block, strict=True))
    return np.stack([found[i] for i in range(len(prompts))])


def in_full(model, name, prompts):
    with torch.inference_mode():
        return model.encode_text(tokenizer(name)(prompts), normalize=True).numpy()


def widths(text, monkeypatch):
    """Note the shape of every batch."""
    seen, encode = [], text._encode
    monkeypatch.setattr(text, "_encode", lambda tokens: seen.append(tokens.shape) or encode(tokens))
    return seen


@pytest.mark.parametrize("kind", CAUSAL)
def test_causal_towers_are_cut_and_agree_with_full_length(kind, tmp_path, monkeypatch):
    name = f"tiny-cut-{kind}"
    model, text = tower(tmp_path, name, CAUSAL[kind])
    first = embedded(text, PROMPTS)
    seen = widths(text, monkeypatch)
    again = embedded(text, PROMPTS[:2])
    assert text.cuts
    assert seen == [(2, 8)]
    np.testing.assert_allclose(first, in_full(model, name, PROMPTS), atol=1e-6)
    np.testing.assert_allclose(first[:2], again, atol=1e-6)
    assert np.abs(first[0] - first[1]).max() > 0.01


@pytest.mark.parametrize("kind", OTHERS)
def test_other_towers_stay_in_full_length(kind, tmp_path, monkeypatch):
    name = f"tiny-full-{kind}"
    model, text = tower(tmp_path, name, OTHERS[kind])
    seen = widths(text, monkeypatch)
    found = embedded(text, PROMPTS)
    assert not text.cuts
    assert seen == [(len(PROMPTS), 16)]
    np.testing.assert_array_equal(found, in_full(model, name, PROMPTS))


def test_a_tower_that_looks_ahead_is_found_out(tmp_path, monkeypatch):
    name = "tiny-looks-ahead"
    model, text = tower(tmp_path, name, {})
    model.attn_mask.zero_()
    assert text.cuts
    found = embedded(text, PROMPTS)
    assert not text.cuts
    np.testing.assert_array_equal(found, in_full(model, name, PROMPTS))
    seen = widths(text, monkeypatch)
    embedded(text, PROMPTS)
    assert seen == [(len(PROMPTS), 16)]  # not checked again


def test_batches_hold_about_as_many_tokens_whatever_their_length(tmp_path, monkeypatch):
    _, text = tower(tmp_path, "tiny-batches", {})
    seen = widths(text, monkeypatch)
    order, told = [], []
    prompts = PROMPTS * 60
    for rows, _ in text.embed(prompts, on_progress=lambda *done: told.append(done)):
        order += rows.tolist()
    batches = seen[-len(told) :]
    assert sorted(order) == list(range(len(prompts)))
    assert len(batches) > 2
    assert all(n * length <= 1024 for n, length in batches)
    assert [length for _, length in batches] == sorted(length for _, length in batches)
    assert told == sorted(told)
    assert told[-1] == (len(prompts), len(prompts))


def test_classes_are_means_of_their_prompts(tmp_path):
    register(tmp_path, "tiny-classes")
    backbone = load(save(tmp_path, "tiny-classes"))
    classes = [PROMPTS[:2], PROMPTS[2:4], PROMPTS[4:]] * 100
    told = []
    found = backbone.embed_classes(classes, on_progress=lambda done, of: told.append((done, of)))
    flat = backbone.embed_prompts([p for c in classes for p in c])
    means = flat.reshape(300, 2, -1).mean(1)
    np.testing.assert_allclose(
        found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6
    )
    np.testing.assert_allclose(found[:3], found[3:6], atol=1e-6)
    assert told[-1] == (600, 600)
    again = backbone.embed_classes(classes)
    assert again.tobytes() == found.tobytes()


def test_threads_give_the_same_bits(tmp_path):
    _, text = tower(tmp_path, "tiny-text-threads", {})
    lists = [PROMPTS[i:] + PROMPTS[:i] + [f"a photo of {i} cats"] for i in range(6)] * 4
    alone = [embedded(text, prompts).tobytes() for prompts in lists]
    with ThreadPoolExecutor(8) as pool:
        together = [e.tobytes() for e in pool.map(lambda p: embedded(text, p), lists)]
    assert together == alone


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_cut_as_well_and_normalised_in_full(precision):
    (backbone,) = resolve("nano-RN50")
    half = LoadedBackbone(backbone, device="cpu", precision=precision)
    found, expected = half.embed_prompts(PROMPTS), load("nano-RN50").embed_prompts(PROMPTS)
    assert half._text.cuts
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert (found * expected).sum(1).min() > 0.999


@pytest.mark.parametrize("kind", ["plain", "no-mask"])
def test_a_prompt_longer_than_the_context_is_refused_or_told(kind, tmp_path):
    name = f"tiny-long-{kind}"
    model, text = tower(tmp_path, name, (CAUSAL | OTHERS)[kind])
    fits, too_long = " ".join(["cat"] * 14), " ".join(["cat"] * 15)
    embedded(text, [fits])
    with pytest.raises(BackboneError, match=r"'cat cat .*' has 17 tokens, .* reads 16; shorten it"):
        embedded(text, [fits, too_long])
    prompts, told = ["a cat", "a cat " * 40, fits, too_long], []
    found = dict(
        pair
        for rows, block in text.embed(prompts, on_long=told.append)
        for pair in zip(rows.tolist(), block, strict=True)
    )
    assert told == [TooLong(prompts=2, first=1, tokens=82, context=16)]
    np.testing.assert_allclose(
        np.stack([found[i] for i in range(4)]), in_full(model, name, prompts), atol=1e-6
    )


@pytest.mark.parametrize("end", [(), (1,)], ids=["no end token", "end token is the padding"])
def test_tokenizers_that_pad_otherwise_are_understood(end, tmp_path):
    """As SigLIP's: T5 pads with 1, which is its end token as well."""

    def tokenize(texts, context_length=8):
        rows = [[*map(ord, text[: context_length - len(end)]), *end] for text in texts]
        return torch.tensor([row + [1] * (context_length - len(row)) for row in rows])

    model, _ = tower(tmp_path, f"tiny-pads-{len(end)}", {})
    text = TextTower(model, tokenize, device="cpu", full_precision=True)
    longest = "x" * (8 - len(end))
    for prompts in ([""], ["a"], ["abcdef"], [longest]):
        assert text._too_long(prompts, text._tokens(prompts)) is None
    for more in ("y", "yz", "yz" * 20):
        prompts = ["a", longest + more, longest]
        found = text._too_long(prompts, text._tokens(prompts))
        assert (found.prompts, found.first, found.context) == (1, 1, 8)
        assert found.tokens == len(longest + more)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["RN50", "ViT-B-32"])
def test_full_size_towers(architecture):
    model = untrained(architecture, seed=0).eval()
    text = TextTower(model, tokenizer(architecture), device="cpu", full_precision=True)
    found, expected = embedded(text, PROMPTS), in_full(model, architecture, PROMPTS)
    assert text.cuts
    assert (found * expected).sum(1).min() > 0.999999
