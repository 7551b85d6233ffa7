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
    """Who may compute now: those in a hurry, or everybody.

    A core that is shared, even one by one, is not all that two computing threads get into each
    other's way with: there are the interpreter's lock, caches and memory. So threads that
    respect it stop at the next `yield_point` of what they compute while others have taken
    it. Safe to share by threads.
    """

    def __init__(self) -> None:
        self._num_holders = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Has the threads that respect it pause for the length of the block."""
        with self._changed:
            self._num_holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_holders -= 1
                self._changed.notify_all()

    def respect(self) -> None:
        """Has the calling thread pause at yield points from now on."""
        _of_thread.preemption = self

    def wait(self) -> None:
        """Returns when nobody has taken it, after a second at the latest."""
        if self._num_holders == 0:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._num_holders == 0, _MAX_PAUSE_S)


def yield_point() -> None:
    """Marks a place where a computation may pause; costs next to nothing if it need not.

    To be called every few ms, without a lock that work in a hurry could want.
    """
    preemption: Preemption | None = getattr(_of_thread, "preemption", None)
    if preemption is not None:
        preemption.wait()


_LOWEST = 19
_SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True, slots=True)
class ThreadNiceness:
    """What urgent work has ahead of other work on the same engine.

    Attributes:
        urgent_ms: what begins before this time in its recording is urgent, in ms; its
            batches are run beside those of others instead of after them. 0 for nothing.
        nice: added to the nice value of the threads that compute what is not urgent.
    """

    urgent_ms: int = 0
    nice: int = 0


def lower_priority(nice: int, preemption: Preemption | None = None) -> None:
    """Makes the calling thread one that others need not wait for.

    On Linux its nice value is raised, and that of threads which it starts from now on: it
    belongs to the thread there, not to the process. Elsewhere, where it would slow down the
    whole process, it is left as it is. All threads of the process then hand over the
    interpreter's lock after half a ms instead of 5 ms, since an event loop asks for it at
    every message.

    Args:
        nice: added to the thread's nice value; 0 for none of the above.
        right_of_way: that the thread respects; those which it starts do not.

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
