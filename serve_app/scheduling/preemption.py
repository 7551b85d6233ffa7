"""Preemption within a process: urgent work pauses other work, and bulk threads yield the CPU."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_MAX_PAUSE_S = 1.0

_of_thread = threading.local()


class Preemption:
    """Lets urgent work pause other threads of the process.

    Niceness alone does not free the interpreter lock, caches and memory bandwidth. Threads
    that call `respect` therefore pause at their next `yield_point` while another thread is
    in a `taken` block. Thread-safe.
    """

    def __init__(self) -> None:
        self._num_holders = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Pauses the threads that respect it for the duration of the block."""
        with self._changed:
            self._num_holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_holders -= 1
                self._changed.notify_all()

    def respect(self) -> None:
        """Makes the calling thread pause at yield points from now on."""
        _of_thread.preemption = self

    def wait(self) -> None:
        """Returns when no thread is in a `taken` block, after a second at the latest."""
        if self._num_holders == 0:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._num_holders == 0, _MAX_PAUSE_S)


def yield_point() -> None:
    """Pauses the calling thread while urgent work runs; almost free otherwise.

    Call it every few ms, while holding no lock that urgent work could need.
    """
    preemption: Preemption | None = getattr(_of_thread, "preemption", None)
    if preemption is not None:
        preemption.wait()


_LOWEST = 19
_SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True, slots=True)
class ThreadNiceness:
    """How urgent work is preferred over other work on the same engine.

    Attributes:
        urgent_ms: chunks that start before this time in their recording are urgent; their
            batches run beside other batches instead of after them. 0 for none.
        nice: added to the nice value of threads whose work is not urgent.
    """

    urgent_ms: int = 0
    nice: int = 0


def lower_priority(nice: int, preemption: Preemption | None = None) -> None:
    """Lowers the priority of the calling thread.

    On Linux, where niceness belongs to the thread, it also applies to threads started from
    it later. Elsewhere it would slow down the whole process and is left unchanged. All
    threads of the process then release the interpreter lock after 0.5 ms instead of 5 ms,
    since the event loop needs it for every message.

    Args:
        nice: added to the thread's nice value; 0 changes nothing.
        preemption: that the thread respects; threads started from it do not.

    Source: sched(7) and setpriority(2), "C library/kernel differences".
    """
    if preemption is not None:
        preemption.respect()
    if nice == 0:
        return
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    if not sys.platform.startswith("linux"):
        return
    thread = threading.get_native_id()
    present = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, min(present + nice, _LOWEST))
