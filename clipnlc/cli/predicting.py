"""`predict`: the command for a person with photos."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import typer

from clipnlc.cli import predictors
from clipnlc.cli.options import (
    LARGEST,
    CountOfFit,
    DatasetOfFit,
    HoldoutOfFit,
    Quiet,
    SeedOfFit,
    ShotsOfFit,
    Store,
    combiner_of,
    head_of,
    labels_of_fit,
)
from clipnlc.cli.output import Sayer, echo_aside, progress
from clipnlc.cli.predictions import Form, Printer, Write, csv_file, json_lines
from clipnlc.commands import DEFAULT_STORE
from clipnlc.errors import DataError
from clipnlc.wording import count, printable

if TYPE_CHECKING:
    from clipnlc.stages.predict import Predicted

_WAIT: Final = 2.0
"""Seconds after which progress is shown."""


def predict(
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders (with all below), quoted globs, or - for a list of paths on "
            "standard input.",
            show_default=False,
        ),
    ],
    dataset: DatasetOfFit = "",
    combiner: Annotated[
        str, typer.Option(help="Whose fit; gp, or log-avg with --classes, if empty.")
    ] = "",
    shots: ShotsOfFit = "",
    count_: CountOfFit = "",
    holdout: HoldoutOfFit = None,
    seed: SeedOfFit = 0,
    head: Annotated[
        str, typer.Option(help="Whose logits the fit is of: zero-shot, or one of train-heads.")
    ] = "zero-shot",
    backbones: Annotated[
        str,
        typer.Option(
            "--backbones",
            "-b",
            help="The ensemble, if there are several, and where weights files are "
            "(ARCHITECTURE@FILE); with --classes those to use, small if empty.",
        ),
    ] = "",
    store: Store = DEFAULT_STORE,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="A folder that the command export wrote, instead of a store."),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            help="Class names, comma-separated, or a file of them, one a line: no fit and no store is needed."
        ),
    ] = "",
    class_names: Annotated[
        Path | None, typer.Option(help="The same from a file, one a line.")
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(help="With --classes: file of prompt templates, one a line, with {c}."),
    ] = None,
    balance: Annotated[
        bool,
        typer.Option(
            "--balance",
            help="With --classes: learn from all the photos together how the classes are balanced. "
            "Needs 16 photos, and two a class; none needs a label.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Add each backbone's weight and own answer; of a cascade also what the photo took, in GFLOPs.",
        ),
    ] = False,
    unsure: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Mark answers with a probability below this."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="File to write every answer to as CSV; they are printed as well."),
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with the weights files, for offline use.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto (as the fit's features), fp32, fp16, bf16.")
    ] = "auto",
    batch_size: Annotated[
        int,
        typer.Option(min=0, max=LARGEST, help="Images of one forward; 0: 16 on a CPU, else 64."),
    ] = 0,
    max_pixels: Annotated[
        int,
        typer.Option(min=0, help="Pixels of the largest image to decode; 0: 178,956,970."),
    ] = 0,
    quiet: Quiet = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line and image, nothing else.")
    ] = False,
) -> None:
    """Make predictions for new photos.

    One row per image: class, probability, runner-up; a probability only where the combiner gives
    one. Needs a fit of train-nlc, or an exported folder, or class names alone. Images that cannot
    be read are listed on standard error. Nothing is written to the store.

    Example: clipnlc predict photos --classes "cat,dog"
    """
    from clipnlc.combiners import RECOMMENDED
    from clipnlc.datasets.images import MAX_PIXELS
    from clipnlc.datasets.photos import LIST, list_photos
    from clipnlc.stages.predict import predict as stage
    from clipnlc.stages.predict import require_row_wise
    from clipnlc.stages.predict.members import models_for

    source = predictors.source_of(
        dataset=dataset,
        exported=from_,
        classes=classes,
        class_names=class_names,
        templates=templates,
    )
    labels = labels_of_fit(shots=shots, count=count_, holdout=holdout, seed=seed)
    which = labels is not None or bool(seed) or head != "zero-shot"
    if source == predictors.EXPORTED and (combiner or which):
        raise DataError(
            f"--from {from_} says which fit it holds; leave out --combiner, --shots, --count, "
            "--holdout, --seed and --head"
        )
    if source == predictors.NAMED and which:
        raise DataError(
            f"{predictors.NAMED} need no fit; leave out --shots, --count, --holdout, --seed and "
            "--head"
        )
    if balance and (source != predictors.NAMED or combiner):
        raise DataError(
            "--balance learns from the photos, with --classes or --class-names and no fit; leave it "
            "out, or leave out --combiner, --from and --dataset"
        )
    if combiner and source not in (predictors.NAMED, predictors.EXPORTED):
        combiner = combiner_of(combiner, store)
    if combiner:
        require_row_wise(combiner)
        predictors.refuse_unsure(combiner, unsure)
    _refuse_absent(photos)
    tell = _Teller(quiet=quiet)
    memory: Path | None = None  # of the weights' digests, beside a fit in a store
    with _Progress(quiet=quiet) as bar:
        if source == predictors.NAMED:
            predictor, found, models = predictors.from_class_names(
                predictors.names_of(classes, class_names),
                templates=templates,
                combiner=combiner or "log-avg",
                backbones=backbones,
                weights_dir=weights_dir,
                device=device,
                precision=precision,
                tell=tell,
                on_prompts=bar.prompts,
            )
        else:
            if source == predictors.EXPORTED:
                assert from_ is not None
                predictor = predictors.exported(from_)
            else:
                memory = store / "backbones.json"
                predictor = predictors.fitted(
                    store,
                    dataset=dataset,
                    head=head_of(head, store),
                    combiner=combiner or RECOMMENDED[0],
                    which=labels,
                    seed=seed,
                    backbones=backbones,
                )
            found = predictors.located(predictor, backbones, weights_dir)
            models = models_for(predictor, device=device, precision=precision, tell=tell)
            predictors.tell_downloads(found, tell)
        predictors.refuse_unsure(predictor.fitted.name, unsure)
        form = Form(
            predictor.backbones if explain else (),
            unsure,
            balanced=balance,
            costs=explain and predictor.fitted.combiner.needs_costs,
        )
        blocks = stage(
            predictor,
            list_photos(photos, sys.stdin.buffer if LIST in photos else ()),
            backbones=found,
            models=models,
            memory=memory,
            batch_size=batch_size or None,
            max_pixels=max_pixels or MAX_PIXELS,
            explain=explain,
            balance=balance,
            on_loaded=lambda done: bar.backbones(done, len(found)),
            on_spooled=bar.images,
        )
        if balance:
            tell(
                "the photos are taken to be of all classes about equally; offsets at half strength "
                "and weights are learnt from them, so an answer depends on the other photos"
            )
        bar.total = None if LIST in photos else lambda: sum(1 for _ in list_photos(photos))
        printer = Printer(form, predictors.title_of(predictor, balanced=balance))
        show = json_lines(form) if as_json else (lambda _: None) if quiet else printer
        with csv_file(csv, form) as write, closing(blocks):
            _run(blocks, photos, show, write, bar)
    if show is printer:
        printer.finish()


def _refuse_absent(photos: Sequence[str]) -> None:
    """Refuse, before backbones are loaded, photos of which none is there; a list is read later."""
    from clipnlc.datasets.photos import LIST, list_photos

    if LIST in photos:
        return
    absent = None
    for path in list_photos(photos):
        if os.path.lexists(path):
            return
        absent = absent or path
    if absent is None:
        raise _no_images(photos)
    raise DataError(
        f"{printable(str(absent))} does not exist; give files, folders, globs, or - for a list on "
        "standard input"
    )


def _no_images(photos: Sequence[str]) -> DataError:
    from clipnlc.datasets.tree import image_suffixes

    return DataError(
        f"no images among {' '.join(map(printable, photos))}; give files, folders with images "
        f"({' '.join(sorted(image_suffixes()))}), globs, or - for a list on standard input"
    )


def _run(
    blocks: "Iterator[Predicted]",
    photos: Sequence[str],
    show: Write,
    write: Write,
    bar: "_Progress",
) -> None:
    """Show and write every block; list what could not be read.

    Raises:
        DataError: there was no image, or none that could be read.
    """
    done = failed = 0
    for block in blocks:
        show(block.predictions)
        write(block.predictions)
        for file, reason in block.unreadable:
            echo_aside(f"cannot use {printable(str(file))}: {printable(reason)}")
        done += len(block)
        failed += len(block.unreadable)
        bar.images(done)
    if not done:
        raise _no_images(photos)
    if failed == done:
        raise DataError(
            f"none of {count(done, 'image')} can be used, for the reasons above; give others"
        )
    if failed:
        echo_aside(f"warning: {failed} of {count(done, 'image')} could not be used")


# What is said meanwhile --------------------------------------------------------------------------


class _Teller:
    """Prints notes to standard error, so that standard output holds answers alone."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, line: str) -> None:
        if not self._quiet:
            echo_aside(f"note: {line}")


@dataclass
class _Progress:
    """Progress on standard error, for what takes longer than two seconds.

    Attributes:
        total: counts the photos, where that can be known.
    """

    quiet: bool
    total: Callable[[], int] | None = None

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._began = time.monotonic()
        self._advance: Any = None
        self._photos: int | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prompts(self, backbone: str, done: int, total: int) -> None:
        """Show how far a backbone's prompts are."""
        self._show(f"prompts of {backbone}", done, total)

    def backbones(self, done: int, total: int) -> None:
        """Show how many backbones are loaded."""
        self._show("backbones", done, total)

    def images(self, done: int) -> None:
        """Show how many photos are done."""
        if self._photos is None and self.total is not None and self._is_due():
            self._photos = self.total()
        self._show("photos", done, self._photos)

    def _is_due(self) -> bool:
        return not self.quiet and time.monotonic() - self._began >= _WAIT

    def _show(self, what: str, done: int, total: int | None) -> None:
        if self._advance is None and self._is_due():
            self._advance = self._stack.enter_context(progress(Sayer(quiet=False), "predict"))
        if self._advance is not None:
            self._advance(what, done, total, "")
