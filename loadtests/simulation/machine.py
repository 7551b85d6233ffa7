"""Who uses the machine's cores while the service runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType

import psutil

REPLICAS = ("Recognizer", "Segmenter", "Punctuator", "Ingress")
_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds so far, at one moment.

    Attributes:
        time_s: on the monotonic clock.
        all_s: of the whole machine.
        replicas_s: of the service's replicas, by deployment.
    """

    time_s: float
    all_s: float
    replicas_s: dict[str, float]


class MachineWatch:
    """Samples CPU time in a `with` block.

    Args:
        processes: whose time is not taken by others; by default the Serve replicas.
    """

    def __init__(self, processes: dict[str, list[psutil.Process]] | None = None) -> None:
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._processes = _replica_processes() if processes is None else processes

    def __enter__(self) -> MachineWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.samples.append(self._sample())

    def used_s(self) -> dict[str, float]:
        """Returns the CPU seconds of each deployment over the whole block."""
        first, last = self.samples[0], self.samples[-1]
        return {name: last.replicas_s[name] - first.replicas_s[name] for name in last.replicas_s}

    def cores_left(self, since_s: float) -> list[tuple[float, float]]:
        """Returns times from `since_s` on, and the cores that others leave the replicas."""
        num_cores = psutil.cpu_count() or 1
        left: list[tuple[float, float]] = []
        for before, after in pairwise(self.samples):
            elapsed_s = after.time_s - before.time_s
            if elapsed_s <= 0:
                continue
            replicas_s = sum(after.replicas_s.values()) - sum(before.replicas_s.values())
            others = max(0.0, after.all_s - before.all_s - replicas_s) / elapsed_s
            left.append((max(0.0, before.time_s - since_s), max(0.1, num_cores - others)))
        return left

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.samples.append(self._sample())
            self._stop.wait(_EVERY_S)

    def _sample(self) -> Sample:
        times = psutil.cpu_times()
        replicas_s = {
            name: sum(process.cpu_times().user + process.cpu_times().system for process in found)
            for name, found in self._processes.items()
        }
        all_s = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # Linux counts guests within user time, too.
        all_s -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return Sample(time.monotonic(), all_s, replicas_s)


def _replica_processes() -> dict[str, list[psutil.Process]]:
    found: dict[str, list[psutil.Process]] = {name: [] for name in REPLICAS}
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        for name in REPLICAS:
            if "ServeReplica" in title and name in title:
                found[name].append(process)
    return found
