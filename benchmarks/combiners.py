"""How long combiners take at real size: fitted and applied, on random arrays.

    python benchmarks/combiners.py
    python benchmarks/combiners.py --combiners gp --shots 16 --seeds 1 --classes 1000

draws features as wide as those of OpenAI's nine backbones, with zero-shot logits that follow from
them, and prints:

1. processor seconds of each combiner, the sum over all numbers of shots and seeds, and the wall
   clock of all, in processes of one thread like those of `train-nlc`;
2. how its time grows: the ratio of two fits that differ in rows, classes or backbones alone;
3. how fast the training of `nlc` multiplies matrices, as a share of what this machine does with a
   product of the same shapes; and, at the nano family's widths, how much faster than one fit after
   the other all seeds could be if they were stacked, given what no stacking takes away;
4. with `--only large` alone: time and peak memory of one fit of each combiner in a process of its
   own, on the largest of `--shots`; `--classes 1000 --shots 16` is ImageNet's size. One that takes
   longer than `--limit` seconds of wall clock is ended, and said to be.

Accuracies mean nothing. Compare figures of one run only: machines, and what else they do, differ.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from apart import apart, timed
from fits import WIDTHS
from jaxtyping import Int
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.nlc import BLOCK_ROWS, NeuralLogitController
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import Adam
from clipnlc.labels import Labels
from clipnlc.runs.pools import POOL_CELLS

COMPARED = ("log-avg", "c-log-avg", "static", "gp", "balanced", "balanced-gp")
SHOTS = (1, 2, 4, 8, 16, 32)
GROWTH_SHOTS = 8
HELD: dict[str, Ensemble] = {}
"""The arrays of a process: what it fits on, and what it scores."""


def make(rows: int, classes: int, widths: Sequence[int], *, seed: int = 0) -> Ensemble:
    """Draw rows of every class in turn, as an ensemble of as many backbones as widths."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    features, logits = [], np.empty((len(widths), rows, classes), dtype=np.float32)
    for number, width in enumerate(widths):
        world = np.random.default_rng(1000 + number)  # the same for every seed
        texts = world.standard_normal((classes, width), dtype=np.float32)
        found = random.standard_normal((rows, width), dtype=np.float32)
        found += 0.1 * texts[labels] + 1
        texts += 1.4 * world.standard_normal((classes, width), dtype=np.float32)
        unit, texts = (one / np.linalg.norm(one, axis=1)[:, None] for one in (found, texts))
        features.append(found)
        np.matmul(100 * unit, texts.T, out=logits[number])
    ids = tuple(f"{row:07d}" for row in range(rows))
    return Ensemble(logits, tuple(features), ids, gflops=tuple(map(float, widths)))


def seconds(
    name: str,
    train: Ensemble,
    labels: Int[np.ndarray, " rows"],
    test: Ensemble,
    pool: Ensemble | None = None,
) -> tuple[float, float]:
    """Fit and apply a combiner; return what each took of the processors."""
    combiner = COMBINERS.get(name)()
    begun = time.process_time()
    combiner.fit(train, labels, pool if combiner.reads_pool else None)
    fitted = time.process_time()
    combiner.combine(test)
    return fitted - begun, time.process_time() - fitted


def prepare(classes: int, shots: int, rows: int) -> None:
    """Draw the arrays that this process fits on and scores, and keep it to one thread."""
    threadpool_limits(1)
    widths = tuple(WIDTHS.values())
    HELD["pool"] = make(shots * classes, classes, widths)
    HELD["test"] = make(rows, classes, widths, seed=1)


def drawn(name: str, shots: int, seed: int) -> tuple[float, float]:
    """Fit and apply a combiner on one draw; return what each took."""
    pool, test = HELD["pool"], HELD["test"]
    classes = pool.logits.shape[2]
    truth = np.arange(len(pool.sample_id)) % classes
    rows = Labels.shots(shots, seed=seed).draw(truth, pool.sample_id, classes=classes).rows
    return seconds(name, pool.rows(rows), truth[rows], test, pool)


def sweep(names: Sequence[str], options: argparse.Namespace) -> None:
    """Time every combiner on draws of every number of shots and every seed."""
    print(
        f"{options.classes} classes, {sum(WIDTHS.values())} inputs, {len(WIDTHS)} backbones, shots "
        f"{','.join(map(str, options.shots))} x {options.seeds} seeds; {options.test} rows to "
        f"score; {options.workers} processes of one thread, as in train-nlc"
    )
    print(f"{'combiner':<16}{'fits, s':>10}{'scores, s':>11}   by shots, one seed, s")
    # The longest first, so that no process is left alone with one at the end.
    draws = [(k, s) for k in reversed(options.shots) for s in range(options.seeds)]
    held = (options.classes, max(options.shots), options.test)
    with ProcessPoolExecutor(options.workers, initializer=prepare, initargs=held) as processes:
        list(processes.map(drawn, ["log-avg"] * 8, [1] * 8, range(8)))  # arrays are made
        begun, total = time.perf_counter(), 0.0
        for name in names:
            took = list(processes.map(drawn, [name] * len(draws), *zip(*draws, strict=True)))
            each = {
                k: [t for t, (of, _) in zip(took, draws, strict=True) if of == k] for k, _ in draws
            }
            by_shots = " ".join(f"{np.mean(each[k], axis=0).sum():.2f}" for k in options.shots)
            fits, scores = np.sum(took, axis=0)
            total += fits + scores
            print(f"{name:<16}{fits:>10.1f}{scores:>11.1f}   {by_shots}", flush=True)
        whole = time.perf_counter() - begun
    print(
        f"together {total:.0f} s of processor time, {total / options.workers:.0f} for each of "
        f"{options.workers}; {whole:.0f} s of wall clock on a machine that may have done other work"
    )


def growth(names: Sequence[str], classes: int) -> None:
    """Print how much longer a fit takes with twice the rows, classes or backbones."""
    widths = (640,) * 4
    cases = {
        "rows": (2 * GROWTH_SHOTS * classes, classes, widths),
        "classes": (GROWTH_SHOTS * classes, 2 * classes, widths),
        "backbones": (GROWTH_SHOTS * classes, classes, 2 * widths),
    }
    print(f"\ntime of a fit with twice as many, against {GROWTH_SHOTS * classes} rows")
    print(f"{'combiner':<16}" + "".join(f"{what:>11}" for what in cases))
    for name in names:
        base = _best(name, GROWTH_SHOTS * classes, classes, widths)
        ratios = [_best(name, *case) / base for case in cases.values()]
        print(f"{name:<16}" + "".join(f"{ratio:>10.1f}x" for ratio in ratios), flush=True)


def _best(name: str, rows: int, classes: int, widths: Sequence[int]) -> float:
    """Return the shorter of two times."""
    train = make(rows, classes, widths)
    labels = np.arange(rows) % classes
    return min(seconds(name, train, labels, train.rows([0]))[0] for _ in range(2))


def matrix_rate(classes: int) -> None:
    """Print what the training of `nlc` makes of the machine's rate of matrix products."""
    rows, steps = BLOCK_ROWS, 6
    train, labels = make(rows, classes, tuple(WIDTHS.values())), np.arange(rows) % classes
    width, hidden = sum(WIDTHS.values()), NeuralLogitController().hidden
    random = np.random.default_rng(0)
    inputs = random.standard_normal((rows, width), dtype=np.float32)
    first = random.standard_normal((width, hidden), dtype=np.float32)
    by_hidden = random.standard_normal((rows, hidden), dtype=np.float32)
    times = []
    for _ in range(5):
        begun = time.process_time()
        inputs @ first
        inputs.T @ by_hidden
        times.append(time.process_time() - begun)
    each = 4 * rows * width * hidden  # operations of the two large products of a step
    few, many = (
        min(_training(train, labels, steps=count) for _ in range(3)) for count in (1, 1 + steps)
    )  # the difference leaves out what is prepared once
    machine, reached = each / min(times) / 1e9, steps * each / (many - few) / 1e9
    print(
        f"\nnlc on {rows} rows: {reached:.0f} of {machine:.0f} GFLOP/s of one core in float32, "
        f"{100 * reached / machine:.0f} %"
    )


def _training(train: Ensemble, labels: Int[np.ndarray, " rows"], *, steps: int) -> float:
    begun = time.process_time()
    NeuralLogitController(steps=steps).fit(train, labels)
    return time.process_time() - begun


def stacked(seeds: int = 30, classes: int = 10) -> None:
    """Print what one fit of `nlc` after the other takes, and what all of them stacked must take.

    The least is Adam's steps and the two large products, each over all seeds at once.
    """
    widths, hidden, steps = (64,) * 9, NeuralLogitController().hidden, 100
    random = np.random.default_rng(0)
    print("\nnlc at the nano family's widths, processor s")
    print(f"{'rows':>6}{'one by one':>12}{'least stacked':>15}{'at most':>9}")
    for shots in (1, 4, 16):
        rows = shots * classes
        train, labels = make(rows, classes, widths), np.arange(rows) % classes
        begun = time.process_time()
        for seed in range(seeds):
            NeuralLogitController(seed=seed).fit(train, labels)
        loop = time.process_time() - begun
        inputs = np.tile(train.concatenated(), (seeds, 1, 1))
        first = random.standard_normal((seeds, sum(widths), hidden), dtype=np.float32)
        by_hidden = random.standard_normal((seeds, rows, hidden), dtype=np.float32)
        adam, gradient = Adam([first], learning_rate=2e-4), np.ones_like(first)
        begun = time.process_time()
        for _ in range(steps):
            inputs @ first
            inputs.transpose(0, 2, 1) @ by_hidden
            adam.step([gradient])
        least = (time.process_time() - begun) * NeuralLogitController().steps / steps
        print(f"{rows:>6}{loop:>12.2f}{least:>15.2f}{loop / least:>8.1f}x", flush=True)


def large(name: str, classes: int, shots: int) -> None:
    """Fit one combiner in this process, and print its time and the peak of the memory."""
    widths = tuple(WIDTHS.values())
    with threadpool_limits(1):
        train, labels = make(shots * classes, classes, widths), np.arange(shots * classes) % classes
        combiner = COMBINERS.get(name)()
        pool = None
        if combiner.reads_pool:  # as many rows as train-nlc reads
            pool = make(
                POOL_CELLS // (len(widths) * classes + sum(widths)), classes, widths, seed=2
            )
        what = f"{name} on {len(labels)} rows of {classes} classes"
        timed(what, lambda: combiner.fit(train, labels, pool))


def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--combiners", default=",".join(COMPARED), help="names or groups")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--shots", default=",".join(map(str, SHOTS)))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", type=int, default=1000, help="rows that each fit scores")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--only", choices=("sweep", "growth", "nlc", "large"), help="one of the parts"
    )
    parser.add_argument("--limit", type=float, help="seconds of one fit, with --only large")
    options = parser.parse_args()
    options.shots = [int(shots) for shots in options.shots.split(",")]
    names = COMBINERS.resolve(options.combiners)
    if options.only in (None, "sweep"):
        sweep(names, options)
    if options.only in (None, "growth"):
        with threadpool_limits(1):
            growth(names, options.classes)
    if options.only in (None, "nlc"):
        with threadpool_limits(1):  # as in train-nlc
            matrix_rate(options.classes)
            stacked()
    if options.only == "large":
        for name in names:
            apart(name, large, name, options.classes, max(options.shots), limit=options.limit)


if __name__ == "__main__":
    main()
