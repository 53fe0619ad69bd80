"""The command line: parse, call one stage, print.

Nothing heavy is imported at the top, so that `--help` answers at once; each command imports the
stage it runs. `main` is the one place where errors become `error: …` and exit codes: 0 done,
1 an internal error, 2 an error that the user can fix, 130 interrupted.
"""

import atexit
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from clipnlc.cli.catalogues import backbones, datasets
from clipnlc.cli.doctor import doctor
from clipnlc.cli.exporting import export
from clipnlc.cli.extracting import extract, merge
from clipnlc.cli.fitting import train_heads, train_nlc
from clipnlc.cli.making import nano_data, pretrain
from clipnlc.cli.measuring import diversity, evaluate
from clipnlc.cli.predicting import predict
from clipnlc.cli.store import status, verify
from clipnlc.errors import ClipnlcError

INTERRUPTED = 130

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

    Stages, in order: extract, (train-heads,) train-nlc, evaluate, diversity. They share nothing
    but the store, a folder of HDF5 files: the expensive extraction runs once, the rest reruns
    freely. Then predict names the classes of new photos.
    """


for _command in (
    extract,
    merge,
    train_heads,
    train_nlc,
    evaluate,
    diversity,
    predict,
    export,
    status,
    verify,
    doctor,
    backbones,
    datasets,
    pretrain,
    nano_data,
):
    app.command(_command.__name__.replace("_", "-"))(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = app(words, prog_name="clipnlc", standalone_mode=False) or 0
    except ClipnlcError as problem:
        typer.echo(f"error: {problem}", err=True)
        return 2
    except typer.TyperException as problem:
        context = getattr(problem, "ctx", None)
        command = context.command_path if context else "clipnlc"
        message = " ".join(problem.format_message().split()).rstrip(".")
        message = message[:1].lower() + message[1:]
        typer.echo(f"error: {message}; see `{command} --help`", err=True)
        return 2
    except Exception as problem:  # the last resort: one line, never a traceback
        if os.environ.get("CLIPNLC_DEBUG"):
            raise
        found = " ".join(f"{type(problem).__name__}: {problem}".split())
        typer.echo(
            f"error: internal error: {found}; please report it with the output of "
            "the same command under CLIPNLC_DEBUG=1",
            err=True,
        )
        return 1
    if code == INTERRUPTED:  # Typer's own answer to Ctrl-C
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
    return int(code)


def run() -> None:
    """The entry point of the console script."""
    ended: list[int] = []
    atexit.register(_leave_as_said, ended)  # first, so that it comes after everybody else's
    ended.append(main())
    sys.exit(ended[0])


def _leave_as_said(ended: list[int]) -> None:
    """Exit with code 130 after an interruption, even if Python would die of the signal.

    Under `python -m` an interrupt that fell into a string given to `exec`, as in the making of
    any dataclass, makes Python die of the signal in the end, though it was caught.
    """
    if ended == [INTERRUPTED]:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
