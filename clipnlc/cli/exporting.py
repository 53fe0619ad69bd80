"""`export`: a fit leaves the store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clipnlc.cli.options import (
    AsJson,
    BackbonesInStore,
    CountOfFit,
    DatasetOfFit,
    HoldoutOfFit,
    Quiet,
    SeedOfFit,
    ShotsOfFit,
    Store,
    backbones_of,
    head_of,
    key_of,
    labels_of_fit,
)
from clipnlc.cli.output import Sayer, print_json
from clipnlc.commands import DEFAULT_STORE, command
from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.stages.export import Exported


_HOW: Final = {
    "held-out": "",
    "cross-fitted": "; cross-fitted on its own labels, a random draw",
    "cross-fitted-chosen": "; cross-fitted on its own labels, of photos that were chosen, not drawn",
}


def export(
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")],
    dataset: DatasetOfFit = "",
    combiner: Annotated[str, typer.Option(help="Whose fit.")] = "gp",
    shots: ShotsOfFit = "",
    count_: CountOfFit = "",
    holdout: HoldoutOfFit = None,
    seed: SeedOfFit = 0,
    head: Annotated[str, typer.Option(help="zero-shot, or one of train-heads.")] = "zero-shot",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the export of another fit.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a folder of one fit, to be handed on.

    What was learnt, a description and a model card; `predict --from` needs nothing else but the
    backbones' weights. Needs a fit of train-nlc; the card says what evaluate measured of it.

    Example: clipnlc export --dataset digits --shots 4 --out digits-ensemble
    """
    from clipnlc.stages.export import export as stage

    exported = stage(
        store=store,
        out=out,
        dataset=key_of(dataset) if dataset.strip() else None,
        head=head_of(head, store),
        combiner=combiner,
        which=labels_of_fit(shots=shots, count=count_, holdout=holdout, seed=seed),
        seed=seed,
        backbones=backbones_of(backbones, store) or None,
        force=force,
    )
    if as_json:
        print_json(exported)
        return
    _say_exported(Sayer(quiet=quiet), exported)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"  # noqa: PLR2004


def _say_exported(say: Sayer, exported: "Exported") -> None:
    done = "cached" if exported.cached else f"{_size(exported.bytes)} written"
    say(
        f"{exported.folder}: {exported.combiner} of {count(len(exported.backbones), 'backbone')} "
        f"on {exported.dataset}, {exported.run}, {count(exported.classes, 'class')}: {done}"
    )
    for one in exported.measured:
        say(
            f"  {100 * one.accuracy:.1f} % right of {count(one.images, 'image')} of "
            f"{one.dataset}/{one.split} (95 % interval {100 * one.low:.1f} to {100 * one.high:.1f}"
            f"{_HOW[one.estimate]})"
        )
    if not exported.measured:
        say(f"note: its accuracy was not measured; run `{exported.evaluate}`, then export again")
    if exported.requires:
        say(f"note: whoever uses it needs {' and '.join(exported.requires)} besides clipnlc")
    say(f"next: {command('predict PHOTOS', from_=exported.folder)}")
