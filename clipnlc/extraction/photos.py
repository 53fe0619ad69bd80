"""Stream the features of image files that belong to no data set; nothing is written.

The pixels and the forwards are the extraction's own (`pixels`, `embedding`): a photo has the same
features here as in a feature store.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from clipnlc.datasets.images import MAX_PIXELS, read_image_file
from clipnlc.datasets.source import Sample
from clipnlc.extraction.embedding import Batch, Embedded, InTurn, embed_batches
from clipnlc.extraction.models import default_batch_size
from clipnlc.extraction.pixels import Skipped, default_decoders
from clipnlc.machine import cores

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.extraction.models import Models


@dataclass(frozen=True, eq=False)
class Encoded:
    """An image file that is in memory.

    Attributes:
        name: what stands for it where a file has its path.
        data: the bytes of the file, in any format that Pillow reads.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        """Return the name."""
        return self.name


@dataclass(frozen=True, eq=False)
class Photos:
    """A block of consecutive photos.

    Attributes:
        files: those that could be read, in the order given.
        features: one array per backbone, in the order given; the rows are those of `files`.
        skipped: the other files, each with the reason, which does not repeat the file's name.
    """

    files: tuple[Path, ...]
    features: tuple[Float[np.ndarray, "photos _"], ...]
    skipped: tuple[tuple[Path, str], ...]


def stream_photos(
    files: Iterable[Path | Encoded],
    models: Models,
    backbones: Sequence[Backbone],
    *,
    batch_size: int | None = None,
    decoders: int | None = None,
    max_pixels: int = MAX_PIXELS,
    in_turn: InTurn | None = None,
    on_loaded: Callable[[int], None] = lambda _backbones: None,
) -> Generator[Photos, None, None]:
    """Yield the features of image files, block by block, in order.

    Memory does not grow with the number of files: they are taken from the iterable as they are
    needed, a few batches ahead. All backbones are in memory together. Only regular files are read;
    a folder, a named pipe or a device is skipped.

    Close the generator (`contextlib.closing`) if you may leave it early: its threads end with it.

    Args:
        files: the photos.
        models: where the backbones are loaded.
        backbones: that embed the photos.
        batch_size: images of one forward, and files of one block; by default as in `extract`.
        decoders: threads that decode and resize; by default as in `extract`.
        max_pixels: a larger photo is skipped.
        in_turn: which photos need which backbones, by their numbers; None for all.
        on_loaded: called with the number of backbones loaded so far.

    Raises:
        BackboneError: weights cannot be loaded, the device cannot be used, or memory is short.
    """
    device = models.device
    size = batch_size or default_batch_size(device)
    loaded = []
    for backbone in backbones:
        loaded.append(models.load(backbone))
        on_loaded(len(loaded))
    names = [backbone.name for backbone in backbones]

    def batches() -> Iterator[Batch]:
        left = iter(files)
        while block := tuple(itertools.islice(left, size)):
            yield Batch(_Files(block), np.arange(len(block)), loaded)

    embedded = embed_batches(
        batches(),
        device=device,
        precision=models.precision,
        threads=cores() if device == "cpu" else 1,
        decoders=decoders or default_decoders(device, 1),
        batch_size=size,
        on_bad_image="skip",
        max_pixels=max_pixels,
        in_turn=in_turn,
    )
    with closing(embedded):
        for found in embedded:
            yield _photos(found, names)


@dataclass(frozen=True)
class _Files:
    """Files as a source of samples, named by their paths; labels mean nothing."""

    files: tuple[Path | Encoded, ...]

    def read(self, start: int, stop: int) -> Iterator[Sample | Skipped]:
        """Yield the files `start` to `stop` (excluded), those that cannot be read as skipped."""
        for file in self.files[start:stop]:
            try:
                data = file.data if isinstance(file, Encoded) else read_image_file(file)
                yield Sample(str(file), 0, data)
            except OSError as problem:
                reason = problem.strerror or str(problem)
                yield Skipped(str(file), reason, f"cannot read {file}: {reason}")


def _photos(found: Embedded, backbones: Sequence[str]) -> Photos:
    """Turn a batch into photos; one that a backbone gives no usable features for is skipped."""
    files = [Path(name) for part in found.parts for name in part.sample_id]
    skipped = [(Path(s.sample_id), s.reason) for part in found.parts for s in part.skipped]
    every = np.ones(len(files), dtype=bool)
    for name, features in zip(backbones, found.features, strict=True):
        mine = usable(features)
        for row in np.flatnonzero(every & ~mine):
            reason = f"{name} gives it no finite features; use --precision fp32"
            skipped.append((files[row], reason))
        every &= mine
    return Photos(
        tuple(file for file, kept in zip(files, every, strict=True) if kept),
        tuple(features if every.all() else features[every] for features in found.features),
        tuple(skipped),
    )


def usable(features: Float[np.ndarray, "photos dim"]) -> Bool[np.ndarray, " photos"]:
    """Return which photos have finite features that are not all 0."""
    found: np.ndarray = np.isfinite(features).all(axis=1) & features.any(axis=1)
    return found
