"""Fit combiners on a few labels per class, and apply them to the test split."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int, Int64
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS, Weigher
from clipnlc.digests import content_digest
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.labels import Labels
from clipnlc.registry import unknown_name
from clipnlc.stores import locks
from clipnlc.stores.aligned import open_aligned_logits
from clipnlc.stores.combined import (
    Combination,
    CombinedHeader,
    CombinedStore,
    add_combinations,
    read_combined_header,
)
from clipnlc.stores.features import read_feature_header, read_features
from clipnlc.stores.key import Key
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
    logit_digests: Mapping[str, str]
    feature_digests: Mapping[str, str]  # empty where no combiner needs features


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
    on_progress: Callable[[Fitted, int, int], None] = lambda _run, _done, _all: None,
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
        on_progress: called after each run, with it and (runs done, runs).

    Raises:
        MissingStageError: no logits of this head.
        DataError: strict shots, and a class has fewer; a number is out of range; a worker was
            killed.
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
        if "train" not in layout.splits(name) and _need_labels(names):
            raise MissingStageError(
                f"{layout.root} holds no train split of {name} to draw labels from; extract a "
                "data set that has one, or fit only --combiners parameter-free"
            )
        logit_digests, feature_digests = _digests(layout, name, head, present, names)
        tasks += [
            _Task(
                layout=layout,
                dataset=name,
                head=head,
                backbones=present,
                runs=runs,
                combiners=names,
                settings=settings or {},
                strict_shots=strict_shots,
                logit_digests=logit_digests,
                feature_digests=feature_digests,
            )
            for runs in _runs(names, shots, holdout, seeds)
        ]
    done: list[Fitted] = []
    for fitted in _work(tasks, workers):
        done.append(fitted)
        on_progress(fitted, len(done), sum(len(task.runs) for task in tasks))
    order = {name: i for i, name in enumerate(dict.fromkeys(t.dataset for t in tasks))}
    return sorted(done, key=lambda f: (order[f.dataset], f.run.shots, f.run.seed))


def _check(head: str, shots: Sequence[int], holdout: float | None, seeds: int) -> None:
    if head not in FITTED_ON:
        raise unknown_name("head", head, FITTED_ON)
    if seeds < 1:
        raise DataError(f"--seeds is {seeds}; give at least 1")
    if holdout is not None and not 0 < holdout <= 1:
        raise DataError(f"--holdout is {holdout}; give a share above 0, up to 1")
    if holdout is None and (not shots or min(shots) < 1):
        raise DataError(f"--shots is {','.join(map(str, shots))}; give numbers of at least 1")


def _runs(
    combiners: Sequence[str], shots: Sequence[int], holdout: float | None, seeds: int
) -> Iterator[tuple[Run, ...]]:
    """Group the runs that have a combiner by seed; the run without labels stands alone."""
    if not all(COMBINERS.get(name).needs_labels for name in combiners):
        yield (Run("no-labels"),)
    for seed in range(seeds if _need_labels(combiners) else 0):
        if holdout is not None:
            yield (Run("holdout", holdout=holdout, seed=seed),)
        else:
            yield tuple(Run("shots", shots=n, seed=seed) for n in dict.fromkeys(shots))


def _need_labels(combiners: Sequence[str]) -> bool:
    return any(COMBINERS.get(name).needs_labels for name in combiners)


def _missing(layout: Layout, head: str, dataset: str | None = None) -> str:
    command = "extract" if head == "zero-shot" else "train-heads"
    found = f"{layout.root} holds no {head} logits"
    if dataset is None:
        return f"{found}; run `clipnlc {command}` first"
    return f"{found} of {dataset}; run `clipnlc {command} --dataset {shlex.quote(dataset)}` first"


def _with_logits(layout: Layout, head: str) -> tuple[str, ...]:
    names = tuple(d for d in layout.datasets() if layout.logit_backbones(d, head))
    if not names:
        raise MissingStageError(_missing(layout, head))
    return names


def _digests(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str], combiners: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Read what names the content of every input, once for all runs of a data set."""
    logits = [layout.logits(dataset, head, b) for b in backbones]
    features = [
        layout.features(dataset, split, b)
        for b in backbones
        for split in ("train", TEST)
        if any(COMBINERS.get(c).needs_features for c in combiners)
    ]
    return (
        {layout.relative(p): read_logit_header(p).digest for p in logits},
        {layout.relative(p): read_feature_header(p).digest for p in features},
    )


def _work(tasks: list[_Task], workers: int) -> Iterator[Fitted]:
    """Yield each run as it is done; with several workers in whatever order."""
    pending = []
    for task in tasks:
        cached = [_cached(task, run) for run in task.runs]
        if None in cached:
            pending.append(task)
        else:
            yield from filter(None, cached)
    if workers == 1 or len(pending) <= 1:
        for task in pending:
            yield from _fit_task(task)
        return
    # Spawned, not forked: a fork would copy open HDF5 files and the threads of the BLAS.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(pending)), mp_context=context, initializer=_follow_parent
    ) as pool:
        futures = [pool.submit(_fit_list, task) for task in pending]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, perhaps for want of memory; run the same command "
                f"with fewer --workers than {workers}"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _follow_parent() -> None:
    """Let a worker end with the process that started it, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _fit_list(task: _Task) -> list[Fitted]:
    return list(_fit_task(task))


def _fit_task(task: _Task) -> Iterator[Fitted]:
    data: _Data | None = None
    # One BLAS thread: the last bits of a sum depend on how many share it.
    with threadpool_limits(limits=1):
        for run in task.runs:
            cached = _cached(task, run)
            if cached is not None:
                yield cached
                continue
            data = data or _Data.open(task)
            yield _fit_run(task, run, data)


def _path(task: _Task, run: Run) -> Path:
    return task.layout.combined(task.dataset, task.head, run.name)


def _keys(task: _Task, run: Run) -> dict[str, Key]:
    """Every combiner of a run with every resolved input by name."""
    keys = {}
    for name in task.combiners:
        combiner = COMBINERS.get(name)
        if combiner.needs_labels == (run.protocol == "no-labels"):
            continue
        used = {**task.logit_digests, **(task.feature_digests if combiner.needs_features else {})}
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


def _cached(task: _Task, run: Run) -> Fitted | None:
    """Tell what is there of a run, if that is all of it."""
    keys = _keys(task, run)
    header = _header(task, run)
    if header is None or _lacking(keys, header):
        return None
    labels = max(int(header.facts[name]["labels"]) for name in keys)
    return Fitted(task.dataset, run, (), tuple(keys), labels, {})


def _header(task: _Task, run: Run) -> CombinedHeader | None:
    try:
        return read_combined_header(_path(task, run))
    except MissingStageError:
        return None


def _lacking(keys: Mapping[str, Key], header: CombinedHeader | None) -> tuple[str, ...]:
    present = header.keys if header else {}
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
        test = open_aligned_logits(paths, TEST)
        if task.runs[0].protocol == "no-labels":  # a data set of test images alone will do
            ensemble = Ensemble(test.logits, (), test.sample_id)
            none = np.empty(0, dtype=np.int64)
            return cls(ensemble.rows(none), none, ensemble, test.class_names)
        fitted_on = FITTED_ON[task.head]
        labelled = open_aligned_logits(paths, fitted_on)
        if labelled.class_names != test.class_names:
            raise StoreError(
                f"{fitted_on} and {TEST} of {task.dataset} name different classes; extract both "
                f"again: clipnlc extract --dataset {shlex.quote(task.dataset)}"
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


def _draw(task: _Task, run: Run, data: _Data) -> tuple[Int[np.ndarray, " rows"], dict[str, int]]:
    """Choose the labelled samples of a run; also tell the classes that have too few."""
    if run.protocol == "no-labels":
        return np.empty(0, dtype=np.int64), {}
    which = Labels.holdout(run.holdout, seed=run.seed)
    if run.protocol == "shots":
        which = Labels.shots(run.shots, seed=run.seed)
    drawn = which.draw(data.labels, data.labelled.sample_id, classes=len(data.class_names))
    if not len(drawn.rows):
        raise DataError(
            f"{task.dataset} has a single labelled image, so {run.holdout:g} of them are none; "
            "use --shots 1"
        )
    short = {data.class_names[c]: n for c, n in drawn.short.items()}
    if short and task.strict_shots:
        name, count = min(short.items(), key=lambda item: item[1])
        raise DataError(
            f"{task.dataset} has {count} labelled images of {name!r}, fewer than {run.shots} "
            "shots; lower --shots, or drop --strict-shots to use all it has"
        )
    return drawn.rows, short


def _fit_run(task: _Task, run: Run, data: _Data) -> Fitted:
    keys = _keys(task, run)
    lacking = _lacking(keys, _header(task, run))
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
