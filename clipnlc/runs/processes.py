"""Several fits at a time, one per process; results arrive in any order."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from clipnlc.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task], list[Result]], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Yield what each task gives, as it is done; `work` is a function of a module.

    Raises:
        DataError: a process was killed.
    """
    # Spawned, not forked: a fork would copy open HDF5 files and the threads of the BLAS.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_follow_parent
    ) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, probably out of memory; run the same command with "
                f"fewer --workers than {workers}"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _follow_parent() -> None:
    """End with the process that started this one, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
