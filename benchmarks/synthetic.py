"""Compare combiners on ensembles in which it is known where each backbone is competent.

    python benchmarks/synthetic.py --combiners log-avg,nlc --labels 4,16

draws the synthetic family of `clipnlc.testing.experts` from 20 seeds, fits every combiner and
`static` on the same labels of each class, and prints the mean accuracy, and the mean difference to
`static` with its 95 % interval (Student's t over seeds, paired: each seed is a family of its own).
A combiner that reads unlabelled images is given the whole pool, without its labels.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS, Combiner
from clipnlc.errors import ClipnlcError
from clipnlc.labels import Labels
from clipnlc.metrics.comparisons import cluster_interval
from clipnlc.testing.experts import CLASSES, COMPETENCES, Competence, Experts, experts

AGAINST = "static"

Accuracies = dict[tuple[Competence, int, str], float]


def measure(seed: int, combiners: Sequence[str], shots: Sequence[int]) -> Accuracies:
    """Accuracy on the test of each member of one seed's family, by labels per class and combiner."""
    found: Accuracies = {}
    with threadpool_limits(1):
        for competence in COMPETENCES:
            family = experts(competence, seed=seed)
            for number in shots:
                draw = Labels.shots(number, seed=seed).draw(
                    family.train_labels, family.train.sample_id, classes=CLASSES
                )
                for name in combiners:
                    fitted = _fit(COMBINERS.get(name)(seed=seed), family, draw.rows)
                    predicted = fitted.combine(family.test).argmax(axis=1)
                    right = predicted == family.test_labels
                    found[competence, number, name] = float(right.mean())
    return found


def _fit(combiner: Combiner, family: Experts, rows: np.ndarray) -> Combiner:
    pool = family.train if combiner.reads_pool else None
    return combiner.fit(family.train.rows(rows), family.train_labels[rows], pool)


def table(results: Sequence[Accuracies], combiners: Sequence[str], shots: Sequence[int]) -> str:
    """Rows by competence and combiner, columns by labels per class, as Markdown."""
    heads = "".join(f" {n} per class | minus {AGAINST} |" for n in shots)
    lines = [f"| competence | combiner |{heads}", "|---|---|" + "---|---|" * len(shots)]
    for competence in COMPETENCES:
        for name in combiners:
            cells = ""
            for number in shots:
                own = 100 * np.array([r[competence, number, name] for r in results])
                other = 100 * np.array([r[competence, number, AGAINST] for r in results])
                mean, low, high = cluster_interval(
                    own - other, [str(seed) for seed in range(len(own))]
                )
                gain = "" if name == AGAINST else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
                cells += f" {own.mean():.1f} | {gain} |"
            lines.append(f"| {competence} | {name} |{cells}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--combiners", default="log-avg,nlc", help="names or groups")
    parser.add_argument("--labels", default="4,16", help="per class, comma-separated")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    try:
        asked = COMBINERS.resolve(options.combiners)
    except ClipnlcError as error:
        sys.exit(f"error: {error}")
    combiners = tuple(dict.fromkeys((AGAINST, *asked)))
    shots = tuple(int(number) for number in options.labels.split(","))
    work = partial(measure, combiners=combiners, shots=shots)
    if options.workers == 1:
        results = list(map(work, range(options.seeds)))
    else:
        with ProcessPoolExecutor(options.workers) as pool:
            results = list(pool.map(work, range(options.seeds)))
    print(table(results, combiners, shots))


if __name__ == "__main__":
    main()
