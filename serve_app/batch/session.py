"""The surroundings of a job: its Ray cluster, SIGTERM, and the supervisors of submitted jobs."""

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
    """SIGTERM was received: the job must stop."""


@dataclass(slots=True)
class _Stopping:
    """State of the SIGTERM handler of this process.

    Attributes:
        depth: number of nested `stoppable` blocks.
        begun: a SIGTERM is being handled.
        callbacks: called on SIGTERM.
    """

    depth: int = 0
    begun: bool = False
    callbacks: list[Callable[[], None]] = field(default_factory=list)


_STOPPING = _Stopping()


@contextmanager
def connected(settings: Settings) -> Iterator[None]:
    """Connects to a Ray cluster for the length of the block, unless already connected.

    Its address is `cluster.address` or RAY_ADDRESS, which Ray sets for submitted jobs. Without
    either, a cluster on this machine is started that ends with the block.
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
            # Reservations are logical: a machine with fewer cores is slower, but not stuck.
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
    """Returns the total cores of the connected cluster, whether free or not."""
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # as Ray has it
    return float(resources.get("CPU", 0.0))


@contextmanager
def stoppable() -> Iterator[None]:
    """Turns SIGTERM into `Stopped` for the length of the block; in the main thread only.

    Further SIGTERMs are ignored while the first one is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        if _STOPPING.begun:
            return
        _STOPPING.begun = True
        for callback in _STOPPING.callbacks:
            callback()
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
def exit_deadline(
    limit_s: float, leave: Callable[[int], object] = os._exit, code: int = 1
) -> Iterator[None]:
    """Ends the process if it still runs `limit_s` after SIGTERM; for the command only.

    The state of a job is written at once. Ray may then wait for nodes that are gone, and the
    sender of the signal kills the process before long.

    Args:
        limit_s: time from SIGTERM.
        leave: ends the process.
        code: its exit code.
    """
    timers: list[threading.Timer] = []

    def begin() -> None:
        timer = threading.Timer(limit_s, leave, (code,))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    _STOPPING.callbacks.append(begin)
    try:
        yield
    finally:
        _STOPPING.callbacks.remove(begin)
        for timer in timers:
            timer.cancel()


class CapacityWatch:
    """Detects that the cluster has become too small for a job and stays so.

    After the death of a node Ray waits for new cores, forever if none are added.

    Args:
        wanted: cores that the actors of the job reserve.
        limit_s: longest time without them; None to wait forever.
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
        """Returns why the job must end; None while it may continue."""
        total = self._read()
        if total >= self._wanted:
            self._short_since_s = None
            return None
        now_s = self._clock()
        if self._short_since_s is None:
            self._short_since_s = now_s
            _LOG.warning(
                "the job reserves %g cores and the cluster has %g: waiting for more",
                self._wanted,
                total,
            )
        short_s = now_s - self._short_since_s
        if self._limit_s is None or short_s < self._limit_s:
            return None
        return (
            f"the job reserves {self._wanted:g} cores, and the cluster has had only {total:g} for "
            f"{short_s:.0f} s; run the same command to resume"
        )


@contextmanager
def watched(watch: CapacityWatch, every_s: float = 10.0) -> Iterator[None]:
    """Runs the block, and ends it with `ClusterError` when the watch has a reason.

    Raises:
        ClusterError: the cluster stayed too small.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()
    reason: list[str] = []

    def check_regularly() -> None:
        while not ended.wait(every_s):
            try:
                problem = watch.check()
            # If Ray's control store is unreachable, the job gets an error of its own.
            except Exception as error:
                _LOG.warning("cannot read the cluster's cores: %s", error)
                continue
            if problem is not None:
                # Log first: the process may not live long enough to report it later.
                _LOG.error("%s", problem)
                reason.append(problem)
                # Interrupts the main thread.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return

    thread = threading.Thread(target=check_regularly, name="capacity", daemon=True)
    thread.start()
    try:
        yield
    except Stopped:
        if reason:
            raise ClusterError(reason[0]) from None
        raise
    finally:
        ended.set()


LiveSupervisors: TypeAlias = Callable[[], frozenset[str] | None]
"""Returns the submission ids of the jobs with a live supervisor; None if unknown."""

# Name and namespace of these actors in Ray 2.60: dashboard/modules/job/common.py.
_NAME = "_ray_internal_job_actor_"
_NAMESPACE = "SUPERVISOR_ACTOR_RAY_NAMESPACE"
_MAX_ACTORS = 10_000
_TIMEOUT_S = 10


def live_supervisors(address: str, headers: Mapping[str, str] | None) -> frozenset[str] | None:
    """Returns the submission ids of the jobs whose supervisor actor is alive; None if unknown.

    Args:
        address: of Ray's dashboard.
        headers: with Ray's token; None if it requires none.
    """
    options = ListApiOptions(
        limit=_MAX_ACTORS, timeout=_TIMEOUT_S, filters=[("ray_namespace", "=", _NAMESPACE)]
    )
    try:
        client = StateApiClient(address, headers=dict(headers or {}))
        actors = client.list(StateResource.ACTORS, options, raise_on_missing_output=False)
    except (RayStateApiException, RayError, RuntimeError, OSError) as error:
        # Only Ray's Job API is left as a source.
        _LOG.warning("cannot list the supervisors of jobs: %s", error)
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
