"""Fit combiners on a few labels; test is never opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS, USUAL
from clipnlc.datasets.proportions import OPTION
from clipnlc.digests import content_digest
from clipnlc.ensemble import by_name
from clipnlc.errors import DataError, MissingStageError
from clipnlc.heads import HEADS
from clipnlc.labels import Draw, Labels, canonical_rows, ranks
from clipnlc.processes import in_processes
from clipnlc.runs.finding import (
    HOLDOUT,
    labelled_split,
    own_run,
)
from clipnlc.runs.fitted import Fitted, fit
from clipnlc.runs.inputs import (
    Inputs,
    fitted_in,
    inputs_of_runs,
    is_for,
    learning_in,
    proportions_in_order,
    runs_of,
)
from clipnlc.runs.members import members_name
from clipnlc.runs.mixture import datasets_of, ensemble_of, with_unlabelled
from clipnlc.runs.spending import gflops_of
from clipnlc.stores import locks
from clipnlc.stores.aligned import open_split
from clipnlc.stores.fits import Fit, FitHeader, FitStore, add_fits, read_fit_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_class_names, read_logit_header

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Int

    from clipnlc.ensemble import Ensemble
    from clipnlc.stores.aligned import AlignedSplit

POOL_CELLS = 2**27
"""Numbers of the unlabelled rows, logits and features together, that a fit may hold: 0.5 GB."""


@dataclass(frozen=True)
class FittedRun:
    """Result for one run on one data set.

    Attributes:
        dataset: its key.
        which: which labels.
        combiners: those fitted now; empty where all were there.
        cached: those that were there with the same key.
        labels: labelled samples drawn; 0 without labels.
        short: class name -> images it has, for classes with fewer than asked for.
    """

    dataset: str
    which: Labels
    combiners: tuple[str, ...]
    cached: tuple[str, ...]
    labels: int
    short: Mapping[str, int]


@dataclass(frozen=True)
class _Task:
    """The runs of one seed on one data set; one process works on it at a time.

    Attributes:
        inputs: of each run.
        gflops: of the backbones, where a combiner reads them.
    """

    layout: Layout
    dataset: str
    head: str
    backbones: tuple[str, ...]
    runs: tuple[Labels, ...]
    combiners: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    proportions: list[float] | str | None
    strict_shots: bool
    inputs: Mapping[Labels, Inputs]
    gflops: tuple[float, ...] = ()

    def logits(self, which: Labels) -> dict[str, Path]:
        """Return the logit files of a run, by backbone."""
        run = own_run(self.head, which.name)
        return {b: self.layout.logits(self.dataset, self.head, b, run) for b in self.backbones}

    def features(self, which: Labels) -> dict[str, Path]:
        """Return the feature files of a run, by backbone; none where none are needed."""
        needed = self.backbones if self.inputs[which].features else ()
        return {b: self.layout.features(self.dataset, "train", b) for b in needed}


def train_nlc(
    *,
    store: Path,
    dataset: Sequence[str] = (),
    backbones: Sequence[str] = (),
    head: str = "zero-shot",
    combiners: Sequence[str] = USUAL,
    labels: Sequence[Labels] = Labels.few(),
    seeds: Sequence[int] = (0, 1, 2),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    proportions: Mapping[str, float] | Literal["uniform", "labels"] | None = None,
    strict_shots: bool = False,
    workers: int = 1,
    on_progress: Callable[[FittedRun, int, int], None] = lambda _run, _done, _all: None,
) -> list[FittedRun]:
    """Fit every combiner on the same labels, for every draw and every seed.

    Labels are drawn from train (zero-shot head) or from the part of train that the head has not
    seen (linear heads). Heads that are fitted per draw were fitted on the very same labels: then
    combiners are fitted on the cross-fitted logits, and those without labels have a run per draw,
    too. Test is not opened. What is there under the same key is left alone.

    Args:
        store: the store's folder.
        dataset: keys; by default every data set with logits of this head.
        backbones: names; by default every backbone with logits of this head. Runs of other
            members stay beside.
        head: one of `HEADS`.
        combiners: names or groups; `all` is every one.
        labels: which labels, one run each and per seed; their own seeds do not matter.
        seeds: of the draws and of everything random in a fit.
        settings: `{combiner: {setting: value}}` that differ from the defaults.
        proportions: how common the classes are where predictions are made, for the combiners that
            balance them: equally, as among the labels, or a number for each class by name. Unless
            they are declared, equal proportions are assumed, and half trusted.
        strict_shots: refuse a class with fewer samples than asked for, rather than use all it has.
        workers: processes.
        on_progress: called after each run, with it and (runs done, runs).

    Raises:
        MissingStageError: no logits of this head.
        DataError: strict shots, and a class has fewer; proportions of other classes, or of labels
            that were not drawn at random; a worker was killed.
        StoreError: store files do not fit together, are damaged or in use.
        UnknownNameError: a combiner or head is not known.
    """
    names = COMBINERS.resolve(combiners)
    HEADS.get(head)
    if proportions == "labels" and any(which.kind == "shots" for which in labels):
        raise DataError(
            "labels drawn as so many of each class say nothing of how common the classes are; draw "
            f"them at random with --count, or give {OPTION} uniform or a file"
        )
    layout = Layout(store)
    tasks: list[_Task] = []
    for name in datasets_of(layout, dataset, head):
        present = ensemble_of(layout, name, head, backbones)
        which = with_unlabelled(layout, name, head, present, labels)
        drawn = list(runs_of(head, names, which, seeds))
        inputs = inputs_of_runs(
            layout,
            name,
            head=head,
            backbones=present,
            learning=learning_in(head, names, drawn),
            runs=[which for runs in drawn for which in runs],
        )
        tasks += [
            _Task(
                layout=layout,
                dataset=name,
                head=head,
                backbones=present,
                runs=runs,
                combiners=names,
                settings=settings or {},
                proportions=proportions_in_order(layout, name, head, proportions),
                strict_shots=strict_shots,
                inputs={which: inputs[which] for which in runs},
            )
            for runs in drawn
        ]
    done: list[FittedRun] = []
    for fitted in _work(tasks, workers):
        done.append(fitted)
        on_progress(fitted, len(done), sum(len(task.runs) for task in tasks))
    order = {name: i for i, name in enumerate(dict.fromkeys(t.dataset for t in tasks))}
    return sorted(done, key=lambda f: (order[f.dataset], f.which))


def _settings(task: _Task, combiner: str, which: Labels) -> dict[str, Any]:
    """Return the settings that differ from the combiner's defaults."""
    declared = task.proportions
    if declared == "labels" and which.kind == "none":
        declared = None
    balances = "proportions" in COMBINERS.get(combiner)().settings()
    given = {"proportions": declared} if balances and declared is not None else {}
    return {**given, **task.settings.get(combiner, {})}


def _work(tasks: list[_Task], workers: int) -> Iterator[FittedRun]:
    """Yield each run as it is done; with several workers in any order."""
    pending = []
    for task in tasks:
        cached = [_cached(task, which) for which in task.runs]
        if None in cached:
            fitted = fitted_in(task.head, task.combiners, task.runs)
            pending.append(replace(task, gflops=gflops_of(task.backbones, fitted)))
        else:
            yield from filter(None, cached)
    if workers > 1 and len(pending) > 1:
        yield from in_processes(_fit_list, pending, workers)
        return
    for task in pending:
        yield from _fit_task(task)


def _fit_list(task: _Task) -> list[FittedRun]:
    return list(_fit_task(task))


def _fit_task(task: _Task) -> Iterator[FittedRun]:
    # One BLAS thread: the last bits of a sum depend on how many share it.
    with threadpool_limits(limits=1):
        lacking = []
        for which in task.runs:
            cached = _cached(task, which)
            if cached is None:
                lacking.append(which)
            else:
                yield cached
        if not lacking:
            return
        if not task.inputs[lacking[0]].logits:
            yield from (_fit_names(task, which) for which in lacking)
            return
        per_draw = HEADS.get(task.head).per_draw
        for runs in [[which] for which in lacking] if per_draw else [lacking]:
            paths, features = task.logits(runs[0]), task.features(runs[0])
            with open_split(paths, features, labelled_split(task.head)) as split:
                yield from _fit_drawn(task, runs, split)


def _fit_names(task: _Task, which: Labels) -> FittedRun:
    """Write down the fits of combiners that learn nothing: they need names alone."""
    path = next(iter(task.logits(which).values()))
    class_names = tuple(sorted(read_class_names(path)))
    facts = _facts(which, ())
    facts |= {n: v for n, v in read_logit_header(path).facts.items() if n in facts}  # a teacher's
    keys = _keys(task, which)
    lacking = _lacking(keys, _header(task, which))
    made = {
        name: Fitted(
            name=name,
            settings=keys[name].fields["settings"],
            learnt={},
            backbones=task.backbones,
            class_names=class_names,
            facts=facts,
        )
        for name in lacking
    }
    _write(task, which, keys, made)
    return _fitted(task, which, keys, lacking, labels=int(facts["labels"]))


def _fit_drawn(task: _Task, runs: Sequence[Labels], split: AlignedSplit) -> Iterator[FittedRun]:
    """Fit runs of one seed, each on the rows that it draws, and on one pool for all of them."""
    classes = by_name(split.class_names)
    numbers = np.argsort(classes)
    pool: Ensemble | None = None
    for which in runs:
        draw = _draw(task, which, split)
        # In the order of sample ids and of class names, in which fits see them: nothing is copied.
        rows = draw.rows[canonical_rows([split.sample_id[row] for row in draw.rows])]
        features = bool(task.inputs[which].features)
        ensemble = split.ensemble(rows, features=features, classes=classes)
        ensemble = replace(ensemble, gflops=task.gflops)
        labels = numbers[split.labels[rows]]
        keys = _keys(task, which)
        lacking = _lacking(keys, _header(task, which))
        used = [split.sample_id[row] for row in draw.rows]
        made = {}
        for name in lacking:
            reads_pool = COMBINERS.get(name).reads_pool
            if reads_pool and pool is None:
                pool = _pool(task, which, split, classes)
            made[name] = fit(
                name,
                ensemble,
                labels,
                which=which,
                settings=_settings(task, name, which),
                facts=_facts(which, used, pool.sample_id if reads_pool and pool else None),
                pool=pool if reads_pool else None,
            )
        _write(task, which, keys, made)
        short = {split.class_names[c]: n for c, n in draw.short.items()}
        yield _fitted(task, which, keys, lacking, labels=len(rows), short=short)


def _pool(
    task: _Task, which: Labels, split: AlignedSplit, classes: Int[np.ndarray, " classes"]
) -> Ensemble:
    """Read the unlabelled rows; heads that are fitted per draw have not seen those not drawn."""
    if not task.inputs[which].pool:
        return _unlabelled(task, which, split, classes)
    with open_split(task.logits(which), task.features(which), HOLDOUT) as rest:
        return _unlabelled(task, which, rest, classes)


def _unlabelled(
    task: _Task, which: Labels, split: AlignedSplit, classes: Int[np.ndarray, " classes"]
) -> Ensemble:
    """Read all rows of a split, or as many at random as `POOL_CELLS` allows."""
    features = bool(task.inputs[which].features)
    width = len(task.backbones) * len(classes) + (split.feature_width if features else 0)
    order = np.argsort(ranks(split.sample_id, draw="pool"))
    rows = order[: max(1, POOL_CELLS // width)]
    rows = rows[canonical_rows([split.sample_id[row] for row in rows])]
    return split.ensemble(rows, features=features, classes=classes)


def _draw(task: _Task, which: Labels, split: AlignedSplit) -> Draw:
    """Choose the labelled samples of a run; of heads fitted per draw, all are those drawn."""
    draw = which.draw(split.labels, split.sample_id, classes=len(split.class_names))
    if HEADS.get(task.head).per_draw:
        draw = Draw(np.arange(len(split.labels)), draw.short)
    if not len(draw.rows) and which.kind != "none":
        raise DataError(
            f"{task.dataset} has a single labelled image, so --holdout {which.amount:g} selects "
            "none; use --shots 1"
        )
    if draw.short and task.strict_shots:
        label, count = min(draw.short.items(), key=lambda item: item[1])
        raise DataError(
            f"{task.dataset} has {count} labelled image{'s' * (count != 1)} of {split.class_names[label]!r}, fewer "
            f"than {which.amount:g} shots; lower --shots, or drop --strict-shots to use all it has"
        )
    return draw


def _facts(
    which: Labels, used: Sequence[str], pool: Sequence[str] | None = None
) -> dict[str, float | str | int]:
    facts: dict[str, float | str | int] = {
        "drawn": which.name,
        "labels": len(used),
        "labelled_samples": content_digest(list(used)),
    }
    if pool is not None:
        facts |= {"unlabelled": len(pool), "unlabelled_samples": content_digest(list(pool))}
    return facts


def _path(task: _Task, which: Labels) -> Path:
    members = members_name(task.backbones)
    return task.layout.fits(task.dataset, task.head, members, which.name)


def _keys(task: _Task, which: Labels) -> dict[str, Key]:
    """Return the key of every combiner that this run is for: every resolved input by name."""
    keys = {}
    for name in task.combiners:
        combiner = COMBINERS.get(name)
        if not is_for(task.head, name, which):
            continue
        settings = combiner(seed=which.seed, **_settings(task, name, which)).settings()
        inputs = task.inputs[which]
        read: dict[str, Any] = {"classes": inputs.classes, "inputs": {}}
        if combiner.learnt:
            features = inputs.features if combiner.needs_features else {}
            pool = inputs.pool if combiner.reads_pool else {}
            read = {"inputs": {**inputs.logits, **features, **pool}}
        keys[name] = Key.of(
            {
                "combiner": name,
                "settings": settings,
                "head": task.head,
                "backbones": list(task.backbones),
                "labels": which.name,
                **({"parts": inputs.parts} if inputs.parts else {}),
                **read,
            }
        )
    return keys


def _cached(task: _Task, which: Labels) -> FittedRun | None:
    """Return the run if every combiner is there under the same key, else None."""
    keys = _keys(task, which)
    header = _header(task, which)
    if header is None or _lacking(keys, header):
        return None
    labels = max(int(header.facts[name]["labels"]) for name in keys)
    if task.strict_shots and which.kind == "shots" and labels < which.amount * header.classes:
        return None  # drawn again, it is refused with the class's name
    return _fitted(task, which, keys, (), labels=labels)


def _header(task: _Task, which: Labels) -> FitHeader | None:
    try:
        return read_fit_header(_path(task, which))
    except MissingStageError:
        return None


def _lacking(keys: Mapping[str, Key], header: FitHeader | None) -> tuple[str, ...]:
    return tuple(name for name, key in keys.items() if not header or header.keys.get(name) != key)


def _write(task: _Task, which: Labels, keys: Mapping[str, Key], made: Mapping[str, Fitted]) -> None:
    if not made:  # another process has written them meanwhile
        return
    first = next(iter(made.values()))
    path = _path(task, which)
    with locks.writing(path):
        add_fits(
            path,
            FitStore(
                backbones=first.backbones,
                class_names=first.class_names,
                fits={
                    name: Fit(key=keys[name], learnt=fitted.learnt, facts=fitted.facts)
                    for name, fitted in made.items()
                },
            ),
        )


def _fitted(
    task: _Task,
    which: Labels,
    keys: Mapping[str, Key],
    made: Sequence[str],
    *,
    labels: int,
    short: Mapping[str, int] | None = None,
) -> FittedRun:
    kept = tuple(name for name in keys if name not in made)
    return FittedRun(task.dataset, which, tuple(made), kept, labels, short or {})
