"""`label`: photos at random, to be labelled by a person."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clipnlc.cli import predictors
from clipnlc.cli.options import LARGEST_SEED, AsJson, Quiet
from clipnlc.cli.output import Sayer, echo_aside, print_json, progress
from clipnlc.commands import command
from clipnlc.errors import DataError
from clipnlc.wording import count, printable

if TYPE_CHECKING:
    from clipnlc.reports.progress import Advance
    from clipnlc.stages.label import Guess, Guesser, Labelled

MOST: Final = 2000


def label(
    photos: Annotated[
        Path, typer.Argument(help="Folder of the photos, with all below.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The CSV of labels to write or to add to, for --labels; the page lies beside it.",
        ),
    ] = Path("labels.csv"),
    classes: Annotated[
        str, typer.Option(help="Class names, comma-separated, or a file of them, one a line.")
    ] = "",
    class_names: Annotated[
        Path | None, typer.Option(help="The same from a file, one a line.")
    ] = None,
    count_: Annotated[
        int,
        typer.Option(
            "--count",
            min=0,
            max=MOST,
            help="Photos to draw now, of whatever class; 0 draws none and makes the page anew.",
        ),
    ] = 30,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="Of the draw of photos; 0, or that of the CSV, if left out.",
        ),
    ] = None,
    backbones: Annotated[
        str, typer.Option("--backbones", "-b", help="That guess; small if empty.")
    ] = "",
    templates: Annotated[
        Path | None, typer.Option(help="File of prompt templates, one a line, with {c}.")
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with the weights files, for offline use.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16, bf16.")] = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a page to label photos on, drawn at random.

    The CSV has the columns file,guess,confidence,label; guesses are those of predict --classes. Open
    the page in a browser, set the classes, save the CSV in place of the first; or fill it in by hand.
    A second call draws further photos and keeps what is labelled. Because the photos are drawn at
    random, accuracy can be estimated from the same labels. Needs no store and no network.

    Example: clipnlc label photos --classes "cat,dog" --count 30 --out labels.csv
    """
    from clipnlc.stages.label import label as stage

    if bool(classes.strip()) == (class_names is not None):
        raise DataError("give the classes with --classes or with --class-names, one of them")
    names = predictors.names_of(classes, class_names)
    say = Sayer(quiet=quiet or as_json)
    with progress(say, "label") as advance:
        guesser = _guesser(
            names,
            templates=templates,
            backbones=backbones,
            weights_dir=weights_dir,
            device=device,
            precision=precision,
            say=say,
            advance=advance,
        )
        done = stage(
            photos=photos, class_names=names, count=count_, out=out, guess=guesser, seed=seed
        )
    if as_json:
        print_json(done)
        return
    after = command(
        "run",
        str(photos),
        labels=done.csv,
        classes=classes or class_names,
        backbones=backbones,
        templates=templates,
    )
    _say_labelled(say, done)
    say(f"next: {after}")


def _guesser(
    names: Sequence[str],
    *,
    templates: Path | None,
    backbones: str,
    weights_dir: Path | None,
    device: str,
    precision: str,
    say: Sayer,
    advance: "Advance",
) -> "Guesser":
    """Return what guesses; models are loaded when it is first called."""

    def guess(files: Sequence[Path]) -> "Iterator[tuple[Path, Guess | str]]":
        from clipnlc.stages.label import Guess
        from clipnlc.stages.predict import predict

        predictor, found, models = predictors.from_class_names(
            names,
            templates=templates,
            combiner="log-avg",
            backbones=backbones,
            weights_dir=weights_dir,
            device=device,
            precision=precision,
            tell=lambda line: echo_aside(f"note: {line}") if not say.quiet else None,
            on_prompts=lambda name, done, total: advance(f"prompts of {name}", done, total, ""),
        )
        done = 0
        with closing(predict(predictor, files, backbones=found, models=models)) as blocks:
            for block in blocks:
                for one in block.predictions:
                    yield one.file, Guess(one.answer, one.probability)
                yield from block.unreadable
                done += len(block)
                advance("photos", done, len(files), "")

    return guess


def _say_labelled(say: Sayer, done: "Labelled") -> None:
    for file, why in done.unreadable.items():
        echo_aside(f"cannot use {printable(file)}: {printable(why)}")
    before = f", {done.kept} drawn before, {done.labels} of them labelled" if done.kept else ""
    if done.drawn or not done.kept:
        say(f"{done.csv}: {count(done.drawn, 'photo')} of {done.photos} drawn at random{before}")
    else:
        say(
            f"{done.csv}: no further photo of {done.photos} drawn; {done.kept} were before, "
            f"{done.labels} of them labelled"
        )
    if done.since:
        say(
            f"note: {count(done.since, 'photo')} came into the folder since the first draw; with "
            f"{'it' if done.since == 1 else 'them'} the draw is from all that are there now"
        )
    say(
        f"{done.page}: open it in a browser, set the classes, save the CSV as {done.csv} "
        "(a guess counts when it is confirmed)"
    )
