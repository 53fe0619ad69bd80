"""What commands print: lines, progress, tables, JSON; and the files they write on the side."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import typer

from clipnlc.cli.streams import json_for
from clipnlc.commands import command
from clipnlc.errors import DataError
from clipnlc.files import write_whole
from clipnlc.reports.progress import Advance, bar, lines
from clipnlc.wording import count, printable

if TYPE_CHECKING:
    from rich.table import Table

    from clipnlc.reports.explained import Explained
    from clipnlc.reports.files import Record
    from clipnlc.reports.tables import Report

T = TypeVar("T")


class Sayer:
    """Prints lines for people, unless quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def __call__(self, line: str) -> None:
        """Print one line, or several: names of files and classes may hold what terminals obey."""
        if not self.quiet:
            echo("\n".join(map(printable, line.split("\n"))))


def echo(line: str) -> None:
    """Print one line on standard output, in its own encoding; Typer takes ASCII for a mistake."""
    typer.echo(line, file=sys.stdout)


def echo_aside(line: str) -> None:
    """Print one line on standard error."""
    typer.echo(line, file=sys.stderr)


def say_next(
    say: Sayer,
    stage: str,
    *,
    dataset: str,
    keys: Iterable[str],
    store: Path,
    backbones: str = "",
) -> None:
    """Say the next command, with the data sets, backbones and store of this one."""
    from clipnlc.datasets import store_keys

    # A group is repeated as it was typed; a path has another name in the store.
    known = dataset.strip() and "/" not in dataset and store_keys(dataset) == tuple(keys)
    names = (dataset if known else ",".join(keys)) if dataset.strip() else ""
    say(f"next: {command(stage, dataset=names, backbones=backbones, store=store)}")


def head_option(head: str) -> str:
    """Spell ` --head NAME` for the next command; nothing for the default of all, zero-shot."""
    return f" --head {head}" * (head != "zero-shot")


_REPLACED: Final = {
    "images.content": "other images",
    "images.samples": "another number of images",
    "classes.labels": "other labels",
    "classes.names": "other class names",
    "classes.templates": "other prompts",
    "division": "train and test divided in another way",
    "origin": "from another place",
}
"""What fields of keys are to people; a digest says nothing to anybody."""


def why_replaced(changed: Sequence[str]) -> str:
    """Spell in words what differs from a file that was replaced.

    >>> why_replaced(["classes.labels: 1f -> 2e", "images.content: 3d -> 4c"])
    'other labels, other images'
    >>> why_replaced(["images.precision: fp32 -> bf16", "images.weights.sha256: 1f -> 2e"])
    'precision fp32 -> bf16, weights.sha256 1f -> 2e'
    """
    said: dict[str, None] = {}
    for line in changed:
        field, _, change = line.partition(": ")
        known = [its for name, its in _REPLACED.items() if f"{field}.".startswith(f"{name}.")]
        said[known[0] if known else f"{field.removeprefix('images.')} {change}"] = None
    if _REPLACED["images.content"] in said:
        said.pop(_REPLACED["images.samples"], None)
    return ", ".join(said)


def say_replaced(say: Sayer, what: str, changed: Sequence[str]) -> None:
    """Say what differs from the file that was replaced."""
    if changed:
        say(f"  {what} in place of an earlier one: {why_replaced(changed)}")


def work_done(made: int, verb: str, cached: int, thing: str) -> str:
    """Spell what is new and what was there: `2 heads trained, 1 cached`."""
    parts = [f"{count(made, thing)} {verb}"] if made else []
    if cached:
        parts.append(f"{cached} cached" if made else f"{count(cached, thing)} cached")
    return ", ".join(parts)


@contextmanager
def progress(say: Sayer, stage: str) -> Iterator[Advance]:
    """A progress bar on a terminal; without one, a line a minute on standard error."""
    if say.quiet:
        yield lambda *_, **__: None
        return
    with (bar if sys.stderr.isatty() else lines)(stage) as advance:
        yield advance


def grouped(items: Sequence[T], name: Callable[[T], str]) -> Iterator[tuple[str, list[T]]]:
    """Group items by a name, in order of first appearance."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    yield from groups.items()


def write(option: str, path: Path, text: str) -> None:
    """Write a file that an option asked for."""
    with writing(option, path):
        if path.exists() and not path.is_file():  # a pipe or a device
            path.write_text(text, "utf-8")
        else:
            write_whole(path.resolve(), text)


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Turn a refusal of the disk into one line that names the option."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; give {option} another place"
        ) from error


def show_report(report: "Report", record: "Record", say: Sayer, *, as_json: bool) -> None:
    """Print the tables, or the record as JSON."""
    if as_json:
        from clipnlc.reports.files import to_json

        _echo_json(to_json(record))
    elif not say.quiet:
        from clipnlc.reports.terminal import console, show

        show(report, console())


def show_explained(dataset: str, explained: "Sequence[Explained]", say: Sayer) -> None:
    """Print how fits of one data set decide."""
    if not say.quiet:
        from clipnlc.reports.explained import explained_report
        from clipnlc.reports.terminal import console, show

        show(explained_report(dataset, explained), console())


def print_table(table: "Table") -> None:
    """Print one table, as wide as the terminal."""
    from clipnlc.reports.terminal import console

    console().print(table)


def print_json(value: object) -> None:
    """Print one value as JSON; data classes become objects."""

    def plain(item: object) -> object:
        if is_dataclass(item) and not isinstance(item, type):
            return asdict(item)
        return str(item)

    _echo_json(json.dumps(value, indent=2, default=plain, ensure_ascii=False))


def _echo_json(text: str) -> None:
    echo(json_for(text, sys.stdout.encoding or "utf-8"))
