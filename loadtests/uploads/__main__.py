"""Does any upload, however broken, hurt the service?

    python -m loadtests.uploads [--count 10000] [--seed 0]

Starts the demo profile on this machine and sends it mutated uploads: flipped
headers, truncations, bombs, other files, absurd sizes, forms that are none, chunked
and declared bodies that lie. Prints and writes a table of the answers by kind, the
processes that died, the files that were left and how memory grew. Exit code 0 if
nothing died, nothing was left, and every answer was the right one (`send_case` says
how a mutation that is still audio is told from one that is not).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loadtests.ports import free_port
from loadtests.uploads.bodies import RawRequest, form, request, sized
from loadtests.uploads.files import prepare, valid_file
from loadtests.uploads.sending import KINDS, NO_ANSWER, Outcome, exchange, send_case
from loadtests.uploads.watching import Process, replicas
from serve_app.audio import AudioLimits
from serve_app.cluster import prepare_environment, running
from serve_app.settings import Settings

# Short, so that a bomb without a declared length is over it soon.
_MAX_AUDIO_S = 20.0
_NUM_SENDERS = 6
_WARM_UP_SHARE = 0.1
_ALLOWED_GROWTH_BYTES = 64 * 2**20
_FIRST_SERVER_ERROR = 500
_NUM_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Run:
    """All that was seen."""

    outcomes: list[Outcome]
    started: dict[int, Process]
    warm: dict[int, Process]
    ended: dict[int, Process]
    left_files: list[str]
    healthy: bool
    elapsed_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-minutes", type=float, default=15.0)
    parser.add_argument("--output", type=Path, default=Path("bench-results/uploads.md"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paraserve-spool-") as spool_dir:
        settings = Settings.model_validate(
            {
                "profile": "demo",
                "http": {"port": free_port()},
                "audio": {"spool_dir": spool_dir, "max_duration_s": _MAX_AUDIO_S},
            }
        )
        prepare_environment(settings)
        prepare()
        with running(settings, lambda message: print(message, flush=True)):
            run = _run(
                settings, Path(spool_dir), arguments.count, arguments.seed, arguments.max_minutes
            )
    report, right = _report(run, arguments.count)
    print(report)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(report + "\n", encoding="utf-8")
    return 0 if right else 1


def _run(settings: Settings, spool_dir: Path, count: int, seed: int, max_minutes: float) -> Run:
    begun = time.monotonic()
    deadline = begun + max_minutes * 60
    started = replicas(spool_dir)
    seeds = iter(range(seed * 1_000_000, seed * 1_000_000 + count))
    num_warm = int(count * _WARM_UP_SHARE)
    outcomes = _send(settings, seeds, num_warm, deadline)
    warm = replicas(spool_dir)
    outcomes += _send(settings, seeds, count - num_warm, deadline)
    # What the last senders left under way must have ended as well.
    healthy = _is_healthy(settings)
    quiet_by = time.monotonic() + 15
    while sum(p.num_spooled for p in replicas(spool_dir).values()) and time.monotonic() < quiet_by:
        time.sleep(0.5)
    return Run(
        outcomes,
        started,
        warm,
        replicas(spool_dir),
        os.listdir(spool_dir),
        healthy,
        time.monotonic() - begun,
    )


def _send(settings: Settings, seeds: Iterator[int], count: int, deadline: float) -> list[Outcome]:
    limits = AudioLimits(
        max_duration_s=settings.audio.max_duration_s, min_duration_s=settings.audio.min_duration_s
    )
    outcomes: list[Outcome] = []

    def send(seed: int) -> Outcome | None:
        if time.monotonic() > deadline:
            return None
        return send_case(settings.http.port, seed, limits)

    with ThreadPoolExecutor(_NUM_SENDERS) as pool:
        chosen = [seed for _, seed in zip(range(count), seeds, strict=False)]
        for outcome in pool.map(send, chosen):
            if outcome is not None:
                outcomes.append(outcome)
                if len(outcomes) % 500 == 0:
                    print(f"{len(outcomes)} of {count}", flush=True)
    return outcomes


def _is_healthy(settings: Settings) -> bool:
    """Whether a good recording is still transcribed."""
    body = form(valid_file("wav"))
    status, _ = exchange(settings.http.port, RawRequest(request(body, sized(body)), "4xx or 200"))
    return status == 200


def _report(run: Run, count: int) -> tuple[str, bool]:
    wrong = [outcome for outcome in run.outcomes if not outcome.right]
    server_errors = [o for o in run.outcomes if o.status >= _FIRST_SERVER_ERROR]
    died = sorted(set(run.started) - set(run.ended))
    spooled = sum(process.num_spooled for process in run.ended.values())
    growth = {
        pid: run.ended[pid].own_bytes - run.warm[pid].own_bytes
        for pid in run.ended
        if pid in run.warm
    }
    lines = [*_table(run.outcomes), ""]
    lines += [
        f"- sent {len(run.outcomes)} of {count} in {run.elapsed_s:.0f} s",
        f"- processes that died: {len(died)}; 5xx: {len(server_errors)}",
        f"- files left in the spool directory: {len(run.left_files)} named, {spooled} open",
        f"- answers other than expected: {len(wrong)}",
        f"- a good recording afterwards: {'transcribed' if run.healthy else 'NOT transcribed'}",
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
        and bool(run.started)
        and max(growth.values(), default=0) <= _ALLOWED_GROWTH_BYTES
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


if __name__ == "__main__":
    sys.exit(main())
