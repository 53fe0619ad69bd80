"""One piece of work in a process of its own, ended after a while: its time, its peak of memory."""

import multiprocessing
import resource
import time
from collections.abc import Callable


def apart(name: str, work: Callable[..., None], *given: object, limit: float | None) -> None:
    """Do the work in a new process; say so where it took longer than `limit` seconds of wall clock."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=given)
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        print(f"{name}: ended after {limit:.0f} s of wall clock", flush=True)


def timed(what: str, work: Callable[[], object]) -> None:
    """Print the processor time of the work, and the peak of memory before and since, of this process."""
    before, begun = _peak(), time.process_time()
    work()
    took = time.process_time() - begun
    print(
        f"{what}: {took:.1f} s of processor time, peak {_peak():.2f} GB, of which {before:.2f} GB "
        "until the arrays were drawn",
        flush=True,
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # from kibibytes
