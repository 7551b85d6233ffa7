"""What the service's processes and the others use of the machine's cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import psutil

from loadtests.simulation.placement import Placement

_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds so far, at one moment.

    Attributes:
        time_s: on the monotonic clock.
        shared_s: of the shared cores, whoever used them.
        apart_s: likewise of the recognizers' cores.
        replicas_s: of the service's replicas, by deployment.
    """

    time_s: float
    shared_s: float
    apart_s: float
    replicas_s: dict[str, float]


class MachineWatch:
    """Samples CPU time in a `with` block.

    Args:
        processes: the service's replicas, by deployment.
        placement: which cores are whose.
    """

    def __init__(
        self, processes: Mapping[str, Sequence[psutil.Process]], placement: Placement
    ) -> None:
        self.samples: list[Sample] = []
        self._processes = processes
        self._placement = placement
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MachineWatch:
        self.samples.append(self._sample())
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

    @property
    def elapsed_s(self) -> float:
        return self.samples[-1].time_s - self.samples[0].time_s

    def used_s(self) -> dict[str, float]:
        """Returns the CPU seconds of each deployment over the whole block."""
        first, last = self.samples[0], self.samples[-1]
        return {name: last.replicas_s[name] - first.replicas_s[name] for name in last.replicas_s}

    def others_s(self) -> float:
        """Returns the CPU seconds on the shared cores of all that is no replica there."""
        used_s = sum(time_s for name, time_s in self.used_s().items() if name != "Recognizer")
        return max(0.0, self.samples[-1].shared_s - self.samples[0].shared_s - used_s)

    def intruded(self) -> float:
        """Returns the part of the recognizers' cores that other programs took."""
        taken_s = self.samples[-1].apart_s - self.samples[0].apart_s - self.used_s()["Recognizer"]
        return max(0.0, taken_s) / self.elapsed_s / len(self._placement.recognizers)

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        replicas_s = {
            name: sum(process.cpu_times().user + process.cpu_times().system for process in found)
            for name, found in self._processes.items()
        }
        return Sample(
            time.monotonic(),
            _busy_s(self._placement.shared),
            _busy_s(self._placement.recognizers),
            replicas_s,
        )


def _busy_s(cores: Sequence[int]) -> float:
    all_times = psutil.cpu_times(percpu=True)
    busy_s = 0.0
    for number in cores:
        times = all_times[number]
        busy_s += sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # Linux counts guests within user time, too.
        busy_s -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return busy_s
