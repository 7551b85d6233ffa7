"""Which cores the service's processes compute on, as a cluster's CPU limits would say it.

Where this process may, they also go before other programs' on the machine, which would
otherwise take part of a core that a cluster would keep for a replica.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from serve_app.core.errors import ConfigurationError

_NICENESS = -19

DEPLOYMENTS = ("Recognizer", "Segmenter", "Punctuator", "Ingress")


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
def kept_on(cores: tuple[int, ...]) -> Iterator[None]:
    """Keeps this process, and those that it starts in the block, on some cores."""
    before = os.sched_getaffinity(0)
    _move(os.getpid(), cores)
    try:
        yield
    finally:
        _move(os.getpid(), tuple(before))


def replica_processes() -> dict[str, list[psutil.Process]]:
    """Returns the Serve replicas that descend from this process, by deployment."""
    found: dict[str, list[psutil.Process]] = {name: [] for name in DEPLOYMENTS}
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        for name in DEPLOYMENTS:
            if "ServeReplica" in title and name in title:
                found[name].append(process)
    return found


def place_service(placement: Placement) -> dict[str, list[psutil.Process]]:
    """Moves each replica of the recognizer to its core; returns all replicas.

    Raises:
        ConfigurationError: there are not as many as the placement has cores for.
    """
    processes = replica_processes()
    recognizers = processes["Recognizer"]
    if len(recognizers) != len(placement.recognizers):
        raise ConfigurationError(
            f"{len(recognizers)} processes of the recognizer were found, "
            f"{len(placement.recognizers)} were expected"
        )
    for process, core in zip(recognizers, placement.recognizers, strict=True):
        _move(process.pid, (core,))
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(PermissionError, ProcessLookupError, FileNotFoundError):
            _prefer(process.pid)
    return processes


def _threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def _move(pid: int, cores: tuple[int, ...]) -> None:
    # The call is about one thread; those to come are where the one that starts them is.
    for thread in _threads(pid):
        os.sched_setaffinity(thread, cores)


def _prefer(pid: int) -> None:
    # Where sessions are scheduled as groups, niceness counts within them only.
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(_NICENESS))
    for thread in _threads(pid):
        os.setpriority(os.PRIO_PROCESS, thread, _NICENESS)
