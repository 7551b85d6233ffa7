"""Who goes first on cores that many threads want."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass

_LOWEST = 19


@dataclass(frozen=True, slots=True)
class Priority:
    """What urgent work has ahead of other work on the same engine.

    Attributes:
        urgent_ms: what begins before this time in its recording is urgent, in ms; its
            batches are run beside those of others instead of after them. 0 for nothing.
        nice: added to the nice value of the threads that compute what is not urgent.
    """

    urgent_ms: int = 0
    nice: int = 0


def give_way(nice: int) -> None:
    """Lowers the calling thread's priority, and that of threads which it starts from now on.

    On Linux the nice value belongs to the thread, not to the process. Elsewhere, where it
    would slow down the whole process, nothing is done.

    Args:
        nice: added to the thread's nice value, 0 for none.

    Source: sched(7) and setpriority(2), "C library/kernel differences".
    """
    if nice == 0 or not sys.platform.startswith("linux"):
        return
    thread = threading.get_native_id()
    present = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, min(present + nice, _LOWEST))
