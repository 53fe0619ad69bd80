"""What was claimed before the confirmation split was read, beside what it showed.

    python benchmarks/claims.py

reads `docs/confirmation.csv` (of `benchmarks/confirm.py`) and writes the tables of
`docs/confirmation.md`: mean accuracy over the sets, and every claim with its paired difference, the 95 % interval
of Student's t over the sets, and whether it held. The claims stand in this file, which was committed
before the split was read.
"""

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pages import write_tables

from clipnlc.metrics.comparisons import cluster_interval

ROOT = Path(__file__).parent.parent
SHOTS: Final = (1, 2, 4, 8, 16)
NONE: Final = "no-labels"
DECLARED: Final = " (uniform declared)"

Method = tuple[str, str]
"""Head and combiner."""

GP: Final = ("zero-shot", "gp")
NLC: Final = ("zero-shot", "nlc")
LOG_AVG: Final = ("zero-shot", "log-avg")
BALANCED: Final = ("zero-shot", "balanced")
BALANCED_GP: Final = ("zero-shot", "balanced-gp")

OVER_NLC: Final = {1: 1.2, 2: 2.2, 4: 2.5, 8: 3.2, 16: 4.2}
"""Points of `gp` over NLC; from two labels on the interval is above zero."""

RIVALS: Final[tuple[Method, ...]] = (
    *(("zero-shot", name) for name in ("probe", "probe-static", "static", "gac", "super-learner")),
    *(("zero-shot", name) for name in ("c-conf", "c-log-avg")),
    *((head, by) for head in ("tip-adapter", "tip-adapter-f") for by in ("log-avg", "nlc")),
    *(("rla", by) for by in ("prob-avg", "log-avg", "nlc")),
)
"""`gp` is not behind any of these, beyond the interval, at any number of labels."""

OVER_LOG_AVG: Final = (
    (BALANCED, NONE, 4.0),
    (("zero-shot", f"balanced{DECLARED}"), NONE, 4.6),
    (BALANCED_GP, "1-shots", 5.3),
)
"""Points over LOG-AVG without a label; true of sets with equal classes."""

SHARE_OF_NLC: Final = 1 / 3
"""Mean per-set calibration error of `gp` at one label, as a share of NLC's."""


@dataclass(frozen=True)
class Claim:
    """A claim, and what was found."""

    text: str
    aim: str
    found: str
    held: bool


Cells = Mapping[tuple[str, str, str, str], float]
"""By data set, head, combiner and labels: the mean over seeds."""


def read(path: Path, column: str) -> Cells:
    """Read one measure, in percent."""
    found: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row[column]:
                place = (row["dataset"], row["head"], row["combiner"], row["labels"])
                found[place].append(100 * float(row[column]))
    return {place: float(np.mean(values)) for place, values in found.items()}


def by_set(cells: Cells, method: Method, labels: str) -> dict[str, float]:
    """Return a method's values; where no label changes it, those that it has without any."""
    for drawn in (labels, NONE):
        found = {d: v for (d, *rest), v in cells.items() if tuple(rest) == (*method, drawn)}
        if found:
            return found
    return {}


def difference(
    cells: Cells, ours: Method, theirs: Method, labels: str, their_labels: str
) -> tuple[float, float, float]:
    """Return the mean paired difference over the sets, and its interval.

    Raises:
        SystemExit: the two were not measured on the same sets.
    """
    one, other = by_set(cells, ours, labels), by_set(cells, theirs, their_labels)
    if not one or one.keys() != other.keys():
        raise SystemExit(f"error: {ours} and {theirs} at {labels} are not of the same sets")
    sets = list(one)
    mean, low, high = cluster_interval(np.array([one[d] - other[d] for d in sets]), sets)
    return mean, low, high


def claims(path: Path) -> Iterator[Claim]:
    """Yield every claim with what was found."""
    accuracy, errors = read(path, "accuracy"), read(path, "ece")
    for shots, aim in OVER_NLC.items():
        found = difference(accuracy, GP, NLC, f"{shots}-shots", f"{shots}-shots")
        clear = shots < 2 or found[1] > 0
        yield Claim(
            f"`gp` over `nlc`, {shots} per class",
            f">= {aim}" + ", interval above 0" * (shots > 1),
            _points(found),
            found[0] >= aim and clear,
        )
    for rival in RIVALS:
        each = [difference(accuracy, GP, rival, f"{k}-shots", f"{k}-shots") for k in SHOTS]
        yield Claim(
            f"`gp` not behind {_name(rival)}, at {_list(SHOTS)}",
            "interval reaches 0",
            "; ".join(map(_points, each)),
            all(high >= 0 for _, _, high in each),
        )
    ours, theirs = (float(np.mean(list(by_set(errors, m, "1-shots").values()))) for m in (GP, NLC))
    yield Claim(
        "calibration error of `gp` at 1 per class, mean of each set's own",
        f"< {theirs * SHARE_OF_NLC:.1f} %, a third of `nlc`'s",
        f"{ours:.1f} % ({theirs:.1f} %)",
        ours < theirs * SHARE_OF_NLC,
    )
    for method, labels, aim in OVER_LOG_AVG:
        found = difference(accuracy, method, LOG_AVG, labels, NONE)
        drawn = "no label" if labels == NONE else "1 per class"
        yield Claim(
            f"{_name(method)} over `log-avg`, {drawn}",
            f">= {aim}",
            _points(found),
            found[0] >= aim,
        )


def _points(found: tuple[float, float, float]) -> str:
    mean, low, high = found
    return f"{mean:+.1f}" if math.isnan(low) else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _name(method: Method) -> str:
    head, combiner = method
    return f"`{combiner}`" if head == "zero-shot" else f"`{combiner}` of `{head}`"


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def table(path: Path) -> Iterator[str]:
    """Yield the lines of the table of accuracies, best at 16 labels first."""
    cells = read(path, "accuracy")
    columns = (NONE, *(f"{k}-shots" for k in SHOTS))
    methods = {(head, combiner) for _, head, combiner, _ in cells if combiner[:5] != "nano-"}
    rows = []
    for head, combiner in methods:
        means = []
        for labels in columns:
            its = [v for (_, *rest), v in cells.items() if rest == [head, combiner, labels]]
            means.append(float(np.mean(its)) if its else math.nan)
        rows.append(((head, combiner), means))
    rows.sort(key=lambda row: (-np.nan_to_num(row[1][-1]), -np.nan_to_num(row[1][0]), row[0]))
    yield "| head | combiner | none | " + " | ".join(map(str, SHOTS)) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for (head, combiner), means in rows:
        shown = ("" if math.isnan(mean) else f"{mean:.1f}" for mean in means)
        yield f"| {head} | {combiner} | " + " | ".join(shown) + " |"


def main() -> None:
    """Write both tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, default=ROOT / "docs" / "confirmation.csv")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "confirmation.md")
    options = parser.parse_args()
    found = list(claims(options.csv))
    lines = ["| claim | aim | found (95 % interval) | held |", "|---|---|---|---|"]
    lines += [
        f"| {c.text} | {c.aim} | {c.found} | {'yes' if c.held else '**no**'} |" for c in found
    ]
    lines += ["", *table(options.csv)]
    text = "\n".join(lines)
    write_tables(options.page, text)
    print(text)


if __name__ == "__main__":
    main()
