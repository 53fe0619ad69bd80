"""Processes that work for this one: they leave signals to it and end with it, and leave nothing.

Pipes alone join them: a semaphore, as `concurrent.futures` has, outlives a process that is killed.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from clipnlc.errors import ClipnlcError, DataError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

Task = TypeVar("Task")
Result = TypeVar("Result")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child(NamedTuple):
    """A process, and this end of the pipe to it."""

    process: "SpawnProcess"
    pipe: connection.Connection


def in_processes(
    work: Callable[[Task], list[Result]], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Yield what each task gives, as it is done; `work` is a function of a module.

    Raises:
        DataError: a process was killed.
    """
    waiting = deque(tasks)
    children: list[Child] = []
    try:
        for _ in range(min(workers, len(tasks))):
            with signals_held():
                children.append(start(_serve, work))
            send(children[-1].pipe, waiting.popleft())
        busy = {child.pipe for child in children}
        while busy:
            for pipe in connection.wait(list(busy)):
                assert isinstance(pipe, connection.Connection)
                try:
                    found = pipe.recv()
                except (EOFError, OSError):
                    raise DataError(
                        "a worker process was killed, probably out of memory; run the same command "
                        f"with fewer --workers than {workers}"
                    ) from None
                if isinstance(found, Exception):
                    raise found
                if waiting:
                    send(pipe, waiting.popleft())
                else:
                    busy.remove(pipe)
                yield from found
    finally:
        for child in children:
            child.process.kill()
        for child in children:
            child.process.join()
            child.pipe.close()


def start(target: Callable[..., None], *arguments: object) -> Child:
    """Start a process that calls `target(pipe, *arguments)`; call it within `signals_held`."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_begin, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    send(ours, (target, arguments))
    return Child(process, ours)


def send(pipe: connection.Connection, message: object) -> None:
    """Send to a process; if it has died, whoever receives from it notices."""
    with suppress(BrokenPipeError, ConnectionResetError):
        pipe.send(message)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals wait, and start processes that never see one: this one handles them.

    Meant for the main thread, where signals are handled; in others it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # starting it would unblock the signals
    came: list[int] = []
    before = {n: signal.getsignal(n) for n in _SIGNALS if callable(signal.getsignal(n))}
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for number in before:  # another thread, of a library, may still receive one
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for late in came:
            signal.raise_signal(late)


def _begin(pipe: connection.Connection) -> None:
    """Watch the parent, and only then import what is to be done: that takes seconds."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # this process is no longer needed
        target, arguments = pipe.recv()
        target(pipe, *arguments)


def _serve(pipe: connection.Connection, work: Callable[[Any], list[Any]]) -> None:
    """Answer every task with its results, or with the exception that it raised."""
    while True:
        task = pipe.recv()
        try:
            answer: object = work(task)
        except ClipnlcError as problem:
            answer = problem
        except Exception as problem:  # noqa: BLE001  (it is raised in the parent)
            answer = RuntimeError(f"{type(problem).__name__}: {problem}")
            answer.add_note(traceback.format_exc())
        pipe.send(answer)
