"""How fast this device is, measured in a minute with random weights and made-up pixels."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from clipnlc.datasets.images import load
from clipnlc.extraction.pixels import resizers
from clipnlc.extraction.worker import embedders
from clipnlc.machine import cores

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.backbones.loaded import Precision
    from clipnlc.backbones.preprocessing import Preprocessing

_PHOTO: Final = (500, 375)
"""Width and height of the made-up photo, as in most of the published sets."""


def forward_seconds(
    backbone: Backbone,
    *,
    device: str,
    precision: Precision,
    compiled: bool,
    batch_size: int,
    budget: float,
) -> float:
    """Measure the seconds an image takes in the forward, all cores or the GPU at work.

    The weights are random: they do not matter for speed and need not be at hand. One forward warms
    up; at least one more is measured, on a CPU with as few images as there are cores where time is
    short. The wait for a compiler is no part of the speed, nor of the budget.

    Args:
        backbone: which one.
        device: `cpu`, `cuda`, …
        precision: as in the extraction.
        compiled: as in the extraction.
        batch_size: images of one forward.
        budget: seconds to measure for.
    """
    from clipnlc.backbones.loaded import LoadedBackbone

    model = LoadedBackbone(
        backbone,
        device=device,
        precision=precision,
        trained=False,
        compile_for=batch_size if compiled else None,
    )
    threads = cores() if device == "cpu" else 1

    def once(images: int) -> float:
        pixels = np.full((images, *model.preprocessing.size, 3), 128, np.uint8)
        began = time.perf_counter()
        list(pool.map(lambda _: model.embed_images(pixels), range(threads)))
        return (time.perf_counter() - began) / (images * threads)

    with embedders(threads, on_cpu=device == "cpu") as pool:
        if compiled:
            once(1)  # every forward is then as long as one of a whole batch
        began = time.perf_counter()
        measured = [once(batch_size if compiled else 1)]
        fitting = int(min(batch_size, max(1, budget / (2 * threads * measured[0]))))
        images = batch_size if compiled else fitting
        while images > 1 and (len(measured) == 1 or time.perf_counter() - began < budget):
            measured.append(once(images))
    return float(np.median(measured[1:] or measured))


def pixel_seconds(preprocessings: Sequence[Preprocessing], *, budget: float) -> float:
    """Measure the seconds one thread takes to decode a photo and resize it for all backbones.

    The photo is made up: 500 by 375, JPEG, as detailed as photos are. Reading it is not measured.
    """
    from PIL import Image

    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (94, 125, 3), dtype=np.uint8))
    stream = io.BytesIO()
    noise.resize(_PHOTO, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=92)
    resize = resizers(preprocessings)
    began, photos = time.perf_counter(), 0
    while not photos or time.perf_counter() - began < budget:
        image = load(stream.getvalue())
        for resized in resize.values():
            resized(image)
        photos += 1
    return (time.perf_counter() - began) / photos
