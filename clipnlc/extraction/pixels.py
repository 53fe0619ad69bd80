"""Images to pixels: decoded once, resized once per distinct geometry, ahead of the device."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from clipnlc.datasets.images import MAX_PIXELS, ImageError, load
from clipnlc.datasets.source import Sample
from clipnlc.errors import DataError
from clipnlc.extraction.crops import crop_of
from clipnlc.machine import cores

if TYPE_CHECKING:
    from clipnlc.backbones.preprocessing import Preprocessing

BadImage = Literal["fail", "skip"]
Geometry = tuple[object, ...]
Resize = Callable[[Any], UInt8[np.ndarray, "height width 3"]]


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be read.

    Attributes:
        sample_id: of the image.
        reason: why, without the image's name.
        message: the whole message, where it is not to be skipped.
    """

    sample_id: str
    reason: str
    message: str


@runtime_checkable
class Source(Protocol):
    """Where samples are read from: a `datasets.source.Split`, or a list of files."""

    def read(self, start: int, stop: int) -> Iterator[Sample | Skipped]:
        """Yield the samples of the rows `start` to `stop` (excluded), in order."""
        ...


@dataclass(frozen=True)
class Pixels:
    """Consecutive samples, one array per distinct geometry.

    Attributes:
        pixels: by geometry; the same samples in each.
        labels, sample_id: of the samples that could be read.
        digests: likewise, of the images' bytes; empty where the source gives none.
        skipped: the others.
        seconds: spent by this thread in `decode` (and reading) and `resize`.
    """

    pixels: Mapping[Geometry, UInt8[np.ndarray, "samples height width 3"]]
    labels: tuple[int, ...]
    sample_id: tuple[str, ...]
    digests: tuple[bytes, ...]
    skipped: tuple[Skipped, ...]
    seconds: Mapping[str, float]

    def __len__(self) -> int:
        """Return the number of samples, readable or not."""
        return len(self.sample_id) + len(self.skipped)


def default_decoders(device: str, workers: int) -> int:
    """Return the threads that decode in one of several workers: on a CPU forwards need cores too."""
    share = max(1, cores() // workers)
    return max(1, share // 2) if device == "cpu" else share


def resizers(
    preprocessings: "Sequence[Preprocessing]", crop: int | None = None
) -> dict[Geometry, Resize]:
    """Return one resizer per distinct geometry: backbones that agree on it share its pixels.

    A crop fills the input of every backbone, whatever its ratio of sides.
    """
    if crop is None:
        return {p.geometry: p.resizer() for p in preprocessings}
    return {p.geometry: p.filling().resizer() for p in preprocessings}


def read_pixels(  # noqa: PLR0917  (a pool of threads calls it)
    source: Source,
    rows: Int64[np.ndarray, " rows"],
    resize: Mapping[Geometry, Resize],
    on_bad_image: BadImage,
    max_pixels: int = MAX_PIXELS,
    crop: int | None = None,
) -> Pixels:
    """Read, decode and resize some samples; safe to call from several threads.

    `resize` is made for the same crop; None are the images as they are.

    Raises:
        DataError: a file has gone, memory is short, or an image cannot be read and `on_bad_image`
            is `fail`.
    """
    pixels: dict[Geometry, list[np.ndarray]] = {geometry: [] for geometry in resize}
    kept: list[Sample] = []
    skipped: list[Skipped] = []
    decoding = resizing = 0.0
    began = time.perf_counter()
    for sample in _samples(source, rows):
        if isinstance(sample, Skipped):
            if on_bad_image == "fail":
                raise DataError(sample.message)
            skipped.append(sample)
            continue
        try:
            image = load(sample.data, sample.sample_id, max_pixels=max_pixels)
        except MemoryError as problem:
            raise _short_of_memory(sample.sample_id) from problem
        except ImageError as problem:
            if on_bad_image == "fail":
                raise
            skipped.append(Skipped(sample.sample_id, problem.reason, str(problem)))
            continue
        kept.append(sample)
        decoded = time.perf_counter()
        try:
            if crop is not None:
                image = crop_of(image.size, sample.digest, crop).of(image)
            for geometry, resized in resize.items():
                pixels[geometry].append(resized(image))
        except MemoryError as problem:
            raise _short_of_memory(sample.sample_id) from problem
        now = time.perf_counter()
        decoding, resizing, began = decoding + decoded - began, resizing + now - decoded, now
    return Pixels(
        pixels={geometry: np.stack(found) for geometry, found in pixels.items() if found},
        labels=tuple(s.label for s in kept),
        sample_id=tuple(s.sample_id for s in kept),
        digests=tuple(s.digest for s in kept),
        skipped=tuple(skipped),
        seconds={"decode": decoding, "resize": resizing},
    )


def _short_of_memory(sample_id: str) -> DataError:
    """Not an image to skip: which ones fit in memory must not decide what a store holds."""
    return DataError(
        f"out of memory while decoding or resizing {sample_id}; use fewer --workers, or a smaller image"
    )


def _samples(source: Source, rows: Int64[np.ndarray, " rows"]) -> Iterator[Sample | Skipped]:
    """Read rows, neighbours together."""
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield from source.read(int(rows[first]), int(rows[i - 1]) + 1)
            first = i
