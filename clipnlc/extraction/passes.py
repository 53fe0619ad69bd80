"""Which backbones are in memory together: one pass over the images serves them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from clipnlc.extraction.estimate import free_memory, memory

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.extraction.models import Models
    from clipnlc.extraction.request import Request

_SHARE: Final = 0.8
"""Share of the free memory that is planned for; the rest is for pixels and other processes."""

_AMPLE: Final = 5
"""A backbone surely fits, batch included, in this many times the size of its weights file (files
of half precision double in memory). Where that is free, the estimate, which takes seconds, is
skipped."""


class Passes:
    """The backbones of a run, pass by pass; decided only when an image must be embedded.

    Iterate over it to make the passes: each goes over all data, and `now` returns its backbones.
    A run that finds everything cached makes one pass and estimates nothing.
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
        """Take what decides the passes; `copies` workers share the device."""
        self.left = tuple(chosen)
        self._models, self._together = models, together
        self._batch_size, self._copies = batch_size, copies
        self._current: tuple[Backbone, ...] = ()

    @classmethod
    def of(cls, request: Request, chosen: Sequence[Backbone], models: Models) -> Passes:
        """Make the passes of a request over some of its backbones."""
        return cls(
            chosen,
            models,
            together=request.together,
            batch_size=request.batch_size,
            copies=request.copies,
        )

    def __iter__(self) -> Iterator[None]:
        """Make passes until no backbone is left."""
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
        fitting: list[Backbone] = []
        for backbone in self.left:
            left -= memory(backbone, self._models, batch_size=self._batch_size, copies=self._copies)
            if left < 0 and fitting:
                break
            fitting.append(backbone)
        return tuple(fitting)
