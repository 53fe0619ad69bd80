"""Fit combiners on a few labels per class, and apply them to the test split."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int, Int64
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS, Weigher
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.fitting import few_shot, stratified_split
from clipnlc.stores import locks
from clipnlc.stores.aligned import open_aligned_logits
from clipnlc.stores.combined import (
    Combination,
    CombinedStore,
    add_combinations,
    read_combined_header,
)
from clipnlc.stores.features import read_feature_header, read_features
from clipnlc.stores.key import Key, content_digest
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

TEST: Final = "test"
FITTED_ON: Final = {"zero-shot": "train", "linear": "holdout"}
"""The split a combiner learns from: for trained heads, the part of train they have not seen."""


@dataclass(frozen=True)
class Run:
    """Which labelled samples a combiner is fitted on.

    Attributes:
        protocol: `no-labels`, `shots` or `holdout`.
        shots: labelled samples per class, for `shots`.
        holdout: share of the labelled split, for `holdout`.
        seed: of the draw and of everything random in a fit.
    """

    protocol: str
    shots: int = 0
    holdout: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """The run's name in the store.

        >>> Run("shots", shots=4, seed=1).name, Run("no-labels").name
        ('4-shots-seed-1', 'no-labels')
        """
        if self.protocol == "no-labels":
            return "no-labels"
        drawn = f"{self.shots}-shots" if self.protocol == "shots" else f"holdout-{self.holdout:g}"
        return f"{drawn}-seed-{self.seed}"

    def facts(self) -> dict[str, str | int | float]:
        """The run as a combination's facts record it."""
        return {
            "protocol": self.protocol,
            "shots": self.shots,
            "holdout": self.holdout,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Fitted:
    """What became of one run on one data set.

    Attributes:
        dataset: its key.
        run: which labels.
        combiners: those fitted now; empty where all were there.
        cached: those that were there with the same key.
        labels: labelled samples drawn; 0 without labels.
        short: class name -> images it has, for classes with fewer than asked for.
    """

    dataset: str
    run: Run
    combiners: tuple[str, ...]
    cached: tuple[str, ...]
    labels: int
    short: Mapping[str, int]


@dataclass(frozen=True)
class _Task:
    """The runs of one seed on one data set; one process works on it at a time."""

    layout: Layout
    dataset: str
    head: str
    backbones: tuple[str, ...]
    runs: tuple[Run, ...]
    combiners: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    strict_shots: bool


def train_nlc(
    *,
    store: Path,
    dataset: Sequence[str] = (),
    backbones: Sequence[str] = (),
    head: str = "zero-shot",
    combiners: Sequence[str] = ("all",),
    shots: Sequence[int] = (1, 2, 4, 8, 16, 32),
    holdout: float | None = None,
    seeds: int = 3,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    strict_shots: bool = False,
    workers: int = 1,
    on_fitted: Callable[[Fitted], None] = lambda _: None,
) -> list[Fitted]:
    """Fit every combiner on the same labels, for every number of shots and every seed.

    Labels are drawn from train (zero-shot head) or from the part of train that the head has not
    seen (linear head); test labels are never read. What is there under the same key is left alone.

    Args:
        store: the store's folder.
        dataset: keys; by default every data set with logits of this head.
        backbones: names; by default every backbone with logits of this head.
        head: `zero-shot` or `linear`.
        combiners: names or groups.
        shots: labelled samples per class, one run each; a draw of more holds those of fewer.
        holdout: instead of shots, this share of the labelled split, stratified.
        seeds: runs per number of shots, with seeds 0, 1, …
        settings: `{combiner: {setting: value}}` that differ from the defaults.
        strict_shots: refuse a class with fewer samples than asked for, rather than use all it has.
        workers: processes.
        on_fitted: called after each run.

    Raises:
        MissingStageError: no logits of this head.
        DataError: strict shots, and a class has fewer; a number is out of range.
        StoreError: store files do not fit together, are damaged or in use.
        UnknownNameError: a combiner or head is not known.
    """
    names = COMBINERS.resolve(combiners)
    _check(head, shots, holdout, seeds)
    layout = Layout(store)
    tasks: list[_Task] = []
    for name in dataset or _with_logits(layout, head):
        present = tuple(backbones) or layout.logit_backbones(name, head)
        if not present:
            raise MissingStageError(_missing(layout, head, name))
        for runs in _runs(shots, holdout, seeds):
            tasks.append(
                _Task(layout, name, head, present, runs, names, settings or {}, strict_shots)
            )
    done = []
    for fitted in _work(tasks, workers):
        on_fitted(fitted)
        done.append(fitted)
    order = {name: i for i, name in enumerate(dict.fromkeys(t.dataset for t in tasks))}
    return sorted(done, key=lambda f: (order[f.dataset], f.run.shots, f.run.seed))


def _check(head: str, shots: Sequence[int], holdout: float | None, seeds: int) -> None:
    if head not in FITTED_ON:
        raise DataError(f"unknown head {head!r}; choose zero-shot or linear")
    if seeds < 1:
        raise DataError(f"--seeds is {seeds}; give at least 1")
    if holdout is not None and not 0 < holdout <= 1:
        raise DataError(f"--holdout is {holdout}; give a share above 0, up to 1")
    if holdout is None and (not shots or min(shots) < 1):
        raise DataError(f"--shots is {','.join(map(str, shots))}; give numbers of at least 1")


def _runs(
    shots: Sequence[int], holdout: float | None, seeds: int
) -> Iterator[tuple[Run, ...]]:
    """Group the runs by seed; the run without labels stands alone."""
    yield (Run("no-labels"),)
    for seed in range(seeds):
        if holdout is not None:
            yield (Run("holdout", holdout=holdout, seed=seed),)
        else:
            yield tuple(Run("shots", shots=n, seed=seed) for n in dict.fromkeys(shots))


def _missing(layout: Layout, head: str, dataset: str) -> str:
    command = "extract" if head == "zero-shot" else "train-heads"
    return (
        f"{dataset} has no {head} logits in {layout.root}; run "
        f"`clipnlc {command} --dataset {dataset}` first"
    )


def _with_logits(layout: Layout, head: str) -> tuple[str, ...]:
    names = tuple(d for d in layout.datasets() if layout.logit_backbones(d, head))
    if not names:
        raise MissingStageError(_missing(layout, head, "every data set"))
    return names


def _work(tasks: list[_Task], workers: int) -> Iterator[Fitted]:
    """Yield each run as it is done; with several workers in whatever order."""
    pending = [task for task in tasks if _wanting(task)]
    yield from itertools.chain.from_iterable(_fit_task(t) for t in tasks if t not in pending)
    if workers == 1 or len(pending) <= 1:
        for task in pending:
            yield from _fit_task(task)
        return
    # Spawned, not forked: a fork would copy open HDF5 files and the threads of the BLAS.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(pending)), mp_context=context) as pool:
        futures = [pool.submit(_fit_list, task) for task in pending]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fit_list(task: _Task) -> list[Fitted]:
    return list(_fit_task(task))


def _wanting(task: _Task) -> bool:
    """Tell whether any run of a task lacks a combiner."""
    return any(_lacking(task, run, _keys(task, run)) for run in task.runs)


def _fit_task(task: _Task) -> Iterator[Fitted]:
    data: _Data | None = None
    # One BLAS thread: the last bits of a sum depend on how many share it.
    with threadpool_limits(limits=1):
        for run in task.runs:
            keys = _keys(task, run)
            lacking = _lacking(task, run, keys)
            if lacking and data is None:
                data = _Data.open(task)
            if not lacking or data is None:
                facts = read_combined_header(_path(task, run)).facts if keys else {}
                labels = max((int(facts[c]["labels"]) for c in keys), default=0)
                yield Fitted(task.dataset, run, (), tuple(keys), labels, {})
                continue
            yield _fit_run(task, run, data, keys, lacking)


def _path(task: _Task, run: Run) -> Path:
    return task.layout.combined(task.dataset, task.head, run.name)


def _keys(task: _Task, run: Run) -> dict[str, Key]:
    """Every combiner of a run with every resolved input by name."""
    layout, dataset = task.layout, task.dataset
    logits = {b: layout.logits(dataset, task.head, b) for b in task.backbones}
    inputs = {layout.relative(p): read_logit_header(p).digest for p in logits.values()}
    feature_inputs: dict[str, str] | None = None
    keys = {}
    for name in task.combiners:
        combiner = COMBINERS.get(name)
        if combiner.needs_labels == (run.protocol == "no-labels"):
            continue
        used = dict(inputs)
        if combiner.needs_features:
            if feature_inputs is None:
                paths = [
                    layout.features(dataset, split, b)
                    for b in task.backbones
                    for split in ("train", TEST)
                ]
                feature_inputs = {layout.relative(p): read_feature_header(p).digest for p in paths}
            used |= feature_inputs
        keys[name] = Key.of(
            {
                "combiner": name,
                "settings": _settings(task, name, run.seed),
                "head": task.head,
                "backbones": list(task.backbones),
                **run.facts(),
                "inputs": used,
            }
        )
    return keys


def _settings(task: _Task, name: str, seed: int) -> dict[str, Any]:
    """Every setting of a combiner, defaults included."""
    combiner = COMBINERS.get(name)(seed=seed, **task.settings.get(name, {}))
    return {k: v for k, v in sorted(vars(combiner).items()) if not k.endswith("_")}


def _lacking(task: _Task, run: Run, keys: Mapping[str, Key]) -> tuple[str, ...]:
    try:
        present = read_combined_header(_path(task, run)).keys
    except MissingStageError:
        return tuple(keys)
    return tuple(name for name, key in keys.items() if present.get(name) != key)


@dataclass(frozen=True)
class _Data:
    """A data set's labelled samples and its test samples, without the test labels."""

    labelled: Ensemble
    labels: Int64[np.ndarray, " samples"]
    test: Ensemble
    class_names: tuple[str, ...]

    @classmethod
    def open(cls, task: _Task) -> _Data:
        paths = {b: task.layout.logits(task.dataset, task.head, b) for b in task.backbones}
        fitted_on = FITTED_ON[task.head]
        labelled = open_aligned_logits(paths, fitted_on)
        test = open_aligned_logits(paths, TEST)
        if labelled.class_names != test.class_names:
            raise StoreError(
                f"{fitted_on} and {TEST} of {task.dataset} name different classes; extract both "
                f"again: clipnlc extract --dataset {task.dataset}"
            )
        with_features = any(COMBINERS.get(c).needs_features for c in task.combiners)
        return cls(
            labelled=Ensemble(
                labelled.logits,
                _features(task, "train", labelled.sample_id) if with_features else (),
                labelled.sample_id,
            ),
            labels=labelled.labels,
            test=Ensemble(
                test.logits,
                _features(task, TEST, test.sample_id) if with_features else (),
                test.sample_id,
            ),
            class_names=test.class_names,
        )


def _features(
    task: _Task, split: str, sample_id: tuple[str, ...]
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], ...]:
    """Read the features of exactly these samples, in this order, from every backbone."""
    found = []
    for backbone in task.backbones:
        path = task.layout.features(task.dataset, split, backbone)
        held = read_features(path)
        place = {s: row for row, s in enumerate(held.sample_id)}
        absent = next((s for s in sample_id if s not in place), None)
        if absent is not None:
            raise StoreError(
                f"{path} has no sample {absent!r}, which the {task.head} logits of {backbone} "
                f"have; extract again: clipnlc extract --dataset {task.dataset} "
                f"--backbones {backbone}"
            )
        rows = [place[s] for s in sample_id]
        found.append(held.features[rows].astype(np.float32, copy=False))
    return tuple(found)


def _draw(
    task: _Task, run: Run, data: _Data
) -> tuple[Int[np.ndarray, " rows"], dict[str, int]]:
    """Choose the labelled samples of a run; also tell the classes that have too few."""
    if run.protocol == "no-labels":
        return np.empty(0, dtype=np.int64), {}
    if run.protocol == "holdout":
        if run.holdout >= 1:
            return np.arange(len(data.labels)), {}
        _, held = stratified_split(
            data.labels, data.labelled.sample_id, share=run.holdout, seed=run.seed
        )
        return held, {}
    drawn = few_shot(
        data.labels,
        data.labelled.sample_id,
        classes=len(data.class_names),
        shots=run.shots,
        seed=run.seed,
    )
    short = {data.class_names[c]: n for c, n in drawn.short.items()}
    if short and task.strict_shots:
        name, count = min(short.items(), key=lambda item: item[1])
        raise DataError(
            f"{task.dataset} has {count} labelled images of {name!r}, fewer than {run.shots} "
            "shots; lower --shots, or drop --strict-shots to use all it has"
        )
    return drawn.rows, short


def _fit_run(
    task: _Task, run: Run, data: _Data, keys: Mapping[str, Key], lacking: tuple[str, ...]
) -> Fitted:
    rows, short = _draw(task, run, data)
    labelled, labels = data.labelled.rows(rows), data.labels[rows]
    used = [data.labelled.sample_id[r] for r in rows]
    made = {}
    for name in lacking:
        combiner = COMBINERS.get(name)(seed=run.seed, **task.settings.get(name, {}))
        if combiner.needs_labels:
            combiner.fit(labelled, labels)
        facts = {**run.facts(), "labels": len(rows), "labelled_samples": content_digest(used)}
        if isinstance(combiner, Weigher):
            given = {"weights": combiner.weights(data.test)}
        else:
            given = {"scores": combiner.combine(data.test).astype(np.float32)}
        made[name] = Combination(key=keys[name], learnt=combiner.state(), facts=facts, **given)
    path = _path(task, run)
    with locks.writing(path):
        add_combinations(
            path,
            CombinedStore(
                sample_id=data.test.sample_id,
                backbones=task.backbones,
                class_names=data.class_names,
                combinations=made,
            ),
        )
    cached = tuple(name for name in keys if name not in lacking)
    return Fitted(task.dataset, run, lacking, cached, len(rows), short)
