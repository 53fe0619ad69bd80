"""Measures what the fits of data sets give, in this process or one data set per process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Int
from threadpoolctl import threadpool_limits

from clipnlc.datasets.clusters import cluster_of
from clipnlc.errors import StoreError
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.processes import in_processes
from clipnlc.runs.finding import Runs, labelled_split
from clipnlc.runs.targets import Target, foreign_target, stored_target
from clipnlc.stages.evaluate.applying import images_taught, predictions_and_outcomes
from clipnlc.stages.evaluate.finding import REFERENCE_HEAD, Asked, Found
from clipnlc.stages.evaluate.measured import Measured, Outcome, Setting
from clipnlc.stages.evaluate.rows import beside_published, kind_of, references
from clipnlc.stores.logits import open_logits, read_logit_header

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from clipnlc.stores.layout import Layout

PUBLISHED: Final = ("zero-shot", "test")
"""The head and the split of the published numbers."""

_WORTH_PROCESSES: Final = 10**7
"""Rows times fits times backbones below which a process would take longer to start than to work."""


@dataclass(frozen=True)
class _Task:
    asked: Asked
    found: Found
    keep_scores: bool


def measure(
    asked: Asked,
    found: Sequence[Found],
    *,
    keep_scores: bool = False,
    workers: int = 1,
    on_progress: Callable[[str, int, int], None],
) -> list[Measured]:
    """Measure the fits of each data set; the same with any number of processes.

    Raises:
        DataError: a process was killed.
        MissingStageError, StoreError: as `evaluate`.
    """
    if min(workers, len(found)) > 1 and sum(map(_work, found)) > _WORTH_PROCESSES:
        largest_first = sorted(found, key=_work, reverse=True)
        tasks = [_Task(asked, each, keep_scores) for each in largest_first]
        done = {}
        for measured in in_processes(_measure_task, tasks, workers):
            done[measured.dataset] = measured
            on_progress("data sets", len(done), len(found))
        return [done[each.dataset] for each in found]
    several = []
    for each in found:

        def on_rows(done: int, rows: int, dataset: str = each.dataset) -> None:
            on_progress(dataset, done, rows)

        several.append(_measure(asked, each, keep_scores=keep_scores, on_progress=on_rows))
    return several


def _work(found: Found) -> int:
    fits = sum(len(header.keys) for header in found.runs.headers.values())
    return fits * sum(source.rows for source in found.sources)


def _measure_task(task: _Task) -> list[Measured]:
    with threadpool_limits(limits=1):  # as many threads as processes
        measured = _measure(
            task.asked,
            task.found,
            keep_scores=task.keep_scores,
            on_progress=lambda _done, _all: None,
        )
    return [measured]


def _measure(
    asked: Asked, found: Found, *, keep_scores: bool, on_progress: Callable[[int, int], None]
) -> Measured:
    runs = found.runs
    per_draw = HEADS.get(asked.head).per_draw
    together = runs if not per_draw else replace(runs, head=REFERENCE_HEAD, paths={}, headers={})
    with _target(asked, found, together.head) as target:
        predictions, alone, given = predictions_and_outcomes(
            asked.layout, together, target, keep_scores=keep_scores, on_progress=on_progress
        )
    outcomes: dict[Setting, dict[int, Outcome]] = references(alone, predictions, target.labels)
    for run in runs.paths if per_draw else ():
        which = Labels.parse(run)
        with _target(asked, found, asked.head, run) as its_own:
            _check_same_rows(target, its_own)
            _, alone_here, given_here = predictions_and_outcomes(
                asked.layout,
                replace(runs, paths={run: runs.paths[run]}, headers={run: runs.headers[run]}),
                its_own,
                keep_scores=keep_scores,
                on_progress=on_progress,
            )
        taught = images_taught(asked.layout, runs, run)
        given |= {e: o._replace(unlabelled=taught or o.unlabelled) for e, o in given_here.items()}
        labels = max(outcome.labels for outcome in given_here.values())
        for name, outcome in alone_here.items():
            its = outcomes.setdefault(Setting(name, "backbone", which.setting), {})
            its[which.seed] = outcome._replace(labels=labels, unlabelled=taught)
    for (run, name), outcome in given.items():
        which = Labels.parse(run)
        outcomes.setdefault(Setting(name, kind_of(name), which.setting), {})[which.seed] = outcome
    # Others publish zero-shot heads on test images.
    own = (asked.head, asked.split) == PUBLISHED and runs.dataset == found.dataset
    return Measured(
        dataset=found.dataset,
        sources=found.sources,
        backbones=runs.backbones,
        classes=len(target.class_names),
        sample_id=target.sample_id,
        labels=target.labels,
        predictions=predictions,
        outcomes=outcomes,
        published=beside_published(found.dataset, alone, target.labels) if own else (),
        cluster=cluster_of(found.dataset),
        pool=_pool_labels(asked.layout, runs),
        notes=_left_out(target.unknown, runs.dataset),
    )


def _pool_labels(layout: Layout, runs: Runs) -> Int[np.ndarray, " pool"] | None:
    """Read the labels that the fits' were drawn from; None where the store has them no longer."""
    head = REFERENCE_HEAD if HEADS.get(runs.head).per_draw else runs.head
    split = labelled_split(head)
    path = layout.logits(runs.dataset, head, runs.backbones[0])
    if not path.exists() or split not in read_logit_header(path).rows:
        return None
    with open_logits(path, split) as file:
        return file.columns().labels


def _target(
    asked: Asked, found: Found, head: str, run: str | None = None
) -> AbstractContextManager[Target]:
    """Open what is predicted, under one head; `run` where that is fitted per draw."""
    layout, runs = asked.layout, found.runs
    if runs.dataset == found.dataset:
        return stored_target(
            layout, found.dataset, asked.split, head=head, backbones=runs.backbones, run=run
        )
    return foreign_target(
        layout,
        found.dataset,
        asked.split,
        source=runs.dataset,
        head=head,
        backbones=runs.backbones,
        run=run,
    )


def _check_same_rows(one: Target, other: Target) -> None:
    """Check that the heads of two kinds predict the same samples.

    Raises:
        StoreError: they do not.
    """
    if one.sample_id != other.sample_id or not np.array_equal(one.labels, other.labels):
        first, second = next(iter(one.logits)), next(iter(other.logits))
        raise StoreError(
            f"{first} and {second} are of other samples of {one.dataset}/{one.split}; expected the "
            "same: extract the data set again, and train its heads again"
        )


def _left_out(unknown: Mapping[str, int], source: str) -> tuple[str, ...]:
    """Say how many images of which classes the fits know nothing of."""
    if not unknown:
        return ()
    images, classes = sum(unknown.values()), len(unknown)
    what = f"{images} image{'s' * (images != 1)} of {classes} class{'es' * (classes != 1)}"
    were = "were" if images > 1 else "was"
    return (f"{what} that {source} does not have {were} left out: {', '.join(unknown)}.",)
