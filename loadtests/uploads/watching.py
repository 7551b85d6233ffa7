"""What the cluster's processes hold and whether they are still the same."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Process:
    """One replica.

    Attributes:
        name: as Ray calls it.
        own_bytes: anonymous memory, which no other process shares.
        num_spooled: open files in the spool directory, unnamed ones included.
    """

    name: str
    own_bytes: int
    num_spooled: int


def replicas(spool_dir: Path) -> dict[int, Process]:
    """Returns the replicas of the cluster that this process has started, by pid."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            name = " ".join(process.cmdline()[:1])
            if not name.startswith("ray::ServeReplica") and "Replica" not in name:
                continue
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (OSError, psutil.Error):
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        own_bytes = int(fields["RssAnon"].split()[0]) * 1024
        found[process.pid] = Process(name, own_bytes, _num_spooled(process.pid, spool_dir))
    return found


def _num_spooled(pid: int, spool_dir: Path) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += os.readlink(link).startswith(f"{spool_dir}/")
        except OSError:
            continue
    return count
