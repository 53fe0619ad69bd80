"""Small open_clip architectures with random weights, for tests that need odd ones."""

import json
import warnings

import torch
from safetensors.torch import save_file
from torch import nn

from clipnlc.backbones import resolve
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.backbones.openclip import open_clip, untrained

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}


def register(folder, name, *, image_size=16, resnet=False, text=None, **settings):
    """Make a tiny architecture known to open_clip under `name`."""
    vision = {"image_size": image_size, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    if resnet:
        vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": TEXT | (text or {}), **settings}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    open_clip().add_model_config(path)


def save(folder, architecture, *, seed=0):
    """Write random weights; return the backbone's name."""
    file = folder / f"{architecture}-{seed}.safetensors"
    model = untrained(architecture, seed=seed)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    return f"{architecture}@{file}"


def published(model, file):
    """Write a model as OpenAI published CLIP: a TorchScript archive in half precision."""
    root = Empty()
    facts = {"input_resolution": 16, "context_length": 16, "vocab_size": 49408}
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    for name, tensor in (tensors | {k: torch.tensor(v) for k, v in facts.items()}).items():
        *path, leaf = name.split(".")
        holder = root
        for part in path:
            if not hasattr(holder, part):
                holder.add_module(part, Empty())
            holder = getattr(holder, part)
        holder.register_buffer(leaf, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated the format
        torch.jit.save(torch.jit.script(root), file)


class Empty(nn.Module):
    """A module that is a place for tensors."""

    def forward(self) -> int:
        return 0


def load(name):
    """Load one backbone by name, on the CPU."""
    (backbone,) = resolve(name)
    return LoadedBackbone(backbone, device="cpu", precision="fp32")
