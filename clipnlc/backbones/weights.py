"""Where a backbone's weights are: embedded, in a file, in a folder, in the hub's cache, or on it."""

from __future__ import annotations

import socket
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from clipnlc.backbones.openclip import architecture_config, open_clip, quiet
from clipnlc.errors import BackboneError

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone


def weights_file(backbone: Backbone) -> Path:
    """Return the weights file of a backbone, downloaded first if it is a tag's.

    Raises:
        BackboneError: the tag is unknown, or its weights cannot be downloaded, or are not where
            they were said to be.
        UnknownNameError: open_clip has no such architecture.
    """
    config = pretrained_config(backbone) if backbone.source == "tag" else {}
    if backbone.file is not None:
        if not backbone.file.is_file():
            raise BackboneError(
                f"the weights {backbone.file} of {backbone.name} are missing; "
                + ("install clipnlc again" if backbone.source == "nano" else "put the file back")
            )
        return backbone.file
    downloaded = at_hand(backbone)
    if backbone.weights_dir is not None and not downloaded:
        raise BackboneError(
            f"the weights of {backbone.name} are neither in {backbone.weights_dir} nor in the "
            f"hub's cache; put them there as {backbone.name}.safetensors or {backbone.name}.pt, "
            "or leave out --weights-dir to download them"
        )
    try:
        if not downloaded and not hub_resolves():
            raise ConnectionError("no network")  # noqa: TRY301  (the hub's client retries a minute)
        with quiet():
            return Path(open_clip().download_pretrained(config))
    except Exception as problem:  # noqa: BLE001  (the hub's clients raise whatever they like)
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise BackboneError(
            f"the weights of {backbone.name} are not on disk and cannot be downloaded ({reason}); "
            f"fetch them elsewhere, put them into a folder as {backbone.name}.safetensors or "
            f"{backbone.name}.pt and give --weights-dir FOLDER, or rehearse with --backbones nano, "
            "which knows shapes and emoji, not photos"
        ) from None


def at_hand(backbone: Backbone) -> bool:
    """Return whether a backbone's weights need no download.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    if backbone.file is not None:
        return backbone.file.is_file()
    from huggingface_hub import try_to_load_from_cache

    # open_clip loads a tag from the hub's cache; the file names are its own, in its own order.
    repository = hub_repository(backbone)
    files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, f), str) for f in files if repository)


def hub_repository(backbone: Backbone) -> str:
    """Return the hub's repository of a tag's weights; empty if they are not on the hub.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    return str(pretrained_config(backbone).get("hf_hub", "")).rstrip("/")


def pretrained_config(backbone: Backbone) -> dict[str, Any]:
    """Return open_clip's facts about a tag: where its weights are, how images are prepared.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    architecture_config(backbone.architecture)
    config: dict[str, Any] = open_clip().get_pretrained_cfg(backbone.architecture, backbone.tag)
    if not config:
        tags = open_clip().list_pretrained_tags_by_model(backbone.architecture)
        raise BackboneError(
            f"{backbone.architecture} has no weights called {backbone.tag!r}; "
            f"known: {', '.join(tags) or 'none'}"
        )
    return config


def pretrained_configs(architecture: str) -> list[dict[str, Any]]:
    """Return open_clip's facts about every tag of an architecture."""
    tags = open_clip().list_pretrained_tags_by_model(architecture)
    return [open_clip().get_pretrained_cfg(architecture, tag) for tag in tags]


def has_quick_gelu(backbone: Backbone, file: Path) -> bool:
    """Return whether the weights were trained with QuickGELU instead of GELU.

    A tag says so, and so may an architecture (`RN50-quickgelu`). A weights file does not; but a
    TorchScript archive is what OpenAI published, and a file or its folder may be named after it
    (`RN50.openai.safetensors`, `resnet50_clip.openai/open_clip_model.safetensors`).

    Raises:
        BackboneError: the architecture has QuickGELU and the tag has not.
        UnknownNameError: open_clip has no such architecture.
    """
    config = architecture_config(backbone.architecture)
    built_in = bool(config.get("quick_gelu", False))
    if backbone.source == "tag":
        trained = bool(pretrained_config(backbone).get("quick_gelu", False))
        if built_in and not trained:
            raise BackboneError(
                f"{backbone.name} was trained with GELU, and {backbone.architecture} has "
                f"QuickGELU; use {backbone.architecture.removesuffix('-quickgelu')}.{backbone.tag}"
            )
        return trained
    if backbone.source == "nano":
        return built_in
    named = file.stem.endswith(".openai") or file.absolute().parent.name.endswith(".openai")
    return built_in or named or is_torchscript(file)


def is_torchscript(file: Path) -> bool:
    """Return whether a file is a TorchScript archive, the form in which OpenAI published CLIP."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return False


def hub_resolves() -> bool:
    """Return whether the hub's name can be looked up; with a proxy, the proxy does."""
    from huggingface_hub.constants import ENDPOINT

    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
