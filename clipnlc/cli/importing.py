"""`import`: a person's own features or logits become a backbone in the store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clipnlc.cli.options import AsJson, Quiet, Store, existing, key_of, was_given
from clipnlc.cli.output import Sayer, print_json, say_next, say_replaced
from clipnlc.commands import DEFAULT_STORE
from clipnlc.errors import DataError
from clipnlc.wording import count, quoted

if TYPE_CHECKING:
    from clipnlc.stages.import_arrays import Imported

_OF_REMOVE: Final = ("backbone", "dataset", "remove", "store", "quiet", "as_json")
"""Options that `--remove` reads."""


def import_(
    context: typer.Context,
    backbone: Annotated[
        str,
        typer.Option("--backbone", "-b", help="What to call it: letters, digits, - and _."),
    ],
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="The data set: one in the store, or a new name.")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Arrays: .npz, .npy, a folder of .npy, .safetensors, .parquet, or a folder saved by "
            "`datasets`."
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="Whose rows these are: train, val, test, or a split of the store's."),
    ] = "",
    features: Annotated[
        str, typer.Option(help="Array of features [rows, width]; by its usual name if not given.")
    ] = "",
    logits: Annotated[
        str,
        typer.Option(
            help="Array of logits, or of probabilities, [rows, classes]; likewise. none leaves out."
        ),
    ] = "",
    texts: Annotated[
        str, typer.Option(help="Array of class embeddings [classes, width]; likewise.")
    ] = "",
    labels: Annotated[
        str,
        typer.Option(
            help="Array of labels, numbers or words; likewise. All of these may be files of their own."
        ),
    ] = "",
    sample_id: Annotated[str, typer.Option(help="Array of sample ids; likewise.")] = "",
    class_names: Annotated[
        str, typer.Option(help="Array, or text file, of class names in the order of the logits.")
    ] = "",
    logit_scale: Annotated[
        float | None,
        typer.Option(help="Factor on cosines: of texts, or of logits that are cosines."),
    ] = None,
    remove: Annotated[
        bool,
        typer.Option(
            "--remove",
            help="Instead: take the backbone out of the data set, all splits, with the logits and "
            "fits made with it.",
        ),
    ] = False,
    store: Store = DEFAULT_STORE,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a backbone of your own features or logits.

    Any model, not only CLIP; one file a split. Rows are matched by sample id with those of other
    backbones in the store. Fit with --head auto. Logits of train should come from a model
    that has not seen these rows (cross-validated ones).

    Example: clipnlc import forest.npz --backbone forest --dataset digits --split test
    """
    from clipnlc.datasets.array_roles import Names
    from clipnlc.stages.import_arrays import import_arrays as stage

    say = Sayer(quiet=quiet or as_json)
    if remove:
        _remove(say, context, backbone=backbone, dataset=dataset, store=store, as_json=as_json)
        return
    if file is None:
        raise DataError("no FILE of arrays was given; give one, as in forest.npz")
    if not split.strip():
        raise DataError("--split is empty; say whose rows these are: train, val or test")
    made = stage(
        file,
        store=store,
        backbone=backbone,
        dataset=key_of(dataset),
        split=split.strip(),
        names=Names(
            features=features or None,
            logits=logits or None,
            texts=texts or None,
            labels=labels or None,
            sample_id=sample_id or None,
            class_names=class_names or None,
        ),
        logit_scale=logit_scale,
    )
    if as_json:
        print_json(made)
        return
    _say_imported(say, made)
    _say_next(say, made, store)


def _remove(
    say: Sayer, context: typer.Context, *, backbone: str, dataset: str, store: Path, as_json: bool
) -> None:
    from clipnlc.stages.import_arrays import remove_imported

    given = [p for p in context.params if p not in _OF_REMOVE and was_given(p, context)]
    if given:
        option = "FILE" if given[0] == "file" else f"--{given[0].replace('_', '-')}"
        raise DataError(
            f"--remove takes a backbone out of every split, and {option} was given; leave it out"
        )
    done = remove_imported(store=existing(store), backbone=backbone, dataset=key_of(dataset))
    if as_json:
        print_json(done)
        return
    what = [f"features of {', '.join(done.splits)}"]
    what += [count(done.logits, "file of logits", "files of logits")] * bool(done.logits)
    what += [count(done.fits, "file of fits", "files of fits")] * bool(done.fits)
    say(f"{done.dataset} {done.backbone}: removed {', '.join(what)}")


def _say_imported(say: Sayer, made: "Imported") -> None:
    what = [f"features of width {made.dim}"] if made.dim else []
    what += ["texts"] if "texts" in made.gives else []
    if made.accuracy is not None:
        what.append(f"logits that are right in {100 * made.accuracy:.1f} %")
    done = "cached" if made.cached else "imported"
    say(
        f"{made.dataset}/{made.split} {made.backbone}: {count(made.rows, 'row')} of "
        f"{count(made.classes, 'class')}, {', '.join(what)}, {done}"
    )
    say(f"  read: {', '.join(f'{role} from {quoted(n)}' for role, n in made.read.items())}")
    for note in made.notes:
        say(f"  note: {note}")
    say_replaced(say, made.backbone, made.changed)


def _say_next(say: Sayer, made: "Imported", store: Path) -> None:
    from clipnlc.stores.layout import Layout

    lacking = [
        split
        for split in ("train", "test")
        if made.backbone not in Layout(store).backbones(made.dataset, split)
    ]
    if lacking:  # in a file whose name is not known, so there is no command to paste
        say(f"next: import the rows of {lacking[0]} too, with --split {lacking[0]}")
        return
    say_next(say, "train-heads --head auto", dataset=made.dataset, keys=[made.dataset], store=store)
