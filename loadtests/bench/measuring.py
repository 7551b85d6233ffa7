"""Clocks, memory of processes, and measurements in fresh child processes."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_MARK = "RESULT "  # FunASR prints to stdout, too
_SETTLE_S = 60

# One thread, and none that spins while it waits; read when OpenMP is loaded, so
# that only a child process can be given them.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work took: by the clock, and of all cores together."""

    wall_s: float
    cpu_s: float


class Meter:
    """Measures a `with` block; `cost` is there after it."""

    cost: Cost

    def __enter__(self) -> Meter:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cost = Cost(time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s)


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Returns the medians of both clocks, each for itself.

    Raises:
        ValueError: there are no costs.
    """
    if not costs:
        raise ValueError("no measurements")
    return Cost(
        statistics.median(cost.wall_s for cost in costs),
        statistics.median(cost.cpu_s for cost in costs),
    )


def interleaved(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, Cost]:
    """Measures each work `repeats` times in turns; returns the median of each.

    In turns, because a machine that is slow for a minute would else be held
    against the one that ran then.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            with Meter() as meter:
                work()
            costs[name].append(meter.cost)
    return {name: median_cost(measured) for name, measured in costs.items()}


class Stopwatch:
    """Adds up the CPU time of methods, by the thread that runs them."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    def watch(self, owner: object, method: str, stage: str) -> None:
        """Replaces a method of an object, or of a class, by one that is timed."""
        original: Callable[..., object] = getattr(owner, method)

        def timed(*args: object, **kwargs: object) -> object:
            before_s = time.thread_time()
            try:
                return original(*args, **kwargs)
            finally:
                spent_s = time.thread_time() - before_s
                self.spent_s[stage] = self.spent_s.get(stage, 0.0) + spent_s

        setattr(owner, method, timed)

    def watch_iteration(self, owner: object, method: str, stage: str) -> None:
        """As `watch`, for a method that returns an iterator: what each step takes."""
        original: Callable[..., Iterator[object]] = getattr(owner, method)

        def timed(*args: object, **kwargs: object) -> Iterator[object]:
            steps = original(*args, **kwargs)
            while True:
                before_s = time.thread_time()
                step = next(steps, None)
                spent_s = time.thread_time() - before_s
                self.spent_s[stage] = self.spent_s.get(stage, 0.0) + spent_s
                if step is None:
                    return
                yield step

        setattr(owner, method, timed)


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that a process has ever held, or since `forget_peak`."""
    return _from_proc(f"/proc/{pid}/status", "VmHWM")


def resident_bytes(pid: int | str = "self") -> int:
    """The memory that a process holds, shared pages included."""
    return _from_proc(f"/proc/{pid}/status", "VmRSS")


def private_bytes(pid: int) -> int:
    """The memory that ends with this process: nobody else has its pages."""
    path = f"/proc/{pid}/smaps_rollup"
    return _from_proc(path, "Private_Clean") + _from_proc(path, "Private_Dirty")


def proportional_bytes(pid: int) -> int:
    """Memory with each shared page divided by the number of its owners."""
    return _from_proc(f"/proc/{pid}/smaps_rollup", "Pss")


def forget_peak() -> None:
    """Lets this process' peak begin anew at what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def _from_proc(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise OSError(f"{path} has no {key}")


def report(result: object) -> None:
    """Hands the result of a child, anything that JSON holds, to its parent."""
    print(_MARK + json.dumps(result), flush=True)


class Child:
    """A module run in a fresh interpreter; waits on `release` if it calls `hold`."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", module, *arguments],
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> object:
        """Reads what the child reports.

        Raises:
            RuntimeError: it ended without a report.
        """
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            if line.startswith(_MARK):
                parsed: object = json.loads(line.removeprefix(_MARK))
                return parsed
        raise RuntimeError(f"the child process ended with code {self._process.wait()}")

    def release(self) -> None:
        """Lets the child end, and waits for it."""
        self._process.communicate("\n", timeout=_SETTLE_S)


def run_child(module: str, arguments: Sequence[str]) -> object:
    """Runs a module in a fresh interpreter and returns what it reports."""
    child = Child(module, arguments)
    try:
        return child.result()
    finally:
        child.release()


def hold() -> None:
    """Keeps this child alive until its parent has looked at its memory."""
    sys.stdin.readline()


def machine() -> str:
    """One line on where the numbers were taken."""
    import torch

    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, load {load:.1f} before; "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, 1 thread"
    )
