"""What an extraction would take, before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Int64

from clipnlc import backbones as backbone_names
from clipnlc.backbones.families import family
from clipnlc.backbones.identity import identity
from clipnlc.extraction.estimate import forward_seconds, free_memory, memory, pixel_seconds
from clipnlc.extraction.inputs import (
    limited,
    open_datasets,
    open_split,
    range_of,
    source_of,
    split_names_of,
    splits_of,
    templates_of,
)
from clipnlc.extraction.jobs import changes, job_of, same_images
from clipnlc.extraction.models import Models, default_batch_size
from clipnlc.extraction.order import Range
from clipnlc.extraction.passes import Passes
from clipnlc.extraction.pixels import default_decoders
from clipnlc.extraction.request import Request
from clipnlc.extraction.reuse import EMBED, reusable
from clipnlc.extraction.stored import check_halves, is_to_be_replaced
from clipnlc.extraction.texts import templates_for
from clipnlc.machine import cores
from clipnlc.stores.layout import Layout

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.datasets.dataset import Dataset
    from clipnlc.datasets.source import Split

_PROBE: Final = 60.0
"""Seconds of the probe, shared by the backbones that have work to do."""

_TO_DECODE: Final = 0.05
"""Share of the probe for decoding and resizing."""


@dataclass(frozen=True)
class PlannedSplit:
    """What is known of a split without embedding anything.

    Attributes:
        dataset, split: which one.
        images: that would be embedded by a backbone that has none of them; None if unknown before
            the download.
        download_bytes: of the data set's chosen splits together, still to be downloaded; None if
            unknown.
        cached: backbones whose features exist already.
        lacking: backbones whose features do not.
        copied: by backbone, images that are not embedded again: their bytes and the backbone's
            settings are those of the file that would be replaced.
    """

    dataset: str
    split: str
    images: int | None
    download_bytes: int | None
    cached: tuple[str, ...]
    lacking: tuple[str, ...]
    copied: Mapping[str, int] = field(default_factory=dict)

    def to_embed(self, backbone: str) -> int:
        """Return how many images a backbone lacks; 0 if unknown."""
        lacks = backbone in self.lacking
        return (self.images or 0) - self.copied.get(backbone, 0) if lacks else 0


@dataclass(frozen=True)
class PlannedBackbone:
    """What a backbone would cost.

    Attributes:
        backbone: its name.
        images: to be embedded, over all splits whose size is known.
        prompts: to be embedded at most; those in the store are not subtracted.
        gflops: of one image, in 10^9 floating-point operations (two for a multiply-add).
        download_bytes: of its weights, estimated; 0 if local, None if unavailable.
        memory_bytes: that it takes while embedding, in all workers on one device, estimated.
        seconds: one image takes in the forward, measured; None if nothing was measured.
    """

    backbone: str
    images: int
    prompts: int
    gflops: float
    download_bytes: int | None
    memory_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What an extraction would take.

    Attributes:
        device: where forwards would run.
        precision: in which they would.
        workers: devices side by side.
        splits: what would be embedded.
        backbones: those with images to embed.
        groups: backbones in memory together, one tuple per pass over the images.
        free_memory: of the device, in bytes.
        disk_bytes: that the features would take, twice while shards are merged.
        pixel_seconds: one thread takes to decode and resize a photo of 500 by 375 for all
            backbones, measured; None if nothing was measured.
        decoders: threads of each worker that would do so.
        hours: expected for the images; None if nothing was measured or a split's size is unknown.
            Prompts, downloads and loading come on top.
    """

    device: str
    precision: str
    workers: int
    splits: tuple[PlannedSplit, ...]
    backbones: tuple[PlannedBackbone, ...]
    groups: tuple[tuple[str, ...], ...]
    free_memory: int
    disk_bytes: int
    pixel_seconds: float | None
    decoders: int
    hours: float | None


def plan(
    request: Request,
    *,
    probe: bool = True,
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
) -> Plan:
    """Return what `extract` of the same request would do; nothing is downloaded or written.

    Data on disk is opened (and its files hashed, as `extract` would); for the rest the registry
    gives the expected number of images.

    Args:
        request: as for `extract`.
        probe: measure the speed of every backbone that has work to do.
        on_progress: called before each measurement: what, its number, their count.

    Raises:
        ClipnlcError: as `extract`, for what can be known before it runs.
    """
    opened = open_datasets(request)
    chosen = backbone_names.resolve(request.backbones, request.weights_dir)
    models = Models.of(request)
    parts = splits_of(request, opened)
    splits: list[PlannedSplit] = []
    prompts: dict[str, dict[str, int]] = {}
    for found in opened:
        survey = _Survey(
            request, Layout(request.store), found, templates_of(request, found), models
        )
        mine = parts[found.key]
        if not request.replace:
            check_halves(request, survey.layout, found, mine)
        splits += [survey.split(part, mine, chosen) for part in mine]
        prompts[found.key] = survey.prompts
    return _costs(
        request, tuple(splits), prompts, chosen, models, probe=probe, on_progress=on_progress
    )


@dataclass
class _Survey:
    """Looks at one data set without changing anything."""

    request: Request
    layout: Layout
    found: Dataset
    templates: tuple[str, ...] | None
    models: Models
    prompts: dict[str, int] = field(default_factory=dict)
    """By backbone."""

    def split(self, part: str, parts: Sequence[str], chosen: Sequence[Backbone]) -> PlannedSplit:
        download = self.found.download_bytes(tuple(dict.fromkeys(map(source_of, parts))))
        if download != 0:
            expected = self.found.expected_rows(source_of(part))
            images = None
            if expected is not None:
                start, stop = self._wanted(part, expected)[1]
                images = stop - start
            names = tuple(b.name for b in chosen)
            templates = len(self.templates or ())  # what is on the hub has its own
            self.prompts = dict.fromkeys(names, (self.found.expected_classes() or 0) * templates)
            return PlannedSplit(self.found.key, part, images, download, (), names)
        opened = self._open(part)
        if part == parts[0]:
            rest = dict.fromkeys([*parts, *split_names_of(self.request, self.found)])
            splits = itertools.chain([opened], (self._open(name) for name in rest if name != part))
            is_to_be_replaced(self.request, self.layout, self.found, splits)
        self.prompts = {
            b.name: len(opened.class_names) * len(self._templates(b, opened)) for b in chosen
        }
        rows, (start, stop) = self._wanted(opened.name, len(opened))
        cached, copied = [], {}
        for backbone in chosen:
            lacking = self._lacking(opened, backbone, rows)
            if lacking is None:
                cached.append(backbone.name)
            else:
                copied[backbone.name] = int((~lacking[start:stop]).sum())
        return PlannedSplit(
            self.found.key, opened.name, stop - start, 0, tuple(cached), tuple(copied), copied
        )

    def _templates(self, backbone: Backbone, split: Split) -> tuple[str, ...]:
        return templates_for(backbone, split.class_names, self.templates)

    def _wanted(self, split: str, there: int) -> tuple[Int64[np.ndarray, " rows"], Range]:
        """Return which images the feature file will hold, and the range of them requested."""
        rows = limited(split, there, self.request.limit)
        wanted = self.request.rows
        return rows, (0, len(rows)) if wanted is None else range_of(wanted, len(rows))

    def _open(self, part: str) -> Split:
        # A plan makes no store.
        cache = self.layout.root / "file-hashes.sqlite" if self.layout.root.is_dir() else None
        return open_split(self.request, self.found, part, hash_cache=cache)

    def _lacking(
        self, split: Split, backbone: Backbone, rows: Int64[np.ndarray, " rows"]
    ) -> Bool[np.ndarray, " rows"] | None:
        """Return which of the rows would be embedded; None where the features are there."""
        path = self.layout.features(self.found.key, split.name, backbone.name)
        if not path.is_file():
            return np.ones(len(rows), bool)
        if not family(backbone.family).at_hand(backbone):
            return None  # its weights cannot be compared without downloading them
        job = job_of(
            self.layout,
            self.found.key,
            split,
            backbone,
            identity=identity(backbone, self.layout.root / "backbones.json"),
            precision=self.models.precision,
            compiled=self.models.compiled,
            samples=len(rows),
            templates=self._templates(backbone, split),
            max_pixels=self.request.max_pixels,
        )
        if changes(job) is None or same_images(job):
            return None
        lacking: Bool[np.ndarray, " rows"] = reusable(job, split, rows) == EMBED
        return lacking


def _costs(
    request: Request,
    splits: tuple[PlannedSplit, ...],
    prompts: Mapping[str, Mapping[str, int]],
    chosen: Sequence[Backbone],
    models: Models,
    *,
    probe: bool,
    on_progress: Callable[[str, int, int], None],
) -> Plan:
    from clipnlc.backbones.costs import costs, download_bytes
    from clipnlc.backbones.loaded import describe

    device, precision = models.device, models.precision
    size = request.batch_size or default_batch_size(device)
    workers = len(request.engine.devices)
    lacking = [b for b in chosen if any(b.name in split.lacking for split in splits)]
    passes = Passes.of(request, lacking, models)
    groups = [passes.now() for _ in passes]
    seconds: dict[str, float] = {}
    pixels: float | None = None
    if probe and lacking:
        seconds, pixels = _probe(groups, models, size, on_progress)
    planned = []
    disk = 0
    for backbone in lacking:
        mine = [split for split in splits if backbone.name in split.lacking]
        images = sum(split.to_embed(backbone.name) for split in mine)
        disk += (
            sum(split.images or 0 for split in mine)
            * describe(backbone)["dim"]
            * (4 if precision == "fp32" else 2)
        )
        planned.append(
            PlannedBackbone(
                backbone=backbone.name,
                images=images,
                prompts=sum(
                    prompts[key][backbone.name] for key in {split.dataset for split in mine}
                ),
                gflops=costs(backbone).image_flops / 1e9,
                download_bytes=download_bytes(backbone),
                memory_bytes=memory(
                    backbone, models, batch_size=request.batch_size, copies=request.copies
                ),
                seconds=seconds.get(backbone.name),
            )
        )
    plan = Plan(
        device=device,
        precision=precision,
        workers=workers,
        splits=splits,
        backbones=tuple(planned),
        groups=tuple(tuple(b.name for b in group) for group in groups),
        free_memory=free_memory(device),
        disk_bytes=disk,
        pixel_seconds=pixels,
        decoders=request.workers or default_decoders(device, workers),
        hours=None,
    )
    return replace(plan, hours=_hours(plan))


def _probe(
    groups: Sequence[Sequence[Backbone]],
    models: Models,
    batch_size: int,
    on_progress: Callable[[str, int, int], None],
) -> tuple[dict[str, float], float]:
    """Measure seconds per image: of each backbone's forward, and of one thread's pixels."""
    lacking = [backbone for group in groups for backbone in group]
    seconds = {}
    for number, backbone in enumerate(lacking):
        on_progress(f"probe {backbone.name}", number, len(lacking))
        seconds[backbone.name] = forward_seconds(
            backbone,
            device=models.device,
            precision=models.precision,
            compiled=models.compiled,
            batch_size=batch_size,
            budget=_PROBE * (1 - _TO_DECODE) / len(lacking),
        )
    pixels = sum(
        pixel_seconds(
            [family(b.family).preprocessing(b) for b in group], budget=_PROBE * _TO_DECODE
        )
        for group in groups
    )
    return seconds, pixels


def _hours(plan: Plan) -> float | None:
    """Add up the images' time: decoders run beside a GPU; on a CPU they compete for the cores."""
    if plan.pixel_seconds is None or any(split.images is None for split in plan.splits):
        return None
    seconds = {b.backbone: b.seconds or 0.0 for b in plan.backbones}
    on_cpu = plan.device == "cpu"
    total = 0.0
    for split in plan.splits:
        if not split.lacking or split.images is None:
            continue
        images = {name: split.to_embed(name) for name in split.lacking}
        forward = sum(images[name] * seconds[name] for name in images)
        forward = forward if on_cpu else forward / plan.workers
        pixels = max(images.values()) * plan.pixel_seconds
        pixels /= cores() if on_cpu else plan.decoders * plan.workers
        total += forward + pixels if on_cpu else max(forward, pixels)
    return total / 3600
