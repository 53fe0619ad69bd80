"""Weights files: told apart by their content, whatever they are called; nothing is unpickled.

safetensors, what `torch.save` writes (a state dict, or one inside a training checkpoint), and
TorchScript archives. `torch.load` is asked for weights only, so it reads tensors and refuses code.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from clipnlc.errors import BackboneError
from clipnlc.files import open_regular
from clipnlc.signatures import HEAD, signature

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    Tensors = dict[str, Tensor]

_LONGEST_HEADER: Final = 100_000_000  # bytes, as in the safetensors library
_HELD: Final = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")
"""Where training checkpoints have the weights; the first one is what Lightning and open_clip use."""

_WRAPPERS: Final = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that torch reserves for its wrappers, wherever they stand."""

_FACTS: Final = ("input_resolution", "context_length", "vocab_size")  # OpenAI's, no weights
_TRANSFORMERS: Final = ("text_model.", "vision_model.")
_CURE: Final = "give a checkpoint that open_clip wrote: .safetensors, or torch.save of a state dict"
_DEEPEST: Final = 4


def read_checkpoint(file: Path) -> Tensors:
    """Read the tensors of a weights file, by name.

    Raises:
        BackboneError: it is no weights file, or is damaged; says what it is.
    """
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(HEAD)
    except OSError as problem:
        raise BackboneError(f"cannot read the weights {file}: {problem.strerror}") from None
    if not head.strip(b"\0"):
        what = "is empty" if not size else "begins with nothing but zeros"
        raise BackboneError(f"{file} {what}: the download is not finished; fetch it again")
    if head.startswith(b"PK"):
        tensors = _of_zip(file)
    elif head.startswith(b"\x80") and head[1:2] in b"\x02\x03\x04\x05":
        tensors = _of_torch(file)
    elif head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:  # noqa: PLR2004
        tensors = _of_safetensors(file, size, 8 + int.from_bytes(head[:8], "little"))
    else:
        known = signature(head)
        if known is None and head.lstrip()[:1] in (b"{", b"["):
            known = "a JSON file"
        if known is None and head.isascii():
            known = "text"
        raise BackboneError(f"{file} is {known or 'no checkpoint'}; {_CURE}")
    if not tensors:
        raise BackboneError(f"{file} holds no tensors; {_CURE}")
    if odd := [name for name in tensors if not name.isprintable()]:
        raise BackboneError(f"{file} is damaged: it names a tensor {odd[0]!a}; fetch it again")
    _check_values(file, tensors)
    return tensors


def load_checkpoint(
    model: nn.Module, file: Path, *, architecture: str, convert: Callable[[Tensors], Tensors]
) -> None:
    """Put the weights of a file into a model.

    Prefixes that a wrapper put before every name are left out where the rest fits the architecture.

    Args:
        model: the model.
        file: the weights.
        architecture: of the model, for messages.
        convert: brings a state dict into the model's form, as `openclip_form`.

    Raises:
        BackboneError: it is no weights file, or one of another architecture.
    """
    tensors = read_checkpoint(file)
    expected: dict[str, Any] = model.state_dict()
    plain = _unwrapped(file, tensors)
    candidates = [convert(one) for one in _without_prefixes(plain)]
    found = next((one for one in candidates if one.keys() == expected.keys()), None)
    if found is None:
        raise _misfit(
            file, architecture, max(candidates, key=lambda c: len(c.keys() & expected)), expected
        )
    for name, tensor in expected.items():
        given = found[name]
        if given.shape != tensor.shape:
            raise BackboneError(
                f"{file} does not load as {architecture}: {name} is {list(given.shape)} there and "
                f"{list(tensor.shape)} in {architecture}; check that architecture and file belong "
                "together"
            )
        if tensor.is_floating_point() and not given.is_floating_point():
            raise BackboneError(
                f"{file} does not load as {architecture}: {name} is {given.dtype} there, as in "
                "quantised weights; give weights of floating point"
            )
    model.load_state_dict(found, strict=True)


# --- kinds of file


def _of_zip(file: Path) -> Tensors:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        raise BackboneError(
            f"{file} is a truncated or damaged zip archive, which is what torch.save writes; fetch "
            "it again"
        ) from None
    if any("/code/" in name for name in names):
        tensors: Tensors = _guarded(file, lambda: _of_torchscript(file))
        return tensors
    if any(name.endswith("data.pkl") for name in names):
        return _of_torch(file)
    inside = ", ".join(ascii(name)[1:-1] for name in names[:3]) or "nothing"
    raise BackboneError(
        f"{file} is a zip archive that is no checkpoint (it holds {inside}); {_CURE}"
    )


def _of_safetensors(file: Path, size: int, header: int) -> Tensors:
    from safetensors.torch import load_file

    if size < header:
        raise BackboneError(f"{file} is a truncated safetensors file; fetch it again")
    tensors: Tensors = _guarded(file, lambda: load_file(file))
    return tensors


def _of_torchscript(file: Path) -> Tensors:
    import torch

    # TorchScript's own reader; Python's pickle has no part in it.
    return dict(torch.jit.load(file, map_location="cpu").state_dict())  # type: ignore[no-untyped-call]


def _of_torch(file: Path) -> Tensors:
    import torch

    def read() -> object:
        with open_regular(file) as stream:  # by its path, torch would go by the file's suffix
            return torch.load(stream, map_location="cpu", weights_only=True)  # noqa: TID251

    return _held(file, _guarded(file, read))


def _guarded(file: Path, read: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Turn whatever a reader raises into one line."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception as problem:  # noqa: BLE001  (each reader raises its own)
        reason = "".join(c if c.isprintable() else " " for c in str(problem))
        reason = " ".join(reason.split()).rpartition("WeightsUnpickler error: ")[
            2
        ]  # what precedes it is advice
        code = re.search(r"GLOBAL ([\w.]+)", reason)
        if code:
            raise BackboneError(
                f"{file} holds a Python object ({code[1]}) beside tensors, which is not "
                "read because it could run code; save its weights alone: "
                "torch.save(checkpoint['state_dict'], FILE) or torch.save(model.state_dict(), FILE)"
            ) from None
        kind = (
            "not a checkpoint of tensors"
            if type(problem).__name__ == "UnpicklingError"
            else "damaged"
        )
        if "incomplete" in reason.lower() or isinstance(problem, EOFError):
            kind = "truncated"
        raise BackboneError(
            f"{file} is {kind} ({reason[:120] or type(problem).__name__}); fetch it again, or {_CURE}"
        ) from None


def _held(file: Path, tree: object, depth: int = 0) -> Tensors:
    """Return the one state dict in what `torch.save` wrote."""
    import torch

    if not isinstance(tree, Mapping):
        raise BackboneError(f"{file} holds a {type(tree).__name__}, not a state dict; {_CURE}")
    held = [key for key in _HELD if isinstance(tree.get(key), Mapping) and tree[key]]
    own = {str(key): value for key, value in tree.items() if isinstance(value, torch.Tensor)}
    if own and not held:
        return own
    if len(held) > 1 and held[0] != _HELD[0]:
        raise BackboneError(f"{file} holds several models ({', '.join(held)}); save one of them")
    if not held or depth == _DEEPEST:
        found = ", ".join(ascii(key) for key in list(tree)[:5]) or "nothing"
        raise BackboneError(f"{file} holds no weights (it has {found}); {_CURE}")
    return _held(file, tree[held[0]], depth + 1)


# --- values


def _check_values(file: Path, tensors: Tensors) -> None:
    import torch

    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise BackboneError(
                f"{file}: {name} is a sparse, empty or quantised tensor; give weights of floating point"
            )
        if not tensor.is_floating_point():
            continue
        if not torch.isfinite(tensor).all():
            wrong = int((~torch.isfinite(tensor)).sum())
            raise BackboneError(
                f"{file} has weights that are NaN or infinite: {wrong} of {tensor.numel()} in {name}; "
                "training diverged, or the file is damaged: give another checkpoint"
            )
        if tensor.ndim > 1 and not tensor.any():  # biases may be zero
            raise BackboneError(
                f"{file} has nothing but zeros in {name}: the file is not complete; fetch it again"
            )


# --- names


def _unwrapped(file: Path, tensors: Tensors) -> Tensors:
    """Leave out the parts of names that torch's wrappers add."""
    found = {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS): tensor
        for name, tensor in tensors.items()
    }
    if len(found) < len(tensors):
        raise BackboneError(f"{file} holds a compiled model and another; save one of them")
    return found


def _without_prefixes(tensors: Tensors) -> list[Tensors]:
    """Return the tensors as they are, and without each prefix that all names share."""
    found = [tensors]
    while True:
        first = {name.partition(".")[0] for name in found[-1]}
        if len(first) > 1 or not all("." in name for name in found[-1]):
            return found
        found.append({name.partition(".")[2]: tensor for name, tensor in found[-1].items()})


def openclip_form(model: nn.Module, tensors: Tensors, *, resize: bool) -> Tensors:
    """Bring a state dict into the model's form, as open_clip's loader does.

    Args:
        model: the model.
        tensors: the state dict.
        resize: interpolate position tables of another size, as open_clip does.
    """
    import torch
    from open_clip.convert import convert_state_dict
    from open_clip.model import (
        convert_to_custom_text_state_dict,
        resize_pos_embed,
        resize_text_pos_embed,
    )

    found: Tensors = {name: tensor for name, tensor in tensors.items() if name not in _FACTS}
    found = convert_state_dict(model, found)
    if "positional_embedding" in found and not hasattr(model, "positional_embedding"):
        found = convert_to_custom_text_state_dict(found)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if own is not None and name in found and found[name].numel() == 1:
            found[name] = found[name].reshape(own.shape)
    bias = getattr(model, "logit_bias", None)
    if bias is not None and "logit_bias" not in found:
        found["logit_bias"] = torch.zeros(bias.shape)
    ids = "text.transformer.embeddings.position_ids"  # of older releases of transformers
    if ids in found and ids not in model.state_dict():
        del found[ids]
    if resize:
        resize_pos_embed(found, model)
        resize_text_pos_embed(found, model)
    return found


def _misfit(
    file: Path, architecture: str, found: Tensors, expected: Mapping[str, Any]
) -> BackboneError:
    """Say by how its names differ that a file is of another architecture."""
    if any(name.startswith(_TRANSFORMERS) for name in found):
        return BackboneError(
            f"{file} is a CLIP in the form of the transformers library; give it in open_clip's form, "
            "or the folder of its snapshot: hf-clip@FOLDER"
        )
    missing = [name for name in expected if name not in found]
    foreign = [name for name in found if name not in expected]
    heads = sorted({name.partition(".")[0] for name in found})
    if len(missing) == len(expected):
        problem = f"none of its {len(found)} tensors ({foreign[0]}, …) is in {architecture}"
    elif all(name.startswith("visual.") for name in found):
        problem = "it has an image tower and no text tower"
    else:
        parts = [f"it lacks {missing[0]} and {len(missing) - 1} more"] if missing else []
        parts += [f"it has {foreign[0]} and {len(foreign) - 1} more"] if foreign else []
        other = next(
            (n for n, t in expected.items() if n in found and found[n].shape != t.shape), None
        )
        if other is not None:
            parts.insert(
                0,
                f"{other} is {list(found[other].shape)} there and {list(expected[other].shape)} in {architecture}",
            )
        problem = ", ".join(parts)
    several = (
        f" (its names begin with {', '.join(heads[:4])})" if len(missing) == len(expected) else ""
    )
    return BackboneError(
        f"{file} does not load as {architecture}: {problem}{several}; check that architecture and "
        "file belong together"
    )
