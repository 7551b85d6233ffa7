"""How long the service takes to start, and which of its processes need the time.

    python -m loadtests start [--repeats 5] [--set NAME=VALUE ...]

Starts `paraserve serve` and stops it once `/readyz` answers 200. CPU time and memory are those of
each process at that moment, by the median start.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from loadtests.harness.report import Report, parse, parser
from loadtests.serving import start_serving
from serve_app.launch import wait_until_ready

_READY_S = 300.0
_MIB = 2**20
_NAMES = {
    "ServeReplica:paraserve:": "replica ",
    "ServeController": "Serve: controller",
    "ProxyActor": "Serve: proxy",
    "HAProxyManager": "Serve: HAProxy manager",
    "bin/haproxy": "HAProxy",
    "serve_app.hosting": "guards",
    "gcs_server": "Ray: control store",
    "bin/raylet": "Ray: raylet",
    "raylet/raylet": "Ray: raylet",
    "serve_app.cli.main": "paraserve serve",
}
"""Kinds of processes by what their command lines hold; the first that fits."""
_OTHERS = "Ray: agents, dashboard, monitor"


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of process at the moment when the service was ready.

    Attributes:
        began_s: when its first process was created, from the start of the command.
        cpu_s: of all of them.
        rss_mib: of all of them.
    """

    began_s: float
    cpu_s: float
    rss_mib: float


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        ready_s: until `/readyz` answered 200.
        parts: by the name of their kind.
    """

    ready_s: float
    parts: dict[str, Part]

    @property
    def cpu_s(self) -> float:
        return sum(part.cpu_s for part in self.parts.values())


def main(given: Sequence[str] | None = None) -> int:
    made = parser("start", __doc__)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parse(made, given)
    with Report("start", options) as report:
        starts = _starts(options, report)
        report.table("Starts", ("start", "ready s", "CPU s"))
        for number, each in enumerate(starts, 1):
            report.row(number, round(each.ready_s, 1), round(each.cpu_s, 1))
        report.note(f"median {statistics.median(each.ready_s for each in starts):.1f} s")
        median = sorted(starts, key=lambda each: each.ready_s)[len(starts) // 2]
        report.table("Processes of the median start", ("process", "begins at s", "CPU s", "MiB"))
        for name, part in sorted(median.parts.items(), key=lambda item: item[1].began_s):
            report.row(name, round(part.began_s, 1), round(part.cpu_s, 2), round(part.rss_mib))
    return report.exit_code


def _starts(options: argparse.Namespace, report: Report) -> list[Start]:
    starts = []
    for _ in range(options.repeats):
        starts.append(measured(options.set))
        report.say(f"ready after {starts[-1].ready_s:.1f} s")
    return starts


def measured(assignments: Sequence[str]) -> Start:
    """Starts the service once; returns what it took.

    Args:
        assignments: settings, `NAME=VALUE` each.
    """
    began_s = time.monotonic()
    created_s = time.time()
    service = start_serving(*assignments, output=subprocess.DEVNULL)
    try:
        wait_until_ready(service.url, _READY_S)
        ready_s = time.monotonic() - began_s
        processes = [psutil.Process(service.process.pid), *service.descendants()]
        return Start(ready_s, _parts(processes, created_s))
    finally:
        service.stop()


def _parts(processes: Sequence[psutil.Process], created_s: float) -> dict[str, Part]:
    kinds: dict[str, list[Part]] = defaultdict(list)
    for process in processes:
        with suppress(psutil.Error):
            user_s, system_s, *_ = process.cpu_times()
            part = Part(
                process.create_time() - created_s,
                user_s + system_s,
                process.memory_info().rss / _MIB,
            )
            kinds[_kind(" ".join(process.cmdline()))].append(part)
    return {
        name: Part(
            min(part.began_s for part in parts),
            sum(part.cpu_s for part in parts),
            sum(part.rss_mib for part in parts),
        )
        for name, parts in kinds.items()
    }


def _kind(line: str) -> str:
    for mark, name in _NAMES.items():
        if mark in line:
            rest = line.split(mark, 1)[1].split()
            return f"{name}{rest[0].split('.')[0]}" if name.endswith(" ") and rest else name
    return _OTHERS


if __name__ == "__main__":
    sys.exit(main())
