"""Processes of one run, recognized by a variable in their environment.

Every process of a run inherits `RUN_DIRECTORY_VARIABLE`, even if its parent ends. So a process
belongs to a run if and only if the variable holds the run's directory. Linux only; no processes
are found on other systems.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE

_PROC = Path("/proc")
_START_TIME_FIELD = 19
"""Of /proc/PID/stat, counted from the field after the name; see proc_pid_stat(5)."""
_RAY_TITLE = b"ray::"
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """One process; its start time distinguishes it from a later one with the same id.

    Attributes:
        pid: its id.
        start_ticks: its start, in clock ticks since boot.
    """

    pid: int
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        return process_of(self.pid) == self

    @property
    def name(self) -> str:
        """The program's own name, empty if the process is gone."""
        try:
            return (_PROC / str(self.pid) / "comm").read_text().strip()
        except OSError:
            return ""

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to this process, never to a later one with the same id."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            if self.is_alive:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def process_of(pid: int) -> Process | None:
    """Returns the process with this id, None if there is none or it has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name is in parentheses and may hold any character.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else Process(pid, int(fields[_START_TIME_FIELD]))


def processes_of_run(directory: Path, but: Iterable[int] = ()) -> list[Process]:
    """Returns the processes of this user that a run has started.

    Args:
        directory: of the run.
        but: ids of processes to leave out.
    """
    left_out = set(but)
    found = []
    for pid in _own_pids():
        process = process_of(pid)
        if pid not in left_out and process is not None and _is_of_run(pid, directory):
            found.append(process)
    return found


def _is_of_run(pid: int, directory: Path) -> bool:
    folder = _PROC / str(pid)
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
        if f"{RUN_DIRECTORY_VARIABLE}={directory}".encode() in variables:
            return True
        # Ray's agents overwrite their environment with their title, but keep their logs open.
        if not (folder / "cmdline").read_bytes().startswith(_RAY_TITLE):
            return False
        links = [os.readlink(link) for link in (folder / "fd").iterdir()]
    except OSError:
        return False
    return any(link.startswith(f"{directory}/") for link in links)


def end_processes(
    find: Callable[[], list[Process]], grace_s: float, limit_s: float = 10.0
) -> list[Process]:
    """Ends processes with SIGTERM, and with SIGKILL after the grace period.

    Args:
        find: returns the processes; called repeatedly, since they may start others.
        grace_s: between SIGTERM and SIGKILL; 0 for SIGKILL at once.
        limit_s: longest time after the grace period; then the rest is left running.

    Returns:
        All processes that were found.
    """
    began_s = time.monotonic()
    seen: dict[Process, None] = {}
    signaled: set[Process] = set()
    while alive := find():
        elapsed_s = time.monotonic() - began_s
        if elapsed_s > grace_s + limit_s:
            break
        for process in alive:
            seen[process] = None
            if elapsed_s >= grace_s:
                process.send(signal.SIGKILL)
            elif process not in signaled:
                signaled.add(process)
                process.send(signal.SIGTERM)
        time.sleep(_POLL_S)
    return list(seen)


def _own_pids() -> Iterable[int]:
    try:
        entries = list(os.scandir(_PROC))
    except OSError:
        return
    for entry in entries:
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid == os.geteuid():
                yield int(entry.name)
        except OSError:
            continue
