"""Estimate the arithmetic, memory and download of a backbone without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from clipnlc.backbones import Backbone
from clipnlc.backbones.families import family, family_of
from clipnlc.backbones.folding import is_foldable

if TYPE_CHECKING:
    from clipnlc.backbones.families.base import Precision

# What a forward adds to a process at its peak, over input and output of its largest layer, rounded
# up. Measured with RN50, RN50x4, ViT-B-32 and ViT-B-16 in fp32 on a CPU with 8 to 64 images: 1.3 to
# 1.6 in the ResNets, 3.0 to 3.8 in the ViTs, whose blocks hold several tensors of that size.
_PEAK_OF_RESNETS: Final = 1.6
_PEAK_OF_OTHERS: Final = 4.0

IMAGE_FLOPS: Final = {
    "nano-RN50": 4_783_616,
    "nano-RN101": 5_723_648,
    "nano-RN50x4": 9_913_344,
    "nano-RN50x16": 10_133_920,
    "nano-RN50x64": 11_939_200,
    "nano-ViT-B-32": 12_215_424,
    "nano-ViT-B-16": 18_650_560,
    "nano-ViT-L-14": 24_572_160,
    "nano-ViT-L-14-336": 35_866_368,
    "RN50": 12_222_939_136,
    "RN101": 19_542_523_904,
    "RN50x4": 42_557_214_720,
    "RN50x16": 149_390_635_008,
    "RN50x64": 529_107_009_536,
    "ViT-B-32": 8_817_623_040,
    "ViT-B-16": 35_126_906_880,
    "ViT-L-14": 162_025_537_536,
    "ViT-L-14-336": 381_919_789_056,
}
"""What `costs` counts for one image, for the usual architectures: importing torch takes seconds."""


@dataclass(frozen=True)
class Costs:
    """What one image, one prompt and the weights of a backbone cost.

    Attributes:
        image_flops: of embedding one image.
        text_flops: of embedding one prompt in full length; cut to its words it takes a fraction.
        parameters: of both towers.
        image_parameters: of the image tower.
    """

    image_flops: int
    text_flops: int
    parameters: int
    image_parameters: int


def costs(backbone: Backbone) -> Costs:
    """Count floating-point operations and parameters of an architecture.

    Convolutions, matrix products and attention are counted, a multiply-add as two operations, as in
    open_clip's own profile; normalisation, activations and resizing are not.

    Raises:
        UnknownNameError: open_clip has no such architecture.
    """
    return _profile(backbone).costs


def image_gflops(name: str) -> float:
    """Return billions of operations of embedding one image, for a backbone as stores name it.

    Raises:
        UnknownNameError: open_clip has no such architecture.
    """
    kind = family_of(name)
    architecture, at, _ = name.partition("@")
    if kind == "open_clip" and not at:
        architecture = name.rpartition(".")[0] or name
    known = IMAGE_FLOPS.get(architecture)
    if known is None:
        its = Backbone(name, family(kind).architecture_of(architecture), "file", family=kind)
        known = costs(its).image_flops
    return known / 1e9


def memory_bytes(backbone: Backbone, *, precision: Precision, batch_size: int) -> int:
    """Estimate the memory that a backbone takes while it embeds images.

    The weights of both towers, and per image a multiple of the largest layer's input and output: a
    multiple measured on a CPU, where the estimate was above the real peak by up to a third. The
    batch itself and what torch takes to start are not in it.

    Args:
        backbone: which one.
        precision: `fp32` takes four bytes a number, the others two.
        batch_size: images of one forward.

    Raises:
        UnknownNameError: open_clip has no such architecture.
    """
    profile = _profile(backbone)
    numbers = profile.costs.parameters + batch_size * profile.activations
    return numbers * (4 if precision == "fp32" else 2)


def download_bytes(backbone: Backbone) -> int | None:
    """Estimate what has to be downloaded: nothing where the weights are on disk.

    Otherwise four bytes a parameter, as the hub's files mostly have; `None` where the weights are
    missing from the one place that they may come from.

    Raises:
        BackboneError: the architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    if family(backbone.family).at_hand(backbone):
        return 0
    if backbone.source != "tag" or backbone.weights_dir is not None:
        return None
    return 4 * costs(backbone).parameters


@dataclass(frozen=True)
class _Profile:
    costs: Costs
    activations: int
    """Numbers held per image at the peak of a forward."""


@cache
def _profile(backbone: Backbone) -> _Profile:
    import torch

    outline = family(backbone.family).outline_of(backbone)
    image = torch.empty(1, 3, *outline.size, device="meta")
    prompt = torch.zeros(1, outline.context, dtype=torch.long, device="meta")
    factor = _PEAK_OF_RESNETS if is_foldable(outline.visual) else _PEAK_OF_OTHERS
    return _Profile(
        Costs(
            image_flops=_flops(outline.encode_image, image),
            text_flops=_flops(outline.encode_text, prompt) if outline.encode_text else 0,
            parameters=_parameters(outline.model),
            image_parameters=_parameters(outline.visual),
        ),
        activations=int(factor * _largest_layer(outline.visual, image)),
    )


def _flops(forward: Any, given: Any) -> int:  # noqa: ANN401  (methods of open_clip's models)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        forward(given)
    return int(counter.get_total_flops())


def _parameters(model: Any) -> int:  # noqa: ANN401
    return sum(p.numel() for p in model.parameters())


def _largest_layer(visual: Any, image: Any) -> int:  # noqa: ANN401
    """Count the numbers that go into and come out of the largest layer."""
    import torch

    largest = 0

    def look(_: Any, given: tuple[Any, ...], found: Any) -> None:  # noqa: ANN401
        nonlocal largest
        tensors = (*given, *(found if isinstance(found, tuple) else (found,)))
        numbers = sum(t.numel() for t in tensors if isinstance(t, torch.Tensor))
        largest = max(largest, numbers)

    leaves = [m for m in visual.modules() if next(m.children(), None) is None]
    hooks = [leaf.register_forward_hook(look) for leaf in leaves]
    with torch.inference_mode():
        visual(image)
    for hook in hooks:
        hook.remove()
    return largest
