"""Ctrl-C, SIGTERM and SIGHUP: one line on standard error, exit code 128 and the signal's number.

The first one raises KeyboardInterrupt, so that what is open is closed and workers end. Where that
gets lost, in a callback of a library for one, it is raised again; where the end takes too long, the
process leaves as it is, which harms nothing: files are complete or absent.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, Final

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PATIENCE: Final = 10.0
"""Seconds that the end may take."""

_AGAIN: Final = 1.0
"""Seconds after which a second signal is meant as one: `timeout` sends two at once."""

_first: list[tuple[int, float]] = []
"""The first signal, and when it came."""

_lost: list[bool] = []
"""Filled where the exception got lost."""


def handle() -> None:
    """Handle the signals that this process was not started to ignore (as `nohup` does)."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    signal.signal(signal.SIGALRM, _late)
    sys.unraisablehook = _unraisable
    threading.excepthook = _in_thread


def received() -> bool:
    """Return whether a signal has come."""
    return bool(_first)


def finished(code: int) -> None:
    """From now on a signal ends the process with this code: its work is done."""
    for number in STOPPING:
        if signal.getsignal(number) is _stop:
            signal.signal(number, lambda *_: os._exit(code))


def leave() -> None:
    """End the process: one line, and the exit code of its signal.

    Standard output is not flushed: every line was, and one that is interrupted would come twice.
    """
    number, _ = _first[0]
    how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    line = f"{how}; the same command goes on where this one stopped\n"
    if os.isatty(2):
        line = f"\r\x1b[K\x1b[?25h{line}"  # erase a progress bar, show the cursor
    with suppress(OSError):
        os.write(2, line.encode())
    os._exit(128 + number)


def _stop(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if _first:
        if now - _first[0][1] > _AGAIN:
            leave()
        return
    _first.append((number, now))
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    raise KeyboardInterrupt


def _late(_number: int, _frame: FrameType | None) -> None:
    if not _lost:
        leave()
    _lost.clear()
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    raise KeyboardInterrupt


def _unraisable(unraisable: Any, /) -> None:  # noqa: ANN401  (its class is private)
    if not _first:
        sys.__unraisablehook__(unraisable)
    elif isinstance(unraisable.exc_value, KeyboardInterrupt):
        _lost.append(True)
        signal.setitimer(signal.ITIMER_REAL, 0.01)


def _in_thread(arguments: Any, /) -> None:  # noqa: ANN401  (its class is a named tuple of C)
    if not _first:  # else threads fail over what the main thread has closed
        threading.__excepthook__(arguments)
