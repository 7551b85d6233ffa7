"""What a run of broken uploads found, as a table and a verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from loadtests.uploads.sending import KINDS, NO_ANSWER, Outcome
from loadtests.uploads.watching import Process

MAX_CPU_S = 5.0
"""Of one request; one that uses more hangs."""

_ALLOWED_GROWTH_BYTES = 64 * 2**20
_MAX_PEAK_BYTES = 10**9
_MAX_QUIET_SHARE = 0.25
"""Of one core, which the idle service does not reach."""
_FIRST_SERVER_ERROR = 500
_NUM_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Repetition:
    """One of the slowest requests, sent again while nothing else was.

    Attributes:
        kind: of the mutation.
        seed: repeats it.
        cpu_s: that all processes of the service used for it.
    """

    kind: str
    seed: int
    cpu_s: float


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
        elapsed_s: without the repetitions.
        slowest: repeated alone.
        idle_cpu_share: of a core that the service still used when all was answered.
    """

    outcomes: list[Outcome]
    started: dict[int, Process]
    warm: dict[int, Process]
    ended: dict[int, Process]
    left_files: list[str]
    healthy: bool
    elapsed_s: float
    slowest: list[Repetition]
    idle_cpu_share: float


def report(run: Run, count: int) -> tuple[str, bool]:
    """Returns what a run of `count` requests found, and whether all was as it should be."""
    wrong = [outcome for outcome in run.outcomes if not outcome.right]
    server_errors = [o for o in run.outcomes if o.status >= _FIRST_SERVER_ERROR]
    died = sorted(set(run.started) - set(run.ended))
    spooled = sum(process.num_spooled for process in run.ended.values())
    growth = {
        pid: process.own_bytes - run.warm[pid].own_bytes
        for pid, process in run.ended.items()
        if pid in run.warm and process.is_replica
    }
    largest = max(run.ended.values(), key=lambda process: process.peak_bytes)
    longest = max(run.slowest, key=lambda repetition: repetition.cpu_s)
    lines = [
        *_table(run.outcomes),
        "",
        f"- sent {len(run.outcomes)} of {count} in {run.elapsed_s:.0f} s",
        f"- processes that died: {len(died)} of {len(run.started)}; 5xx: {len(server_errors)}",
        f"- files left in the spool directory: {len(run.left_files)} named, {spooled} open",
        f"- answers other than expected: {len(wrong)}",
        f"- a good recording afterwards: {'transcribed' if run.healthy else 'NOT transcribed'}",
        f"- most memory of a process: {largest.peak_bytes / 1e6:.0f} MB, {largest.name}",
        f"- most CPU time of a request, of the {len(run.slowest)} slowest sent again alone: "
        f"{longest.cpu_s:.2f} s, {longest.kind}, seed {longest.seed}",
        f"- CPU when all was answered: {run.idle_cpu_share:.2f} of a core",
    ]
    lines += [
        f"- memory of {run.ended[pid].name}: {run.ended[pid].own_bytes / 2**20:.1f} MiB, "
        f"{grown / 2**20:+.1f} MiB since the first tenth"
        for pid, grown in growth.items()
    ]
    lines += [
        f"  - {o.kind}, seed {o.seed}: {o.status} instead of {o.expected}: {o.text[:160]!r}"
        for o in wrong[:_NUM_SHOWN]
    ]
    right = (
        len(run.outcomes) == count
        and not (wrong or server_errors or died or run.left_files or spooled)
        and run.healthy
        and any(process.is_replica for process in run.started.values())
        and max(growth.values(), default=0) <= _ALLOWED_GROWTH_BYTES
        and largest.peak_bytes <= _MAX_PEAK_BYTES
        and longest.cpu_s <= MAX_CPU_S
        and run.idle_cpu_share <= _MAX_QUIET_SHARE
    )
    return "\n".join(lines), right


def _table(outcomes: list[Outcome]) -> list[str]:
    statuses = sorted({outcome.status for outcome in outcomes})
    names = ["no answer" if status == NO_ANSWER else str(status) for status in statuses]
    lines = [
        f"| mutation | sent | {' | '.join(names)} | as expected |",
        "|---|" + "---:|" * (len(names) + 2),
    ]
    for kind in KINDS:
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind]
        counts = Counter(outcome.status for outcome in of_kind)
        cells = " | ".join(str(counts[status]) for status in statuses)
        num_right = sum(outcome.right for outcome in of_kind)
        lines.append(f"| {kind} | {len(of_kind)} | {cells} | {num_right} |")
    return lines
