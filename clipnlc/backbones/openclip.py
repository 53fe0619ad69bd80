"""The one door to open_clip: architectures, tokenizers, weights.

The nano architectures are registered with open_clip and then are architectures like any other.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from clipnlc.backbones import nano
from clipnlc.errors import BackboneError
from clipnlc.registry import unknown_name

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from torch import nn


TOKENIZER: Final = "tokenizer.json"


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


def tokenizer(architecture: str, *, beside: Path | None = None) -> Any:  # noqa: ANN401
    """Make the tokenizer that belongs to an architecture; open_clip has several kinds.

    The nano vocabulary is passed from here: a path inside an open_clip configuration would be
    taken relative to the working directory. SigLIP's and others' is a file on the hub, which the
    package transformers reads; a file `tokenizer.json` beside the weights, as a snapshot of the hub
    has it, is read instead.

    Args:
        architecture: whose.
        beside: the folder of the weights.

    Raises:
        BackboneError: transformers is not installed, or the tokenizer is not at hand.
    """
    text = architecture_config(architecture).get("text_cfg", {})
    name = text.get("hf_tokenizer_name")
    with quiet():
        if not name:
            settings = {"bpe_path": str(nano.VOCABULARY)} if architecture in nano.NAMES else {}
            return open_clip().get_tokenizer(architecture, **settings)
        if importlib.util.find_spec("transformers") is None:
            raise BackboneError(
                f"the tokenizer of {architecture} needs the package transformers, which is not "
                "installed; run: pip install 'clipnlc[transformers]'"
            )
        folder = beside if beside is not None and (beside / TOKENIZER).is_file() else None
        try:
            if folder is None:
                return open_clip().get_tokenizer(architecture)
            return open_clip().tokenizer.HFTokenizer(
                str(folder),
                context_length=text.get("context_length"),
                tokenizer_mode=text.get("tokenizer_mode"),
                **text.get("tokenizer_kwargs", {}),
            )
        except Exception as problem:  # noqa: BLE001  (the hub's client raises whatever it likes)
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise BackboneError(
                f"the tokenizer of {architecture} cannot be read ({reason}); put {TOKENIZER} and "
                f"tokenizer_config.json of {name} on the hub into the folder of the weights"
            ) from None


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
