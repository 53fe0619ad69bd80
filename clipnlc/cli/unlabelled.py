"""`run` of photos without any label: answers from class names alone, and what is doubtful about them."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clipnlc.cli import predictors
from clipnlc.cli.output import Sayer, echo_aside, print_json, progress
from clipnlc.cli.predictions import Form, Printer, csv_file
from clipnlc.commands import command
from clipnlc.errors import DataError
from clipnlc.wording import count, printable, some

if TYPE_CHECKING:
    from clipnlc.stages.predict import Prediction

UNSURE: Final = 0.5
"""Answers with a probability below are counted as unsure: the other classes together are as likely."""

LABELS: Final = 30
"""Photos to label that are suggested."""

SHOWN: Final = 5
"""Photos that are named as the least sure."""


@dataclass(frozen=True)
class Unlabelled:
    """What `run` was asked for.

    Attributes:
        photos: the folder, as it was typed.
        class_names: those to choose from.
        classes: the option's text.
        backbones: likewise; empty for the default.
        templates, weights_dir, device, precision, batch_size: as of `predict`.
        csv: where to write the answers, which are then not printed.
        store: where labelled photos would go.
    """

    photos: Path
    class_names: tuple[str, ...]
    classes: str
    backbones: str
    templates: Path | None
    weights_dir: Path | None
    device: str
    precision: str
    batch_size: int | None
    csv: Path | None
    store: Path


def answer(asked: Unlabelled, say: Sayer, *, as_json: bool) -> None:
    """Name the class of each photo, and say what is doubtful.

    Raises:
        DataError: there is no photo, or none that can be read.
    """
    from clipnlc.datasets.photos import list_photos
    from clipnlc.stages.predict import predict
    from clipnlc.stages.predict.balance import least_photos

    total = sum(1 for _ in list_photos([str(asked.photos)]))
    if not total:
        raise DataError(f"no images in {asked.photos}; give a folder with photos")
    balance = total >= least_photos(len(asked.class_names))
    said = f"{asked.photos}: {count(total, 'photo')}, taken without labels (--classes)"
    say(f"{said}, {count(len(asked.class_names), 'class name')}")
    predictions: list[Prediction] = []
    unreadable: list[tuple[Path, str]] = []
    with progress(say, "run") as advance:
        predictor, found, models = predictors.from_class_names(
            asked.class_names,
            templates=asked.templates,
            combiner="log-avg",
            backbones=asked.backbones,
            weights_dir=asked.weights_dir,
            device=asked.device,
            precision=asked.precision,
            tell=lambda line: say(f"note: {line}"),
            on_prompts=lambda name, done, of: advance(f"prompts of {name}", done, of, ""),
        )
        blocks = predict(
            predictor,
            list_photos([str(asked.photos)]),
            backbones=found,
            models=models,
            batch_size=asked.batch_size,
            balance=balance,
            on_spooled=lambda done: advance("photos", done, total, ""),
        )
        with closing(blocks):
            for block in blocks:
                predictions += block.predictions
                unreadable += block.unreadable
                advance("answers", len(predictions), total, "")
    for file, reason in unreadable:
        echo_aside(f"cannot use {printable(str(file))}: {printable(reason)}")
    if not predictions:
        raise DataError(f"none of {count(total, 'photo')} can be used, for the reasons above")
    form = Form(balanced=balance)
    with csv_file(asked.csv, form) as write:
        write(predictions)
    if as_json:
        fields = [form.fields(one) for one in predictions]
        files = {str(file): reason for file, reason in unreadable}
        print_json({"balanced": balance, "predictions": fields, "unreadable": files})
    elif not say.quiet:
        if asked.csv is None:
            printer = Printer(form, predictors.title_of(predictor, balanced=balance))
            printer(predictions)
            printer.finish()
        _say_doubts(say, asked, predictions, balance=balance)


def _say_doubts(
    say: Sayer, asked: Unlabelled, predictions: Sequence["Prediction"], *, balance: bool
) -> None:
    counts = Counter(one.answer for one in predictions)
    say(
        "answers: "
        + ", ".join(f"{counts[name]} {name}" for name in sorted(counts, key=lambda n: -counts[n]))
    )
    never = [name for name in asked.class_names if name not in counts]
    if never:
        say(f"never answered: {some(never)}")
    unsure = sorted(predictions, key=lambda one: one.probability or 0.0)
    below = sum((one.probability or 0.0) < UNSURE for one in predictions)
    least = ", ".join(
        f"{one.file.name} ({one.answer} {one.probability or 0:.2f}, {one.runner_up} "
        f"{one.runner_up_probability or 0:.2f})"
        for one in unsure[:SHOWN]
    )
    say(f"{below} of {len(predictions)} have a probability below {UNSURE:g}; least sure: {least}")
    if balance:
        say(
            "the photos are taken to be of all classes about equally (half trusted), and are learnt "
            "from together: an answer depends on the other photos"
        )
    else:
        from clipnlc.stages.predict.balance import least_photos

        say(
            f"from {least_photos(len(asked.class_names))} photos on, class offsets are learnt from "
            "them together; these are too few"
        )
    say("no accuracy is claimed: no photo has a label that could say")
    few = command(
        "label",
        str(asked.photos),
        classes=asked.classes,
        count=LABELS,
        backbones=asked.backbones,
        templates=asked.templates,
    )
    say(f"label some, for an accuracy and better answers\nnext: {few}")
