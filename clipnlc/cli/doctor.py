"""`doctor`: what is wrong with a data set."""

from pathlib import Path
from typing import Annotated

import typer

from clipnlc.cli.extracting import sources_of
from clipnlc.cli.options import (
    LARGEST,
    AsJson,
    ClassesOfLabels,
    LabelTable,
    Quiet,
    Store,
    listed,
)
from clipnlc.cli.output import Sayer, print_json, progress
from clipnlc.commands import DEFAULT_STORE


def doctor(
    dataset: Annotated[str, typer.Argument(help="A key, or a path.")],
    name: Annotated[str, typer.Option(help="What a path is called in the store.")] = "",
    source: Annotated[
        list[str],
        typer.Option(help="A copy of a published data set, KEY=PATH; or one folder of copies."),
    ] = [],  # noqa: B006  (Typer copies it)
    class_names: Annotated[
        Path | None, typer.Option(help="Names that replace the data set's own.")
    ] = None,
    image_column: Annotated[
        str, typer.Option(help="Column of the images, or of their files.")
    ] = "",
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "",
    labels: LabelTable = None,
    classes: ClassesOfLabels = "",
    test_share: Annotated[
        float | None, typer.Option(help="Divide a data set without a test split, as extract does.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST, help="Images to decode per split, spread over it; 0 for all."
        ),
    ] = 0,
    max_pixels: Annotated[
        int,
        typer.Option(min=0, help="Pixels of the largest image to decode; 0: 178,956,970."),
    ] = 0,
    store: Store = DEFAULT_STORE,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a list of what is wrong with a data set.

    Class names, label order, duplicates, damaged images and, where the store has zero-shot logits,
    swapped names and low accuracies. Labels of test are read too; nothing is fitted.

    Example: clipnlc doctor digits
    """
    from clipnlc.datasets.images import MAX_PIXELS
    from clipnlc.reports.diagnosis import diagnosis_text
    from clipnlc.reports.terminal import console
    from clipnlc.stages.doctor import doctor as stage

    say = Sayer(quiet=quiet or as_json)
    with progress(say, "doctor") as advance:
        diagnosis = stage(
            store=store,
            dataset=dataset,
            key=name or None,
            sources=sources_of(source),
            class_names=class_names,
            image_column=image_column or None,
            label_column=label_column or None,
            labels=labels,
            classes=listed(classes),
            test_share=test_share,
            limit=limit or None,
            max_pixels=max_pixels or MAX_PIXELS,
            on_progress=lambda split, done, total: advance(split, done, total, ""),
        )
    if as_json:
        print_json(diagnosis)
        return
    say(diagnosis_text(diagnosis, width=console().width))
