"""`extract`, the stage that needs images, and `merge`, which merges what several workers sealed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipnlc.cli.options import (
    LARGEST,
    MOST_WORKERS,
    AsJson,
    BackbonesInStore,
    ClassesOfLabels,
    DatasetsInStore,
    LabelTable,
    Quiet,
    Store,
    backbones_of,
    existing,
    keys_of,
    listed,
)
from clipnlc.cli.output import (
    Sayer,
    grouped,
    print_json,
    progress,
    say_next,
    why_replaced,
    work_done,
)
from clipnlc.cli.spending import Spending
from clipnlc.commands import DEFAULT_STORE, command
from clipnlc.errors import DataError, MissingStageError
from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.extraction.request import Request
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
            "timm-ARCHITECTURE.TAG, ARCHITECTURE@FILE for a weights file, or hf-TYPE@FOLDER.",
        ),
    ] = "nano",
    store: Store = DEFAULT_STORE,
    split: Annotated[str, typer.Option(help="Splits, comma-separated; every one if empty.")] = "",
    name: Annotated[str, typer.Option(help="What to call a path in the store.")] = "",
    templates: Annotated[
        Path | None,
        typer.Option(help="File of prompt templates with {c}: one a line, a JSON or Python list."),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="File of class names: `folder = name`, CSV, JSON, or all in label order."
        ),
    ] = None,
    image_column: Annotated[
        str, typer.Option(help="Column of the images, or of their files.")
    ] = "",
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "",
    labels: LabelTable = None,
    classes: ClassesOfLabels = "",
    source: Annotated[
        list[str],
        typer.Option(
            help="Local copy of a data set, instead of the hub's: KEY=PATH, repeatable, "
            "or one folder with a subfolder per key."
        ),
    ] = [],  # noqa: B006  (Typer copies it)
    accept_different_data: Annotated[
        bool,
        typer.Option(
            "--accept-different-data",
            help="Continue, and record it, where a known data set has other rows or classes.",
        ),
    ] = False,
    prompts: Annotated[
        str, typer.Option(help="Whose templates: openai, clip-benchmark, or simple (the first).")
    ] = "openai",
    test_share: Annotated[
        float | None,
        typer.Option(help="Divide a data set without a test split: this share of it is test."),
    ] = None,
    limit: Annotated[
        str,
        typer.Option(help="At most this many images per split: 100, or train=5000,test=100."),
    ] = "",
    crops: Annotated[
        int,
        typer.Option(
            min=0, help="Also so many augmented crops of each image of train (Tip-Adapter: 10)."
        ),
    ] = 0,
    rows: Annotated[
        str,
        typer.Option(
            help="Only this range of the rows, START:STOP; the last worker merges, or clipnlc merge."
        ),
    ] = "",
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with the weights files, for offline use.")
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(min=0, max=LARGEST, help="Images of one forward; 0: 16 on a CPU, else 64."),
    ] = 0,
    together: Annotated[
        int,
        typer.Option(min=0, max=LARGEST, help="Backbones in memory at a time; 0: as many as fit."),
    ] = 0,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "--devices",
            help="auto, cpu, cuda, cuda:1, mps; several, comma-separated, work side by side.",
        ),
    ] = "auto",
    engine: Annotated[str, typer.Option(help="local, or ray (needs clipnlc[ray]).")] = "local",
    ray_address: Annotated[
        str, typer.Option(help="A running Ray cluster; one on this machine if empty.")
    ] = "",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16, bf16.")] = "auto",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the forwards first: worth it in long runs on a GPU; --plan measures.",
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=0, max=MOST_WORKERS, help="Threads that decode and resize; 0: by the cores."
        ),
    ] = 0,
    on_bad_image: Annotated[
        str, typer.Option(help="An unreadable image: fail, or skip it and record it.")
    ] = "fail",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Remove what the store has of another data set of this name; see --name.",
        ),
    ] = False,
    max_pixels: Annotated[
        int,
        typer.Option(min=0, help="Pixels of the largest image to decode; 0: 178,956,970."),
    ] = 0,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only print the expected cost; measures the device a minute at most."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make feature stores and zero-shot logits.

    Images and class names are embedded once per backbone. Needs images. Files that exist
    under the same settings are kept; an interrupted run continues where it stopped.

    Example: clipnlc extract --backbones nano --dataset digits,fashion
    """
    from clipnlc.datasets.images import MAX_PIXELS
    from clipnlc.extraction.request import Engine, Request

    if on_bad_image not in ("fail", "skip"):
        raise DataError(f"--on-bad-image is {on_bad_image!r}; choose fail or skip")
    if engine not in ("local", "ray"):
        raise DataError(f"--engine is {engine!r}; choose local or ray")
    request = Request(
        store=store,
        dataset=[dataset],
        backbones=backbones.split(","),
        split=listed(split),
        name=name or None,
        templates=templates,
        class_names=class_names,
        image_column=image_column or None,
        label_column=label_column or None,
        labels=labels,
        classes=listed(classes),
        sources=sources_of(source),
        accept_different_data=accept_different_data,
        prompts=prompts,
        test_share=test_share,
        limit=limit_of(limit),
        crops=crops,
        rows=rows_of(rows),
        weights_dir=weights_dir,
        batch_size=batch_size or None,
        together=together or None,
        engine=Engine(listed(device) or ("auto",), engine, ray_address or None),  # type: ignore[arg-type]
        precision=precision,
        compiled=compiled,
        workers=workers or None,
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
        replace=replace,
        max_pixels=max_pixels or MAX_PIXELS,
    )
    say = Sayer(quiet=quiet or as_json)
    if plan:
        _plan(request, say, as_json=as_json)
        return
    from clipnlc.stages.extract import Watch
    from clipnlc.stages.extract import extract as stage

    with progress(say, "extract") as advance:
        spending = Spending(advance)
        outcomes = stage(
            request,
            watch=Watch(
                note=lambda line: say(f"note: {line}"),
                progress=spending.images,
                texts=spending.prompts,
            ),
        )
    if as_json:
        print_json(outcomes)
        return
    say_extracted(say, outcomes)
    if spending.progress:
        say(spending.summary())
    if any(o.missing for o in outcomes):
        merge_all = command("merge", store=store)
        say(f"next: the other rows, or `{merge_all}` when they are there")
        return
    keys = dict.fromkeys(o.dataset for o in outcomes)
    divide = "" if request.split else request.spelled(test_share=0.3)
    _say_fit(say, dataset, keys, store, divide)


def _say_fit(say: Sayer, dataset: str, keys: Iterable[str], store: Path, divide: str) -> None:
    """Say how to fit combiners on what has a train split; else what can be done without one.

    `divide` makes a missing test split; it is "" where some splits were left out.
    """
    from clipnlc.stores.layout import Layout

    splits = {key: Layout(store).splits(key) for key in keys}
    if divide and not any("test" in those for those in splits.values()):
        say(f"next: {divide}")
        return
    able = [key for key, those in splits.items() if "train" in those]
    fit = "train-nlc --shots 1,2,4,8,16,32" if able else "train-nlc --combiners parameter-free"
    say_next(say, fit, dataset=dataset, keys=able or splits, store=store)


def _plan(request: "Request", say: Sayer, *, as_json: bool) -> None:
    from clipnlc.cli.planning import show_plan
    from clipnlc.stages.plan import plan as stage

    with progress(say, "extract --plan") as advance:
        planned = stage(
            request,
            on_progress=lambda what, done, total: advance(what, done, total, ""),
        )
    if as_json:
        print_json(planned)
    elif not say.quiet:
        show_plan(planned, say)


def sources_of(given: list[str]) -> dict[str, Path] | Path | None:
    """Read `--source`: one folder of data sets, or `KEY=PATH` for some.

    >>> sources_of(["cub=birds", "dtd=textures"])
    {'cub': PosixPath('birds'), 'dtd': PosixPath('textures')}
    """
    if len(given) == 1 and "=" not in given[0]:
        return Path(given[0]).expanduser()
    if not all("=" in text for text in given):
        raise DataError(
            "--source takes KEY=PATH, repeatable, or one folder with a subfolder per key"
        )
    pairs = (text.split("=", 1) for text in given)
    return {key.strip(): Path(path).expanduser() for key, path in pairs} or None


def limit_of(text: str) -> int | dict[str, int] | None:
    """Read `--limit`: a number, or `SPLIT=NUMBER` for some splits.

    >>> limit_of("8"), limit_of("train=100,test=8"), limit_of("")
    (8, {'train': 100, 'test': 8}, None)
    """
    try:
        if "=" not in text:
            return int(text) if text.strip() else None
        pairs = (part.split("=") for part in listed(text))
        return {split.strip(): int(number) for split, number in pairs}
    except ValueError:
        raise DataError(
            f"--limit is {text!r}; give a number of images, or some splits': train=5000,test=100"
        ) from None


def rows_of(text: str) -> tuple[int, int | None] | None:
    """Read `--rows`.

    >>> rows_of("0:1000"), rows_of("1000:"), rows_of("")
    ((0, 1000), (1000, None), None)
    """
    if not text.strip():
        return None
    start, colon, stop = (part.strip() for part in text.partition(":"))
    if not colon or not (start or "0").isdecimal() or not (stop or "0").isdecimal():
        raise DataError(f"--rows is {text!r}; give START:STOP, as in --rows 0:1000")
    return int(start or 0), int(stop) if stop else None


def say_extracted(say: Sayer, outcomes: "Sequence[Outcome]") -> None:
    """Print what was done for each split, and once what to do about images that cannot be read."""
    skipped = 0
    for place, group in grouped(outcomes, lambda o: f"{o.dataset}/{o.split}"):
        _say_split(say, place, group)
        skipped += len(group[0].skipped)
    if skipped:
        say(
            f"note: {count(skipped, 'image')} that cannot be read {'was' if skipped == 1 else 'were'} "
            f"left out; replace {'it' if skipped == 1 else 'them'} and run this again to have "
            f"{'it' if skipped == 1 else 'them'}"
        )


def _say_split(say: Sayer, place: str, group: "list[Outcome]") -> None:
    """Print what was done for one split."""
    cached = sum(o.cached for o in group)
    work = work_done(len(group) - cached, "extracted", cached, "backbone")
    say(f"{place}: {count(group[0].rows, 'image')}, {work}{_copied(group)}")
    for changed, which in grouped(
        [o for o in group if o.changed], lambda o: why_replaced(o.changed)
    ):
        every = len(which) == len(group)
        names = "" if every else f" of {', '.join(o.backbone for o in which)}"
        say(f"  in place of the earlier ones{names}: {changed}")
    waiting = group[0].missing
    if waiting:
        start, stop = waiting[0]
        say(
            f"  {count(len(waiting), 'range')} of rows not sealed yet, first {start}:{stop}; "
            "the worker that seals the last one merges"
        )
    skipped = group[0].skipped
    for sample, reason in skipped[:SKIPPED_SHOWN]:
        say(f"  skipped {sample}: {reason}")
    if len(skipped) > SKIPPED_SHOWN:
        say(f"  and {len(skipped) - SKIPPED_SHOWN} more; --json lists them all")


def _copied(group: "list[Outcome]") -> str:
    """Say how many images did not have to be embedded again; those of a backbone added, all."""
    copied = [o.copied for o in group if not o.cached]
    if not any(copied):
        return ""
    few, many = min(copied), max(copied)
    return f" ({f'{few} to ' if few < many else ''}{count(many, 'unchanged image')} not embedded again)"


def merge(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make feature stores from the shards of `extract --rows`.

    Checks that the ranges cover their split, and writes the zero-shot logits. Needs no images. The
    last worker of `extract --rows` does the same by itself.

    Example: clipnlc merge --dataset digits
    """
    from clipnlc.stages.merge import merge as stage

    say = Sayer(quiet=quiet or as_json)
    with progress(say, "merge") as advance:
        merged = stage(
            store=existing(store),
            dataset=keys_of(dataset),
            backbones=backbones_of(backbones, store),
            on_progress=lambda what, done, total: advance(what, done, total, ""),
        )
    if as_json:
        print_json(merged)
    else:
        for one in merged:
            say(
                f"{one.dataset}/{one.split} {one.backbone}: {count(one.rows, 'row')} {_merged(one.missing)}"
            )
    waiting = [one for one in merged if one.missing]
    if waiting:
        start, stop = waiting[0].missing[0]
        extract_them = command(
            "extract",
            dataset=waiting[0].dataset,
            backbones=waiting[0].backbone,
            split=waiting[0].split,
            rows=f"{start}:{stop}",
            store=store,
        )
        raise MissingStageError(
            f"{len(waiting)} of {count(len(merged), 'feature file')} lack rows, first "
            f"{waiting[0].dataset}/{waiting[0].split} {waiting[0].backbone} rows {start} to "
            f"{stop}; run `{extract_them}` for them, or without --rows for all"
        )
    keys = dict.fromkeys(one.dataset for one in merged)
    _say_fit(say, dataset, keys, store, "")


def _merged(missing: tuple[tuple[int, int], ...]) -> str:
    return "merged" if not missing else f"sealed, {count(len(missing), 'range')} missing"
