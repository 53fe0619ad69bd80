"""The same workers as actors of a Ray cluster, which restarts those that die."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

from clipnlc.errors import BackboneError, ClipnlcError
from clipnlc.extraction.embedding import Spent
from clipnlc.extraction.order import Order, Span
from clipnlc.extraction.worker import TRIES, OnBatch, Part
from clipnlc.machine import cores

_RESTARTS: Final = 30
"""Deaths of one worker in a run after which Ray gives up; without a limit, one that dies as it
starts would be restarted for ever."""


class RangeWorker:
    """The actor: embeds ranges of rows, and seals their shards."""

    def __init__(self, device: str, threads: int) -> None:
        self._part = Part(device, threads)
        self._order: object = None

    def embed(self, boxed: list[Any], span: Span) -> list[tuple[int, Spent]] | ClipnlcError:
        """Seal one span; return what `OnBatch` is called with, or the error to show to the user.

        The order comes as a reference in a box, so that it is fetched once and not for every
        span. An error is returned, not raised: Ray would wrap it.
        """
        if self._order != boxed[0]:
            import ray

            self._part.take(ray.get(boxed[0]))
            self._order = boxed[0]
        batches: list[tuple[int, Spent]] = []
        try:
            self._part.embed(span, lambda images, spent: batches.append((images, spent)))
        except ClipnlcError as problem:
            return problem
        return batches


class RayCrew:
    """One actor per device; Ray restarts those that die.

    The store must lie on a disk that every node of the cluster shares.
    """

    def __init__(self, devices: Sequence[str], address: str | None) -> None:
        self.devices, self.address = tuple(devices), address
        self._actors: list[Any] = []

    def embed(self, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:
        """Embed and seal spans; see `crew.Workers.embed`.

        Raises:
            BackboneError: Ray is not installed or not reachable, or a worker died repeatedly.
            ClipnlcError: as `crew.Workers.embed`.
        """
        with redirect_stdout(sys.stderr):  # Ray prints its remarks on deaths
            self._embed(_ray(), order, todo, on_batch)

    def _embed(self, ray: Any, order: Order, todo: Sequence[Span], on_batch: OnBatch) -> None:  # noqa: ANN401
        if not self._actors:
            _join(ray, self.address, self.devices)
            self._actors = [self._start(ray, device) for device in self.devices]
        shared = ray.put(order)
        waiting = deque(todo)
        running = {
            actor.embed.remote([shared], waiting.popleft()): actor
            for actor in self._actors[: len(waiting)]
        }
        while running:
            ready, _ = ray.wait(list(running))
            for reference in ready:
                actor = running.pop(reference)
                try:
                    found = ray.get(reference)
                except ray.exceptions.RayError as problem:
                    cause = getattr(problem, "cause", None) or problem
                    reason = " ".join(str(cause).split())[:160]
                    raise BackboneError(
                        f"Ray gave up a worker on {order.dataset}/{order.split.name} ({reason}); "
                        "what is sealed stays: run the same command again"
                    ) from None
                if isinstance(found, ClipnlcError):
                    raise found
                for images, spent in found:
                    on_batch(images, spent)
                if waiting:
                    running[actor.embed.remote([shared], waiting.popleft())] = actor

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._actors:
            self._actors.clear()
            with redirect_stdout(sys.stderr):
                _ray().shutdown()

    def _start(self, ray: Any, device: str) -> Any:  # noqa: ANN401  (Ray makes its own classes)
        gpu = device.startswith("cuda")
        threads = 1 if gpu or self.address else max(1, cores() // len(self.devices))
        return (
            ray.remote(RangeWorker)
            .options(
                max_restarts=_RESTARTS, max_task_retries=TRIES - 1, num_cpus=1, num_gpus=int(gpu)
            )
            .remote("cuda" if gpu else device, threads)  # Ray shows an actor its own GPU only
        )


def _ray() -> Any:  # noqa: ANN401  (it may not be installed)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a tool does not phone home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise BackboneError(
            "--engine ray needs Ray, which is not installed; pip install 'clipnlc[ray]'"
        ) from None
    return ray


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep this process's handling of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _join(ray: Any, address: str | None, devices: Sequence[str]) -> None:  # noqa: ANN401
    """Join a cluster, or start one that ends with the work."""
    own: dict[str, Any] = {} if address else {"num_cpus": len(devices), "include_dashboard": False}
    try:
        with _own_handlers():
            ray.init(
                address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **own
            )
    except Exception as problem:  # noqa: BLE001  (Ray raises bare ones, as when a node starts late)
        reason = " ".join(str(problem).split())[:160]
        raise BackboneError(
            f"no Ray cluster at {address or 'this machine'} ({reason}); check --ray-address"
        ) from None
    there = ray.cluster_resources()
    gpus = sum(device.startswith("cuda") for device in devices)
    if there.get("CPU", 0) < len(devices) or there.get("GPU", 0) < gpus:
        ray.shutdown()  # an actor that cannot be placed would block without a message
        raise BackboneError(
            f"the Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, "
            f"too few for {len(devices)} workers; name fewer --devices, or add nodes first"
        )
