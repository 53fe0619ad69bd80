"""Read the confirmation split of the nano sets, once: what the fits of a store give on fresh images.

    python benchmarks/confirm.py --store clipnlc-store --out docs/confirmation

extracts the confirmation split of every nano set that has one, with all nine backbones, applies
every fit of `train-nlc` in the store, and writes `confirmation.csv` (a row per data set, head,
combiner and draw), `confirmation.npz` (the predicted classes, for paired comparisons) and
`confirmation.json` (commit, versions, digests of what was read). Nothing is fitted or chosen here.

The split tells the truth once only. So the command refuses where settings, code or the sentences to
be claimed are not committed (`git status` must be clean), and where there is a result already.

`--declared STORE` is a second store whose fits were told the class proportions (`train-nlc
--class-proportions uniform`); their rows are marked.

    python benchmarks/confirm.py --store clipnlc-store --out trial --trial 100

tries the machinery in a copy of the store, with 100 images of test in the place of each confirmation
split; `--dataset` and `--backbones` narrow a trial.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int

import clipnlc
from clipnlc.backbones import resolve
from clipnlc.combiners import COMBINERS
from clipnlc.datasets import nano
from clipnlc.datasets.nano import CONFIRMATION, confirmed, dataset_root
from clipnlc.errors import ClipnlcError, DataError, StoreError
from clipnlc.extraction.request import Request
from clipnlc.files import write_whole
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.metrics import METRICS
from clipnlc.reports.record import versions
from clipnlc.runs.finding import Runs, find_runs, own_run, read_fitted
from clipnlc.runs.freshness import Present, refuse_stale_runs
from clipnlc.runs.giving import Measurable, give
from clipnlc.runs.targets import Target, foreign_target, stored_target
from clipnlc.stages.extract import extract
from clipnlc.stores.layout import TEXTS, Layout

ROOT = Path(__file__).parent.parent
ZERO_SHOT = "zero-shot"
DECLARED = " (uniform declared)"
MEASURES = {"accuracy": "accuracy", "nll": "negative-log-likelihood", "ece": "calibration-error"}


@dataclass(frozen=True)
class Row:
    """One fit on one data set; a backbone alone has no labels. Blank: it gives no probabilities."""

    dataset: str
    head: str
    combiner: str
    labels: str
    seed: int
    accuracy: float
    nll: float | None
    ece: float | None


@dataclass(frozen=True)
class Result:
    """What one data set gave.

    Attributes:
        rows: of the table.
        predicted: by `dataset/head/run/combiner`; and the true classes, by `dataset/head/truth`.
        sources: files that were read, with their digests.
    """

    rows: tuple[Row, ...]
    predicted: dict[str, Int[np.ndarray, " samples"]]
    sources: dict[str, str]

    def of_declared(self) -> "Result":
        """Mark the combiners as fitted with declared proportions, and the files as another store's."""
        return Result(
            tuple(replace(row, combiner=f"{row.combiner}{DECLARED}") for row in self.rows),
            {f"{name}{DECLARED}": found for name, found in self.predicted.items()},
            {f"declared/{name}": digest for name, digest in self.sources.items()},
        )


def committed() -> str:
    """Return the commit that this work tree is at.

    Raises:
        DataError: something is not committed, or clipnlc is imported from somewhere else.
    """
    if not Path(clipnlc.__file__).is_relative_to(ROOT):
        raise DataError(
            f"clipnlc is imported from {Path(clipnlc.__file__).parent}, expected {ROOT}; "
            f"run with PYTHONPATH={ROOT}"
        )
    found = [_git("status", "--porcelain"), _git("rev-parse", "HEAD")]
    if found[0]:
        first, *others = found[0].splitlines()
        more = f" and {len(others)} more" if others else ""
        raise DataError(
            f"{ROOT} has changes that are not committed: {first.strip()}{more}; commit settings, "
            "code and claims before the confirmation split is read, or try with --trial 100"
        )
    return found[1]


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)  # noqa: S607  (as in a shell)
    if done.returncode:
        raise DataError(f"{ROOT} is no git work tree ({done.stderr.strip()}); run it in a clone")
    return done.stdout.strip()


def measure(store: Path, datasets: Sequence[str], backbones: Sequence[str]) -> Iterator[Result]:
    """Extract the confirmation split, and apply to it every fit of the ensemble of these backbones.

    Raises:
        ClipnlcError: a data set has no such split, or no fits of this ensemble; they are stale.
    """
    names = [backbone.name for backbone in resolve(backbones)]
    layout = Layout(store)
    present = Present(layout)
    found: list[Runs] = []
    for dataset in datasets:
        heads = [head for head in HEADS if layout.members(dataset, head)]
        # One that has no fits at all is asked for those on zero-shot logits: that says what to run.
        found += [find_runs(layout, dataset, head, names) for head in heads or [ZERO_SHOT]]
    for runs in found:
        refuse_stale_runs(present, runs)
    extract(Request(store=store, dataset=datasets, backbones=names, split=[CONFIRMATION]))
    for runs in found:
        for own in dict.fromkeys(own_run(runs.head, run) for run in runs.paths):
            with _target(layout, runs, own) as target:
                yield _result(layout, runs, own, target)


def _target(layout: Layout, runs: Runs, own: str | None) -> Any:  # noqa: ANN401  (two context managers)
    """Open the split with zero-shot logits as extracted, or with the heads that were trained."""
    split = CONFIRMATION
    options: dict[str, Any] = {"head": runs.head, "backbones": runs.backbones, "run": own}
    if runs.head == ZERO_SHOT:
        return stored_target(layout, runs.dataset, split, **options)
    return foreign_target(layout, runs.dataset, split, source=runs.dataset, **options)


def _result(layout: Layout, runs: Runs, own: str | None, target: Target) -> Result:
    """Apply the fits whose heads these are: all, or those of one draw that has heads of its own."""
    its = [run for run in runs.paths if own_run(runs.head, run) == own]
    fits = {
        (run, name): fitted
        for run in its
        for name, fitted in read_fitted(runs, run, list(runs.headers[run].digests)).items()
    }
    given, alone = give(fits, target)
    single = {} if own else {(Labels.none().name, name): made for name, made in alone.items()}
    everything = single | given
    place = f"{target.dataset}/{runs.head}"
    return Result(
        rows=tuple(
            _row(runs, run, name, made, target.labels) for (run, name), made in everything.items()
        ),
        predicted={
            f"{place}/truth": target.labels,
            **{f"{place}/{run}/{name}": made.predicted for (run, name), made in everything.items()},
        },
        sources={
            **target.logits,
            **target.features,
            **{layout.relative(runs.paths[run]): runs.headers[run].digest for run in its},
        },
    )


def _row(
    runs: Runs, run: str, name: str, made: Measurable, labels: Int[np.ndarray, " samples"]
) -> Row:
    which = Labels.parse(run)
    probabilities = name not in COMBINERS or COMBINERS.get(name).probabilistic
    found = {
        column: METRICS.get(measure).sum_up(made.values[measure], labels)
        for column, measure in MEASURES.items()
        if measure in made.values and (probabilities or column == "accuracy")
    }
    return Row(
        dataset=runs.dataset,
        head=runs.head,
        combiner=name,
        labels=which.setting.name.removesuffix("-seed-0"),
        seed=which.seed,
        accuracy=found["accuracy"],
        nll=found.get("nll"),
        ece=found.get("ece"),
    )


def save(results: Sequence[Result], out: Path, facts: dict[str, Any]) -> list[Path]:
    """Write table, predictions and record; the record last, so that it vouches for the others."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    for result in results:
        writer.writerows(map(_cells, result.rows))
    arrays = io.BytesIO()
    predicted = {name: found for result in results for name, found in result.predicted.items()}
    np.savez_compressed(
        arrays, allow_pickle=False, **{n: p.astype(np.int16) for n, p in predicted.items()}
    )
    sources = {name: digest for result in results for name, digest in result.sources.items()}
    record = json.dumps({**facts, "versions": dict(versions()), "sources": sources}, indent=2)
    paths = [out.with_name(out.name + suffix) for suffix in (".csv", ".npz", ".json")]
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, content in zip(
        paths, (table.getvalue(), arrays.getvalue(), record + "\n"), strict=True
    ):
        write_whole(path, content)
    return paths


def _cells(row: Row) -> list[Any]:
    return [
        "" if value is None else f"{value:.6f}" if isinstance(value, float) else value
        for value in astuple(row)
    ]


def confirm(store: Path, declared: Path | None, out: Path) -> list[Path]:
    """Read the confirmation split of every set that has one; see the module.

    Raises:
        ClipnlcError: something is not committed; it was read already; the store lacks fits.
    """
    record = out.with_name(out.name + ".json")
    if record.exists():
        raise DataError(f"{record} exists: the confirmation split was read already, and only once")
    commit = committed()
    shipped = json.loads((nano.CONFIRMATION_FOLDER / "data.json").read_text("utf-8"))
    results = list(measure(store, confirmed(), ["nano"]))
    if declared:
        results += (result.of_declared() for result in measure(declared, confirmed(), ["nano"]))
    return save(results, out, {"commit": commit, "sets": shipped["sets"]})


def trial(
    store: Path, out: Path, images: int, datasets: Sequence[str], backbones: Sequence[str]
) -> list[Path]:
    """Do the same with images of test that stand in for the split, in a copy of the store.

    Raises:
        ClipnlcError: as `confirm`.
    """
    with tempfile.TemporaryDirectory() as folder:
        nano.CONFIRMATION_FOLDER = Path(folder) / CONFIRMATION
        for name in datasets:
            _stand_in(dataset_root(name), nano.confirmation_root(name), images)
        copy = Path(folder) / "store"
        for name in (*datasets, TEXTS):
            if not (store / name).is_dir():
                raise StoreError(f"{store} holds no {name}; give another --store or --dataset")
            shutil.copytree(store / name, copy / name)
        results = list(measure(copy, datasets, backbones))
    return save(results, out, {"trial": images})


def _stand_in(source: Path, target: Path, images: int) -> None:
    """Write some rows of test, spread evenly, as a confirmation split."""
    rows = pq.read_table(source / "test.parquet")
    chosen = rows.take(np.arange(images) * len(rows) // images)
    card = json.loads((source / "dataset.json").read_text("utf-8"))
    target.mkdir(parents=True)
    pq.write_table(chosen, target / f"{CONFIRMATION}-00000-of-00001.parquet")
    card["rows"] = {CONFIRMATION: images}
    (target / "dataset.json").write_text(json.dumps(card), "utf-8")


def main() -> None:
    """Read the command line; print where the results are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("clipnlc-store"))
    parser.add_argument(
        "--declared", type=Path, help="a second store, of fits with --class-proportions uniform"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / CONFIRMATION)
    parser.add_argument("--trial", type=int, metavar="N", help="N images of each test instead")
    parser.add_argument("--dataset", help="of a trial: keys, comma-separated")
    parser.add_argument("--backbones", help="of a trial: names or groups, comma-separated")
    options = parser.parse_args()
    if options.trial is None and (options.dataset or options.backbones):
        parser.error("--dataset and --backbones narrow a --trial; the split is read as a whole")
    try:
        if options.trial is None:
            paths = confirm(options.store, options.declared, options.out)
        else:
            paths = trial(
                options.store,
                options.out,
                options.trial,
                options.dataset.split(",") if options.dataset else confirmed(),
                options.backbones.split(",") if options.backbones else ["nano"],
            )
    except ClipnlcError as error:
        sys.exit(f"error: {error}")
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
