"""Measurements in fresh child processes, and the clocks of all measurements."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from loadtests.harness.report import Cell, Report, Table

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

    def __enter__(self) -> Self:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.cost = Cost(time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s)


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Returns the medians of both clocks, each for itself.

    Raises:
        StatisticsError: there are no costs.
    """
    return Cost(
        statistics.median(cost.wall_s for cost in costs),
        statistics.median(cost.cpu_s for cost in costs),
    )


def rounds(works: Mapping[str, Callable[[], object]], repeats: int) -> Iterator[dict[str, Cost]]:
    """Measures each work `repeats` times in turns; yields the medians after each turn.

    In turns, because a machine that is slow for a minute would else be held
    against the one that ran then.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            with Meter() as meter:
                work()
            costs[name].append(meter.cost)
        yield {name: median_cost(measured) for name, measured in costs.items()}


def send(result: object) -> None:
    """Hands a result, anything that JSON holds, from a child to its parent."""
    print(_MARK + json.dumps(result), flush=True)


def send_tables(*tables: Table, bars: Sequence[tuple[str, Sequence[Cell], Sequence[Cell]]]) -> None:
    """Hands the tables that a child has so far to its parent; `bars` as in `Report.bars`."""
    send([[asdict(table) for table in tables], bars])


def hold() -> None:
    """Keeps this child alive until its parent has looked at its memory."""
    sys.stdin.readline()


class Child:
    """A module run in a fresh interpreter; waits on `release` if it calls `hold`."""

    def __init__(self, module: str, *arguments: str) -> None:
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

    def results(self) -> Iterator[object]:
        """Yields what the child sends, until it ends.

        Raises:
            RuntimeError: it ended with an error.
        """
        for line in self._process.stdout or ():
            if line.startswith(_MARK):
                yield json.loads(line.removeprefix(_MARK))
        if code := self._process.wait():
            raise RuntimeError(f"the child process ended with code {code}")

    def result(self) -> object:
        """Returns the next thing that the child sends.

        Raises:
            RuntimeError: it ended without it.
        """
        for result in self.results():
            return result
        raise RuntimeError("the child process ended without a result")

    def release(self) -> None:
        """Lets the child end, and waits for it."""
        self._process.communicate("\n", timeout=_SETTLE_S)


def run_child(module: str, *arguments: str) -> object:
    """Runs a module in a fresh interpreter and returns what it sends."""
    child = Child(module, *arguments)
    try:
        return child.result()
    finally:
        child.release()


def show_child(report: Report, module: str, *arguments: str) -> None:
    """Runs a module in a fresh interpreter; its tables are in the report, as far as they are."""
    first = len(report.tables)
    child = Child(module, *arguments)
    try:
        result: Any  # of `send_tables`
        for result in child.results():
            tables, bars = result
            report.tables[first:] = [
                Table(t["title"], tuple(t["columns"]), [*map(tuple, t["rows"])], t["notes"])
                for t in tables
            ]
            report.bars(*bars)
            report.save()
    finally:
        child.release()
