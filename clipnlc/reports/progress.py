"""Progress of a running stage: a bar on a terminal, a line a minute in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Advance = Callable[[str, int, int | None, str], None]
"""Called with what is in work, how much of it is done, of how much, and a remark."""

_LOG_EVERY: Final = 60.0  # seconds between lines where there is no terminal


@contextmanager
def bar(stage: str) -> Iterator[Advance]:
    """Show one line on standard error: what, how far, items per second, time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f}/s" if task.speed else "")

    columns = (
        TextColumn(f"{stage} {{task.description}}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, remark="")
        current = ""

        def advance(what: str, done: int, total: int | None, remark: str) -> None:
            nonlocal current
            if what != current and total is not None:
                progress.reset(task, total=total, description=what, remark=remark)
                current = what
            progress.update(task, completed=done, total=total, description=what, remark=remark)

        yield advance


@contextmanager
def lines(stage: str) -> Iterator[Advance]:
    """Write a line to standard error at most once a minute."""
    began = last = time.monotonic()

    def advance(what: str, done: int, total: int | None, remark: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LOG_EVERY:
            return
        last = now
        of = f"/{total}" if total is not None else ""
        extra = f", {remark}" if remark else ""
        print(  # noqa: T201
            f"{stage} {what}: {done}{of} after {now - began:.0f} s{extra}",
            file=sys.stderr,
            flush=True,
        )

    yield advance
