"""Choose NLC's defaults by cross-validation inside the training pools; test is never opened.

Images of a pool that another set tests on are left out of it: 254 of emoji_kind's are in
emoji_group's test, and 71 the other way round. Every pool is cut into four stratified folds. In each of four rounds, k labels per class are drawn
from three folds, every variant is fitted on them, and measured on the fourth. The table is the
mean over data sets and rounds; the winner is the variant with the best mean over all k.

    python benchmarks/ablation.py --store clipnlc-store --out docs/nlc-ablation.md

Needs a store with features and zero-shot logits of the train splits (`clipnlc extract`).
"""

import argparse
import hashlib
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.nlc import NeuralLogitController
from clipnlc.datasets.nano import KEYS, dataset_root
from clipnlc.datasets.source import open_split
from clipnlc.fitting import log_softmax
from clipnlc.labels import Labels, ranks
from clipnlc.stores.aligned import open_ensemble
from clipnlc.stores.layout import Layout

FOLDS = 4
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


def digests(dataset: str, split: str) -> list[str]:
    """Name every image of a split by its bytes, in the order of its rows; labels are not read."""
    samples = open_split(dataset_root(dataset), split).read()
    return [hashlib.blake2b(sample.data).hexdigest() for sample in samples]


def untested(dataset: str) -> dict[str, bool]:
    """Return, by sample id of a pool, whether no other set tests on that image."""
    tested = {d for other in KEYS if other != dataset for d in digests(other, "test")}
    pool = open_split(dataset_root(dataset), "train")
    found = digests(dataset, "train")
    return {name: digest not in tested for name, digest in zip(pool.sample_id, found, strict=True)}


def measure(store: Path, dataset: str) -> dict[str, dict[int, list[tuple[float, float]]]]:
    """Accuracy and negative log likelihood of every variant, by shots, one pair per round."""
    layout = Layout(store)
    names = layout.logit_backbones(dataset, "zero-shot")
    ensemble, labels, class_names = open_ensemble(
        {b: layout.logits(dataset, "zero-shot", b) for b in names},
        {b: layout.features(dataset, "train", b) for b in names},
        "train",
    )
    clean = untested(dataset)
    rows = np.flatnonzero([clean[name] for name in ensemble.sample_id])
    ensemble, labels = ensemble.rows(rows), labels[rows]
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    order = np.argsort(ranks(ensemble.sample_id, draw="ablation"))
    fold = np.empty(len(labels), dtype=int)
    for label in range(len(class_names)):
        rows = order[labels[order] == label]
        fold[rows] = np.arange(len(rows)) % FOLDS
    with threadpool_limits(1):
        for held in range(FOLDS):
            pool, judged = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            judge, truth = ensemble.rows(judged), labels[judged]
            for shots in SHOTS:
                drawn = Labels.shots(shots, seed=held)
                drawn = drawn.draw(
                    labels[pool],
                    [ensemble.sample_id[i] for i in pool],
                    classes=len(class_names),
                ).rows
                fit, fit_labels = ensemble.rows(pool[drawn]), labels[pool[drawn]]
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
    begin, end = "<!-- table -->\n", "<!-- end -->"
    page = (
        options.out.read_text("utf-8")
        if options.out.is_file()
        else f"# NLC ablation\n\n{begin}{end}\n"
    )
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    options.out.write_text(before + begin + "\n".join(lines) + "\n" + end + after, "utf-8")
    print("\n".join(lines[:12]))


if __name__ == "__main__":
    main()
