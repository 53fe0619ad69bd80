"""Batch normalisation folded into the convolution before it, for inference.

In eval mode batch normalisation is y = (x - mean) · weight / sqrt(variance + eps) + bias, one
multiplication and one addition per channel, which the convolution before it can do by itself
(Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, section 3.2). Exact but for rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def is_foldable(visual: nn.Module) -> bool:
    """Return whether an image tower is open_clip's ResNet; no other kind is touched."""
    from open_clip.modified_resnet import ModifiedResNet

    return isinstance(visual, ModifiedResNet)


def fold_batch_norms(visual: nn.Module) -> None:
    """Fold every batch normalisation of open_clip's ResNet, in place; leaves eval mode to the caller.

    Folded weights are computed in float64 and rounded once.
    """
    from open_clip.modified_resnet import Bottleneck
    from torch import nn

    for block in (visual, *(m for m in visual.modules() if isinstance(m, Bottleneck))):
        for i in "123":
            setattr(
                block, f"conv{i}", _folded(getattr(block, f"conv{i}"), getattr(block, f"bn{i}"))
            )
            setattr(block, f"bn{i}", nn.Identity())
        if (down := getattr(block, "downsample", None)) is not None:
            down[1], down[2] = _folded(down[1], down[2]), nn.Identity()


def _folded(convolution: Any, norm: Any) -> nn.Conv2d:  # noqa: ANN401  (attributes of modules)
    """Return one convolution that does both; the two stay as they are."""
    import torch
    from torch import nn

    with torch.no_grad():
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        offset = norm.bias.double() - norm.running_mean.double() * factor
        weight = convolution.weight.double() * factor.view(-1, 1, 1, 1)
        folded: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d,
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,
            stride=convolution.stride,
            padding=convolution.padding,
            device=convolution.weight.device,
            dtype=convolution.weight.dtype,
        )
        assert folded.bias is not None
        folded.weight.copy_(weight)
        folded.bias.copy_(offset)
    return folded
