"""Embed images and class names with every backbone; write feature stores and zero-shot logits."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from clipnlc import backbones as backbone_names
from clipnlc.backbones import Backbone
from clipnlc.backbones.families import family
from clipnlc.backbones.identity import identity
from clipnlc.datasets.dataset import Dataset
from clipnlc.datasets.source import Split
from clipnlc.datasets.splits import canonical
from clipnlc.errors import MissingStageError
from clipnlc.extraction.crew import Alone, Workers, open_workers, run_order
from clipnlc.extraction.finishing import merge, write_zero_shot_logits
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
from clipnlc.extraction.order import Job, Order, Progress, Range
from clipnlc.extraction.passes import Passes
from clipnlc.extraction.pixels import default_decoders
from clipnlc.extraction.request import Limit, Request
from clipnlc.extraction.reuse import alike
from clipnlc.extraction.stored import (
    check_halves,
    drop_unlabelled,
    is_to_be_replaced,
    others,
    refuse_unlike,
    settle,
    typed,
    with_other_classes,
)
from clipnlc.extraction.texts import embed_classes, templates_for
from clipnlc.stores import features as feature_files
from clipnlc.stores import locks, shards
from clipnlc.stores.layout import Layout, shards_of
from clipnlc.stores.removal import remove_dataset
from clipnlc.stores.texts import TextStore, read_texts, text_key, write_texts
from clipnlc.view import crop_number

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """Result for one feature file.

    Attributes:
        dataset: its key.
        split: its name.
        backbone: its name.
        rows: samples in the file, or sealed so far where it is not finished.
        cached: it existed already, with the same key.
        changed: `field: old -> new`, where a file with another key was replaced.
        skipped: unreadable images that have no row, each with the reason.
        missing: ranges of rows that other workers are to embed, for a run of some rows only.
        merged: the file exists; false while rows are missing, or another worker is merging.
        copied: rows whose image was unchanged, taken from the file that was replaced.
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
    copied: int = 0


@dataclass(frozen=True)
class Watch:
    """Progress callbacks.

    Attributes:
        note: called with one line for the user.
        progress: called after every batch of images.
        texts: called after every batch of prompts: backbone, prompts done, prompts in all.
    """

    note: Callable[[str], None] = lambda _: None
    progress: Callable[[Progress], None] = lambda _: None
    texts: Callable[[str, int, int], None] = lambda _name, _done, _total: None


def extract(request: Request, *, watch: Watch = Watch()) -> list[Outcome]:
    """Write the features of every backbone on every split, and the zero-shot logits.

    Images are decoded once and resized once per distinct input for all backbones that fit in
    memory together. Files that exist under the same key are left alone; an interrupted run
    continues where it stopped.

    Args:
        request: what to extract, where to, and how.
        watch: called as it goes.

    Returns:
        One outcome per feature file, in the order data set, split, backbone.

    Raises:
        DataError: the data cannot be used.
        BackboneError: weights cannot be loaded, or device or precision used.
        UnknownNameError: a name is not known.
        StoreError: a store file is damaged or in use.
    """
    found = open_datasets(request)
    parts = splits_of(request, found)
    chosen = backbone_names.resolve(request.backbones, request.weights_dir)
    models = Models.of(request)
    work = _Work(
        request=request,
        layout=Layout(request.store),
        models=models,
        passes=Passes.of(request, chosen, models),
        workers=open_workers(request.engine, models),
        watch=watch,
        chosen=[backbone.name for backbone in chosen],
    )
    outcomes: dict[tuple[str, str], dict[str, Outcome]] = {}
    with closing(work.workers):
        for _ in work.passes:
            rest = _rest(found, parts, work.layout, work.passes.left, request.limit)
            for one in found:
                for outcome in work.dataset(one, parts[one.key], rest):
                    place = outcomes.setdefault((outcome.dataset, outcome.split), {})
                    place.setdefault(outcome.backbone, outcome)
    return [place[backbone.name] for place in outcomes.values() for backbone in chosen]


@dataclass(frozen=True)
class _Work:
    """What is the same for every split."""

    request: Request
    layout: Layout
    models: Models
    passes: Passes
    workers: Workers
    watch: Watch
    chosen: Sequence[str]
    noted: set[str] = field(default_factory=set)

    def dataset(
        self, found: Dataset, parts: Sequence[str], rest: Mapping[tuple[str, str], int | None]
    ) -> list[Outcome]:
        """Extract the splits of a data set with the backbones of this pass; write its logits."""
        templates = templates_of(self.request, found)
        made = [canonical(part) for part in parts]
        jobs: list[Job] = []
        outcomes = []
        for part in parts:
            split = self._open(found, part)
            if not jobs:
                self._check(found, split, made)
                check_halves(self.request, self.layout, found, parts)
                there = split_names_of(self.request, found)
                self._note(drop_unlabelled(self.layout, found.key, there))
                jobs = self._jobs(found.key, split, templates)
                refuse_unlike(
                    self.request,
                    found,
                    others(self.layout, found.key, jobs, made),
                    there,
                )
            for note in split.notes:
                self._note(f"{found.key}: {note}")
            outcomes += self._split(found.key, split, templates, rest[found.key, part])
        finished = Counter(o.backbone for o in outcomes if o.merged)
        for backbone in finished:
            if finished[backbone] < len(parts):
                continue  # its other splits belong to another pass, or to another worker
            own = [job for job in jobs if job.backbone.name == backbone]
            for other in others(self.layout, found.key, own, made):
                self._embed_texts(own[0], split)
                self._note(settle(self.layout, found.key, other))
            # Of several workers that saw the last range sealed, one writes and the others need not.
            with suppress(locks.InUseError) if self.request.rows else nullcontext():
                write_zero_shot_logits(self.layout, found.key, backbone)
        behind = with_other_classes(self.layout, found.key, jobs, self.chosen)
        if behind:
            cure = self.request.spelled(dataset=[typed(found)], backbones=behind, program="extract")
            self._note(
                f"{found.key}: {', '.join(behind)} still with other class names in the store; "
                f"run `{cure}` to use them together"
            )
        return outcomes

    def _open(self, found: Dataset, part: str) -> Split:
        hash_cache = self.layout.root / "file-hashes.sqlite"
        return open_split(self.request, found, part, hash_cache=hash_cache)

    def _check(self, found: Dataset, split: Split, made: Sequence[str]) -> None:
        """Refuse a data set that would overwrite another; `split` is open already."""
        rest = [
            name for name in (*made, *split_names_of(self.request, found)) if name != split.name
        ]
        splits = itertools.chain([split], (self._open(found, n) for n in dict.fromkeys(rest)))
        if is_to_be_replaced(self.request, self.layout, found, splits):
            remove_dataset(self.layout, found.key)
            self._note(f"{found.key}: another data set of this name was removed from the store")

    def _note(self, note: str | None) -> None:
        """Report a note once, though there may be several passes."""
        if note is not None and note not in self.noted:
            self.noted.add(note)
            self.watch.note(note)

    def _split(
        self, dataset: str, split: Split, templates: tuple[str, ...] | None, rest: int | None
    ) -> list[Outcome]:
        """Extract one split; backbones that are left to another pass have no outcome."""
        rows = limited(split.name, len(split), self.request.limit)
        wanted = self.request.rows
        within = None if wanted is None else range_of(wanted, len(rows))
        jobs = self._jobs(dataset, split, templates)
        changed = {job.path: changes(job) for job in jobs}
        copied: dict[Path, int] = {}
        lacking = [job for job in jobs if changed[job.path] is not None and not same_images(job)]
        if lacking:
            now = self.passes.now()
            lacking = [job for job in lacking if job.backbone in now]
            jobs = [job for job in jobs if job.backbone in now or changed[job.path] is None]
        for job in jobs:
            if changed[job.path] is None:
                _clean_up(job)
            elif job not in lacking:
                with locks.writing(job.path):
                    self._embed_texts(job, split)
                    _keep_features(job, split)
                    merge(self.layout, job.path, job.key)
        with ExitStack() as stack:
            for job in lacking:
                stack.enter_context(locks.writing(job.path, within))
            for job in lacking:
                self._embed_texts(job, split)
            if lacking:
                copied = self._embed_images(dataset, split, rows, lacking, within=within, rest=rest)
            for job in lacking if within is None else []:
                merge(self.layout, job.path, job.key)
        for job in lacking if within is not None else []:
            self._merge_if_last(job)
        return [
            self._outcome(dataset, split, job, changed[job.path], copied.get(job.path, 0))
            for job in jobs
        ]

    def _jobs(self, dataset: str, split: Split, templates: Sequence[str] | None) -> list[Job]:
        """Return the feature file of each backbone, as it is to be."""
        return [
            job_of(
                self.layout,
                dataset,
                split,
                backbone,
                identity=identity(backbone, self.layout.root / "backbones.json"),
                precision=self.models.precision,
                compiled=self.models.compiled,
                samples=len(limited(split.name, len(split), self.request.limit)),
                templates=templates_for(backbone, split.class_names, templates),
                max_pixels=self.request.max_pixels,
            )
            for backbone in self.passes.left
        ]

    def _embed_texts(self, job: Job, split: Split) -> None:
        """Embed the classes, once for all splits and data sets that share them."""
        key = text_key(job.key)
        path = self.layout.texts(job.backbone.name, key)
        with suppress(MissingStageError):
            read_texts(path)  # a damaged one fails now, not when the images are done
            return
        if not family(job.backbone.family).has_texts(job.backbone):
            store = TextStore(None, split.class_names, None, 0.0, key)
            with locks.writing(path):
                write_texts(path, store)
            return
        model = self.models.load(job.backbone)
        request = self.request
        # Published prompts fit into 77 tokens, not into nano's 16: with nano they are a rehearsal.
        rehearsal = bool(
            "source" in split.origin
            and job.backbone.source == "nano"
            and not (request.templates or request.class_names)
        )
        texts = embed_classes(
            model,
            split.class_names,
            job.key.fields["classes"]["templates"],
            on_cut=self._note if rehearsal else None,
            on_progress=lambda done, total: self.watch.texts(job.backbone.name, done, total),
        )
        store = TextStore(texts, split.class_names, model.logit_scale, model.logit_bias, key)
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
    ) -> dict[Path, int]:
        """Embed and seal what the jobs lack; return how many rows each copies."""
        request, device = self.request, self.models.device
        count = len(request.engine.devices)
        if not isinstance(self.workers, Alone):
            self.models.release()
        copied: dict[Path, int] = {}
        for group, reused in alike(jobs, split, rows):
            some = reused >= 0
            order = Order(
                dataset=dataset,
                split=split,
                rows=rows,
                jobs=tuple(group),
                precision=self.models.precision,
                compiled=self.models.compiled,
                batch_size=request.batch_size or default_batch_size(device),
                decoders=request.workers or default_decoders(device, count),
                on_bad_image=request.on_bad_image,
                max_pixels=request.max_pixels,
                crop=crop_number(split.name),
                reused=reused if some.any() else None,
            )
            run_order(
                order,
                self.workers,
                count,
                within=within,
                rest=rest,
                on_progress=self.watch.progress,
            )
            copied |= dict.fromkeys((job.path for job in group), int(some.sum()))
        return copied

    def _merge_if_last(self, job: Job) -> None:
        """Merge if every range is sealed; while other workers write, leave it to the last."""
        with suppress(locks.InUseError), locks.writing(job.path):
            if changes(job) is not None and not self._missing(job):
                merge(self.layout, job.path, job.key)

    def _missing(self, job: Job) -> tuple[Range, ...]:
        """List the ranges not sealed yet; another worker may merge and remove shards meanwhile."""
        rows = job.key.fields["images"]["samples"]
        missing: list[Range] = []
        with suppress(MissingStageError):
            missing = shards.missing_ranges(job.path, job.key, rows, rows)
        return () if changes(job) is None else tuple(missing)

    def _outcome(
        self, dataset: str, split: Split, job: Job, changed: tuple[str, ...] | None, copied: int
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
            copied=copied,
        )


def _rest(
    found: Sequence[Dataset],
    parts: Mapping[str, Sequence[str]],
    layout: Layout,
    backbones: Sequence[Backbone],
    limit: Limit | None,
) -> dict[tuple[str, str], int | None]:
    """Count the images in later splits; None if unknown.

    A split for which every backbone has a file is assumed to be cached.
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
            rows = one.expected_rows(source_of(part))
            after = None if rows is None else after + len(limited(part, rows, limit))
    return rest


def _clean_up(job: Job) -> None:
    """Remove the shards left by a run that was killed after merging."""
    if shards_of(job.path).is_dir():
        with suppress(locks.InUseError), locks.writing(job.path):
            shards.remove_shards(job.path)


def _keep_features(job: Job, split: Split) -> None:
    """Make shards of the existing features, with the labels as they are now."""
    old = feature_files.read_feature_columns(job.path)
    place = {s: i for i, s in enumerate(split.sample_id)}
    shards.remove_shards(job.path)
    shards.reseal(job.path, job.key, split.labels[[place[s] for s in old.sample_id]])
