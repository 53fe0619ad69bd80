"""Choose NLC's defaults by cross-validation inside the training pools; no test label is read.

In each of four rounds (see `pools`), k labels per class are drawn from
three folds, every variant is fitted on them, and measured on the fourth. The table is the
mean over data sets and rounds; the winner is the variant with the best mean over all k.

    python benchmarks/ablation.py --store clipnlc-store --out docs/nlc-ablation.md

Needs a store with features and zero-shot logits of the train splits (`clipnlc extract`).
"""

import argparse
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from pages import write_tables
from pools import rounds
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.nlc import NeuralLogitController
from clipnlc.datasets.nano import KEYS
from clipnlc.fitting import log_softmax
from clipnlc.labels import Labels

SHOTS = (1, 4, 16)
REFERENCES = ("log-avg", "c-log-avg", "static")

Settings = dict[str, str | int | float]


def variants() -> list[Settings]:
    """Parametrisations, then length, start, pull and input scale around the likely ones."""
    found: list[Settings] = [
        {"parametrisation": p, "steps": 300}
        for p in ("exp", "softplus", "raw", "tanh", "sigmoid", "softmax")
    ]
    for p in ("softplus", "raw", "tanh"):
        found += [{"parametrisation": p, "steps": n} for n in (100, 600)]
        found += [{"parametrisation": p, "steps": 300, "pull": w} for w in (0.1, 0.3)]
        found += [{"parametrisation": p, "steps": 300, "start": "c-log-avg"}]
    found += [{"parametrisation": "softplus", "steps": 300, "input_scale": x} for x in (1.0, 3.0)]
    return found


def measure(store: Path, dataset: str) -> dict[str, dict[int, list[tuple[float, float]]]]:
    """Accuracy and negative log likelihood of every variant, by shots, one pair per round."""
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    with threadpool_limits(1):
        for one in rounds(store, dataset):
            judge, truth, held = one.judge, one.truth, one.number
            for shots in SHOTS:
                fit, fit_labels = one.draw(Labels.shots(shots))
                candidates = {
                    json.dumps(v): NeuralLogitController(seed=held, **v) for v in variants()
                }
                candidates |= {r: COMBINERS.get(r)(seed=held) for r in REFERENCES}
                for name, combiner in candidates.items():
                    scores = combiner.fit(fit, fit_labels).combine(judge)
                    right = float((scores.argmax(1) == truth).mean())
                    loss = -float(log_softmax(scores)[np.arange(len(truth)), truth].mean())
                    found.setdefault(name, {}).setdefault(shots, []).append((right, loss))
    return found


def main() -> None:
    """Run the ablation and write its page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("clipnlc-store"))
    parser.add_argument("--out", type=Path, default=Path("docs/nlc-ablation.md"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers) as pool:
        results = list(pool.map(measure, itertools.repeat(options.store), KEYS))
    rows = []
    for name in results[0]:
        accuracy = {
            s: 100 * np.mean([np.mean(r[name][s], axis=0)[0] for r in results]) for s in SHOTS
        }
        loss = np.mean([np.mean([np.mean(r[name][s], axis=0)[1] for r in results]) for s in SHOTS])
        rows.append((np.mean(list(accuracy.values())), name, accuracy, loss))
    rows.sort(key=lambda row: -row[0])
    shown = "".join(f" {s} |" for s in SHOTS)
    lines = [
        "| variant |" + shown + " mean accuracy | mean NLL |",
        "|---|" + "---|" * (len(SHOTS) + 2),
    ]
    for mean, name, accuracy, loss in rows:
        variant = name
        if name.startswith("{"):
            variant = ", ".join(f"{k} {v}" for k, v in json.loads(name).items())
        cells = "".join(f" {accuracy[s]:.1f} |" for s in SHOTS)
        lines.append(f"| {variant} |{cells} {mean:.2f} | {loss:.3f} |")
    write_tables(options.out, "\n".join(lines))
    print("\n".join(lines[:12]))


if __name__ == "__main__":
    main()
