"""What the fits of one data set give on a target: applied where the store does not have it yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Int

from clipnlc.combiners import COMBINERS, Weigher
from clipnlc.combiners.cascade import Cascade
from clipnlc.digests import content_digest
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.heads import HEADS
from clipnlc.measures import Values
from clipnlc.metrics import METRICS, sample_values
from clipnlc.reports.files import ROUNDING
from clipnlc.runs.finding import read_fitted
from clipnlc.runs.fitted import Fitted
from clipnlc.runs.freshness import PART
from clipnlc.runs.giving import Measurable, give
from clipnlc.stages.evaluate.measured import Outcome
from clipnlc.stores import locks
from clipnlc.stores.given import GivenArrays, GivenStore, add_given, read_given, read_given_header
from clipnlc.stores.key import Json, Key
from clipnlc.stores.layout import maker
from clipnlc.stores.logits import read_logit_header

if TYPE_CHECKING:
    from pathlib import Path

    from clipnlc.runs.finding import Runs
    from clipnlc.runs.targets import Target
    from clipnlc.stores.layout import Layout

Each = tuple[str, str]
"""A run and a combiner in it."""

_TOGETHER: Final = 2**28
"""Bytes of what fits give that are in memory at a time; more fits take another pass over the rows."""


def predictions_and_outcomes(
    layout: Layout,
    runs: Runs,
    target: Target,
    *,
    keep_scores: bool,
    on_progress: Callable[[int, int], None],
) -> tuple[Int[np.ndarray, "backbones samples"], dict[str, Outcome], dict[Each, Outcome]]:
    """Return each backbone's predictions, its outcome alone, and the outcome of every fit.

    Raises:
        MissingStageError: a combiner needs features that have not been made.
        StoreError: fits do not belong to these backbones or classes; a file is damaged, in use, or
            cannot be written.
    """
    paths = {
        run: layout.given(
            target.dataset,
            target.split,
            source=runs.dataset,
            head=runs.head,
            members=runs.members,
            run=run,
        )
        for run in runs.paths
    }
    keys = {run: _keys(layout, runs, run, target, keep_scores=keep_scores) for run in runs.paths}
    lacking = [(run, name) for run, path in paths.items() for name in _lacking(path, keys[run])]
    passes = list(_passes(lacking, target, keep_scores=keep_scores)) or [()]
    predictions, alone = None, {}
    values: dict[Each, Mapping[str, Values]] = {}
    spent: dict[Each, tuple[float, float]] = {}
    for number, together in enumerate(passes):

        def on_rows(done: int, rows: int, before: int = number) -> None:
            on_progress(before * rows + done, len(passes) * rows)

        fits = _fits(runs, together)
        found, backbones = give(fits, target, keep_scores=keep_scores, on_progress=on_rows)
        if predictions is None:
            predictions = np.stack([backbones[name].predicted for name in target.backbones])
            alone = {name: Outcome(each.values) for name, each in backbones.items()}
        _write(paths, keys, found, target)
        values |= {each: made.values for each, made in found.items()}
        spent |= _spent(fits, found)
    assert predictions is not None
    for run, path in paths.items():
        if any((run, name) not in values for name in keys[run]):
            names = [n for n in keys[run] if (run, n) not in values]
            given = {(run, n): made for n, made in _stored(path, target, names).items()}
            costed = [(run, n) for n in names if COMBINERS.get(n).needs_costs]
            spent |= _spent(_fits(runs, costed), given)
            values |= {(run, n): given[run, n].values for n in names}
    outcomes = {each: _outcome(runs, each, made) for each, made in values.items()}
    return predictions, alone, {e: o._replace(spent=spent.get(e)) for e, o in outcomes.items()}


def images_taught(layout: Layout, runs: Runs, run: str) -> int:
    """Return how many images heads of this run learnt a teacher's answers on; 0 without a teacher."""
    if not HEADS.get(runs.head).needs_teacher:
        return 0
    header = read_logit_header(runs.logits(layout, runs.backbones[0], run))
    return int(header.facts["rows"])


def _spent(
    fits: Mapping[Each, Fitted], found: Mapping[Each, Measurable | GivenArrays]
) -> dict[Each, tuple[float, float]]:
    """Return what a sample takes in the mean, and all backbones, for fits that may take less."""
    costs = {}
    for each, fit in fits.items():
        weights = found[each].weights
        if isinstance(fit.combiner, Cascade) and weights is not None:
            of_each = fit.combiner.spending(weights)
            costs[each] = (float(of_each.mean()), float(fit.combiner.gflops_.sum()))
    return costs


def _keys(
    layout: Layout, runs: Runs, run: str, target: Target, *, keep_scores: bool
) -> dict[str, Key]:
    """Return the key of what each fit of a run gives."""
    fits = layout.relative(runs.paths[run])
    origins = {m: found.origin for m in METRICS if (found := METRICS.plugin(m))}
    packages: dict[str, Json] = {"packages": origins} if origins else {}
    keys = {}
    for name, digest in runs.headers[run].digests.items():
        needs_features = COMBINERS.get(name).needs_features
        keys[name] = Key.of(
            {
                "combiner": name,
                "fitted_on": runs.dataset,
                "run": run,
                "measures": list(METRICS),
                **packages,
                "classes": content_digest(list(target.class_names)),
                "scores": keep_scores and not issubclass(COMBINERS.get(name), Weigher),
                "clipnlc": version("clipnlc"),
                "inputs": {
                    f"{fits}{PART}{name}": digest,
                    **target.logits,
                    **(target.features if needs_features else {}),
                },
            }
        )
    return keys


def _stored(path: Path, target: Target, combiners: Sequence[str]) -> Mapping[str, GivenArrays]:
    """Read what fits gave on the very rows of a target, with values that can be.

    Raises:
        StoreError: the file is damaged, of other rows, or has values that no scores have.
    """
    store = read_given(path)
    one = sample_values(np.zeros((1, len(target.class_names))), np.zeros(1, dtype=np.int64))
    widths = {name: values.shape[1] for name, values in one.items()}
    columns = (store.sample_id, store.backbones, store.class_names)
    problem = ""
    if columns != (target.sample_id, target.backbones, target.class_names):
        problem = "is of other samples, backbones or classes than its key names"
    for name in [] if problem else combiners:
        values = store.given[name].values
        if {measure: array.shape[1] for measure, array in values.items()} != widths:
            problem = f"has other values of {name} than its key names"
            break
        for measure, array in values.items():
            low, high = METRICS.get(measure).bounds
            total = METRICS.get(measure).sum_up(array, target.labels)
            inside = (low is None or total >= low - ROUNDING) and (
                high is None or total <= high + ROUNDING
            )
            if not inside:
                problem = f"gives {name} the {measure} {total:g}, which cannot be"
    if problem:
        raise StoreError(f"{path} {problem}; delete it and run `{maker(path)}` again")
    return store.given


def _lacking(path: Path, keys: Mapping[str, Key]) -> list[str]:
    try:
        present = read_given_header(path).keys
    except MissingStageError:
        return list(keys)
    return [name for name, key in keys.items() if not _is(present.get(name), key)]


def _is(present: Key | None, wanted: Key) -> bool:
    """Whether it is what is wanted; scores that were kept do no harm."""
    if present is None or present == wanted:
        return present is not None
    return Key.of({**present.fields, "scores": False}) == wanted


def _passes(
    lacking: Sequence[Each], target: Target, *, keep_scores: bool
) -> Iterator[Sequence[Each]]:
    """Divide fits so that what those of one pass give fits into memory."""
    samples = len(target.sample_id)
    row = 8 * (len(list(METRICS)) + 2) + 4 * len(target.backbones)
    row += 4 * len(target.class_names) * keep_scores
    size = max(1, _TOGETHER // max(1, row * samples))
    logits = 4 * len(target.backbones) * samples * len(target.class_names)
    if len(lacking) <= size and logits <= _TOGETHER:
        yield lacking
        return
    # Those that need all rows at once go by themselves, when nothing else is in memory.
    blockwise = [each for each in lacking if COMBINERS.get(each[1]).row_wise]
    whole = [each for each in lacking if not COMBINERS.get(each[1]).row_wise]
    for several in (blockwise, whole):
        for start in range(0, len(several), size):
            yield several[start : start + size]


def _fits(runs: Runs, wanted: Sequence[Each]) -> dict[Each, Fitted]:
    """Read fits, each as a value of its own."""
    by_run: dict[str, list[str]] = {}
    for run, name in wanted:
        by_run.setdefault(run, []).append(name)
    found: dict[Each, Fitted] = {}
    for run, names in by_run.items():
        found |= {(run, n): fitted for n, fitted in read_fitted(runs, run, names).items()}
    return found


def _write(
    paths: Mapping[str, Path],
    keys: Mapping[str, Mapping[str, Key]],
    found: Mapping[Each, Measurable],
    target: Target,
) -> None:
    for run in dict.fromkeys(run for run, _ in found):
        given = {
            name: GivenArrays(keys[run][name], made.values, made.weights, made.scores)
            for (its, name), made in found.items()
            if its == run
        }
        with locks.writing(paths[run]):
            add_given(
                paths[run],
                GivenStore(target.sample_id, target.backbones, target.class_names, given),
            )


def _outcome(runs: Runs, each: Each, values: Mapping[str, Values]) -> Outcome:
    run, name = each
    facts = runs.headers[run].facts[name]
    labels, unlabelled = facts.get("labels", 0), facts.get("unlabelled", 0)
    if not isinstance(labels, int) or not isinstance(unlabelled, int):
        raise StoreError(
            f"{runs.paths[run]} does not say how many labels {name} was fitted on; delete the file "
            f"and run `{maker(runs.paths[run])}` again"
        )
    return Outcome(values, labels, unlabelled)
