"""Choose settings of the recommended methods on folds of the training pools; no test label is read.

In each of four rounds (see `pools`), labels are drawn from three folds, whose images are the
unlabelled ones too, every candidate is fitted, and measured on the fourth. Of the two groups, with
and without unlabelled images, the best mean accuracy over 1, 2, 4, 8 and 16 labels of each class is
looked for; of those within one paired standard error of it (over the sets) the one with the lowest
negative log-likelihood is chosen, and of equals the fastest, then the one named first. The choice is made anew without each
set (the two emoji sets together), which gives an estimate that no set has chosen for itself.

    python benchmarks/selection.py --store clipnlc-store --out docs/selection.md

Needs a store with features and zero-shot logits of the train splits (`clipnlc extract`).
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_tables
from pools import Round, rounds
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.datasets.nano import KEYS
from clipnlc.fitting import log_softmax
from clipnlc.labels import Labels

SHOTS = (1, 2, 4, 8, 16)
AT_RANDOM = (0.5, 1, 2, 4, 8)
DRAWS = ("0", *(f"k{k}" for k in SHOTS), *(f"r{b:g}" for b in AT_RANDOM))
CLUSTERS = {"emoji_group": "emoji", "emoji_kind": "emoji"}


@dataclass(frozen=True)
class Candidate:
    """A combiner with settings.

    Attributes:
        combiner: its name.
        settings: those that differ from the defaults.
    """

    combiner: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The combiner and the settings, as the page spells them."""
        given = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"{self.combiner}: {given}" if given else self.combiner

    @property
    def shown_only(self) -> bool:
        """Whether labels of each class do not decide its settings, see `ELSEWHERE`."""
        return self.combiner != "balanced" and not ELSEWHERE.isdisjoint(self.settings)

    @property
    def reads_pool(self) -> bool:
        """Whether it learns from unlabelled images."""
        return bool(COMBINERS.get(self.combiner).reads_pool)


REFERENCES = tuple(
    name
    for name in (
        "log-avg",
        "prob-avg",
        "conf",
        "c-log-avg",
        "super-learner",
        "nlc",
        "probe",
        "probe-static",
    )
    if name in COMBINERS
)

ELSEWHERE = {"spread", "power", "smoothing"}
"""Settings that the rule leaves alone: `balanced-gp` without labels is `balanced`, whose spread and
power were chosen there, and smoothing is for labels at random. What they do is shown."""

ONE: dict[str, tuple[Any, ...]] = {"per_backbone": (False,)}
"""One kernel of the mean cosine, where the default is a kernel per backbone."""

GRIDS: tuple[tuple[str, dict[str, tuple[Any, ...]]], ...] = (
    ("static", {"pull": (0.25, 1.0, 4.0)}),
    ("gp", {**ONE, "sigma": (2.0, 3.0, 4.0, 6.0), "beta": (0.5, 1.0, 2.0)}),
    ("gp", {"sigma": (4.0,), "beta": (0.5, 1.0, 2.0, 4.0)}),
    ("gp", {"sigma": (3.0, 6.0), "beta": (2.0,)}),
    ("gp", {"sigma": (4.0,), "smoothing": (0.1, 1.0, 1e6)}),
    ("gp", {"sigma": (4.0,), "pull": (0.25, 4.0)}),
    ("balanced", {"spread": (1.0, 2.0, 4.0), "power": (0.0, 1.0, 2.0, 4.0)}),
    ("balanced", {"strength": (1.0,)}),
    ("balanced-gp", {**ONE, "sigma": (3.0, 4.0, 6.0), "beta": (1.0, 2.0)}),
    ("balanced-gp", {"beta": (0.5, 1.0, 2.0, 4.0)}),
    ("balanced-gp", {"sigma": (3.0, 6.0), "beta": (2.0,)}),
    ("balanced-gp", {"spread": (1.0, 4.0)}),
    ("balanced-gp", {"power": (0.0, 1.0, 4.0)}),
    ("balanced-gp", {"smoothing": (0.1, 1.0, 1e6)}),
    ("balanced-gp", {"strength": (1.0,)}),
)
"""Settings that were tried, every one with every other of its line; what a line does not name is as
by default: a kernel per backbone, beta 2, pull 1, smoothing 0.25; of balanced-gp sigma 4, spread 2,
power 2, half strength. A smoothing of a million leaves the labels' class proportions as they are."""


def candidates() -> list[Candidate]:
    """Every candidate, the references and those that were dropped included."""
    found = [Candidate(name, {}) for name in REFERENCES]
    for combiner, grid in GRIDS:
        values = itertools.product(*grid.values())
        found += [Candidate(combiner, dict(zip(grid, each, strict=True))) for each in values]
    return found


Score = tuple[float, float, float]
"""Accuracy, negative log-likelihood, seconds of the fit."""


def draws(classes: int) -> dict[str, Labels]:
    """Return every draw by its name: none, k of each class, and b per class on average at random."""
    return {
        "0": Labels.none(),
        **{f"k{k}": Labels.shots(k) for k in SHOTS},
        **{f"r{b:g}": Labels.count(max(1, round(b * classes))) for b in AT_RANDOM},
    }


def measure(store: Path, dataset: str) -> dict[str, dict[str, Score]]:
    """Return the mean over rounds of every candidate, by draw."""
    found: dict[str, dict[str, list[Score]]] = {}
    with threadpool_limits(1):
        for one in rounds(store, dataset):
            for draw, which in draws(one.pool.logits.shape[2]).items():
                for candidate in candidates():
                    score = _score(candidate, one, which)
                    if score is not None:
                        found.setdefault(candidate.name, {}).setdefault(draw, []).append(score)
    return {
        name: {draw: tuple(np.mean(scores, axis=0)) for draw, scores in by.items()}
        for name, by in found.items()
    }


def _score(candidate: Candidate, one: Round, which: Labels) -> Score | None:
    cls = COMBINERS.get(candidate.combiner)
    if which.kind == "none" and cls.needs_labels:
        return None
    if which.kind != "none" and not cls.learns_from_labels():
        return None  # as without labels
    rows, labels = one.draw(which)
    combiner = cls(seed=one.number, **candidate.settings)
    began = time.perf_counter()
    if combiner.learnt:
        combiner.fit(rows, labels, one.pool)
    seconds = time.perf_counter() - began
    scores = combiner.combine(one.judge)
    right = float((scores.argmax(axis=1) == one.truth).mean())
    nll = -float(log_softmax(scores)[np.arange(len(one.truth)), one.truth].mean())
    return 100 * right, nll, seconds


Results = Mapping[str, Mapping[str, Mapping[str, Score]]]
"""By set, candidate and draw."""


def of_all_shots(results: Results, name: str) -> dict[str, Score]:
    """Return, by set, the mean over all shots; a candidate without labels counts everywhere."""
    found = {}
    for dataset, by in results.items():
        scores = [by[name].get(f"k{k}", by[name].get("0")) for k in SHOTS]
        found[dataset] = tuple(np.mean(scores, axis=0))
    return found


def choose(results: Results, names: list[str], without: str = "") -> str:
    """Choose by the rule, on the sets outside of one cluster."""
    sets = [d for d in results if CLUSTERS.get(d, d) != without]
    scores = {name: np.array([of_all_shots(results, name)[d] for d in sets]) for name in names}
    best = max(names, key=lambda name: scores[name][:, 0].mean())
    near = []
    for name in names:
        lost = scores[best][:, 0] - scores[name][:, 0]
        if lost.mean() <= lost.std(ddof=1) / len(sets) ** 0.5:
            near.append(name)
    order = {candidate.name: number for number, candidate in enumerate(candidates())}
    return min(
        near,
        key=lambda n: (
            round(scores[n][:, 1].mean(), 3),
            round(scores[n][:, 2].mean(), 1),  # a machine's noise is no reason
            order[n],
        ),
    )


def page(results: Results) -> Iterator[str]:
    """Yield the lines of the page's tables."""
    known = {c.name: c for c in candidates()}
    for title, reads_pool in (("Labels only", False), ("Unlabelled images too", True)):
        names = [n for n in next(iter(results.values())) if known[n].reads_pool == reads_pool]
        free = [n for n in names if not known[n].shown_only]
        chosen = choose(results, free)
        clusters = list(dict.fromkeys(CLUSTERS.get(d, d) for d in results))
        by = {cluster: choose(results, free, cluster) for cluster in clusters}
        honest = np.mean([of_all_shots(results, by[CLUSTERS.get(d, d)])[d][0] for d in results])
        yield f"## {title}"
        yield ""
        yield (
            f"Chosen: **{chosen}**. Without each set in turn: "
            + "; ".join(
                f"{name} ({', '.join(c for c in clusters if by[c] == name)})"
                for name in dict.fromkeys(by.values())
            )
            + f". Mean accuracy of what the other sets choose: {honest:.2f} %."
        )
        yield ""
        yield "| candidate | " + " | ".join(DRAWS) + " | mean of k | NLL | s a fit |"
        yield "|---|" + "---|" * (len(DRAWS) + 3)
        rows = []
        for name in names:
            cells = []
            for draw in DRAWS:
                scores = [results[d][name].get(draw) for d in results]
                cells.append("" if None in scores else f"{np.mean([s[0] for s in scores]):.1f}")
            mean = np.mean(list(of_all_shots(results, name).values()), axis=0)
            rows.append((-mean[0], name, cells, mean))
        for _, name, cells, mean in sorted(rows):
            label = f"**{name}**" if name == chosen else name
            yield (
                f"| {label} | "
                + " | ".join(cells)
                + f" | {mean[0]:.2f} | {mean[1]:.3f} | {mean[2]:.3f} |"
            )
        yield ""


def main() -> None:
    """Measure every candidate and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("clipnlc-store"))
    parser.add_argument("--out", type=Path, default=Path("docs/selection.md"))
    parser.add_argument("--results", type=Path, default=Path("build/selection.json"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="only write the page, from RESULTS")
    options = parser.parse_args()
    if options.again:
        results = json.loads(options.results.read_text("utf-8"))
    else:
        with ProcessPoolExecutor(options.workers) as pool:
            measured = pool.map(measure, itertools.repeat(options.store), KEYS)
            results = dict(zip(KEYS, measured, strict=True))
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(results), "utf-8")
    lines = "\n".join(page(results))
    write_tables(options.out, lines)
    print(lines)


if __name__ == "__main__":
    main()
