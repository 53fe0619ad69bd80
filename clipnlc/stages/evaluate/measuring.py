"""Measures what the fits of data sets give, in this process or one data set per process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from threadpoolctl import threadpool_limits

from clipnlc.datasets.clusters import cluster_of
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.processes import in_processes
from clipnlc.runs.targets import Target, foreign_target, stored_target
from clipnlc.stages.evaluate.applying import images_taught, predictions_and_outcomes
from clipnlc.stages.evaluate.finding import Asked, Found
from clipnlc.stages.evaluate.measured import Measured, Outcome, Setting
from clipnlc.stages.evaluate.reference import check_same_rows, pool_labels, reference_of
from clipnlc.stages.evaluate.rows import beside_published, kind_of, references

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


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
    reference = reference_of(runs)
    together = runs if not per_draw else replace(runs, head=reference.head, paths={}, headers={})
    with _target(asked, found, reference.head, reference.run) as target:
        predictions, alone, given = predictions_and_outcomes(
            asked.layout, together, target, keep_scores=keep_scores, on_progress=on_progress
        )
    numbers = [runs.backbones.index(name) for name in reference.backbones]
    alone, predictions = {n: alone[n] for n in reference.backbones}, predictions[numbers]
    outcomes: dict[Setting, dict[int, Outcome]] = references(alone, predictions, target.labels)
    for name in reference.fitted:  # of them, what is known without labels is nothing
        outcomes.pop(Setting.unfitted(name, "backbone"), None)
    for run in runs.paths if per_draw else ():
        which = Labels.parse(run)
        with _target(asked, found, asked.head, run) as its_own:
            check_same_rows(target, its_own)
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
            if reference.run is not None and name not in reference.fitted:
                continue  # it needs no labels, and has answered above
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
        backbones=reference.backbones,
        classes=len(target.class_names),
        sample_id=target.sample_id,
        labels=target.labels,
        predictions=predictions,
        outcomes=outcomes,
        published=beside_published(found.dataset, alone, target.labels) if own else (),
        cluster=cluster_of(found.dataset),
        pool=pool_labels(asked.layout, runs),
        notes=(*_left_out(target.unknown, runs.dataset), *filter(None, [reference.note])),
    )


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


def _left_out(unknown: Mapping[str, int], source: str) -> tuple[str, ...]:
    """Say how many images of which classes the fits know nothing of."""
    if not unknown:
        return ()
    images, classes = sum(unknown.values()), len(unknown)
    what = f"{images} image{'s' * (images != 1)} of {classes} class{'es' * (classes != 1)}"
    were = "were" if images > 1 else "was"
    return (f"{what} that {source} does not have {were} left out: {', '.join(unknown)}.",)
