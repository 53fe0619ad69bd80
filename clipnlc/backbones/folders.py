"""A tag's weights in a folder of weights files, for machines without a network."""

from pathlib import Path
from typing import Final

# The folders in which the hub keeps OpenAI's weights, by architecture.
OPENAI_HUB: Final = {
    "RN50": "resnet50_clip.openai",
    "RN101": "resnet101_clip.openai",
    "RN50x4": "resnet50x4_clip.openai",
    "RN50x16": "resnet50x16_clip.openai",
    "RN50x64": "resnet50x64_clip.openai",
    "ViT-B-32": "vit_base_patch32_clip_224.openai",
    "ViT-B-16": "vit_base_patch16_clip_224.openai",
    "ViT-L-14": "vit_large_patch14_clip_224.openai",
    "ViT-L-14-336": "vit_large_patch14_clip_336.openai",
}

# OpenAI's own names of the files, where they are not the architecture's.
OPENAI_FILE: Final = {"ViT-L-14-336": "ViT-L-14-336px.pt"}

_HUB_FILES: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def find_weights(folder: Path, architecture: str, tag: str) -> Path | None:
    """Find a tag's weights in a folder, or nothing. Of several files the most telling one wins.

    In order: `RN50.openai.safetensors`, `.pt` or `.bin`; the hub's files in a folder `RN50.openai`
    or one named as on the hub (`resnet50_clip.openai`); OpenAI's own (`RN50.pt`,
    `ViT-L-14-336px.pt`); `RN50.safetensors`, `RN50.pt`.
    """
    exact = f"{architecture}.{tag}"
    names = [f"{exact}{suffix}" for suffix in (".safetensors", ".pt", ".bin")]
    names += [f"{exact}/{file}" for file in _HUB_FILES]
    if tag == "openai":
        plain = architecture.removesuffix("-quickgelu")  # a variant of ours: the same weights
        if plain in OPENAI_HUB:
            names += [f"{OPENAI_HUB[plain]}/{file}" for file in _HUB_FILES]
        names.append(OPENAI_FILE.get(plain, f"{plain}.pt"))
    names += [f"{architecture}.safetensors", f"{architecture}.pt"]
    return next((path for name in names if (path := folder / name).is_file()), None)
