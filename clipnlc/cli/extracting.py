"""`extract`: the stage that needs images."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipnlc.cli.options import DEFAULT_STORE, AsJson, Quiet, Store, listed
from clipnlc.cli.output import (
    Sayer,
    count,
    grouped,
    print_json,
    progress,
    say_next,
    say_replaced,
    shares,
    work_done,
)
from clipnlc.errors import DataError, StoreError

if TYPE_CHECKING:
    from clipnlc.stages.extract import Outcome

SKIPPED_SHOWN = 5  # unreadable images that are named; the feature file lists all


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
    say = Sayer(quiet=quiet or as_json)
    with progress(say, "extract") as advance:

        def on_progress(now: Progress) -> None:
            advance(f"{now.dataset}/{now.split}", now.done, now.total, shares(now.seconds))

        outcomes = stage(
            store=store,
            dataset=[dataset],
            backbones=backbones.split(","),
            split=listed(split),
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
        print_json(outcomes)
        return
    for place, group in grouped(outcomes, lambda o: f"{o.dataset}/{o.split}"):
        _say_extracted(say, place, group)
    keys = dict.fromkeys(o.dataset for o in outcomes)
    say_next(say, "train-nlc --shots 1,2,4,8,16,32", dataset=dataset, keys=keys, store=store)


def _say_extracted(say: Sayer, place: str, group: "list[Outcome]") -> None:
    cached = sum(o.cached for o in group)
    work = work_done(len(group) - cached, "extracted", cached, "backbone")
    say(f"{place}: {count(group[0].rows, 'image')}, {work}")
    for outcome in group:
        say_replaced(say, outcome.backbone, outcome.changed)
    skipped = group[0].skipped
    for sample, reason in skipped[:SKIPPED_SHOWN]:
        say(f"  skipped {sample}: {reason}")
    if len(skipped) > SKIPPED_SHOWN:
        say(f"  and {len(skipped) - SKIPPED_SHOWN} more; --json lists them all")
