"""`run`: from a folder of photos to a result, by one command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipnlc.cli import unlabelled
from clipnlc.cli.estimates import accuracy_lines
from clipnlc.cli.extracting import say_extracted
from clipnlc.cli.options import LARGEST, AsJson, Quiet, Store, listed
from clipnlc.cli.output import Sayer, print_json, progress
from clipnlc.cli.predictors import names_of
from clipnlc.cli.spending import Spending
from clipnlc.cli.unlabelled import Unlabelled
from clipnlc.commands import DEFAULT_STORE, Value, command
from clipnlc.errors import DataError
from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.extraction.request import Request
    from clipnlc.reports.record import DiversityReport, Evaluation
    from clipnlc.workflows.run import Ran


def run(
    photos: Annotated[
        Path,
        typer.Argument(
            help="A folder of photos, or parquet files, tars, or a folder saved by `datasets`.",
            show_default=False,
        ),
    ],
    test_share: Annotated[
        float | None,
        typer.Option(help="Of photos without a test split: this share is test; 0.3 if not given."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Of a folder of photos: CSV or parquet of files and labels to read, as label writes it; "
            "labels may be blank."
        ),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            help="Of photos without labels, or with few: class names, comma-separated, or a file of "
            "them, one a line."
        ),
    ] = "",
    backbones: Annotated[
        str,
        typer.Option(
            "--backbones", "-b", help="Names or groups (`clipnlc backbones`); small if empty."
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help="What to call the photos in the store; the folder's name if empty.")
    ] = "",
    class_names: Annotated[
        Path | None,
        typer.Option(help="File of better class names, as `folder = name` or one a line."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="File of prompt templates with {c}, one a line.")
    ] = None,
    image_column: Annotated[
        str, typer.Option(help="Column of the images, or of their files.")
    ] = "",
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "",
    on_bad_image: Annotated[
        str, typer.Option(help="An unreadable image: fail, or skip it and record it.")
    ] = "fail",
    replace_: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Remove what the store has of other photos of this name; see --name.",
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Of photos without labels: file to write every answer to as CSV; then none is printed."
        ),
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with the weights files, for offline use.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; several, comma-separated.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16, bf16.")] = "auto",
    batch_size: Annotated[
        int,
        typer.Option(min=0, max=LARGEST, help="Images of one forward; 0: 16 on a CPU, else 64."),
    ] = 0,
    store: Store = DEFAULT_STORE,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a fitted ensemble of photos, and its accuracy.

    Does what extract, train-nlc, evaluate and diversity do, with their defaults: run again, it
    continues where it stopped. The answer is about one method, chosen beforehand. The photos are
    divided into train and test where they are not. With --labels that leave some blank, all labels are
    fitted on and accuracy is estimated on them; with --classes alone, classes are predicted without
    any label, and no accuracy is claimed.

    Example: clipnlc run photos --test-share 0.3
    """
    from clipnlc.datasets import own_key
    from clipnlc.extraction.request import Engine, Request
    from clipnlc.stages.extract import Watch
    from clipnlc.stages.predict import DEFAULT_BACKBONES
    from clipnlc.workflows.run import run as workflow

    if on_bad_image not in ("fail", "skip"):
        raise DataError(f"--on-bad-image is {on_bad_image!r}; choose fail or skip")
    place = _place(photos)
    named = names_of(classes, None)
    say = Sayer(quiet=quiet or as_json)
    if named and labels is None:
        if test_share is not None or class_names is not None:
            raise DataError(
                "--classes takes the photos to have no labels; leave out --test-share and "
                "--class-names, or give --labels"
            )
        asked = Unlabelled(
            photos=photos,
            class_names=named,
            classes=classes,
            backbones=backbones,
            templates=templates,
            weights_dir=weights_dir,
            device=device,
            precision=precision,
            batch_size=batch_size or None,
            csv=csv,
            store=store,
        )
        unlabelled.answer(asked, say, as_json=as_json)
        return
    if csv is not None:
        raise DataError("--csv is for the answers of photos without labels; leave it out")
    request = Request(
        store=store,
        dataset=[place],
        backbones=(backbones.strip() or DEFAULT_BACKBONES).split(","),
        name=name or own_key(photos),
        templates=templates,
        class_names=class_names,
        image_column=image_column or None,
        label_column=label_column or None,
        labels=labels,
        classes=named,
        test_share=test_share,
        weights_dir=weights_dir,
        batch_size=batch_size or None,
        engine=Engine(listed(device) or ("auto",)),
        precision=precision,
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
        replace=replace_,
        program="run",
    )

    def tell(sentence: str) -> None:
        say(sentence)
        _tell_downloads(request, say)

    with progress(say, "run") as advance:
        spending = Spending(advance)
        ran = workflow(
            request,
            watch=Watch(
                note=lambda line: say(f"note: {line}"),
                progress=spending.images,
                texts=spending.prompts,
            ),
            tell=tell,
            advance=advance,
        )
    if as_json:
        print_json(_plain(ran))
    elif not quiet:
        _say_ran(say, ran, store, backbones.strip())


def _place(photos: Path) -> str:
    """Spell a path so that no name of a data set is meant.

    Raises:
        DataError: there is nothing.
    """
    place = photos.expanduser()
    if not place.exists():
        raise DataError(f"{photos} does not exist; give a folder of photos")
    if place.is_file() and place.suffix.lower() in (".csv", ".tsv", ".jsonl"):
        raise DataError(
            f"{photos} is a table; give the folder of its photos, and --labels {photos}"
        )
    return str(place) if "/" in str(place) or str(place) == "." else f"./{place}"


def _tell_downloads(request: "Request", say: Sayer) -> None:
    from clipnlc.backbones import resolve
    from clipnlc.cli.predictors import tell_downloads

    tell_downloads(
        resolve(request.backbones, request.weights_dir), lambda line: say(f"note: {line}")
    )


def _plain(ran: "Ran") -> dict[str, object]:
    """Return the result as JSON has it; records as they are in the store."""
    from clipnlc.reports.files import to_json

    records = {"evaluation": ran.evaluation, "diversity": ran.diversity}
    return {
        "dataset": ran.dataset,
        "recognised": ran.recognised,
        "method": ran.method,
        "extracted": ran.extracted,
        "fitted": ran.fitted,
        **{name: record and json.loads(to_json(record)) for name, record in records.items()},
        "estimate": ran.estimate,
    }


def _say_ran(say: Sayer, ran: "Ran", store: Path, backbones: str) -> None:
    """Print what was made, the table, the answer, and what to do next."""
    say_extracted(say, ran.extracted)
    if ran.evaluation is not None:
        _say_measured(say, ran.evaluation, ran.diversity, ran.method)
    if ran.estimate is not None:
        fit = f"{ran.method}, fitted on {count(ran.estimate.count, 'label')}"
        first, *rest = accuracy_lines(ran.estimate)
        say(f"{fit}: {first}")
        for line in rest:
            say(line)
        if ran.recognised.chosen:
            say(f"note: the labels count as chosen, for {ran.recognised.chosen}")
    _say_next(say, ran, store, backbones)


def _say_measured(
    say: Sayer, evaluation: "Evaluation", diversity: "DiversityReport | None", method: str
) -> None:
    from clipnlc.reports.answer import answer
    from clipnlc.reports.outcome import outcome
    from clipnlc.reports.terminal import console, show

    say("")
    show(replace(answer(evaluation), headline=()), console())
    for line in outcome(evaluation, method):
        say(line)
    if diversity is not None:
        (one,) = diversity.datasets
        say(
            f"the backbones: some, but not all, are right on {100 * one.right_for_some:.1f} % of the "
            f"images, at least one on {100 * one.oracle:.1f} %"
        )


def _say_next(say: Sayer, ran: "Ran", store: Path, backbones: str) -> None:
    """Say how the fit names the classes of new photos, and how it is handed on."""
    from clipnlc.labels import Labels
    from clipnlc.stores.layout import Layout

    which = max(one.which for one in ran.fitted)
    members = tuple(sorted({outcome.backbone for outcome in ran.extracted}))
    others = Layout(store).logit_backbones(ran.dataset, "zero-shot") != members
    fit: dict[str, Value] = {
        "dataset": ran.dataset,
        "combiner": ran.method,
        "shots": Labels.options([which]).get("shots"),
        "backbones": backbones or (members if others else None),
    }
    say("next: " + command("predict PHOTOS", store=store, **fit))
    say("next: " + command("export", out=f"{ran.dataset}-ensemble", store=store, **fit))
