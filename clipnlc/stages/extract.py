"""Embed images and class names with every backbone; write feature stores and zero-shot logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int64

from clipnlc import backbones as backbone_names
from clipnlc.backbones import Backbone
from clipnlc.backbones.identity import identity
from clipnlc.datasets.dataset import Dataset
from clipnlc.datasets.prompts import fill, read_templates
from clipnlc.datasets.source import Split
from clipnlc.errors import MissingStageError
from clipnlc.extraction.engines import Alone, Engine, Workers, open_engine, work_off
from clipnlc.extraction.finishing import merge, write_zero_shot_logits
from clipnlc.extraction.groups import Groups, default_batch_size, default_decoders
from clipnlc.extraction.jobs import (
    Limit,
    Rows,
    changes,
    check_single_split,
    job_of,
    limited,
    open_datasets,
    range_of,
    same_images,
)
from clipnlc.extraction.models import Models
from clipnlc.extraction.order import BadImage, Job, Order, Progress, Range
from clipnlc.stores import features as feature_files
from clipnlc.stores import locks, shards
from clipnlc.stores.layout import Layout, shards_of
from clipnlc.stores.texts import TextStore, read_texts, text_key, write_texts

_NO_FULL_STOP: Final = (
    "the nano backbones have never read a full stop and are far worse with one; "
    "give --templates a file that says: a photo of a {c}"
)


@dataclass(frozen=True)
class Outcome:
    """What became of one feature file.

    Attributes:
        dataset: its key.
        split: its name.
        backbone: its name.
        rows: samples in the file, or sealed so far where it is not finished.
        cached: it was there, with the same key.
        changed: `field: old -> new`, where a file with another key was replaced.
        skipped: unreadable images that have no row, each with the reason.
        missing: ranges of rows that somebody else is to embed, for a run of some rows only.
        merged: the file is there; false while rows are missing, or another worker is merging.
    """

    dataset: str
    split: str
    backbone: str
    rows: int
    cached: bool
    changed: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    missing: tuple[Range, ...] = ()
    merged: bool = True


@dataclass(frozen=True)
class Watch:
    """Who is told what while an extraction runs.

    Attributes:
        note: one line for the user.
        progress: after every batch of images.
        texts: after every batch of prompts: backbone, prompts done, prompts in all.
    """

    note: Callable[[str], None] = lambda _: None
    progress: Callable[[Progress], None] = lambda _: None
    texts: Callable[[str, int, int], None] = lambda _name, _done, _total: None


def extract(
    *,
    store: Path,
    dataset: Sequence[str],
    backbones: Sequence[str],
    split: Sequence[str] = (),
    name: str | None = None,
    sources: Mapping[str, Path] | Path | None = None,
    accept_different_data: bool = False,
    prompts: str = "openai",
    templates: Path | None = None,
    class_names: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    limit: Limit | None = None,
    rows: Rows | None = None,
    weights_dir: Path | None = None,
    batch_size: int | None = None,
    together: int | None = None,
    engine: Engine = Engine(),  # noqa: B008  (frozen)
    precision: str = "auto",
    compiled: bool = False,
    workers: int | None = None,
    on_bad_image: BadImage = "fail",
    watch: Watch = Watch(),
) -> list[Outcome]:
    """Write the features of every backbone on every split, and the zero-shot logits.

    Images are decoded once and resized once per distinct input for all backbones that fit in
    memory together. What is there under the same key is left alone; a run that was interrupted
    goes on where it stopped.

    Args:
        store: the store's folder.
        dataset: keys, groups or paths.
        backbones: names or groups.
        split: splits to extract; by default every split the data set has.
        name: the store's name for a path; needs exactly one data set.
        sources: local places of data sets that else come from the hub: by key, or one folder
            with a subfolder per key.
        accept_different_data: go on, and record it, where a known data set has other rows or
            classes than expected.
        prompts: whose templates: `openai`, `clip-benchmark`, or `simple` (the first one alone).
        templates: file of prompt templates that replace the data set's own.
        class_names: file of class names that replace the data set's own.
        image_column: column of the images, for tables and tars.
        label_column: column of the labels, for tables and tars.
        limit: at most this many images per split, spread evenly over it.
        rows: embed only this range of a single split's rows; whoever seals the last merges.
        weights_dir: folder with the weights files of pretrained tags, instead of the hub.
        batch_size: images of one forward; by default 16 on a CPU, 64 elsewhere.
        together: backbones in memory at a time; by default as many as fit.
        engine: where the work is done.
        precision: `auto`, `fp32`, `fp16`, `bf16`.
        compiled: compile the forwards of images first; a part of the key, for the last bits of
            features differ.
        workers: threads that decode and resize; by default one per core, half of them on a CPU.
        on_bad_image: stop at an unreadable image, or leave it out and record it.
        watch: who is told what on the way.

    Returns:
        One outcome per feature file, in the order data set, split, backbone.

    Raises:
        DataError: the data cannot be used.
        BackboneError: weights cannot be loaded, or device or precision used.
        UnknownNameError: a name is not known.
        StoreError: a store file is damaged or in use.
    """
    found = open_datasets(
        dataset,
        name=name,
        limit=limit,
        sources=sources,
        accept_different_data=accept_different_data,
        prompts=prompts,
    )
    parts = {one.key: tuple(split) or one.split_names() for one in found}
    check_single_split(rows, parts)
    chosen = backbone_names.resolve(backbones, weights_dir)
    models = Models(engine.devices[0], precision, compiled=compiled, batch_size=batch_size)
    layout = Layout(store)
    work = _Work(
        layout=layout,
        models=models,
        groups=Groups(
            chosen,
            models,
            together=together,
            batch_size=batch_size,
            copies=engine.devices.count(engine.devices[0]),
        ),
        engine=engine,
        staff=open_engine(engine, models),
        templates=read_templates(templates) if templates else None,
        class_names=class_names,
        image_column=image_column,
        label_column=label_column,
        limit=limit,
        rows=rows,
        batch_size=batch_size,
        workers=workers,
        on_bad_image=on_bad_image,
        watch=watch,
    )
    outcomes: dict[tuple[str, str], dict[str, Outcome]] = {}
    with closing(work.staff):
        for _ in work.groups:
            rest = _rest(found, parts, layout, work.groups.left, limit)
            for one in found:
                for outcome in work.dataset(one, parts[one.key], rest):
                    place = outcomes.setdefault((outcome.dataset, outcome.split), {})
                    place.setdefault(outcome.backbone, outcome)
    return [place[backbone.name] for place in outcomes.values() for backbone in chosen]


@dataclass(frozen=True)
class _Work:
    """What is the same for every split."""

    layout: Layout
    models: Models
    groups: Groups
    engine: Engine
    staff: Workers
    templates: tuple[str, ...] | None
    class_names: Path | None
    image_column: str | None
    label_column: str | None
    limit: Limit | None
    rows: Rows | None
    batch_size: int | None
    workers: int | None
    on_bad_image: BadImage
    watch: Watch
    told: set[str] = field(default_factory=set)

    def dataset(
        self, found: Dataset, parts: Sequence[str], rest: Mapping[tuple[str, str], int | None]
    ) -> list[Outcome]:
        """Do the splits of a data set with the backbones of this pass, and the logits."""
        templates = self.templates or found.templates
        nano = any(backbone.source == "nano" for backbone in self.groups.left)
        outcomes = []
        for part in parts:
            split = found.open(
                part,
                class_names_file=self.class_names,
                image_column=self.image_column,
                label_column=self.label_column,
                hash_cache=self.layout.root / "file-hashes.sqlite",
            )
            if nano and any(template.endswith(".") for template in templates):
                self._tell(_NO_FULL_STOP)
            for note in split.notes:
                self._tell(f"{found.key}: {note}")
            outcomes += self._split(found.key, split, templates, rest[found.key, part])
        finished = Counter(o.backbone for o in outcomes if o.merged)
        for backbone in finished:
            if finished[backbone] < len(parts):
                continue  # its other splits are for another pass, or for another worker
            # Of several workers that saw the last range sealed, one writes and the others need not.
            with suppress(locks.InUseError) if self.rows else nullcontext():
                write_zero_shot_logits(self.layout, found.key, backbone)
        return outcomes

    def _tell(self, note: str) -> None:
        """Say a note once, though there may be several passes."""
        if note not in self.told:
            self.told.add(note)
            self.watch.note(note)

    def _split(
        self, dataset: str, split: Split, templates: tuple[str, ...], rest: int | None
    ) -> list[Outcome]:
        """Do one split; backbones that are put off to another pass have no outcome."""
        rows = limited(split.name, len(split), self.limit)
        within = None if self.rows is None else range_of(self.rows, len(rows))
        jobs = [
            job_of(
                self.layout,
                dataset,
                split,
                backbone,
                identity=identity(backbone, self.layout.root / "backbones.json"),
                precision=self.models.precision,
                compiled=self.models.compiled,
                samples=len(rows),
                templates=templates,
            )
            for backbone in self.groups.left
        ]
        changed = {job.path: changes(job) for job in jobs}
        lacking = [job for job in jobs if changed[job.path] is not None and not same_images(job)]
        if lacking:
            now = self.groups.now()
            lacking = [job for job in lacking if job.backbone in now]
            jobs = [job for job in jobs if job.backbone in now or changed[job.path] is None]
        for job in jobs:
            if changed[job.path] is None:
                _clean_up(job)
            elif job not in lacking:
                with locks.writing(job.path):
                    self._embed_texts(job, split.class_names, templates)
                    _keep_features(job, split)
                    merge(self.layout, job.path, job.key)
        with ExitStack() as stack:
            for job in lacking:
                stack.enter_context(locks.writing(job.path, within))
            for job in lacking:
                self._embed_texts(job, split.class_names, templates)
            if lacking:
                self._embed_images(dataset, split, rows, lacking, within=within, rest=rest)
            for job in lacking if within is None else []:
                merge(self.layout, job.path, job.key)
        for job in lacking if within is not None else []:
            self._merge_if_last(job)
        return [self._outcome(dataset, split, job, changed[job.path]) for job in jobs]

    def _embed_texts(
        self, job: Job, class_names: tuple[str, ...], templates: Sequence[str]
    ) -> None:
        """Embed the classes, once for all splits and data sets that share them."""
        key = text_key(job.key)
        path = self.layout.texts(job.backbone.name, key)
        with suppress(MissingStageError):
            read_texts(path)  # a damaged one is told now, not when the images are done
            return
        model = self.models.load(job.backbone)
        texts = model.embed_classes(
            [fill(templates, c) for c in class_names],
            on_progress=lambda done, total: self.watch.texts(job.backbone.name, done, total),
        )
        store = TextStore(texts, class_names, model.logit_scale, model.logit_bias, key)
        with locks.writing(path):
            if not path.is_file():  # a worker of other rows may have been first
                write_texts(path, store)

    def _embed_images(
        self,
        dataset: str,
        split: Split,
        rows: Int64[np.ndarray, " rows"],
        jobs: list[Job],
        *,
        within: Range | None,
        rest: int | None,
    ) -> None:
        device, workers = self.models.device, len(self.engine.devices)
        order = Order(
            dataset=dataset,
            split=split,
            rows=rows,
            jobs=tuple(jobs),
            precision=self.models.precision,
            compiled=self.models.compiled,
            batch_size=self.batch_size or default_batch_size(device),
            decoders=self.workers or default_decoders(device, workers),
            on_bad_image=self.on_bad_image,
        )
        if not isinstance(self.staff, Alone):
            self.models.release()
        work_off(
            order,
            self.staff,
            workers,
            within=within,
            rest=rest,
            on_progress=self.watch.progress,
        )

    def _merge_if_last(self, job: Job) -> None:
        """Merge where every range is sealed; while others are at work, leave it to the last."""
        with suppress(locks.InUseError), locks.writing(job.path):
            if changes(job) is not None and not self._missing(job):
                merge(self.layout, job.path, job.key)

    def _missing(self, job: Job) -> tuple[Range, ...]:
        """List what is not sealed, though another worker may merge and remove shards meanwhile."""
        rows = job.key.fields["images"]["samples"]
        missing: list[Range] = []
        with suppress(MissingStageError):
            missing = shards.missing_ranges(job.path, job.key, rows, rows)
        return () if changes(job) is None else tuple(missing)

    def _outcome(
        self, dataset: str, split: Split, job: Job, changed: tuple[str, ...] | None
    ) -> Outcome:
        missing = self._missing(job)
        merged = changes(job) is None
        if not merged:
            rows = job.key.fields["images"]["samples"] - sum(b - a for a, b in missing)
            skipped: tuple[tuple[str, str], ...] = ()
        else:
            header = feature_files.read_feature_header(job.path)
            rows = header.rows
            skipped = feature_files.read_feature_columns(job.path).skipped if header.skipped else ()
        return Outcome(
            dataset=dataset,
            split=split.name,
            backbone=job.backbone.name,
            rows=rows,
            cached=changed is None,
            changed=changed or (),
            skipped=skipped,
            missing=missing,
            merged=merged,
        )


def _rest(
    found: Sequence[Dataset],
    parts: Mapping[str, Sequence[str]],
    layout: Layout,
    backbones: Sequence[Backbone],
    limit: Limit | None,
) -> dict[tuple[str, str], int | None]:
    """Tell of each split how many images those after it will have; None where nobody can tell.

    A split of which every backbone has a file is taken for cached.
    """
    rest: dict[tuple[str, str], int | None] = {}
    after: int | None = 0
    for one in reversed(found):
        for part in reversed(parts[one.key]):
            rest[one.key, part] = after
            if after is None or all(
                layout.features(one.key, part, b.name).is_file() for b in backbones
            ):
                continue
            rows = one.expected_rows(part)
            after = None if rows is None else after + len(limited(part, rows, limit))
    return rest


def _clean_up(job: Job) -> None:
    """Remove the shards that a run killed between merging and cleaning up left behind."""
    if shards_of(job.path).is_dir():
        with suppress(locks.InUseError), locks.writing(job.path):
            shards.remove_shards(job.path)


def _keep_features(job: Job, split: Split) -> None:
    """Make shards of the features that are there, with the labels as they are now."""
    old = feature_files.read_feature_columns(job.path)
    place = {s: i for i, s in enumerate(split.sample_id)}
    shards.remove_shards(job.path)
    shards.reseal(job.path, job.key, split.labels[[place[s] for s in old.sample_id]])
