"""Count how often the interval from 30 random labels covers the accuracy on all other photos.

A folder is 150 to 600 images at random (at most two thirds) of one nano training pool, every second
one with classes that
are not equally common (shares drawn from an exponential distribution); no test image is read. Of
each, 30 images at random are labelled. The combiner is cross-fitted on them (`runs.cross_fitting`),
fitted on all of them, and that fit is measured on all other images of the folder.

    python benchmarks/folder_labels.py --store clipnlc-store --out docs/own-labels.md

Needs a store with features and zero-shot logits of the train splits (`clipnlc extract`).
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int
from pages import write_tables
from pools import train_of
from threadpoolctl import threadpool_limits

from clipnlc.datasets.nano import KEYS
from clipnlc.ensemble import Ensemble
from clipnlc.labels import Labels
from clipnlc.metrics.intervals import accuracy_interval
from clipnlc.runs.cross_fitting import cross_fit
from clipnlc.runs.fitted import Fitted, apply, fit

FOLDERS = 400
LABELS = 30
SIZES = (150, 600)
SEED = 13
"""Of the folders. Those of 12 were looked at when the interval was chosen."""

COMBINERS = ("gp", "balanced-gp")
ASKED = (0.92, 0.98)
"""The share of intervals that may cover."""


@dataclass(frozen=True)
class Folder:
    """What was found on one folder with one combiner; accuracies in [0, 1].

    Attributes:
        combiner: its name.
        skewed: whether its classes are not equally common.
        estimate, low, high: of the cross-fitting.
        truth: of the fit on all labels, on all other images.
        fewer: (labels, accuracy) estimated on parts of the labels.
        label_free: accuracy of log-avg on the same other images.
    """

    combiner: str
    skewed: bool
    estimate: float
    low: float
    high: float
    truth: float
    fewer: tuple[tuple[int, float], ...]
    label_free: float

    @property
    def covers(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.truth <= self.high


def measure(store: Path, dataset: str, folders: Sequence[int]) -> list[Folder]:
    """Measure the folders with these numbers, all of one data set."""
    whole, truth, _ = train_of(store, dataset)
    found = []
    with threadpool_limits(1):
        for number in folders:
            random = np.random.default_rng([number, SEED])
            skewed = number // len(KEYS) % 2 == 1
            rows = _rows(truth, random, skewed=skewed)
            folder, its = whole.rows(rows), truth[rows]
            labelled, labels = folder.rows(range(LABELS)), its[:LABELS]
            others, answers = folder.rows(range(LABELS, len(rows))), its[LABELS:]
            which = Labels.all(seed=number)

            measured = {
                name: _accuracy(
                    fit(
                        name,
                        labelled.rows(range(used)),
                        labels[:used],
                        which=which,
                        pool=folder,
                    ),
                    others,
                    answers,
                )
                for name, used in {"log-avg": 0, **dict.fromkeys(COMBINERS, LABELS)}.items()
            }
            for name in COMBINERS:
                got = cross_fit(
                    name,
                    labelled,
                    labels,
                    pool=folder,
                    which=which,
                    others=len(answers),
                    drawn=True,
                )
                found.append(
                    Folder(
                        name,
                        skewed,
                        got.accuracy,
                        got.low,
                        got.high,
                        measured[name],
                        got.fewer,
                        measured["log-avg"],
                    )
                )
    return found


def _accuracy(fitted: Fitted, others: Ensemble, answers: Int[np.ndarray, " others"]) -> float:
    scores = apply(fitted, others).combined(others)
    return float((scores.argmax(axis=1) == answers).mean())


def _rows(
    labels: Int[np.ndarray, " images"], random: np.random.Generator, *, skewed: bool
) -> Int[np.ndarray, " folder"]:
    """Draw the images of a folder, in random order; the first are those that are labelled."""
    weights = np.ones(len(labels))
    if skewed:
        weights = random.exponential(size=labels.max() + 1)[labels]
    most = min(SIZES[1], len(labels) * 2 // 3)
    size = int(random.integers(min(SIZES[0], most), most + 1))
    drawn: np.ndarray = random.choice(
        len(labels), size=size, replace=False, p=weights / weights.sum()
    )
    return random.permutation(drawn)


def lines(folders: Sequence[Folder]) -> Iterator[str]:
    """Yield the tables."""
    number = len(folders) // len(COMBINERS)
    yield f"{number} folders, {LABELS} labels each:"
    yield ""
    yield (
        "| combiner | folders | intervals that cover | mean width | estimate minus truth | its "
        "standard deviation | of a draw of as many images alone |"
    )
    yield "|---|---|---|---|---|---|---|"
    kinds = (("all", None), ("classes equally common", False), ("not equally", True))
    for name in COMBINERS:
        for kind, skewed in kinds:
            its = [f for f in folders if f.combiner == name and skewed in (None, f.skewed)]
            errors = np.array([f.estimate - f.truth for f in its])
            alone = np.sqrt(np.mean([f.truth * (1 - f.truth) / LABELS for f in its]))
            yield (
                f"| {name} | {kind} | {_share([f.covers for f in its])} | "
                f"{100 * np.mean([f.high - f.low for f in its]):.1f} | {100 * errors.mean():+.1f} ± "
                f"{196 * errors.std(ddof=1) / len(its) ** 0.5:.1f} | {100 * errors.std(ddof=1):.1f} | "
                f"{100 * alone:.1f} |"
            )
    yield ""
    for name in COMBINERS:
        covered = np.mean([f.covers for f in folders if f.combiner == name])
        holds = ASKED[0] <= covered <= ASKED[1]
        yield (
            f"- `{name}`: the interval covers in {100 * ASKED[0]:.0f} to {100 * ASKED[1]:.0f} % of "
            f"{number} folders: **{'yes' if holds else 'no'}** ({100 * covered:.1f} %)."
        )
    yield ""
    yield (
        "| mean accuracy in % | no label (log-avg) | "
        + " | ".join(f"{n} labels" for n, _ in folders[0].fewer[1:])
        + f" | {LABELS} labels | on all other images |"
    )
    yield "|---|---|" + "---|" * (len(folders[0].fewer) + 1)
    for name in COMBINERS:
        its = [f for f in folders if f.combiner == name]
        parts = np.mean([[accuracy for _, accuracy in f.fewer] for f in its], axis=0)
        row = [*parts, np.mean([f.estimate for f in its]), np.mean([f.truth for f in its])]
        yield f"| {name} | " + " | ".join(f"{100 * value:.1f}" for value in row) + " |"


def _share(covers: Sequence[bool]) -> str:
    found = accuracy_interval(float(np.mean(covers)), len(covers))
    return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in found))


def main() -> None:
    """Measure, print the tables and write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("clipnlc-store"))
    parser.add_argument("--out", type=Path, default=Path("docs/own-labels.md"))
    parser.add_argument("--results", type=Path, default=Path("build/own-labels.json"))
    parser.add_argument("--folders", type=int, default=FOLDERS)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    each = [range(first, options.folders, len(KEYS)) for first in range(len(KEYS))]
    with ProcessPoolExecutor(options.workers) as pool:
        parts = pool.map(partial(measure, options.store), KEYS, each)
        folders = [one for part in parts for one in part]
    text = "\n".join(lines(folders))
    print(text)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps([asdict(one) for one in folders]), "utf-8")
    write_tables(options.out, text)


if __name__ == "__main__":
    main()
