"""What the service's processes hold and use, and whether they are still the same."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

_REPLICA = "ray::ServeReplica"
_OTHERS = ("ray::ServeController", "ray::HAProxyManager", "ray::ProxyActor")
_PROGRAMS = frozenset({"raylet", "gcs_server", "haproxy"})


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the service.

    Attributes:
        name: as Ray calls it, or the program's.
        own_bytes: anonymous memory, which no other process shares.
        peak_bytes: most physical memory that it has had, shared pages included.
        num_spooled: open files in the spool directory, unnamed ones included.
    """

    name: str
    own_bytes: int
    peak_bytes: int
    num_spooled: int

    @property
    def is_replica(self) -> bool:
        return self.name.startswith(_REPLICA)


def service_processes(spool_dir: Path) -> dict[int, Process]:
    """Returns the processes of the service that this process has started, by pid."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            name = _name(process)
            if name is None:
                continue
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (OSError, psutil.Error):
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        found[process.pid] = Process(
            name,
            _bytes(fields["RssAnon"]),
            _bytes(fields["VmHWM"]),
            _num_spooled(process.pid, spool_dir),
        )
    return found


def replicas(spool_dir: Path) -> dict[int, Process]:
    """Returns those of them that are replicas."""
    return {pid: one for pid, one in service_processes(spool_dir).items() if one.is_replica}


def cpu_s(pids: Iterable[int]) -> float:
    """Returns the CPU time that processes have used so far, all together."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _name(process: psutil.Process) -> str | None:
    program = process.name()
    if program in _PROGRAMS:
        return program
    title = " ".join(process.cmdline()[:1])
    return title if title.startswith((_REPLICA, *_OTHERS)) else None


def _bytes(field: str) -> int:
    return int(field.split()[0]) * 1024


def _num_spooled(pid: int, spool_dir: Path) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += os.readlink(link).startswith(f"{spool_dir}/")
        except OSError:
            continue
    return count
