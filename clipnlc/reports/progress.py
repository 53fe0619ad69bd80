"""Progress of a running stage: a bar on a terminal, a line a minute in a log.

Rates, shares and the time left are those of the last minute (`pace.Recent`).
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from clipnlc.reports.pace import (
    Effort,
    Pace,
    Recent,
    spelled_rate,
    spelled_shares,
    spelled_time,
    spelled_waiting,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

_LOG_EVERY: Final = 60.0  # seconds between lines where there is no terminal
_BACKBONES_SHOWN: Final = 9  # with the bar and the shares eleven lines of a terminal

NO_EFFORT: Final = Effort()


@runtime_checkable
class Advance(Protocol):
    """Called with how far a stage is."""

    def __call__(
        self,
        what: str,
        done: int,
        total: int | None,
        remark: str,
        effort: Effort = NO_EFFORT,
        *,
        rest: int | None = None,
    ) -> None:
        """Show progress.

        Args:
            what: is in work.
            done: how much of it.
            total: of how much, where that is known.
            remark: for people.
            effort: what embedding has taken since `what` began.
            rest: how much comes after `what`, where that is known.
        """


@contextmanager
def bar(stage: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Advance]:
    """Show what is in work, how far, its rate and the time left; below it, where time goes.

    One line, and for an extraction one of shares and one per backbone, the costliest nine. Nothing
    stays on the screen.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    console = Console(stderr=True)
    below: list[str] = []

    class Display(Progress):
        def get_renderables(self) -> "Iterator[RenderableType]":
            yield self.make_tasks_table(self.tasks)
            for line in below[: console.height - 2]:  # more could not be erased
                yield Text(line, no_wrap=True, overflow="ellipsis")

    columns = (
        TextColumn(f"{stage} {{task.description}}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    # What is printed meanwhile goes above the bar, unless standard output is another place.
    with Display(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as display:
        task = display.add_task("", total=None, remark="")

        def show(now: _Seen) -> None:
            below[:] = _below(now.pace)
            display.update(
                task,
                completed=now.done,
                total=now.total,
                description=now.what,
                remark=", ".join(now.remarks),
            )

        yield _paced(show, clock)


@contextmanager
def lines(stage: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Advance]:
    """Write a line to standard error at most once a minute."""
    began = last = clock()

    def show(now: _Seen) -> None:
        nonlocal last
        if now.time - last < _LOG_EVERY:
            return
        last = now.time
        of = f"/{now.total}" if now.total is not None else ""
        parts = [f"{stage} {now.what}: {now.done}{of} after {spelled_time(now.time - began)}"]
        groups = [", ".join([*parts, *now.remarks]), *_behind(now.pace)]
        print("; ".join(groups), file=sys.stderr, flush=True)  # noqa: T201

    yield _paced(show, clock)


@dataclass(frozen=True)
class _Seen:
    """What a stage said of how far it is, when, and what follows from it."""

    time: float
    what: str
    done: int
    total: int | None
    pace: Pace | None
    remarks: list[str]


def _paced(show: Callable[[_Seen], None], clock: Callable[[], float]) -> Advance:
    """Make what a stage calls out of what shows it."""
    recent = Recent()

    def advance(
        what: str,
        done: int,
        total: int | None,
        remark: str,
        effort: Effort = NO_EFFORT,
        *,
        rest: int | None = None,
    ) -> None:
        now = clock()
        pace = recent.add(now, what, done, total, effort, rest=rest)
        remarks = [*_rate_and_left(pace), *([remark] if remark else [])]
        show(_Seen(now, what, done, total, pace, remarks))

    return advance


def _rate_and_left(pace: Pace | None) -> list[str]:
    if pace is None:
        return []
    rate = f"{spelled_rate(pace.rate)}{' images/s' if pace.effort.images else '/s'}"
    if pace.left is None:
        return [rate]
    in_all = f" ({spelled_time(pace.left_in_all)} in all)" if pace.left_in_all else ""
    return [rate, f"{spelled_time(pace.left)} left{in_all}"]


def _below(pace: Pace | None) -> list[str]:
    """Return the lines below the bar."""
    if pace is None or not pace.effort.seconds:
        return []
    rows = _backbones(pace.effort)
    wide = max((len(name) for name, _, _ in rows), default=0)
    return [
        f"  {spelled_waiting(pace.effort)}; {spelled_shares(pace.effort)}",
        *(
            f"  {name:{wide}} {100 * share:3.0f} % of forward, {spelled_rate(rate)} images/s "
            "in one thread"
            for name, share, rate in rows
        ),
    ]


def _behind(pace: Pace | None) -> list[str]:
    """Return the same for the end of a log line, in short."""
    if pace is None or not pace.effort.seconds:
        return []
    each = [f"{name} {spelled_rate(rate)}" for name, _, rate in _backbones(pace.effort)]
    return [
        spelled_waiting(pace.effort),
        spelled_shares(pace.effort),
        f"images/s in one thread: {', '.join(each)}",
    ]


def _backbones(effort: Effort) -> list[tuple[str, float, float]]:
    """Return the costliest backbones in their order: name, share of forward, images/s."""
    found = effort.by_backbone()
    costliest = sorted(found, key=lambda name: found[name], reverse=True)[:_BACKBONES_SHOWN]
    return [(name, *found[name]) for name in found if name in costliest]
