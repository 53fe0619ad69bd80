"""The Typer app and its commands."""

from typing import Annotated

import typer

from clipnlc.cli.catalogues import backbones, combiners, datasets
from clipnlc.cli.checked import Checked
from clipnlc.cli.doctor import doctor
from clipnlc.cli.exporting import export
from clipnlc.cli.extracting import extract, merge
from clipnlc.cli.fitting import train_heads, train_nlc
from clipnlc.cli.labelling import label
from clipnlc.cli.making import nano_data, pretrain
from clipnlc.cli.measuring import diversity, evaluate
from clipnlc.cli.predicting import predict
from clipnlc.cli.running import run
from clipnlc.cli.store import status, verify

app = typer.Typer(
    name="clipnlc",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: clipnlc extract --backbones nano --dataset nano",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"clipnlc {version('clipnlc')}")
        raise typer.Exit


@app.callback()
def clipnlc(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """The most accuracy out of the CLIP models that already exist.

    For a folder of photos of your own: run. It chains the stages.

    Stages, in order: extract, (train-heads,) train-nlc, evaluate, diversity. They share nothing
    but the store, a folder of HDF5 files: the expensive extraction runs once, the rest reruns
    freely. Then predict names the classes of new photos.
    """


for _command in (
    run,
    extract,
    merge,
    train_heads,
    train_nlc,
    evaluate,
    diversity,
    predict,
    label,
    export,
    status,
    verify,
    doctor,
    backbones,
    combiners,
    datasets,
    pretrain,
    nano_data,
):
    app.command(_command.__name__.replace("_", "-"), cls=Checked)(_command)
