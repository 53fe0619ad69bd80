"""Embed images and class names with every backbone; write feature stores and zero-shot logits."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from clipnlc import backbones as backbone_names
from clipnlc import datasets
from clipnlc.backbones.identity import identity
from clipnlc.datasets.images import load
from clipnlc.datasets.prompts import fill, read_templates
from clipnlc.datasets.source import Sample, Split, open_split, splits
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.heads.zero_shot import zero_shot_logits
from clipnlc.stores import features as feature_files
from clipnlc.stores import locks
from clipnlc.stores import logits as logit_files
from clipnlc.stores.key import Key, content_digest, differences
from clipnlc.stores.layout import Layout

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.backbones.loaded import LoadedBackbone

HEAD: Final = "zero-shot"
SHARD_ROWS: Final = 2048
"""Samples of one sealed shard; a kill loses at most this many per backbone."""

_NVIDIA: Final = Path("/proc/driver/nvidia")
"""Present where a CUDA device can be; only then is torch asked (importing it takes seconds)."""

_NO_FULL_STOP: Final = (
    "the nano backbones have never read a full stop and are far worse with one; "
    "give --templates a file that says: a photo of a {c}"
)

BadImage = Literal["fail", "skip"]


@dataclass(frozen=True)
class Outcome:
    """What became of one feature file.

    Attributes:
        dataset: its key.
        split: its name.
        backbone: its name.
        rows: samples in the file.
        cached: it was there, with the same key.
        changed: `field: old -> new`, where a file with another key was replaced.
        skipped: unreadable images that have no row, each with the reason.
    """

    dataset: str
    split: str
    backbone: str
    rows: int
    cached: bool
    changed: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass
class Progress:
    """How far a running extraction is; passed to `on_progress` after every batch.

    Attributes:
        dataset: data set in work.
        split: split in work.
        done: images embedded by every backbone asked for.
        total: images of this split.
        seconds: time spent, by `decode` (waiting for pixels), `forward` and `write`.
    """

    dataset: str
    split: str
    done: int
    total: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    """One feature file to be made or checked."""

    backbone: Backbone
    path: Path
    key: Key


def extract(
    *,
    store: Path,
    dataset: Sequence[str],
    backbones: Sequence[str],
    split: Sequence[str] = (),
    name: str | None = None,
    templates: Path | None = None,
    class_names: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 2,
    on_bad_image: BadImage = "fail",
    on_note: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Outcome]:
    """Write the features of every backbone on every split, and the zero-shot logits.

    Images are decoded once and resized once per distinct input for all backbones. What is
    there under the same key is left alone; a run that was interrupted goes on where it stopped.

    Args:
        store: the store's folder.
        dataset: keys, groups or paths.
        backbones: names or groups.
        split: splits to extract; by default every split the data set has.
        name: the store's name for a path; needs exactly one data set.
        templates: file of prompt templates that replace the data set's own.
        class_names: file of class names that replace the data set's own.
        image_column: column of the images, for tables and tars.
        label_column: column of the labels, for tables and tars.
        limit: at most this many images per split, spread evenly over it.
        batch_size: images of one forward.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `auto`, `fp32`, `fp16`, `bf16`.
        workers: threads that decode and resize.
        on_bad_image: stop at an unreadable image, or leave it out and record it.
        on_note: called with one line for the user.
        on_progress: called after every batch.

    Returns:
        One outcome per feature file, in the order data set, split, backbone.

    Raises:
        DataError: the data cannot be used.
        BackboneError: weights cannot be loaded, or device or precision used.
        UnknownNameError: a name is not known.
        StoreError: a store file is damaged or in use.
    """
    names = tuple(itertools.chain.from_iterable(datasets.resolve(d) for d in dataset))
    if name is not None and len(names) != 1:
        raise DataError(f"--name names one data set, but {len(names)} were given; drop --name")
    if limit is not None and limit < 1:
        raise DataError(f"--limit is {limit}; give at least 1")
    chosen = backbone_names.resolve(backbones)
    models = _Models(chosen, store=store, device=device, precision=precision)
    outcomes: list[Outcome] = []
    for found in [datasets.open_dataset(n, key=name) for n in names]:
        sentences = read_templates(templates) if templates else found.templates
        nano = any(b.source == "nano" for b in chosen)
        advice = (_NO_FULL_STOP,) if nano and any(t.endswith(".") for t in sentences) else ()
        for part in split or splits(found.root):
            opened = open_split(
                found.root,
                part,
                class_names_file=class_names,
                image_column=image_column,
                label_column=label_column,
                hash_cache=store / "file-hashes.sqlite",
            )
            for note in (*advice, *opened.notes):
                on_note(f"{found.key}: {note}")
            advice = ()
            work = _SplitWork(
                layout=Layout(store),
                dataset=found.key,
                split=opened,
                rows=_limited(len(opened), limit),
                templates=sentences,
                models=models,
                batch_size=batch_size,
                workers=workers,
                on_bad_image=on_bad_image,
                on_progress=on_progress,
            )
            outcomes += work.run()
        for backbone in chosen:
            write_zero_shot_logits(Layout(store), found.key, backbone.name)
    return outcomes


def write_zero_shot_logits(layout: Layout, dataset: str, backbone: str) -> bool:
    """Turn every split's features into zero-shot logits; return False where they are current.

    Raises:
        StoreError: a file is damaged or in use, or the splits name different classes.
    """
    paths = {
        split: path
        for split in layout.splits(dataset)
        if (path := layout.features(dataset, split, backbone)).is_file()
    }
    headers = {s: feature_files.read_feature_header(p) for s, p in paths.items()}
    key = Key.of(
        {
            "head": HEAD,
            "backbone": backbone,
            "inputs": {layout.relative(paths[s]): headers[s].digest for s in paths},
        }
    )
    target = layout.logits(dataset, HEAD, backbone)
    try:
        if logit_files.read_logit_header(target).key == key:
            return False
    except MissingStageError:
        pass
    with locks.writing(target):
        parts, class_names, texts = {}, None, None
        for split, path in paths.items():
            found = feature_files.read_features(path)
            if texts is not None and not (
                found.class_names == class_names and np.array_equal(found.texts, texts)
            ):
                raise StoreError(
                    f"the splits of {dataset} have other class names or prompts for {backbone}; "
                    f"extract all of them alike: clipnlc extract --dataset {dataset} "
                    f"--backbones {backbone}"
                )
            class_names, texts = found.class_names, found.texts
            scaled = zero_shot_logits(
                found.features,
                found.texts,
                logit_scale=found.logit_scale,
                logit_bias=found.logit_bias,
            )
            parts[split] = logit_files.SplitLogits(scaled, found.labels, found.sample_id)
        assert class_names is not None
        logit_files.write_logits(
            target,
            logit_files.LogitStore(
                splits=parts, class_names=class_names, key=key, learnt={}, facts={}
            ),
        )
    return True


def _limited(rows: int, limit: int | None) -> Int64[np.ndarray, " rows"]:
    """Choose rows spread evenly, so that a limited set still has most of its classes."""
    if limit is None or limit >= rows:
        return np.arange(rows)
    return (np.arange(limit) * rows) // limit


class _Models:
    """The backbones asked for: described at once, loaded when first needed."""

    def __init__(
        self, chosen: Sequence[Backbone], *, store: Path, device: str, precision: str
    ) -> None:
        self.chosen = tuple(chosen)
        self._memory = store / "backbones.json"
        self._wanted = (device, precision)
        self._settings: tuple[str, Any] | None = None
        self._loaded: dict[str, LoadedBackbone] = {}
        self._texts: dict[tuple[object, ...], Float32[np.ndarray, "classes dim"]] = {}

    def identity(self, backbone: Backbone) -> dict[str, Any]:
        """Name everything about a backbone that shapes its features."""
        return identity(backbone, self._memory)

    @property
    def precision(self) -> str:
        """The precision that was asked for; `auto` is resolved, without torch where it can be."""
        device, precision = self._wanted
        if precision != "auto":
            return precision
        if device == "cpu" or not _NVIDIA.exists():
            return "fp32"
        return str(self._resolved()[1])

    def _resolved(self) -> tuple[str, Any]:
        if self._settings is None:
            from clipnlc.backbones.loaded import choose_device, choose_precision

            device = choose_device(self._wanted[0])
            self._settings = (device, choose_precision(self._wanted[1], device))
        return self._settings

    def load(self, backbone: Backbone) -> LoadedBackbone:
        """Return the backbone in memory."""
        from clipnlc.backbones.loaded import LoadedBackbone

        if backbone.name not in self._loaded:
            device, precision = self._resolved()
            self._loaded[backbone.name] = LoadedBackbone(
                backbone, device=device, precision=precision
            )
        return self._loaded[backbone.name]

    def texts(
        self, backbone: Backbone, templates: tuple[str, ...], class_names: tuple[str, ...]
    ) -> Float32[np.ndarray, "classes dim"]:
        """Embed the classes once per backbone; the splits of a data set share them."""
        asked = (backbone.name, templates, class_names)
        if asked not in self._texts:
            prompts = [fill(templates, c) for c in class_names]
            self._texts[asked] = self.load(backbone).embed_classes(prompts)
        return self._texts[asked]


@dataclass(frozen=True)
class _Batch:
    """Decoded images of consecutive samples, one array per distinct input geometry."""

    pixels: dict[tuple[object, ...], UInt8[np.ndarray, "samples height width 3"]]
    labels: tuple[int, ...]
    sample_id: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _SplitWork:
    """All the work on one split: which files are missing, one pass over the images, merging."""

    layout: Layout
    dataset: str
    split: Split
    rows: Int64[np.ndarray, " rows"]
    templates: tuple[str, ...]
    models: _Models
    batch_size: int
    workers: int
    on_bad_image: BadImage
    on_progress: Callable[[Progress], None]

    def run(self) -> list[Outcome]:
        jobs = [self._job(backbone) for backbone in self.models.chosen]
        changed = {job.path: self._changes(job) for job in jobs}
        todo = [job for job in jobs if changed[job.path] is not None]
        with ExitStack() as stack:
            for job in todo:
                stack.enter_context(locks.writing(job.path))
            self._embed([job for job in todo if not self._same_images(job)])
            for job in todo:
                self._finish(job)
            for job in jobs:
                # A run killed between merging and cleaning up leaves its shards behind.
                if job not in todo and feature_files.shard_files(job.path):
                    stack.enter_context(locks.writing(job.path))
                    feature_files.remove_shards(job.path)
        return [self._outcome(job, changed[job.path]) for job in jobs]

    def _job(self, backbone: Backbone) -> _Job:
        key = Key.of(
            {
                "images": {
                    "backbone": backbone.name,
                    **self.models.identity(backbone),
                    "precision": self.models.precision,
                    "split": self.split.name,
                    "content": self.split.content,
                    "samples": len(self.rows),
                },
                "classes": {
                    "labels": self.split.fingerprint,
                    "names": content_digest(list(self.split.class_names)),
                    "templates": list(self.templates),
                },
            }
        )
        path = self.layout.features(self.dataset, self.split.name, backbone.name)
        return _Job(backbone, path, key)

    def _changes(self, job: _Job) -> tuple[str, ...] | None:
        """What differs from the file that is there; `None` where nothing does."""
        try:
            old = feature_files.read_feature_header(job.path).key
        except MissingStageError:
            return ()
        return None if old == job.key else tuple(differences(old, job.key))

    def _same_images(self, job: _Job) -> bool:
        """Tell whether only labels, class names or templates changed: the features stay."""
        if not job.path.is_file():
            return False
        old = feature_files.read_features(job.path)
        if old.key.fields.get("images") != job.key.fields["images"]:
            return False
        place = {s: i for i, s in enumerate(self.split.sample_id)}
        labels = self.split.labels[[place[s] for s in old.sample_id]]
        feature_files.remove_shards(job.path)
        feature_files.write_shard(
            job.path,
            job.key,
            feature_files.Shard(
                0, len(self.rows), old.features, labels, old.sample_id, old.skipped
            ),
        )
        return True

    def _embed(self, jobs: list[_Job]) -> None:
        """One pass over the images, shard by shard, for every backbone that lacks the shard."""
        missing = {
            job.path: set(
                feature_files.missing_ranges(job.path, job.key, len(self.rows), SHARD_ROWS)
            )
            for job in jobs
        }
        ranges = sorted(set().union(*missing.values()))
        progress = Progress(
            self.dataset,
            self.split.name,
            done=len(self.rows) - sum(stop - start for start, stop in ranges),
            total=len(self.rows),
        )
        with ThreadPoolExecutor(self.workers, thread_name_prefix="decode") as pool:
            for start, stop in ranges:
                wanting = [job for job in jobs if (start, stop) in missing[job.path]]
                self._embed_range(pool, wanting, start, stop, progress)

    def _embed_range(
        self, pool: ThreadPoolExecutor, jobs: list[_Job], start: int, stop: int, progress: Progress
    ) -> None:
        models = [self.models.load(job.backbone) for job in jobs]
        resizers = {m.preprocessing.geometry: m.preprocessing.resizer() for m in models}
        found: list[list[np.ndarray]] = [[] for _ in jobs]
        batches = []
        clock = _Clock(progress.seconds)
        for batch in self._batches(pool, resizers, start, stop):
            clock.spent("decode")
            for model, features in zip(models, found, strict=True):
                if batch.sample_id:
                    features.append(model.embed_images(batch.pixels[model.preprocessing.geometry]))
            clock.spent("forward")
            batches.append(batch)
            progress.done += len(batch.sample_id) + len(batch.skipped)
            self.on_progress(progress)
        labels = np.array([label for b in batches for label in b.labels], dtype=np.int64)
        sample_id = tuple(s for b in batches for s in b.sample_id)
        skipped = tuple(s for b in batches for s in b.skipped)
        if not sample_id:
            raise DataError(
                f"none of the images {start} to {stop} of {self.dataset}/{self.split.name} can be "
                f"read ({skipped[0][1]}); check the data set"
            )
        for job, features in zip(jobs, found, strict=True):
            shard = feature_files.Shard(
                start, stop, np.concatenate(features), labels, sample_id, skipped
            )
            feature_files.write_shard(job.path, job.key, shard)
        clock.spent("write")

    def _batches(
        self,
        pool: ThreadPoolExecutor,
        resizers: dict[tuple[object, ...], Callable[[Any], UInt8[np.ndarray, "height width 3"]]],
        start: int,
        stop: int,
    ) -> Iterator[_Batch]:
        """Decode ahead of the device; a few batches at a time are in memory."""
        waiting: deque[Future[_Batch]] = deque()
        samples = self._samples(start, stop)
        while chunk := list(itertools.islice(samples, self.batch_size)):
            waiting.append(pool.submit(self._decode, chunk, resizers))
            if len(waiting) > self.workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _samples(self, start: int, stop: int) -> Iterator[Sample]:
        if len(self.rows) == len(self.split):
            yield from self.split.read(start, stop)
            return
        for row in self.rows[start:stop]:
            yield from self.split.read(int(row), int(row) + 1)

    def _decode(
        self,
        chunk: list[Sample],
        resizers: dict[tuple[object, ...], Callable[[Any], UInt8[np.ndarray, "height width 3"]]],
    ) -> _Batch:
        pixels: dict[tuple[object, ...], list[np.ndarray]] = {g: [] for g in resizers}
        kept, skipped = [], []
        for sample in chunk:
            try:
                image = load(sample.data, sample.sample_id)
            except DataError as problem:
                if self.on_bad_image == "fail":
                    raise
                skipped.append((sample.sample_id, str(problem)))
                continue
            kept.append(sample)
            for geometry, resize in resizers.items():
                pixels[geometry].append(resize(image))
        return _Batch(
            {g: np.stack(p) for g, p in pixels.items() if p},
            tuple(s.label for s in kept),
            tuple(s.sample_id for s in kept),
            tuple(skipped),
        )

    def _finish(self, job: _Job) -> None:
        model = self.models.load(job.backbone)
        feature_files.merge_shards(
            job.path,
            job.key,
            rows=len(self.rows),
            class_names=self.split.class_names,
            texts=self.models.texts(job.backbone, self.templates, self.split.class_names),
            logit_scale=model.logit_scale,
            logit_bias=model.logit_bias,
        )

    def _outcome(self, job: _Job, changed: tuple[str, ...] | None) -> Outcome:
        header = feature_files.read_feature_header(job.path)
        skipped = feature_files.read_features(job.path).skipped if header.skipped else ()
        return Outcome(
            dataset=self.dataset,
            split=self.split.name,
            backbone=job.backbone.name,
            rows=header.rows,
            cached=changed is None,
            changed=changed or (),
            skipped=skipped,
        )


class _Clock:
    """Adds the time since the last look to one of several accounts."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def spent(self, on: str) -> None:
        now = time.perf_counter()
        self._seconds[on] = self._seconds.get(on, 0.0) + now - self._last
        self._last = now
