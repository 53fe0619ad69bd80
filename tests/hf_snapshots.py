"""Small snapshots as the hub has them, with random weights and tokenizers of a few words."""

import json
import os
import string
from contextlib import redirect_stderr
from pathlib import Path

import sentencepiece
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

CONTEXT = 28
LAYERS = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**LAYERS, "hidden_size": 32, "image_size": 32, "patch_size": 8}
TEXT = {**LAYERS, "hidden_size": 32, "max_position_embeddings": CONTEXT}


def write(folder, kind):
    """Write a snapshot of a kind: clip, siglip, siglip2, dinov2 or dinov2_with_registers."""
    folder.mkdir(parents=True)
    torch.manual_seed(len(kind))
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        {"clip": _clip, "siglip": _siglip, "siglip2": _siglip2}.get(kind, _dinov2)(folder, kind)
    return folder


def _random(model):
    """Draw every weight, so that none is a zero or a one that would hide an error."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.startswith("logit_"):
                values.fill_({"logit_scale": 1.5, "logit_bias": -3.0}[name])
            else:
                values.copy_(torch.randn_like(values) * 0.3 + ("norm" in name and values.ndim == 1))
    return model


def _clip(folder, kind):
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    letters = pre_tokenizers.ByteLevel.alphabet()
    symbols = [*sorted(letters), *(f"{one}</w>" for one in sorted(letters))]
    merges = [("c", "a"), ("ca", "t</w>"), ("o", "f</w>")]
    tokens = ["<|startoftext|>", "<|endoftext|>", *symbols, *("".join(one) for one in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    text = {**TEXT, "vocab_size": len(vocabulary), **ends}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    _random(transformers.CLIPModel(config)).save_pretrained(folder)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 35}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)


def _siglip(folder, kind):
    lines = iter(["a photo of the cat", "two red cats of a dog", "zebra photo"] * 20)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_prefix=str(folder / "spiece"),
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    tokenizer = transformers.SiglipTokenizer(
        vocab_file=str(folder / "spiece.model"),
        model_max_length=CONTEXT,
        model_input_names=["input_ids"],
    )
    tokenizer.save_pretrained(folder)
    _towers(folder, vocab_size=len(tokenizer))


def _siglip2(folder, kind):
    """Write what the hub has of SigLIP 2: a tokenizer of Gemma's, asked to lower, which it does not."""
    specials = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    letters = (*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *string.ascii_letters, ".", "!")
    merges = [("c", "a"), ("ca", "t"), ("▁", "cat"), ("d", "o"), ("do", "g")]
    tokens = (*specials, *letters, *("".join(pair) for pair in merges))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": False,
        "add_eos_token": True,
        "do_lower_case": True,
        "padding_side": "right",
        "model_input_names": ["input_ids"],
        **{f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    _towers(folder, vocab_size=len(vocabulary), resample=2)


def _towers(folder, *, vocab_size, resample=3):
    text = {**TEXT, "vocab_size": vocab_size, "bos_token_id": 1, "eos_token_id": 1}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    _random(transformers.SiglipModel(config)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=resample).save_pretrained(
        folder
    )


def _dinov2(folder, kind):
    name = "".join(part.capitalize() for part in kind.split("_"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    # Trained with larger images than it is given, as published.
    config = getattr(transformers, f"{name}Config")(**sizes, image_size=48, patch_size=8)
    _random(getattr(transformers, f"{name}Model")(config)).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 37}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
