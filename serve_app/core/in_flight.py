"""How many requests the processes of a run are answering, and whether it is draining.

`paraserve serve` and the processes that answer HTTP share a directory. Each of them
keeps its number in a file of its own there; a file named `draining` tells all of them
to take no further requests. A file costs one write a request, and unlike a call to
each replica it works however busy, new or unknown a replica is.
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

RUN_DIRECTORY_VARIABLE = "_PARASERVE_RUN_DIRECTORY"
"""Names the run's directory to all processes of the run. The underscore keeps it from
looking like a setting."""

NODE_ADDRESS_VARIABLE = "_PARASERVE_NODE_ADDRESS"
"""The address that a node which `paraserve serve` has started listens on."""

_COUNTS = "requests"
_DRAINING = "draining"
_NUMBER = struct.Struct("<q")


class InFlightCounter:
    """The number of one process, kept where `num_in_flight` finds it.

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
    """Tells all processes of a run to take no further requests."""
    (directory / _DRAINING).touch(mode=0o600)


def is_draining(directory: Path) -> bool:
    """Whether the processes of a run were told to take no further requests."""
    return (directory / _DRAINING).exists()


def num_in_flight(directory: Path) -> int:
    """Returns how many requests the living processes of a run are answering."""
    total = 0
    try:
        files = list((directory / _COUNTS).iterdir())
    except FileNotFoundError:
        return 0
    for file in files:
        # What a process was answering ended with it.
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
