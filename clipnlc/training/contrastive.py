"""The CLIP objective: augmented images against captions, other pairs of the batch as negatives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_EXCLUDED: Final = -1e4  # logit of a pair that is no negative: same concept or same caption

MAX_LOGIT_SCALE: Final = math.log(100)
"""Upper limit of the logarithm of the scale, as in CLIP (Radford et al. 2021, section 2.5)."""


def augmented(
    images: UInt8[torch.Tensor, "batch 3 height width"], generator: torch.Generator
) -> Float[torch.Tensor, "batch 3 height width"]:
    """Turn, stretch, shift, dim and grain images a little; returns values around [0, 1].

    Rotation up to 12 degrees, zoom by up to a fifth, translation by up to 6 % of the side,
    contrast 0.5 to 1.2, brightness ±0.1, gaussian noise of up to 0.12. No flips: letters and
    arrows would change their meaning.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    angle, zoom = uniform(-12.0, 12.0) * math.pi / 180, uniform(-0.2, 0.2).exp()
    stretch = zoom * uniform(-0.08, 0.08).exp()
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * zoom, -angle.sin() * zoom
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin() * stretch, angle.cos() * stretch
    theta[:, :, 2] = uniform(-0.12, 0.12, 2)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    values = grid_sample(
        images.float() / 255, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    mean = values.mean((1, 2, 3), keepdim=True)
    values = (values - mean) * uniform(0.5, 1.2, 1, 1, 1) + mean + uniform(-0.1, 0.1, 3, 1, 1)
    grain = torch.randn(values.shape, generator=generator)
    return values + grain * uniform(0.0, 0.12, 1, 1, 1)


def clip_loss(
    image: Float[torch.Tensor, "batch dim"],
    text: Float[torch.Tensor, "batch dim"],
    logit_scale: Float[torch.Tensor, ""],
    excluded: torch.Tensor,
) -> Float[torch.Tensor, ""]:
    """The symmetric cross-entropy of CLIP, with the `excluded` pairs taken out of it."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    logits = logit_scale * normalize(image, dim=-1) @ normalize(text, dim=-1).T
    logits = logits.masked_fill(excluded, _EXCLUDED)
    target = torch.arange(len(logits))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
