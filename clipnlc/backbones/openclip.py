"""The one door to open_clip: architectures, tokenizers, weights.

The nano architectures are registered with open_clip and then are architectures like any other.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from clipnlc.backbones import nano
from clipnlc.errors import BackboneError
from clipnlc.registry import unknown_name

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn


@cache
def open_clip() -> ModuleType:
    """Import open_clip and register the nano architectures, once per process."""
    with quiet():
        module: ModuleType = importlib.import_module("open_clip")
        module.add_model_config(nano.CONFIGS)
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what a user cannot act on: open_clip's log lines and its imports' warnings.

    Nothing is hidden that matters here: missing weights raise (`require_pretrained`) and the
    QuickGELU mismatch is an error of ours.
    """
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def architecture_config(architecture: str) -> dict[str, Any]:
    """Return open_clip's configuration of an architecture.

    Raises:
        UnknownNameError: open_clip has no such architecture.
    """
    config = open_clip().get_model_config(architecture)
    if config is None:
        raise unknown_name("architecture", architecture, sorted(open_clip().list_models()))
    return dict(config)


def tokenizer(architecture: str) -> Any:  # noqa: ANN401  (open_clip has several kinds)
    """Make the tokenizer that belongs to an architecture.

    The nano vocabulary is passed from here: a path inside an open_clip configuration would be
    taken relative to the working directory.
    """
    settings = {"bpe_path": str(nano.VOCABULARY)} if architecture in nano.NAMES else {}
    with quiet():
        return open_clip().get_tokenizer(architecture, **settings)


def untrained(architecture: str, *, seed: int) -> nn.Module:
    """Create a model with random weights, the same for the same seed: only to be trained."""
    import torch

    architecture_config(architecture)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = open_clip().create_model(architecture)
    if not hasattr(model, "visual"):
        raise BackboneError(f"{architecture} has no image tower; choose a CLIP architecture")
    return model


@contextmanager
def unset() -> Iterator[None]:
    """Leave random initial values out of models made here: for those that are loaded right after.

    Drawing them takes longer than reading the weights. The loader is strict, so no value that is
    left out stays; zeros, ones and constants are cheap and are set as always.
    """
    from torch.nn import init

    kinds = ["uniform", "normal", "trunc_normal", "orthogonal"]
    kinds += [f"{k}_{d}" for k in ("kaiming", "xavier") for d in ("uniform", "normal")]
    before = {f"{kind}_": getattr(init, f"{kind}_") for kind in kinds}
    for name in before:
        setattr(init, name, lambda tensor, *_given, **_named: tensor)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(init, name, function)


@cache
def skeleton(architecture: str) -> Any:  # noqa: ANN401  (open_clip has several classes of model)
    """Create a model without values, on torch's `meta` device: costs no memory.

    Raises:
        UnknownNameError: open_clip has no such architecture.
    """
    import torch

    architecture_config(architecture)
    with quiet(), torch.device("meta"):
        return open_clip().create_model(architecture, device="meta", load_weights=False)


def input_size(model: nn.Module) -> int:
    """Side of the square input, in pixels."""
    size = model.visual.image_size  # type: ignore[union-attr]
    return int(size[0] if isinstance(size, tuple | list) else size)  # type: ignore[arg-type]
