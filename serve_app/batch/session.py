"""The Ray cluster under a job: connecting, waiting for room, and stopping on a signal."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from ray.exceptions import RayError
from ray.util.state import StateApiClient
from ray.util.state.common import ActorState, ListApiOptions, StateResource
from ray.util.state.exception import RayStateApiException

from serve_app.core.errors import ClusterError
from serve_app.settings import Settings
from serve_app.settings.batch import BatchSettings

_LOG = logging.getLogger(__name__)


class Stopped(BaseException):
    """The job was told to stop."""


@dataclass(slots=True)
class _Stopping:
    """What SIGTERM has begun in this process.

    Attributes:
        depth: blocks that are `stoppable`, one within the other.
        begun: a SIGTERM is being seen to.
        told: called when one comes.
    """

    depth: int = 0
    begun: bool = False
    told: list[Callable[[], None]] = field(default_factory=list)


_STOPPING = _Stopping()


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
        yield
    finally:
        ray.shutdown()


def num_cpus_of(batch: BatchSettings) -> float:
    """Returns the cores that the actors of a job reserve."""
    pools = [batch.segmenters]
    if batch.resources == "own":
        pools += [batch.recognizers, batch.punctuators]
    return sum(pool.num_actors * pool.num_cpus for pool in pools)


def num_cluster_cpus() -> float:
    """Returns the cores of the cluster that this process is connected to, taken or not."""
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # as Ray has it
    return float(resources.get("CPU", 0.0))


@contextmanager
def stoppable() -> Iterator[None]:
    """Turns SIGTERM into `Stopped` for the length of the block; in the main thread only.

    Another SIGTERM, while the first one is being seen to, is ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        if _STOPPING.begun:
            return
        _STOPPING.begun = True
        for tell in _STOPPING.told:
            tell()
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    _STOPPING.depth += 1
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _STOPPING.depth -= 1
        if not _STOPPING.depth:
            _STOPPING.begun = False


@contextmanager
def leaving_in_time(
    limit_s: float, leave: Callable[[int], object] = os._exit, code: int = 1
) -> Iterator[None]:
    """Ends the process if it is still here so long after SIGTERM; for the command, not a library.

    A job's state is written at once; what takes long after that is Ray, which waits for nodes
    that may be gone, and whoever sent the signal kills before long.

    Args:
        limit_s: from SIGTERM on.
        leave: ends the process.
        code: to end it with.
    """
    timers: list[threading.Timer] = []

    def begin() -> None:
        timer = threading.Timer(limit_s, leave, (code,))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    _STOPPING.told.append(begin)
    try:
        yield
    finally:
        _STOPPING.told.remove(begin)
        for timer in timers:
            timer.cancel()


class RoomWatch:
    """Ends a job whose cluster has become too small for it and stays so.

    A node that dies takes its cores along; Ray waits for others, forever if none come.

    Args:
        wanted: cores that the job's actors reserve.
        limit_s: longest time without them; None to wait for ever.
        read: returns the cluster's cores.
        clock: in seconds, monotonic.
    """

    def __init__(
        self,
        wanted: float,
        limit_s: float | None,
        read: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = wanted
        self._limit_s = limit_s
        self._read = read
        self._clock = clock
        self._short_since_s: float | None = None

    def check(self) -> str | None:
        """Returns why the job is to end; None while it may go on."""
        total = self._read()
        if total >= self._wanted:
            self._short_since_s = None
            return None
        now_s = self._clock()
        if self._short_since_s is None:
            self._short_since_s = now_s
            _LOG.warning(
                "the job reserves %g cores and the cluster has %g: it waits until there are more",
                self._wanted,
                total,
            )
        short_s = now_s - self._short_since_s
        if self._limit_s is None or short_s < self._limit_s:
            return None
        return (
            f"the job reserves {self._wanted:g} cores, and the cluster has had only {total:g} for "
            f"{short_s:.0f} s; the same command goes on from here"
        )


@contextmanager
def watched(watch: RoomWatch, every_s: float = 10.0) -> Iterator[None]:
    """Runs the block in the main thread, and ends it with `ClusterError` when the watch says so.

    Raises:
        ClusterError: the cluster stayed too small.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()
    reason: list[str] = []

    def look() -> None:
        while not ended.wait(every_s):
            try:
                problem = watch.check()
            # Whatever Ray has to say about a control store that is away, the job is told itself.
            except Exception as error:
                _LOG.warning("the cluster's cores cannot be told: %s", error)
                continue
            if problem is not None:
                # At once: what follows may take longer than this process has.
                _LOG.error("%s", problem)
                reason.append(problem)
                # Interrupts whatever the main thread waits for.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return

    thread = threading.Thread(target=look, name="room", daemon=True)
    thread.start()
    try:
        yield
    except Stopped:
        if reason:
            raise ClusterError(reason[0]) from None
        raise
    finally:
        ended.set()


LivingSupervisors: TypeAlias = Callable[[], frozenset[str] | None]
"""Returns the submission ids of the jobs that have one; None if that cannot be told."""

# Ray 2.60, dashboard/modules/job/common.py: what it calls these actors, and where.
_NAME = "_ray_internal_job_actor_"
_NAMESPACE = "SUPERVISOR_ACTOR_RAY_NAMESPACE"
_MAX_ACTORS = 10_000
_TIMEOUT_S = 10


def ask_for_supervisors(address: str, headers: Mapping[str, str] | None) -> frozenset[str] | None:
    """Asks the state API of a cluster.

    Args:
        address: of Ray's dashboard.
        headers: with Ray's token; None where it asks for none.
    """
    options = ListApiOptions(
        limit=_MAX_ACTORS, timeout=_TIMEOUT_S, filters=[("ray_namespace", "=", _NAMESPACE)]
    )
    try:
        client = StateApiClient(address, headers=dict(headers or {}))
        actors = client.list(StateResource.ACTORS, options, raise_on_missing_output=False)
    except (RayStateApiException, RayError, RuntimeError, OSError) as error:
        # What Ray's Job API says is all that is known, then.
        _LOG.warning("cannot tell whether jobs are looked after: %s", error)
        return None
    if len(actors) >= _MAX_ACTORS:
        return None
    return frozenset(
        str(actor.name).removeprefix(_NAME)
        for actor in actors
        if isinstance(actor, ActorState)
        and actor.state != "DEAD"
        and str(actor.name).startswith(_NAME)
    )
