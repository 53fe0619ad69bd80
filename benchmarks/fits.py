"""What `train-nlc` and `evaluate` take of memory on a data set of ImageNet's size.

    python benchmarks/fits.py --store /tmp/large

makes a store of 150,000 training and 50,000 test samples of 1,000 classes, with random features as
wide as those of OpenAI's nine backbones and the zero-shot logits that follow from them (13 GB on
disk; a store that is there is used again). It then runs both stages in processes of their own and
prints the peak of all processes together (proportional set size) and the wall-clock time.

Features are drawn, so accuracies mean nothing. Searches are cut short (`SHORT`, unless `--full`):
that changes the time of fits and not the memory. Linux only (/proc).
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.labels import Labels
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.shards import Shard, merge_shards, write_shard

WIDTHS = {
    "RN50.openai": 1024,
    "RN101.openai": 512,
    "RN50x4.openai": 640,
    "RN50x16.openai": 768,
    "RN50x64.openai": 1024,
    "ViT-B-32.openai": 512,
    "ViT-B-16.openai": 512,
    "ViT-L-14.openai": 768,
    "ViT-L-14-336.openai": 768,
}
DATASET = "large"
ROWS = 8192  # of one shard
SHORT = {
    "gac": {"generations": 3},
    "moe": {"epochs": 1},
    "amu": {"epochs": 1},
    "neural-ensembler": {"steps": 20},
    "cascade-nlc": {"folds": 2, "steps": 1},
    **{name: {"strength": 1.0} for name in ("probe", "probe-static")},
    **{name: {"steps": 1} for name in ("nlc", "nlc-shuffled", "nlc-constant")},
}


def make_store(root: Path, *, train: int, test: int, classes: int) -> None:
    """Write features and zero-shot logits, shard by shard."""
    layout = Layout(root)
    names = tuple(f"class {number:04d}" for number in range(classes))
    for number, (backbone, width) in enumerate(WIDTHS.items()):
        random = np.random.default_rng(number)
        texts = random.normal(size=(classes, width)).astype(np.float32)
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)
        for split, rows in (("train", train), ("test", test)):
            path = layout.features(DATASET, split, backbone)
            if path.is_file():
                continue
            key = Key.of(
                {
                    "images": {
                        "backbone": backbone,
                        "split": split,
                        "samples": rows,
                        "content": f"drawn-{number}-{split}",
                    }
                }
            )
            for start in range(0, rows, ROWS):
                stop = min(start + ROWS, rows)
                labels = np.arange(start, stop) % classes
                features = 0.1 * random.normal(size=(stop - start, width)).astype(np.float32)
                features += texts[labels]
                ids = tuple(f"{split}/{row:08d}.jpg" for row in range(start, stop))
                write_shard(path, key, Shard(start, stop, features, labels, ids))
            merge_shards(path, key, rows=rows, class_names=names, texts=texts, logit_scale=100.0)
        write_zero_shot_logits(layout, DATASET, backbone)
        print(f"made {backbone}", flush=True)


def measured(stage: str, options: argparse.Namespace) -> dict[str, float]:
    """Run a stage in a process of its own; return the peak of it and its children, and the time."""
    command = [sys.executable, __file__, "--stage", stage, *_passed_on(options)]
    began = time.perf_counter()
    process = subprocess.Popen(command)
    peak, largest, ended = 0.0, 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak, largest
        while not ended.wait(0.25):
            each = list(_memory(process.pid))
            peak, largest = max(peak, sum(each)), max(largest, *each, 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"{stage} ended with {code}")
    return {
        "peak_gb": peak / 1e9,
        "largest_process_gb": largest / 1e9,
        "seconds": time.perf_counter() - began,
    }


def _memory(pid: int) -> Iterator[float]:
    """Yield the proportional set size of a process and its children, in bytes."""
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            try:
                yield float(process.memory_full_info().pss)
            except psutil.Error:  # it has ended meanwhile
                continue
    except psutil.Error:
        return


def _passed_on(options: argparse.Namespace) -> list[str]:
    names = ("store", "shots", "seeds", "workers", "combiners")
    words = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    return [*words, *(["--full"] if options.full else [])]


def run_stage(options: argparse.Namespace) -> None:
    """Run one stage in this process."""
    if options.stage == "train-nlc":
        train_nlc(
            store=options.store,
            dataset=[DATASET],
            combiners=options.combiners.split(","),
            labels=[Labels.shots(options.shots)],
            seeds=range(options.seeds),
            settings={} if options.full else SHORT,
            workers=options.workers,
        )
    else:
        evaluate(store=options.store, datasets=[DATASET])


def main() -> None:
    """Make the store and measure both stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--train", type=int, default=150_000)
    parser.add_argument("--test", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--combiners", default="all")
    parser.add_argument("--full", action="store_true", help="search as long as by default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options)
        return
    make_store(options.store, train=options.train, test=options.test, classes=options.classes)
    found: dict[str, Any] = {}
    for stage in ("train-nlc", "evaluate"):
        found[stage] = measured(stage, options)
        print(
            f"{stage}: {found[stage]['peak_gb']:.2f} GB in all processes together, "
            f"{found[stage]['largest_process_gb']:.2f} GB in the largest, "
            f"{found[stage]['seconds']:.0f} s",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(vars(options) | found, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
