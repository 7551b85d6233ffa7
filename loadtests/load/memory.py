"""Memory and processor time of all processes that this one has started."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_NAME_CHARACTERS = 44


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment.

    Attributes:
        at_s: on the monotonic clock.
        own_bytes: anonymous memory, which ends with the process.
        proportional_bytes: with each shared page divided by the number of its owners.
    """

    at_s: float
    own_bytes: int
    proportional_bytes: int


@dataclass(slots=True)
class History:
    """One process over time."""

    name: str
    samples: list[Sample]

    def most_own_bytes(self, begin_s: float, end_s: float) -> int | None:
        """Returns the most in a span of time, None if the process was not seen in it."""
        within = [sample.own_bytes for sample in self.samples if begin_s <= sample.at_s < end_s]
        return max(within, default=None)

    def last_proportional_bytes(self) -> int:
        return self.samples[-1].proportional_bytes if self.samples else 0


class MemoryWatch:
    """Samples every process of our own cluster while a `with` block runs.

    Args:
        period_s: between samples; each costs some milliseconds a process.
    """

    def __init__(self, period_s: float = 3.0) -> None:
        self.histories: dict[int, History] = {}
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch")

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._period_s):
            self._sample()

    def _sample(self) -> None:
        for process in own_processes():
            try:
                name = process_name(process)
                rollup = _fields(Path(f"/proc/{process.pid}/smaps_rollup"))
                own_bytes = _fields(Path(f"/proc/{process.pid}/status"))["RssAnon"]
            except (OSError, KeyError, psutil.Error):
                continue  # it has just ended
            history = self.histories.setdefault(process.pid, History(name, []))
            history.samples.append(Sample(time.monotonic(), own_bytes, rollup.get("Pss", 0)))


def own_processes() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def process_name(process: psutil.Process) -> str:
    """Returns what a process calls itself, without arguments and without the method it runs.

    Raises:
        psutil.Error: it has ended.
    """
    title = " ".join(process.cmdline()[:1]) or process.name()
    return title.rpartition("/")[2].partition(".")[0][-_NAME_CHARACTERS:]


def cluster_cpu_s() -> float:
    """Processor time of all our processes that live, in s."""
    spent_s = 0.0
    for process in own_processes():
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent_s += times.user + times.system
    return spent_s


def _fields(path: Path) -> dict[str, int]:
    """Returns the lines `Name: 12 kB` of a file of proc(5), in bytes."""
    values = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            values[name] = int(words[0]) * 1024
    return values
