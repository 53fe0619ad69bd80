"""Measure whether accuracy grows past 32 labels of each class, and what landmarks cost.

    clipnlc nano-data --out build/nano/data --packages build/nano/packages
    python benchmarks/deep.py make --packages build/nano/packages --out build/deep
    python benchmarks/deep.py measure --store build/deep/store --results build/deep/results.json
    python benchmarks/deep.py page --results build/deep/results.json --out docs/many-labels.md

`make` writes the rows of Fashion-MNIST's training part that no backbone was trained on, 4,000 of
each class, as a data set, and extracts it with the nine nano backbones. `measure` keeps 1,000 rows
of each class to judge by and draws labels and unlabelled rows from the rest; what is measured is
kept, so that it goes on after an interruption. Rows with the pixels of a row of the source's test
part, where the splits test and confirmation come from, are left out; neither split is read.
"""

import argparse
import io
import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from pages import write_tables
from PIL import Image
from pools import train_of
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.datasets.nano import dataset_root
from clipnlc.datasets.nano.corpus import FASHION_USED
from clipnlc.datasets.nano.scans import FASHION, fashion, padded
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import log_softmax
from clipnlc.labels import Labels, ranks

KEY = "fashion-deep"
JUDGED = 1000
"""Rows of each class that are judged by."""

SHOTS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2000)
COMPARED = ("log-avg", "static", "nlc", "probe", "gp", "balanced-gp")
FEWER_SEEDS = 256
"""Labels of each class above which one seed is enough: draws differ little, and a fit takes long."""

LANDMARKS = (1024, 2048, 4096, 8192)


def make(packages: Path, out: Path) -> None:
    """Write the data set as parquet and extract it."""
    images, labels = fashion(packages / "fashion-mnist", "train")
    tested = {one.tobytes() for one in fashion(packages / "fashion-mnist", "t10k")[0]}
    rows = [n for n in range(FASHION_USED, len(images)) if images[n].tobytes() not in tested]
    print(f"{len(images) - FASHION_USED - len(rows)} rows left out, as the test part has them")
    columns: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        buffer = io.BytesIO()
        Image.fromarray(padded(images[row])).save(buffer, "PNG")
        columns["id"].append(f"train-{row}")
        columns["image"].append({"bytes": buffer.getvalue(), "path": None})
        columns["label"].append(int(labels[row]))
    features = Features(
        {"id": Value("string"), "image": ImageFeature(), "label": ClassLabel(names=list(FASHION))}
    )
    folder = out / KEY
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=features).to_parquet(str(folder / "train.parquet"))
    card = json.loads((dataset_root("fashion") / "dataset.json").read_text("utf-8"))
    (out / "templates.txt").write_text("\n".join(card["templates"]) + "\n", "utf-8")
    command = ["-m", "clipnlc", "extract", "--backbones", "nano", "--dataset", str(folder)]
    command += ["--templates", str(out / "templates.txt"), "--store", str(out / "store")]
    subprocess.run([sys.executable, *command], check=True)


@dataclass(frozen=True)
class Fold:
    """What is learnt from and what is judged by, with the class numbers of both."""

    pool: Ensemble
    labels: np.ndarray
    judge: Ensemble
    truth: np.ndarray


def fold(store: Path) -> Fold:
    """Keep `JUDGED` rows of each class, chosen by a digest of their names, out of the pool."""
    whole, labels, class_names = train_of(store, KEY)
    order = np.argsort(ranks(whole.sample_id, draw="deep"))
    judged = np.zeros(len(labels), dtype=bool)
    for label in range(len(class_names)):
        judged[order[labels[order] == label][:JUDGED]] = True
    pool, kept = np.flatnonzero(~judged), np.flatnonzero(judged)
    return Fold(whole.rows(pool), labels[pool], whole.rows(kept), labels[kept])


def cases(seeds: int) -> list[tuple[str, int, int, int]]:
    """List what is measured: combiner, labels of each class, seed, landmarks (0: exact).

    Landmarks are measured where an exact fit is possible, too: at the largest number of labels, whose
    rows are as many as `gp` fits exactly.
    """
    found = [
        (name, shots, seed, 0)
        for shots in SHOTS
        for seed in range(seeds if shots <= FEWER_SEEDS else 1)
        for name in COMPARED
    ]
    return found + [("gp", SHOTS[-1], 0, many) for many in LANDMARKS]


def measured(data: Fold, case: tuple[str, int, int, int]) -> dict[str, Any]:
    """Fit one case; return accuracy in percent, negative log-likelihood, processor seconds."""
    name, shots, seed, landmarks = case
    which = Labels.shots(shots, seed=seed)
    classes = data.pool.logits.shape[2]
    rows = which.draw(data.labels, data.pool.sample_id, classes=classes).rows
    settings = {"exact_rows": 1, "landmarks": landmarks} if landmarks else {}
    combiner = COMBINERS.get(name)(seed=seed, **settings)
    began = time.process_time()
    if combiner.learnt:
        pool = data.pool if combiner.reads_pool else None
        combiner.fit(data.pool.rows(rows), data.labels[rows], pool)
    took = time.process_time() - began
    scores = combiner.combine(data.judge)
    nll = -log_softmax(scores)[np.arange(len(scores)), data.truth].mean()
    return {
        "accuracy": 100 * float((scores.argmax(axis=1) == data.truth).mean()),
        "nll": float(nll),
        "seconds": took,
    }


def measure(store: Path, results: Path, seeds: int) -> None:
    """Measure every case that the results lack."""
    found = json.loads(results.read_text("utf-8")) if results.is_file() else {}
    data = fold(store)
    print(f"{len(data.labels)} rows to learn from, {len(data.truth)} to judge by")
    with threadpool_limits(1):
        for case in cases(seeds):
            key = " ".join(map(str, case))
            if key not in found:
                found[key] = measured(data, case)
                print(key, found[key], flush=True)
                results.write_text(json.dumps(found, indent=0) + "\n", "utf-8")


def page(results: Path) -> str:
    """Return the two tables as Markdown."""
    found = {tuple(k.split()): v for k, v in json.loads(results.read_text("utf-8")).items()}

    def mean(name: str, shots: int, landmarks: int, what: str, digits: int) -> str:
        of = [
            v[what]
            for (n, k, _, m), v in found.items()
            if (n, int(k), int(m)) == (name, shots, landmarks)
        ]
        return f"{np.mean(of):.{digits}f}" if of else "not measured"

    def row(label: str, values: list[str]) -> str:
        return "| " + " | ".join([label, *values]) + " |"

    lines = [row("labels of each class", [f"{k:,}" for k in SHOTS]), "|---|" + "---|" * len(SHOTS)]
    lines += [
        row(f"`{name}`", [mean(name, k, 0, "accuracy", 1) for k in SHOTS]) for name in COMPARED
    ]
    k = SHOTS[-1]
    lines += ["", row(f"`gp` on {k:,} of each", ["accuracy", "NLL", "processor s"])]
    lines += ["|---|---|---|---|"]
    for many in (*LANDMARKS, 0):
        shown = (("accuracy", 2), ("nll", 3), ("seconds", 0))
        values = [mean("gp", k, many, what, digits) for what, digits in shown]
        lines.append(row(f"{many:,} landmarks" if many else "all rows", values))
    return "\n".join(lines)


def main() -> None:
    """Do one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "measure", "page"))
    parser.add_argument("--packages", type=Path, default=Path("build/nano/packages"))
    parser.add_argument("--store", type=Path, default=Path("build/deep/store"))
    parser.add_argument("--results", type=Path, default=Path("build/deep/results.json"))
    parser.add_argument("--out", type=Path, help="folder of `make`, page of `page`")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "make":
        make(options.packages, options.out or Path("build/deep"))
    elif options.what == "measure":
        measure(options.store, options.results, options.seeds)
    else:
        write_tables(options.out or Path("docs/many-labels.md"), page(options.results))


if __name__ == "__main__":
    main()
