"""What a step of the linear head costs in torch, as a ratio to numpy; what a fit of each head takes.

    python benchmarks/heads.py --device cpu
    python benchmarks/heads.py --fits all --rows 16000

on random features, by default 90,000 x 1,024 with 1,000 classes: a training set like that of
ImageNet at 90 labels a class. Numpy and torch take turns on the same minibatches, one thread each
where they compute on a CPU, and the median step counts. An epoch is rows / batch such steps.

With `--fits` instead: processor time and peak memory of one fit of each head of one backbone, in a
process of its own with one thread. One that takes longer than `--limit` seconds of wall clock is
ended, and said to be.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from apart import apart, timed
from threadpoolctl import threadpool_limits

from clipnlc.heads import HEADS
from clipnlc.heads.labelled_rows import LabelledRows
from clipnlc.heads.training import Affine, NumpyTrainer, TorchTrainer

ROWS, DIM, CLASSES, BATCH = 90_000, 1024, 1000, 256


def head_row(
    device: str, *, rows: int = ROWS, dim: int = DIM, classes: int = CLASSES, steps: int = 12
) -> dict[str, Any]:
    """Measure steps of both, in turns; the first two warm up."""
    random = np.random.default_rng(0)
    unit = random.standard_normal((rows, dim), dtype=np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels = random.integers(classes, size=rows)
    texts = random.standard_normal((classes, dim), dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    start = Affine(texts, np.zeros(classes, np.float32), 100.0)
    plain = NumpyTrainer(start, unit, labels, learning_rate=2e-5)
    began = time.perf_counter()
    torched = TorchTrainer(start, unit, labels, learning_rate=2e-5, device=device)
    moved = time.perf_counter() - began
    seconds: dict[str, list[float]] = {"numpy": [], "torch": []}
    with threadpool_limits(limits=1):
        for _ in range(steps + 2):
            batch = random.integers(rows, size=BATCH)
            seconds["numpy"].append(_time(lambda b=batch: plain.step(b), lambda: None))
            seconds["torch"].append(_time(lambda b=batch: torched.step(b), _waiting(device)))
    numpy_step, torch_step = (float(np.median(found[2:])) for found in seconds.values())
    apart = np.abs(plain.model().weight - torched.model().weight).max()
    return {
        "rows x width, classes": f"{rows:,} x {dim:,}, {classes:,}",
        "numpy, ms a step": numpy_step * 1e3,
        f"torch {device}, ms a step": torch_step * 1e3,
        "numpy / torch": numpy_step / torch_step,
        "numpy, s an epoch": numpy_step * rows / BATCH,
        f"torch {device}, s an epoch": torch_step * rows / BATCH,
        "features to the device, s": moved,
        "weights differ by": f"{apart:.1e}",
    }


def _time(work: Callable[[], object], wait: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def _waiting(device: str) -> Callable[[], object]:
    """Return what waits until the device has computed everything."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch  # noqa: PLC0415  (it would be most of the memory of a fit in numpy)

    return torch.cuda.synchronize


def fit(name: str, rows: int, dim: int, classes: int) -> None:
    """Fit one head in this process, and print its time and the peak of the memory."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    texts = random.standard_normal((classes, dim), dtype=np.float32)
    features = random.standard_normal((rows, dim), dtype=np.float32) + 0.1 * texts[labels]
    texts += 1.4 * random.standard_normal((classes, dim), dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    targets = None
    if HEADS.get(name).needs_teacher:
        targets = np.full((rows, classes), 0.2 / classes, dtype=np.float32)
        targets[np.arange(rows), labels] += 0.8
    seen = LabelledRows(
        features=features,
        labels=labels,
        sample_id=tuple(f"{row:07d}" for row in range(rows)),
        texts=texts,
        logit_scale=100.0,
        targets=targets,
    )
    head = HEADS.get(name)()
    with threadpool_limits(limits=1):
        timed(f"{name} on {rows:,} x {dim:,}, {classes:,} classes", lambda: seen.fit(head))


def main() -> None:
    """Measure and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--fits", help="fit these heads instead: names or groups")
    parser.add_argument("--limit", type=float, help="seconds of one fit")
    options = parser.parse_args()
    if options.fits:
        for name in HEADS.resolve(options.fits):
            apart(name, fit, name, options.rows, options.dim, options.classes, limit=options.limit)
        return
    found = head_row(options.device, rows=options.rows, dim=options.dim, classes=options.classes)
    for name, value in found.items():
        print(f"{name:28} {value:.2f}" if isinstance(value, float) else f"{name:28} {value}")


if __name__ == "__main__":
    main()
