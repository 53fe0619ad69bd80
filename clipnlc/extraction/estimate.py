"""What an extraction costs: memory, estimated; speed, measured in a minute at most.

The measurements use random weights and made-up pixels, so nothing is downloaded for them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from clipnlc.datasets.images import load
from clipnlc.extraction.embedding import embedders
from clipnlc.extraction.models import default_batch_size
from clipnlc.extraction.pixels import resizers
from clipnlc.machine import cores

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.backbones.families.base import Precision
    from clipnlc.backbones.preprocessing import Preprocessing
    from clipnlc.extraction.models import Models

_CGROUP: Final = Path("/sys/fs/cgroup")
"""Where a container's limits are (the second version of control groups)."""

_PHOTO: Final = (500, 375)
"""Width and height of the made-up photo, as in most of the published sets."""

_MANY: Final = 10
_LONG: Final = 2.0
"""So many measurements in so many seconds are enough: what differs after that is the machine."""


def memory(backbone: Backbone, models: Models, *, batch_size: int | None, copies: int) -> int:
    """Estimate the bytes a backbone takes on the device, in all `copies` workers that share it."""
    from clipnlc.backbones.costs import memory_bytes

    images = batch_size or default_batch_size(models.device)
    if models.device == "cpu":  # every core has a batch of its own
        images *= max(1, cores() // copies)
    return copies * memory_bytes(backbone, precision=models.precision, batch_size=images)


def free_memory(device: str) -> int:
    """Measure the free memory of a device, in bytes."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    available = int(psutil.virtual_memory().available)
    # A container may allow less than the machine has. The file cache counts as used there, but is
    # given up when memory is needed.
    limit, used = (_number(_CGROUP / f) for f in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return available
    return max(0, min(available, limit - used + _file_cache()))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not Linux, or no limit ("max")
        return None


def _file_cache() -> int:
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(n) for name, n in map(str.split, lines) if name == "inactive_file"), 0)


def forward_seconds(
    backbone: Backbone,
    *,
    device: str,
    precision: Precision,
    compiled: bool,
    batch_size: int,
    budget: float,
) -> float:
    """Measure the seconds of one image's forward, with all cores or the GPU in use.

    The weights are random, which does not matter for speed. One forward warms up; at least one
    more is measured, on a CPU with as few images as cores if time is short. Neither the speed nor
    the budget includes the time to compile.

    Args:
        backbone: which one.
        device: `cpu`, `cuda`, …
        precision: as in the extraction.
        compiled: as in the extraction.
        batch_size: images of one forward.
        budget: seconds to measure for, at most; less where a few seconds hold many forwards.
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
        while images > 1 and _goes_on(len(measured) - 1, time.perf_counter() - began, budget):
            measured.append(once(images))
    return float(np.median(measured[1:] or measured))


def _goes_on(measured: int, passed: float, budget: float) -> bool:
    """Return whether to measure once more: at least once, and not for longer than it tells more."""
    if not measured:
        return True
    return passed < (budget if measured < _MANY else min(budget, _LONG))


def pixel_seconds(preprocessings: Sequence[Preprocessing], *, budget: float) -> float:
    """Measure the seconds one thread takes to decode a photo and resize it for all backbones.

    The photo is a made-up JPEG of 500 by 375, as detailed as photos are. Reading it from disk is
    not included.
    """
    from PIL import Image

    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (94, 125, 3), dtype=np.uint8))
    stream = io.BytesIO()
    noise.resize(_PHOTO, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=92)
    resize = resizers(preprocessings)
    began, photos = time.perf_counter(), 0
    while _goes_on(photos, time.perf_counter() - began, budget):
        image = load(stream.getvalue())
        for resized in resize.values():
            resized(image)
        photos += 1
    return (time.perf_counter() - began) / photos
