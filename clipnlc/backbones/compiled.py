"""Forwards compiled by torch: fewer and larger kernels, for a wait at the first one.

What that gains depends on the device and the backbone, so it is asked for (`--compile`) and its
place is a long run on a GPU; `docs/speed.md` has what was measured.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from clipnlc.errors import BackboneError

if TYPE_CHECKING:
    import torch

_VARIANTS: Final = 256
"""Compiled forwards that torch may keep. It counts per function of open_clip, not per backbone, and
after its own limit of 8 it would silently go on uncompiled."""


class Compiled:
    """An image tower's forward, compiled for one number of images; thread-safe.

    Batches of fewer images are filled up with zeros, so that nothing is compiled twice and an
    image's features do not depend on how many came with it.
    """

    def __init__(
        self, name: str, encode: Callable[[torch.Tensor], torch.Tensor], batch: int
    ) -> None:
        """Take what is to be compiled, at its first call."""
        import torch
        from torch._dynamo import config

        config.recompile_limit = max(config.recompile_limit, _VARIANTS)
        config.fail_on_recompile_limit_hit = True
        self._name, self._batch = name, batch
        self._encode: Any = torch.compile(encode, dynamic=False)
        self._lock, self._ready = threading.Lock(), False

    def __call__(self, finished: torch.Tensor) -> torch.Tensor:
        """Embed at most as many finished images as it was made for.

        Args:
            finished: (samples, 3, height, width), channels last in memory, on the device.

        Returns:
            Features as the encoder gives them, (samples, dim).

        Raises:
            BackboneError: torch cannot compile here.
        """
        import torch

        images = len(finished)
        missing = self._batch - images
        assert missing >= 0, "padding by less than nothing would drop images"
        if missing:
            rows = finished.permute(0, 2, 3, 1)  # as they lie in memory: padding keeps the layout
            rows = torch.nn.functional.pad(rows, (0, 0) * 3 + (0, missing))
            finished = rows.permute(0, 3, 1, 2)
        if self._ready:
            features: torch.Tensor = self._encode(finished)
        else:
            with self._lock:  # else every thread would compile the same
                features = self._first(finished)
                self._ready = True
        return features[:images]

    def _first(self, finished: torch.Tensor) -> torch.Tensor:
        """Compile the forward; explain why where torch cannot."""
        logging.disable(logging.WARNING)  # as that there is no CUDA; what matters raises
        try:
            found: torch.Tensor = self._encode(finished)
        except Exception as problem:  # each compiler has errors of its own
            if isinstance(problem, MemoryError) or "out of memory" in str(problem):
                raise
            reason = " ".join(str(problem).partition("Set TORCH")[0].split())[:160]
            raise BackboneError(
                f"torch cannot compile {self._name} here ({reason}); leave out --compile"
            ) from problem
        finally:
            logging.disable(logging.NOTSET)
        return found
