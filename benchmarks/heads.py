"""What a step of the linear head costs in torch, as a ratio to numpy.

    python benchmarks/heads.py --device cpu

on random features, by default 90,000 x 1,024 with 1,000 classes: a training set like that of
ImageNet at 90 labels a class. Numpy and torch take turns on the same minibatches, one thread each
where they compute on a CPU, and the median step counts. An epoch is rows / batch such steps.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

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
    return torch.cuda.synchronize


def main() -> None:
    """Measure and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--classes", type=int, default=CLASSES)
    options = parser.parse_args()
    found = head_row(options.device, rows=options.rows, dim=options.dim, classes=options.classes)
    for name, value in found.items():
        print(f"{name:28} {value:.2f}" if isinstance(value, float) else f"{name:28} {value}")


if __name__ == "__main__":
    main()
