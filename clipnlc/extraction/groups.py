"""Which backbones are in memory together: one pass over the images serves them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clipnlc.machine import cores

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.extraction.models import Models

_CGROUP: Final = Path("/sys/fs/cgroup")
"""Where a container says what it allows (the second version of control groups)."""

_SHARE: Final = 0.8
"""Of the free memory that is planned with; the rest is for pixels and for what others take."""

_AMPLE: Final = 5
"""Times the size of its weights file that a backbone surely fits in, batch and all (files of half
precision double in memory): where that is free, nothing is measured, which would take seconds."""


def default_batch_size(device: str) -> int:
    """Images of one forward: few on a CPU, whose caches they should fit; more on a GPU."""
    return 16 if device == "cpu" else 64


def default_decoders(device: str, workers: int) -> int:
    """Threads of one of several workers that decode: the cores are for the forwards on a CPU."""
    share = max(1, cores() // workers)
    return max(1, share // 2) if device == "cpu" else share


def memory(backbone: Backbone, models: Models, *, batch_size: int | None, copies: int) -> int:
    """Estimate the bytes a backbone takes on the device, in all workers that share it."""
    from clipnlc.backbones.costs import memory_bytes

    images = batch_size or default_batch_size(models.device)
    if models.device == "cpu":  # every core has a batch of its own
        images *= max(1, cores() // copies)
    return copies * memory_bytes(backbone, precision=models.precision, batch_size=images)


class Groups:
    """The backbones of a run, pass by pass; decided only when an image must be embedded.

    Iterate over it to make the passes: each goes over all data, and `now` says which backbones it
    is for. A run that finds everything cached makes one pass and measures nothing.
    """

    def __init__(
        self,
        chosen: Sequence[Backbone],
        models: Models,
        *,
        together: int | None,
        batch_size: int | None,
        copies: int = 1,
    ) -> None:
        """Take what decides the groups; `copies` workers share the device."""
        self.left = tuple(chosen)
        self._models, self._together = models, together
        self._batch_size, self._copies = batch_size, copies
        self._current: tuple[Backbone, ...] = ()

    def __iter__(self) -> Iterator[None]:
        """Make passes until no backbone is put off."""
        while self.left:
            self._current = ()
            yield
            done = self._current or self.left
            self.left = tuple(b for b in self.left if b not in done)
            if self.left:
                self._models.release()

    def now(self) -> tuple[Backbone, ...]:
        """Return the backbones of this pass."""
        self._current = self._current or self._decide()
        return self._current

    def _decide(self) -> tuple[Backbone, ...]:
        if self._together is not None:
            return self.left[: self._together]
        device = self._models.device
        left = _SHARE * free_memory(device)
        files = sum(b.file.stat().st_size if b.file else math.inf for b in self.left)
        if _AMPLE * self._copies * files < left:
            return self.left
        group: list[Backbone] = []
        for backbone in self.left:
            left -= memory(backbone, self._models, batch_size=self._batch_size, copies=self._copies)
            if left < 0 and group:
                break
            group.append(backbone)
        return tuple(group)


def free_memory(device: str) -> int:
    """Measure the free memory of a device, in bytes."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    available = int(psutil.virtual_memory().available)
    # A container may allow less than the machine has. Files read lately count as used there, but
    # make room for whoever needs it.
    limit, used = (_number(_CGROUP / f) for f in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return available
    return max(0, min(available, limit - used + _idle_files()))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not Linux, or no limit ("max")
        return None


def _idle_files() -> int:
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(n) for name, n in map(str.split, lines) if name == "inactive_file"), 0)
