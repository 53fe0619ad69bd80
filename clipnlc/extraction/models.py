"""The backbones of a run in memory: loaded when first needed, released together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.backbones.families.base import Precision
    from clipnlc.backbones.loaded import LoadedBackbone
    from clipnlc.extraction.request import Request

_NVIDIA: Final = Path("/proc/driver/nvidia")
"""Present where a CUDA device can be; torch, which takes seconds to import, is asked only then."""


def default_batch_size(device: str) -> int:
    """Return the images of one forward: few on a CPU, to fit its caches; more on a GPU."""
    return 16 if device == "cpu" else 64


class Models:
    """Backbones on one device, in one precision.

    Attributes:
        compiled: whether their forwards are compiled.
    """

    def __init__(
        self,
        device: str,
        precision: str,
        *,
        compiled: bool = False,
        batch_size: int | None = None,
    ) -> None:
        """Take what backbones will be loaded for; `batch_size` only matters to compiled ones."""
        self._wanted = (device, precision)
        self.compiled, self._batch_size = compiled, batch_size
        self._settings: tuple[str, Precision] | None = None
        self._loaded: dict[str, LoadedBackbone] = {}

    @classmethod
    def of(cls, request: Request) -> Models:
        """Make the models of a request, on the first of its devices."""
        return cls(
            request.engine.devices[0],
            request.precision,
            compiled=request.compiled,
            batch_size=request.batch_size,
        )

    @property
    def precision(self) -> Precision:
        """The requested precision; `auto` is resolved, without importing torch if possible.

        Raises:
            BackboneError: the device or the precision cannot be used here.
        """
        device, precision = self._wanted
        if precision != "auto":
            return cast("Precision", precision)
        if device == "cpu" or not _NVIDIA.exists():
            return "fp32"
        return self._resolved()[1]

    @property
    def device(self) -> str:
        """The requested device; `auto` is resolved.

        Raises:
            BackboneError: the device or the precision cannot be used here.
        """
        return self._resolved()[0]

    def _resolved(self) -> tuple[str, Precision]:
        if self._settings is None:
            from clipnlc.backbones.loaded import choose_device, choose_precision

            device = choose_device(self._wanted[0])
            self._settings = (device, choose_precision(self._wanted[1], device))
        return self._settings

    def load(self, backbone: Backbone) -> LoadedBackbone:
        """Return the backbone, loaded when it is first asked for.

        Raises:
            BackboneError: its weights cannot be loaded, or the device cannot be used.
        """
        from clipnlc.backbones.loaded import LoadedBackbone

        if backbone.name not in self._loaded:
            device, precision = self._resolved()
            batch_size = self._batch_size or default_batch_size(device)
            self._loaded[backbone.name] = LoadedBackbone(
                backbone,
                device=device,
                precision=precision,
                compile_for=batch_size if self.compiled else None,
            )
        return self._loaded[backbone.name]

    def release(self) -> None:
        """Drop all backbones and free their memory."""
        if not self._loaded:
            return
        import gc

        import torch

        self._loaded.clear()
        if self.compiled:
            torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
