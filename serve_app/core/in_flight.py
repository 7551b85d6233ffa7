"""Counts the requests in flight in all processes of a run, and marks the run as draining.

`paraserve serve` and the processes that serve HTTP share a directory. Each process keeps its
count in its own file there; a file named `draining` tells all of them to accept no further
requests. This costs one write per request and, unlike a call to each replica, does not depend
on how busy, new or unknown a replica is.
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

RUN_DIRECTORY_VARIABLE = "_PARASERVE_RUN_DIRECTORY"
"""Environment variable with the run's directory. The underscore marks it as no setting."""

NODE_ADDRESS_VARIABLE = "_PARASERVE_NODE_ADDRESS"
"""Environment variable with the address of the node that `paraserve serve` started."""

_COUNTS = "requests"
_DRAINING = "draining"
_NUMBER = struct.Struct("<q")


class InFlightCounter:
    """The count of one process, where `num_in_flight` reads it.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        folder = directory / _COUNTS
        folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC
        self._file = os.open(folder / str(os.getpid()), flags, 0o600)
        self._mark = os.fspath(directory / _DRAINING)
        self._lock = threading.Lock()
        self._number = 0

    @property
    def is_draining(self) -> bool:
        return os.path.exists(self._mark)

    def enter(self) -> None:
        self._add(1)

    def leave(self) -> None:
        self._add(-1)

    def close(self) -> None:
        os.close(self._file)

    def _add(self, difference: int) -> None:
        with self._lock:
            self._number += difference
            os.pwrite(self._file, _NUMBER.pack(self._number), 0)


def begin_draining(directory: Path) -> None:
    """Tells all processes of a run to accept no further requests."""
    (directory / _DRAINING).touch(mode=0o600)


def is_draining(directory: Path) -> bool:
    """Whether the run accepts no further requests."""
    return (directory / _DRAINING).exists()


def num_in_flight(directory: Path) -> int:
    """Returns the number of requests in flight in the live processes of a run."""
    total = 0
    try:
        files = list((directory / _COUNTS).iterdir())
    except FileNotFoundError:
        return 0
    for file in files:
        # The requests of a dead process ended with it.
        if _is_running(int(file.name)):
            content = file.read_bytes()
            total += _NUMBER.unpack(content)[0] if content else 0
    return total


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    return True
