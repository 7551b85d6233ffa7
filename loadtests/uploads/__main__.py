"""Does any upload, however broken, hurt the service?

    python -m loadtests uploads [--count 10000] [--seed 0]

Starts the demo profile on this machine and sends it mutated uploads: flipped
headers, truncations, bombs, other files, absurd sizes, forms that are none, chunked
and declared bodies that lie. Prints and writes a table of the answers by kind, the
processes that died, the files that were left, the memory of each process, and the CPU
time of the slowest requests, each sent again by itself. Exit code 0 if nothing died,
nothing was left, nothing hung or grew, and every answer was the right one (`send_case`
says how a mutation that is still audio is told from one that is not).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from loadtests.ports import free_port
from loadtests.uploads.bodies import RawRequest, form, request, sized
from loadtests.uploads.files import prepare, valid_file
from loadtests.uploads.reports import MAX_CPU_S, Repetition, Run, report
from loadtests.uploads.sending import Outcome, exchange, send_case
from loadtests.uploads.watching import cpu_s, service_processes
from serve_app.audio import AudioLimits
from serve_app.launch import prepare_environment, running
from serve_app.settings import Settings

# Short, so that a bomb without a declared length is over it soon.
_MAX_AUDIO_S = 20.0
_NUM_SENDERS = 6
_WARM_UP_SHARE = 0.1
_NUM_SLOWEST = 20
_SETTLING_S = 0.3
_QUIET_S = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests uploads", description=__doc__)
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
    text, right = report(run, arguments.count)
    print(text)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0 if right else 1


def _run(settings: Settings, spool_dir: Path, count: int, seed: int, max_minutes: float) -> Run:
    begun = time.monotonic()
    deadline = begun + max_minutes * 60
    started = service_processes(spool_dir)
    seeds = iter(range(seed * 1_000_000, seed * 1_000_000 + count))
    num_warm = int(count * _WARM_UP_SHARE)
    outcomes = _send(settings, seeds, num_warm, deadline)
    warm = service_processes(spool_dir)
    outcomes += _send(settings, seeds, count - num_warm, deadline)
    elapsed_s = time.monotonic() - begun
    # What the last senders left under way must have ended as well.
    healthy = _is_healthy(settings)
    quiet_by = time.monotonic() + 15
    while _num_spooled(spool_dir) and time.monotonic() < quiet_by:
        time.sleep(0.5)
    idle_cpu_share = _cpu_s_during(spool_dir, lambda: time.sleep(_QUIET_S)) / _QUIET_S
    slowest = _repeat_slowest(settings, spool_dir, outcomes)
    return Run(
        outcomes,
        started,
        warm,
        service_processes(spool_dir),
        os.listdir(spool_dir),
        healthy,
        elapsed_s,
        slowest,
        idle_cpu_share,
    )


def _repeat_slowest(
    settings: Settings, spool_dir: Path, outcomes: list[Outcome]
) -> list[Repetition]:
    """Sends again, one at a time, what took longest; more CPU than time on every core is none."""
    by_time = sorted(outcomes, key=lambda outcome: outcome.elapsed_s, reverse=True)
    least_s = MAX_CPU_S / (os.cpu_count() or 1)
    suspects = [o for o in by_time if o.elapsed_s >= least_s]
    chosen = by_time[: max(_NUM_SLOWEST, len(suspects))]
    limits = _limits(settings)

    def send(seed: int) -> None:
        send_case(settings.http.port, seed, limits)
        time.sleep(_SETTLING_S)

    return [
        Repetition(one.kind, one.seed, _cpu_s_during(spool_dir, partial(send, one.seed)))
        for one in chosen
    ]


def _cpu_s_during(spool_dir: Path, act: Callable[[], None]) -> float:
    pids = list(service_processes(spool_dir))
    before_s = cpu_s(pids)
    act()
    return cpu_s(pids) - before_s


def _num_spooled(spool_dir: Path) -> int:
    return sum(process.num_spooled for process in service_processes(spool_dir).values())


def _limits(settings: Settings) -> AudioLimits:
    return AudioLimits(
        max_duration_s=settings.audio.max_duration_s, min_duration_s=settings.audio.min_duration_s
    )


def _send(settings: Settings, seeds: Iterator[int], count: int, deadline: float) -> list[Outcome]:
    limits = _limits(settings)
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
    answer = exchange(settings.http.port, RawRequest(request(body, sized(body)), "200"))
    return answer.status == 200


if __name__ == "__main__":
    sys.exit(main())
