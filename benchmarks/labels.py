"""Measure what labels cost that came at random, and what a wrong class balance costs.

In each of four rounds (see `pools`) of each nano training pool, several times over, labels are
drawn from three folds, whose images are the unlabelled ones too, and what was fitted is measured on
the fourth; no test image is read.

- Labels: n at random, 0.5 to 8 per class on average, beside k of each class.
- Balance: classes thinned to geometric proportions (3 : 1, 10 : 1) and to 1/rank, in a random order:
  in the unlabelled images, in those that are judged, in both. The judged ones are weighed by the
  share that is kept of their class, so that none is lost.

    python benchmarks/labels.py --store clipnlc-store --out docs/labels.md

Cells are means over data sets; differences are paired, with 95 % intervals (Student's t over data
sets, those that share images as one cluster). Needs a store with features and zero-shot logits of
the train splits (`clipnlc extract`).
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from pages import write_tables
from pools import FOLDS, Round, rounds
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.datasets.clusters import cluster_of
from clipnlc.datasets.nano import KEYS
from clipnlc.ensemble import Ensemble, by_name
from clipnlc.labels import Labels
from clipnlc.metrics.comparisons import cluster_interval
from clipnlc.metrics.intervals import Interval

BUDGETS = (0.5, 1, 2, 4, 8)
"""Labels per class, on average."""

WITH_LABELS = 4
"""Labels per class, on average at random, of the methods with labels in the table of balances."""

SHAPES: Mapping[str, Callable[[int], Float[np.ndarray, " classes"]]] = {
    "3 : 1": lambda classes: np.geomspace(1, 1 / 3, classes),
    "10 : 1": lambda classes: np.geomspace(1, 1 / 10, classes),
    "1/rank": lambda classes: 1 / np.arange(1.0, classes + 1),
}
"""What share of each class is kept, the most common first."""

EQUAL = "equal"

Cell = tuple[str, str, str]
"""Which images there are, the method, its labels."""

Accuracies = dict[Cell, float]
"""In %, mean over rounds and draws of one data set."""


@dataclass(frozen=True)
class Method:
    """A combiner as the table of balances has it.

    Attributes:
        combiner: its name.
        proportions: `None`, `uniform`, `labels`, or `declared`: those of the unlabelled images.
    """

    combiner: str
    proportions: str | None = None

    @property
    def name(self) -> str:
        """The combiner and what it is told of the classes."""
        return f"{self.combiner}, {self.proportions}" if self.proportions else self.combiner

    def settings(self, shares: Float[np.ndarray, " classes"]) -> dict[str, Any]:
        """Return the settings of the combiner where these are the proportions of the pool."""
        if self.proportions is None:
            return {}
        return {"proportions": shares if self.proportions == "declared" else self.proportions}


METHODS = (
    (0, Method("balanced")),
    (0, Method("balanced", "uniform")),
    (0, Method("balanced", "declared")),
    (WITH_LABELS, Method("gp")),
    (WITH_LABELS, Method("balanced-gp")),
    (WITH_LABELS, Method("balanced-gp", "labels")),
    (WITH_LABELS, Method("balanced-gp", "declared")),
)


def measure(store: Path, dataset: str, repeats: int) -> Accuracies:
    """Return the mean accuracy in every cell, for one data set."""
    found: dict[Cell, list[float]] = {}
    with threadpool_limits(1):
        for one in rounds(store, dataset):
            for repeat in range(repeats):
                seed = repeat * FOLDS + one.number
                for cell, accuracy in itertools.chain(of_labels(one, seed), of_balance(one, seed)):
                    found.setdefault(cell, []).append(accuracy)
    return {cell: float(np.mean(values)) for cell, values in found.items()}


def of_labels(one: Round, seed: int) -> Iterator[tuple[Cell, float]]:
    """Fit on labels at random, on labels of each class, and on none; yield the accuracies."""
    classes = one.pool.logits.shape[2]
    judged = np.ones(len(one.truth))
    draws = {
        **{f"r{b:g}": Labels.count(max(1, round(b * classes)), seed=seed) for b in BUDGETS},
        **{f"k{b:g}": Labels.shots(int(b), seed=seed) for b in BUDGETS if b >= 1},
    }
    fits = [("log-avg", "0", Labels.none()), ("balanced-gp", "0", Labels.none())]
    fits += [(name, draw, draws[draw]) for draw in draws for name in ("gp", "balanced-gp")]
    for name, draw, which in fits:
        scores = _scores(one.pool, one.labels, one.judge, combiner=name, settings={}, which=which)
        yield (EQUAL, name, draw), _accuracy(scores, one.truth, judged)


def of_balance(one: Round, seed: int) -> Iterator[tuple[Cell, float]]:
    """Thin the classes, fit, and judge on the same and on the other proportions."""
    classes = one.pool.logits.shape[2]
    order = np.random.default_rng([seed, classes]).permutation(classes)
    kept = {EQUAL: np.ones(classes), **{name: of(classes)[order] for name, of in SHAPES.items()}}
    for pool_has, shares in kept.items():
        rows = _thinned(one.labels, shares, seed)
        pool, labels = one.pool.rows(rows), one.labels[rows]
        counts = np.bincount(labels, minlength=classes)[by_name(pool.class_names)]
        fits = [("log-avg", "log-avg", {}, Labels.none())]
        for amount, method in METHODS:
            which = Labels.count(amount * classes, seed=seed) if amount else Labels.none()
            fits.append((method.name, method.combiner, method.settings(counts), which))
        for name, combiner, settings, which in fits:
            scores = _scores(
                pool, labels, one.judge, combiner=combiner, settings=settings, which=which
            )
            for judged_has, weights in kept.items():
                if EQUAL in (pool_has, judged_has) or pool_has == judged_has:
                    cell = (f"{pool_has} / {judged_has}", name, "")
                    yield cell, _accuracy(scores, one.truth, weights[one.truth])


def _thinned(
    labels: Int[np.ndarray, " pool"], shares: Float[np.ndarray, " classes"], seed: int
) -> Int[np.ndarray, " kept"]:
    """Keep a share of each class, at least one row; rows that are drawn by the seed."""
    shuffled = np.random.default_rng([seed, 1]).permutation(len(labels))
    kept = []
    for label, share in enumerate(shares):
        rows = shuffled[labels[shuffled] == label]
        kept.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(kept))


def _scores(
    pool: Ensemble,
    labels: Int[np.ndarray, " pool"],
    judge: Ensemble,
    *,
    combiner: str,
    settings: Mapping[str, Any],
    which: Labels,
) -> Float[np.ndarray, "judged classes"]:
    rows = which.draw(labels, pool.sample_id, classes=pool.logits.shape[2]).rows
    fitted = COMBINERS.get(combiner)(seed=which.seed, **settings)
    if fitted.learnt:
        fitted.fit(pool.rows(rows), labels[rows], pool)
    return fitted.combine(judge)


def _accuracy(
    scores: Float[np.ndarray, "judged classes"],
    truth: Int[np.ndarray, " judged"],
    weights: Float[np.ndarray, " judged"],
) -> float:
    right = scores.argmax(axis=1) == truth
    return 100 * float(np.average(right, weights=weights))


Results = Mapping[str, Accuracies]
"""By data set."""


def difference(results: Results, cell: Cell, other: Cell) -> Interval:
    """Return the mean over data sets of what a cell has more than another, with its interval."""
    found = np.array([by[cell] - by[other] for by in results.values()])
    return cluster_interval(found, [cluster_of(dataset) for dataset in results])


def _mean(results: Results, cell: Cell) -> str:
    return f"{np.mean([by[cell] for by in results.values()]):.1f}"


def _spelled(interval: Interval) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*interval)


def label_lines(results: Results) -> Iterator[str]:
    """Yield the table of labels."""
    base, free = (EQUAL, "log-avg", "0"), (EQUAL, "balanced-gp", "0")
    yield "| labels per class, on average | 0 |" + "".join(f" {b:g} |" for b in BUDGETS)
    yield "|---|---|" + "---|" * len(BUDGETS)
    yield f"| log-avg | {_mean(results, base)} |" + " |" * len(BUDGETS)
    for name, without in (("gp", ""), ("balanced-gp", _mean(results, free))):
        for kind, draw in (("at random", "r"), ("of each class", "k")):
            cells = [(EQUAL, name, f"{draw}{b:g}") for b in BUDGETS]
            known = cells[0] in next(iter(results.values()))
            shown = [_mean(results, cell) for cell in (cells if known else cells[1:])]
            yield f"| {name}, {kind} | {without} | " + " | ".join([""] * (not known) + shown) + " |"
    for name, minus, other in (
        ("gp", "log-avg", base),
        ("balanced-gp", "log-avg", base),
        ("balanced-gp", "its answer without a label", free),
    ):
        gains = [_spelled(difference(results, (EQUAL, name, f"r{b:g}"), other)) for b in BUDGETS]
        yield f"| {name}, at random, minus {minus} | | " + " | ".join(gains) + " |"
    for kind, draw, budgets in (("at random", "r", BUDGETS), ("of each class", "k", BUDGETS[1:])):
        gains = [
            _spelled(
                difference(
                    results, (EQUAL, "balanced-gp", f"{draw}{b:g}"), (EQUAL, "gp", f"{draw}{b:g}")
                )
            )
            for b in budgets
        ]
        blank = " |" * (1 + len(BUDGETS) - len(budgets))
        yield f"| balanced-gp minus gp, {kind} |{blank} " + " | ".join(gains) + " |"
    for name in ("gp", "balanced-gp"):
        costs = [
            _spelled(difference(results, (EQUAL, name, f"r{b:g}"), (EQUAL, name, f"k{b:g}")))
            for b in BUDGETS[1:]
        ]
        yield f"| {name}, at random, minus of each class | | | " + " | ".join(costs) + " |"


def balance_lines(results: Results) -> Iterator[str]:
    """Yield the table of class balances."""
    names = [method.name for _, method in METHODS]
    yield "| unlabelled / judged images | log-avg |" + "".join(f" {name} |" for name in names)
    yield "|---|---|" + "---|" * len(names)
    for shape in (EQUAL, *SHAPES):
        pairs = [(shape, shape), (shape, EQUAL), (EQUAL, shape)]
        for pair in dict.fromkeys(pairs):
            images = " / ".join(pair)
            base = (images, "log-avg", "")
            gains = [_spelled(difference(results, (images, name, ""), base)) for name in names]
            yield f"| {images} | {_mean(results, base)} | " + " | ".join(gains) + " |"


def property_lines(results: Results) -> Iterator[str]:
    """Yield the properties that are asked for, each with the figure that decides it."""
    base, free = (EQUAL, "log-avg", "0"), (EQUAL, "balanced-gp", "0")
    images = ("10 : 1 / 10 : 1", f"10 : 1 / {EQUAL}", f"{EQUAL} / 10 : 1")
    asked: list[tuple[str, Sequence[tuple[Cell, Cell, float]]]] = [
        (
            "`gp` on labels at random is nowhere below `log-avg`",
            [((EQUAL, "gp", f"r{b:g}"), base, 0) for b in BUDGETS],
        ),
        (
            "`balanced-gp` on labels at random is nowhere below itself without labels",
            [((EQUAL, "balanced-gp", f"r{b:g}"), free, 0) for b in BUDGETS],
        ),
        (
            "it is 5, 6 and 8 points above `log-avg` at 1, 2 and 4 per class",
            [
                ((EQUAL, "balanced-gp", f"r{b}"), base, points)
                for b, points in ((1, 5), (2, 6), (4, 8))
            ],
        ),
        (
            "`balanced` is at most half a point below `log-avg`, classes thinned to 10 : 1",
            [((both, "balanced", ""), (both, "log-avg", ""), -0.5) for both in images],
        ),
    ]
    for text, parts in asked:
        found = [difference(results, cell, other).centre for cell, other, _ in parts]
        holds = all(gain >= points for gain, (*_, points) in zip(found, parts, strict=True))
        yield f"- {text}: **{'yes' if holds else 'no'}** ({', '.join(f'{g:+.1f}' for g in found)})."


def page(results: Results) -> Iterator[str]:
    """Yield the lines of the page's tables."""
    yield from property_lines(results)
    yield ""
    yield from label_lines(results)
    yield ""
    yield from balance_lines(results)


def main() -> None:
    """Measure, print the tables and write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("clipnlc-store"))
    parser.add_argument("--out", type=Path, default=Path("docs/labels.md"))
    parser.add_argument("--results", type=Path, default=Path("build/labels.json"))
    parser.add_argument("--repeats", type=int, default=5, help="draws in each round")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    work = partial(measure, options.store, repeats=options.repeats)
    with ProcessPoolExecutor(options.workers) as pool:
        results = dict(zip(KEYS, pool.map(work, KEYS), strict=True))
    listed = {
        dataset: [[*cell, value] for cell, value in by.items()] for dataset, by in results.items()
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(listed), "utf-8")
    lines = "\n".join(page(results))
    write_tables(options.out, lines)
    print(lines)


if __name__ == "__main__":
    main()
