"""Which backbones are in memory together: one pass over the images serves them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clipnlc.extraction.worker import cores

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.extraction.models import Models

_SHARE: Final = 0.8
"""Of the free memory that is planned with; the rest is for pixels and for what others take."""

_SMALL: Final = 64e6
"""Bytes of weights files below which nothing is measured: such backbones fit anywhere."""


def default_batch_size(device: str) -> int:
    """Images of one forward: few on a CPU, whose caches they should fit; more on a GPU."""
    return 16 if device == "cpu" else 64


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
    ) -> None:
        self.left = tuple(chosen)
        self._models, self._together, self._batch_size = models, together, batch_size
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
        files = [b.file for b in self.left]
        if sum(f.stat().st_size if f else _SMALL for f in files) < _SMALL:
            return self.left
        from clipnlc.backbones.costs import memory_bytes

        device = self._models.device
        size = self._batch_size or default_batch_size(device)
        images = size * (cores() if device == "cpu" else 1)
        left = _SHARE * free_memory(device)
        group: list[Backbone] = []
        for backbone in self.left:
            left -= memory_bytes(backbone, precision=self._models.precision, batch_size=images)
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
    # A container may allow less than the machine has.
    limit, used = (_number(Path("/sys/fs/cgroup", f)) for f in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, limit - used)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not Linux, or no limit ("max")
        return None
