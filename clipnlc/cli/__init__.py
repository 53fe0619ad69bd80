"""The command line: parse, call one stage, print.

`run` is the process: standard streams, signals, exit code. `main` is one command within it, and the
one place where errors become `error: …` and exit codes: 0 done, 1 an internal error, 2 an error
that the user can fix, 141 standard output was closed; a signal gives 128 and its number.

Little is imported at the top: `--help` answers at once, and a signal that comes early finds its
handler. `clipnlc.cli.app` imports the commands, and each command the stage it runs.
"""

import atexit
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from clipnlc.cli import signals, streams
from clipnlc.errors import PluginError, PluginWarning
from clipnlc.wording import printable

INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        from clipnlc.cli.app import app

        with _plugins_told(quiet=not {"--quiet", "-q"}.isdisjoint(words)):
            code = app(words, prog_name="clipnlc", standalone_mode=False) or 0
        sys.stdout.flush()
    except (Exception, SystemExit) as problem:
        if signals.received():  # this is what a library made of it
            return INTERRUPTED
        if isinstance(problem, streams.OutputError) and problem.closed:
            return streams.CLOSED
        from clipnlc.cli.refusals import refusal

        # SystemExit is Typer's answer to a broken pipe, of any file.
        cause = problem.__context__ if isinstance(problem, SystemExit) else None
        line, code = refusal(cause or problem, words)
        ours_or_foreign = code == 1 or isinstance(problem, PluginError)
        if ours_or_foreign and os.environ.get("CLIPNLC_DEBUG"):
            raise
        print(line, file=sys.stderr, flush=True)  # noqa: T201
    return int(code)


@contextmanager
def _plugins_told(*, quiet: bool) -> Iterator[None]:
    """Print what is left out of other packages as one line each, and other warnings as ever."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, PluginWarning):
            before(message, category, filename, lineno, file, line)
        elif not quiet:
            print(f"warning: {printable(str(message))}", file=sys.stderr, flush=True)  # noqa: T201

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def run() -> None:
    """Run the process; the entry point of the console script."""
    signals.handle()
    code = 1

    def leave() -> None:  # Python's own end could still be interrupted, and print
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)

    atexit.register(leave)  # the first registered is the last that runs
    try:
        streams.open_all()
        code = main()
        signals.finished(code)
    except BaseException:
        if not signals.received():
            raise
    if signals.received():
        signals.leave()
    sys.exit(code)
