"""Which cores the service's processes compute on, as a cluster's CPU limits would say it, and
what they and others use of them.

Where this process may, they also go before other programs' on the machine, which would
otherwise take part of a core that a cluster would keep for a replica.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from loadtests.harness.watch import DEPLOYMENTS, cpu_s, own_processes, replicas
from serve_app.core.errors import ConfigurationError

_NICENESS = -19


@dataclass(frozen=True, slots=True)
class Placement:
    """Cores of this machine.

    Attributes:
        recognizers: a core for each replica of the recognizer.
        shared: cores of everything else: the other stages, Ray, the proxy, the clients.
    """

    recognizers: tuple[int, ...]
    shared: tuple[int, ...]


def placement_for(num_recognizers: int) -> Placement:
    """Returns a placement on the cores that this process may use.

    Raises:
        ConfigurationError: there are too few.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= num_recognizers:
        raise ConfigurationError(
            f"{num_recognizers} recognizers on cores of their own need "
            f"{num_recognizers + 1} cores; this machine lends {len(cores)}"
        )
    return Placement(tuple(cores[-num_recognizers:]), tuple(cores[:-num_recognizers]))


@contextmanager
def kept_on(cores: Sequence[int]) -> Iterator[None]:
    """Keeps this process, and those that it starts in the block, on some cores."""
    before = os.sched_getaffinity(0)
    _move(os.getpid(), cores)
    try:
        yield
    finally:
        _move(os.getpid(), tuple(before))


@contextmanager
def placed_service(num_recognizers: int) -> Iterator[Callable[[], CoresWatch]]:
    """Keeps what starts in the block on the shared cores.

    Yields what moves the replicas of the recognizer, once they run, and returns their watch.

    Raises:
        ConfigurationError: there are not as many replicas as the placement has cores for.
    """
    placement = placement_for(num_recognizers)

    def place() -> CoresWatch:
        processes = {name: replicas(name) for name in DEPLOYMENTS}
        recognizers = processes["Recognizer"]
        if len(recognizers) != num_recognizers:
            raise ConfigurationError(
                f"{len(recognizers)} processes of the recognizer were found, "
                f"{num_recognizers} were expected"
            )
        for process, core in zip(recognizers, placement.recognizers, strict=True):
            _move(process.pid, (core,))
        for process in (psutil.Process(), *own_processes()):
            with suppress(OSError):
                _prefer(process.pid)
        return CoresWatch(processes, placement)

    with kept_on(placement.shared):
        yield place


class CoresWatch:
    """Measures CPU time in a `with` block; the figures are there after it.

    Args:
        processes: the service's replicas, by deployment.
        placement: which cores are whose.
    """

    elapsed_s: float
    used_s: dict[str, float]
    """Of each deployment."""
    others_s: float
    """On the shared cores, of all that is no replica there."""
    intruded: float
    """The part of the recognizers' cores that other programs took."""

    def __init__(self, processes: dict[str, list[psutil.Process]], placement: Placement) -> None:
        self.placement = placement
        self._processes = processes

    def __enter__(self) -> Self:
        self._before = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        after = self._read()
        spent_s = [new - old for new, old in zip(after, self._before, strict=True)]
        self.elapsed_s, shared_s, apart_s = spent_s[:3]
        self.used_s = dict(zip(self._processes, spent_s[3:], strict=True))
        used_apart_s = self.used_s["Recognizer"]
        self.others_s = max(0.0, shared_s - (sum(self.used_s.values()) - used_apart_s))
        cores_s = self.elapsed_s * len(self.placement.recognizers)
        self.intruded = max(0.0, apart_s - used_apart_s) / cores_s

    def _read(self) -> list[float]:
        placement = self.placement
        return [
            time.monotonic(),
            _busy_s(placement.shared),
            _busy_s(placement.recognizers),
            *map(cpu_s, self._processes.values()),
        ]


def _busy_s(cores: Sequence[int]) -> float:
    all_times = psutil.cpu_times(percpu=True)
    busy_s = 0.0
    for number in cores:
        times = all_times[number]
        busy_s += sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # Linux counts guests within user time, too.
        busy_s -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return busy_s


def _threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def _move(pid: int, cores: Sequence[int]) -> None:
    # The call is about one thread; those to come are where the one that starts them is.
    for thread in _threads(pid):
        os.sched_setaffinity(thread, cores)


def _prefer(pid: int) -> None:
    # Where sessions are scheduled as groups, niceness counts within them only.
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(_NICENESS))
    for thread in _threads(pid):
        os.setpriority(os.PRIO_PROCESS, thread, _NICENESS)
