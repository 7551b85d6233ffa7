"""The Ray cluster under a job, and the order to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.settings import Settings
from serve_app.settings.batch import BatchSettings

_LOG = logging.getLogger(__name__)


class Stopped(BaseException):
    """The job was told to stop."""


@contextmanager
def connected(settings: Settings) -> Iterator[None]:
    """Connects to a Ray cluster for the length of the block, unless this process is.

    It is the one that `cluster.address` or RAY_ADDRESS names (a job that was submitted has
    it); without either, one on this machine that ends with the block.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = settings.cluster.address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        ray.init(address=address, namespace="serve", log_to_driver=False)
    else:
        wanted = num_cpus_of(settings.batch)
        ray.init(
            address="local",
            # Reservations are logical; a machine with one core is slow and not stuck.
            num_cpus=settings.cluster.num_cpus or max(os.cpu_count() or 1, -int(-wanted // 1)),
            object_store_memory=settings.cluster.object_store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        _check_room(settings.batch)
        yield
    finally:
        ray.shutdown()


def num_cpus_of(batch: BatchSettings) -> float:
    """Returns the cores that the actors of a job reserve."""
    pools = [batch.segmenters]
    if batch.resources == "own":
        pools += [batch.recognizers, batch.punctuators]
    return sum(pool.num_actors * pool.num_cpus for pool in pools)


def _check_room(batch: BatchSettings) -> None:
    """Warns of a job that cannot start; the cluster may yet grow."""
    import ray

    total = ray.cluster_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]  # as Ray has it
    wanted = num_cpus_of(batch)
    if total < wanted:
        _LOG.warning(
            "the job reserves %g cores and the cluster has %g: it waits until there are more",
            wanted,
            total,
        )


@contextmanager
def stoppable() -> Iterator[None]:
    """Turns SIGTERM into `Stopped` for the length of the block; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
