"""Does any upload, however broken, hurt the service?

    python -m loadtests uploads [--count 10000] [--seed 0]

Starts the demo profile on this machine and sends it mutated uploads: flipped
headers, truncations, bombs, other files, absurd sizes, forms that are none, chunked
and declared bodies that lie. Reports the answers by kind, the processes that died, the files
that were left, the memory of each process, and the CPU time of the slowest requests, each sent
again by itself. Exit code 0 if nothing died, nothing was left, nothing hung or grew, and every
answer was the right one (`send_case` says how a mutation that is still audio is told from one
that is not).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from loadtests.harness.clips import repeated
from loadtests.harness.report import Cell, Report, mib, parse, parser
from loadtests.harness.watch import (
    cluster_cpu_s,
    memory,
    num_open_files,
    own_processes,
    process_name,
)
from loadtests.serving import own_settings, service
from loadtests.uploads.cases import KINDS, NO_ANSWER, Outcome, send_case
from loadtests.uploads.files import prepare
from serve_app.audio import AudioLimits
from serve_app.client import ClientError, Paraserve

# Short, so that a bomb without a declared length is over it soon.
MAX_AUDIO_S = 20.0
_MAX_CPU_S = 5.0
"""Of one request; one that uses more hangs."""
_MAX_GROWTH_BYTES = 64 * 2**20
_MAX_PEAK_BYTES = 10**9
_MAX_QUIET_SHARE = 0.25
"""Of one core, which the idle service does not reach."""
_NUM_SENDERS = 6
_WARM_UP_SHARE = 0.1
_NUM_SLOWEST = 20
_NUM_SHOWN = 20
_SETTLING_S = 0.3
_QUIET_S = 2.0
_SPOOL_LIMIT_S = 15.0
_REPLICA = "ray::ServeReplica"
_PROCESSES = (_REPLICA, "ray::ServeController", "ray::HAProxyManager", "ray::ProxyActor")
_PROGRAMS = ("raylet", "gcs_server", "haproxy")


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the service.

    Attributes:
        name: as Ray calls it, or the program's.
        own_bytes: anonymous memory, which no other process shares.
        peak_bytes: most physical memory that it has had, shared pages included.
        num_spooled: open files in the spool directory, unnamed ones included.
    """

    name: str
    own_bytes: int
    peak_bytes: int
    num_spooled: int


@dataclass(frozen=True, slots=True)
class Run:
    """All that was seen.

    Attributes:
        outcomes: of all requests.
        started: processes before the first request.
        warm: after the first tenth.
        ended: after the last one.
        left_files: in the spool directory.
        healthy: whether a good recording is still transcribed.
        cpu_s: of the slowest requests, by kind and seed, each sent again alone.
        idle_cpu_share: of a core that the service still used when all was answered.
    """

    outcomes: list[Outcome]
    started: dict[int, Process]
    warm: dict[int, Process]
    ended: dict[int, Process]
    left_files: list[str]
    healthy: bool
    cpu_s: dict[str, float]
    idle_cpu_share: float


def main(given: Sequence[str] | None = None) -> int:
    made = parser("uploads", __doc__)
    add = made.add_argument
    add("--count", type=int, default=10_000)
    add("--seed", type=int, default=0)
    add("--max-minutes", type=float, default=15.0)
    options = parse(made, given)
    with tempfile.TemporaryDirectory(prefix="paraserve-spool-") as spool_dir:
        settings = own_settings(
            (f"audio.spool_dir={spool_dir}", f"audio.max_duration_s={MAX_AUDIO_S}")
        )
        limits = AudioLimits(MAX_AUDIO_S, min_duration_s=settings.audio.min_duration_s)
        with service(None, settings) as url, Report("uploads", options) as report:
            judge(report, run(url, Path(spool_dir), limits, options, report), options.count)
    return report.exit_code


def run(
    url: str, spool_dir: Path, limits: AudioLimits, options: argparse.Namespace, report: Report
) -> Run:
    """Sends the cases, and looks at the service before, meanwhile and afterwards."""
    prepare()
    port = urlsplit(url).port or 80
    deadline = time.monotonic() + options.max_minutes * 60
    seeds = iter(range(options.seed * 1_000_000, options.seed * 1_000_000 + options.count))
    num_warm = int(options.count * _WARM_UP_SHARE)
    report.table("Answers by mutation", ("mutation", "sent", "as expected"))
    outcomes: list[Outcome] = []

    def send(number: int) -> None:
        for outcome in _send(port, seeds, number, limits, deadline):
            outcomes.append(outcome)
            if len(outcomes) % 500 == 0:
                report.say(f"{len(outcomes)} of {options.count}")
                _show(report, outcomes)

    started = _processes(spool_dir)
    send(num_warm)
    warm = _processes(spool_dir)
    send(options.count - num_warm)
    _show(report, outcomes)
    # What the last senders left under way must have ended as well.
    healthy = _is_healthy(url)
    quiet_by = time.monotonic() + _SPOOL_LIMIT_S
    while _num_spooled(_processes(spool_dir)) and time.monotonic() < quiet_by:
        time.sleep(0.5)
    idle_share = _cpu_s_during(lambda: time.sleep(_QUIET_S)) / _QUIET_S
    cpu_s = _repeat_slowest(port, limits, outcomes)
    left = os.listdir(spool_dir)
    return Run(outcomes, started, warm, _processes(spool_dir), left, healthy, cpu_s, idle_share)


def _send(
    port: int, seeds: Iterator[int], count: int, limits: AudioLimits, deadline: float
) -> Iterator[Outcome]:
    def send(seed: int) -> Outcome | None:
        return None if time.monotonic() > deadline else send_case(port, seed, limits)

    with ThreadPoolExecutor(_NUM_SENDERS) as pool:
        chosen = [seed for _, seed in zip(range(count), seeds, strict=False)]
        yield from (outcome for outcome in pool.map(send, chosen) if outcome is not None)


def _repeat_slowest(port: int, limits: AudioLimits, outcomes: list[Outcome]) -> dict[str, float]:
    """Sends again, one at a time, what took longest; more CPU than time on every core is none."""
    by_time = sorted(outcomes, key=lambda outcome: outcome.elapsed_s, reverse=True)
    least_s = _MAX_CPU_S / (os.cpu_count() or 1)
    num_suspects = sum(outcome.elapsed_s >= least_s for outcome in by_time)
    spent_s = {}
    for one in by_time[: max(_NUM_SLOWEST, num_suspects)]:

        def again(seed: int = one.seed) -> None:
            send_case(port, seed, limits)
            time.sleep(_SETTLING_S)

        spent_s[f"{one.kind}, seed {one.seed}"] = _cpu_s_during(again)
    return spent_s


def _cpu_s_during(act: Callable[[], None]) -> float:
    before_s = cluster_cpu_s()
    act()
    return cluster_cpu_s() - before_s


def _processes(spool_dir: Path) -> dict[int, Process]:
    found = {}
    for process in own_processes():
        with suppress(OSError, KeyError, psutil.Error):
            name = process_name(process)
            if not name.startswith((*_PROCESSES, *_PROGRAMS)):
                continue
            held, spooled = memory(process.pid), num_open_files(process.pid, spool_dir)
            found[process.pid] = Process(name, held.own_bytes, held.peak_bytes, spooled)
    return found


def _num_spooled(processes: dict[int, Process]) -> int:
    return sum(process.num_spooled for process in processes.values())


def _is_healthy(url: str) -> bool:
    """Whether a good recording is still transcribed."""
    with Paraserve(url, "", max_retries=0) as client:
        try:
            return bool(client.transcribe(repeated(3.0)).text)
        except ClientError:
            return False


def _show(report: Report, outcomes: Sequence[Outcome]) -> None:
    statuses = sorted({outcome.status for outcome in outcomes})
    names = ["no answer" if status == NO_ANSWER else str(status) for status in statuses]
    report.tables[0].columns = ("mutation", "sent", *names, "as expected")
    rows: list[tuple[Cell, ...]] = []
    for kind in KINDS:
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind]
        counts = Counter(outcome.status for outcome in of_kind)
        num_right = sum(outcome.right for outcome in of_kind)
        rows.append((kind, len(of_kind), *(counts[status] for status in statuses), num_right))
    report.rows(rows, report.tables[0])


def judge(report: Report, run: Run, count: int) -> None:
    """Adds the memory of the processes, and what was promised of a run of `count` requests."""
    wrong = [outcome for outcome in run.outcomes if not outcome.right]
    num_server_errors = sum(outcome.status >= 500 for outcome in run.outcomes)
    num_died = len(set(run.started) - set(run.ended))
    spooled = _num_spooled(run.ended)
    report.table("Memory of the replicas, MiB", ("process", "own", "since the first tenth", "peak"))
    growth = [0]
    for pid, process in run.ended.items():
        if pid in run.warm and process.name.startswith(_REPLICA):
            growth.append(process.own_bytes - run.warm[pid].own_bytes)
            own, peak = mib(process.own_bytes), mib(process.peak_bytes)
            report.row(process.name, own, f"{growth[-1] / 2**20:+.1f}", peak)
    for one in wrong[:_NUM_SHOWN]:
        text = f"{one.status} instead of {one.expected}: {one.text[:160]!r}"
        report.note(f"{one.kind}, seed {one.seed}: {text}")
    largest = max(run.ended.values(), key=lambda process: process.peak_bytes)
    slowest = max(run.cpu_s, key=lambda name: run.cpu_s[name])
    replicas = any(process.name.startswith(_REPLICA) for process in run.started.values())
    for promise, found, kept in (
        ("all sent in time", f"{len(run.outcomes)} of {count}", len(run.outcomes) == count),
        (
            "no process dies",
            f"{num_died} of {len(run.started)}",
            num_died == 0 and replicas,
        ),
        ("no 5xx", str(num_server_errors), num_server_errors == 0),
        ("every answer as expected", f"{len(wrong)} are not", not wrong),
        (
            "no file left in the spool directory",
            f"{len(run.left_files)} named, {spooled} open",
            not run.left_files and spooled == 0,
        ),
        ("a good recording is transcribed afterwards", str(run.healthy), run.healthy),
        (
            f"no process ever above {_MAX_PEAK_BYTES / 1e6:.0f} MB",
            f"{largest.peak_bytes / 1e6:.0f} MB, {largest.name}",
            largest.peak_bytes <= _MAX_PEAK_BYTES,
        ),
        (
            f"no replica grows by more than {mib(_MAX_GROWTH_BYTES):.0f} MiB",
            f"{mib(max(growth))} MiB since the first tenth",
            max(growth) <= _MAX_GROWTH_BYTES,
        ),
        (
            f"no request takes more than {_MAX_CPU_S:.0f} s of CPU",
            f"{run.cpu_s[slowest]:.2f} s, {slowest}, of the {len(run.cpu_s)} slowest",
            run.cpu_s[slowest] <= _MAX_CPU_S,
        ),
        (
            "idle when all was answered",
            f"{run.idle_cpu_share:.2f} of a core",
            run.idle_cpu_share <= _MAX_QUIET_SHARE,
        ),
    ):
        report.promise(promise, found, kept)


if __name__ == "__main__":
    sys.exit(main())
