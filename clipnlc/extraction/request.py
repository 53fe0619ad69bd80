"""What is to be extracted, as one value: `extract` does it, `plan` estimates its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from clipnlc.commands import command
from clipnlc.datasets.images import MAX_PIXELS
from clipnlc.extraction.pixels import BadImage

EngineName = Literal["local", "ray"]

Limit = int | Mapping[str, int]
"""At most this many images: of every split, or of the splits named."""

Rows = tuple[int, int | None]
"""First row, and the row after the last; None is the end of the split."""


@dataclass(frozen=True)
class Engine:
    """Where the work is done.

    Attributes:
        devices: one worker each; a single one is this process itself.
        name: `local`, or `ray`.
        ray_address: of a running cluster; without one, Ray starts its own on this machine.
    """

    devices: tuple[str, ...] = ("auto",)
    name: EngineName = "local"
    ray_address: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be extracted, where it goes, and how.

    Attributes:
        store: the store's folder.
        dataset: keys, groups or paths.
        backbones: names or groups.
        split: splits to extract; by default every split the data set has.
        name: the store's name for a path; needs exactly one data set.
        sources: local copies of data sets that are otherwise downloaded from the hub: by key, or
            one folder with a subfolder per key.
        accept_different_data: continue, and record it, where a known data set has other rows or
            classes than expected.
        prompts: whose templates: `openai`, `clip-benchmark`, or `simple` (the first one alone).
        templates: file of prompt templates that replace the data set's own.
        class_names: file of class names that replace the data set's own.
        image_column: column of the images or their files, where there are columns.
        label_column: column of the labels, where there are columns.
        labels: a table of the labels of a folder's images; those that it gives none are the split
            `unlabelled`.
        classes: with `labels`, the class names, where there are more than labels.
        test_share: divide data sets without a test split, with so large a share of test.
        limit: at most this many images per split, spread evenly over it.
        crops: also so many augmented crops of each image of train (`extraction.crops`).
        rows: embed only this range of a single split's rows; the worker that seals the last range merges.
        weights_dir: folder with the weights files of pretrained tags, instead of the hub.
        batch_size: images of one forward; by default 16 on a CPU, 64 elsewhere.
        together: backbones in memory at a time; by default as many as fit.
        engine: where the work is done.
        precision: `auto`, `fp32`, `fp16`, `bf16`.
        compiled: compile the forwards of images first; a part of the key, for the last bits of
            features differ.
        workers: threads that decode and resize; by default one per core, half of them on a CPU.
        on_bad_image: `fail` at an unreadable image, or `skip` and record it.
        replace: let a path take the place of another data set that has its name in the store.
        max_pixels: a larger image is unreadable; another number than the default is a part of the
            key, for it decides which images are skipped.
        program: the command that it was made by, which a message is to spell.
    """

    store: Path
    dataset: Sequence[str]
    backbones: Sequence[str]
    split: Sequence[str] = ()
    name: str | None = None
    sources: Mapping[str, Path] | Path | None = None
    accept_different_data: bool = False
    prompts: str = "openai"
    templates: Path | None = None
    class_names: Path | None = None
    image_column: str | None = None
    label_column: str | None = None
    labels: Path | None = None
    classes: tuple[str, ...] = ()
    test_share: float | None = None
    limit: Limit | None = None
    crops: int = 0
    rows: Rows | None = None
    weights_dir: Path | None = None
    batch_size: int | None = None
    together: int | None = None
    engine: Engine = field(default_factory=Engine)
    precision: str = "auto"
    compiled: bool = False
    workers: int | None = None
    on_bad_image: BadImage = "fail"
    replace: bool = False
    max_pixels: int = MAX_PIXELS
    program: Literal["extract", "run"] = "extract"

    @property
    def copies(self) -> int:
        """Workers that share the first device and its memory."""
        return self.engine.devices.count(self.engine.devices[0])

    def spelled(self, **changes: Any) -> str:  # noqa: ANN401  (fields of many types)
        """Spell the command that makes this request, with some fields changed.

        What changes only the speed is left out.
        """
        one = replace(self, **changes)
        sources = one.sources or {}
        pairs = (
            [str(sources)]
            if isinstance(sources, Path)
            else [f"{k}={p}" for k, p in sources.items()]
        )
        limit = one.limit
        rows = one.rows and f"{one.rows[0]}:{'' if one.rows[1] is None else one.rows[1]}"
        is_run = one.program == "run"
        devices = one.engine.devices if one.engine.devices != ("auto",) else None
        return command(
            one.program,
            *(one.dataset if is_run else ()),
            *(word for pair in pairs for word in ("--source", pair)),
            store=one.store,
            dataset=() if is_run else list(one.dataset),
            backbones=list(one.backbones),
            split=list(one.split),
            name=one.name,
            templates=one.templates,
            class_names=one.class_names,
            image_column=one.image_column,
            label_column=one.label_column,
            labels=one.labels,
            classes=list(one.classes),
            accept_different_data=one.accept_different_data,
            test_share=one.test_share,
            prompts=one.prompts if one.prompts != "openai" else None,
            limit=[f"{k}={n}" for k, n in limit.items()] if isinstance(limit, Mapping) else limit,
            crops=one.crops or None,
            rows=rows,
            weights_dir=one.weights_dir,
            **{"device" if is_run else "devices": devices},
            precision=one.precision if one.precision != "auto" else None,
            compile=one.compiled,
            on_bad_image=one.on_bad_image if one.on_bad_image != "fail" else None,
            max_pixels=one.max_pixels if one.max_pixels != MAX_PIXELS else None,
            replace=one.replace,
        )
