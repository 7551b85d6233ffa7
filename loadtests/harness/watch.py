"""Memory and processor time of processes: this one's, and those that it has started."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

_NAME_CHARACTERS = 44
DEPLOYMENTS = ("Ingress", "Segmenter", "Recognizer", "Punctuator")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds.

    Attributes:
        resident_bytes: all of it, shared pages included.
        peak_bytes: the most that was resident, ever or since `forget_peak`.
        own_bytes: anonymous memory, which ends with the process.
    """

    resident_bytes: int
    peak_bytes: int
    own_bytes: int


def memory(pid: int | str = "self") -> Memory:
    """Reads what a process holds.

    Raises:
        OSError, KeyError: it has ended.
    """
    fields = _fields(pid, "status")
    return Memory(fields["VmRSS"], fields["VmHWM"], fields["RssAnon"])


def private_and_proportional_bytes(pid: int) -> tuple[int, int]:
    """Returns the memory that nobody shares, and all with shared pages divided by their owners."""
    fields = _fields(pid, "smaps_rollup")
    return fields["Private_Clean"] + fields["Private_Dirty"], fields["Pss"]


def forget_peak(pid: int | str = "self") -> None:
    """Lets a process's peak begin anew at what it holds now (proc(5), clear_refs)."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def own_processes() -> list[psutil.Process]:
    """Returns the processes that this one has started, directly or not."""
    return psutil.Process().children(recursive=True)


def titled(*titles: str) -> list[psutil.Process]:
    """Returns those of them whose command line begins so."""
    found = []
    for process in own_processes():
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(titles):
                found.append(process)
    return found


def replicas(deployment: str = "", app_name: str = "paraserve") -> list[psutil.Process]:
    """Returns the replicas of one deployment, or of all, that this process has started."""
    return titled(f"ray::ServeReplica:{app_name}:{deployment}")


def process_name(process: psutil.Process) -> str:
    """Returns what a process calls itself, without arguments and without the method it runs.

    Raises:
        psutil.Error: it has ended.
    """
    title = " ".join(process.cmdline()[:1]) or process.name()
    return title.rpartition("/")[2].partition(".")[0][-_NAME_CHARACTERS:]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Returns the processor time of processes that live, in s."""
    spent_s = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            spent_s += times.user + times.system
    return spent_s


def cluster_cpu_s() -> float:
    """Returns the processor time of all processes that this one has started."""
    return cpu_s(own_processes())


def num_open_files(pid: int, folder: Path) -> int:
    """Returns how many files of a folder a process has open, unnamed ones included."""
    count = 0
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                count += os.readlink(link).startswith(f"{folder}/")
    return count


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment of the monotonic clock."""

    at_s: float
    own_bytes: int
    peak_bytes: int


@dataclass(slots=True)
class History:
    """One process over time."""

    name: str
    samples: list[Sample] = field(default_factory=list)

    def most_own_bytes(
        self, begin_s: float = -float("inf"), end_s: float = float("inf")
    ) -> int | None:
        """Returns the most in a span of time, None if the process was not seen in it."""
        within = [sample.own_bytes for sample in self.samples if begin_s <= sample.at_s < end_s]
        return max(within, default=None)

    @property
    def peak_bytes(self) -> int:
        return max((sample.peak_bytes for sample in self.samples), default=0)


class Watch:
    """Samples every process that this one has started while a `with` block runs.

    Args:
        period_s: between samples; each costs some milliseconds a process.
    """

    def __init__(self, period_s: float = 3.0) -> None:
        self.histories: dict[int, History] = {}
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Self:
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
                name, held = process_name(process), memory(process.pid)
            except (OSError, KeyError, psutil.Error):
                continue  # it has just ended
            history = self.histories.setdefault(process.pid, History(name))
            history.samples.append(Sample(time.monotonic(), held.own_bytes, held.peak_bytes))


def max_growth_bytes(histories: Sequence[History], began_s: float, ended_s: float) -> int:
    """Returns the largest growth of a process from the second third of a span to the last."""
    third_s = (ended_s - began_s) / 3
    worst = 0
    for history in histories:
        second = history.most_own_bytes(began_s + third_s, ended_s - third_s)
        last = history.most_own_bytes(ended_s - third_s, ended_s)
        if second is not None and last is not None:
            worst = max(worst, last - second)
    return worst


def _fields(pid: int | str, name: str) -> dict[str, int]:
    """Returns the lines `Name: 12 kB` of a file of proc(5), in bytes."""
    values = {}
    for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            values[key] = int(words[0]) * 1024
    return values
