"""Does an overloaded service keep its word, stay small, and recover?

    python -m loadtests overload [--factor 3] [--duration 180]

Starts the demo profile on this machine, finds out in a closed loop how much of the
mix `short` it takes, and sends `factor` times that, open loop, for `duration` s.
The generator runs on the same cores as the service. Exit code 0 if

- every request that was accepted was answered with its whole, right text;
- there were refusals, each a 429 with a Retry-After from 1 s to the configured bound;
- no process held more of its own memory in the last third than in the second one,
  up to 32 MiB;
- a 3 s clip, alone, takes no more than 1.25 times what it took before, both divided by
  the time of a fixed computation beside them: the machine may have other work.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.bench.tables import Table
from loadtests.load import arrivals, reports
from loadtests.load.capacity import Capacity, measure_capacity
from loadtests.load.clips import ClipLibrary
from loadtests.load.generator import Bounds, Generator, Load, open_client
from loadtests.load.memory import History, MemoryWatch
from loadtests.load.mixes import MIXES
from loadtests.load.outcomes import Fate, Outcome, attempts_of, bad_refusals, count
from loadtests.load.probing import Probe, probe
from loadtests.load.target import machine, own_settings, service
from serve_app.scheduling.admission import MAX_RETRY_AFTER_S

_MIX = MIXES["short"]
_CLIP_S = 3.0
_SETTLE_S = 5.0
_ALLOWED_GROWTH_BYTES = 32 * 2**20
_ALLOWED_SLOWDOWN = 1.25


@dataclass(frozen=True, slots=True)
class Overload:
    """All that the run found out; the load lasted from `began_s` to `ended_s`."""

    capacity: Capacity
    outcomes: list[Outcome]
    histories: list[History]
    began_s: float
    ended_s: float
    before: Probe
    after: Probe


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and whether it was kept."""

    what: str
    found: str
    kept: bool


def main() -> int:
    options = _parser().parse_args()
    settings = own_settings(options.set or ())
    with tempfile.TemporaryDirectory() as directory, service(None, settings) as url:
        found = asyncio.run(_measure(url, ClipLibrary(Path(directory)), options))
    command = shlex.join(["python", "-m", "loadtests.overload", *sys.argv[1:]])
    bound_s = MAX_RETRY_AFTER_S
    summary = reports.report(
        found.outcomes, command=command, machine=machine(), max_retry_after_s=bound_s
    )
    checks = check(found, bound_s)
    memory = memory_table(found.histories, found.began_s, found.ended_s)
    offered = summary.offered_audio_s_per_s
    print(
        f"\ncapacity, closed loop: {found.capacity.requests_per_s:.1f} requests "
        f"and {found.capacity.audio_s_per_s:.0f} s of audio per s; then offered, open loop: "
        f"{offered:.0f} s of audio per s for {options.duration:.0f} s"
    )
    for table in (summary.table(), memory, _check_table(checks)):
        print(f"\n{table.text()}")
    reports.write(summary, found.outcomes, options.output)
    return 0 if all(each.kept for each in checks) else 1


async def _measure(url: str, library: ClipLibrary, options: argparse.Namespace) -> Overload:
    bounds = Bounds(max_connections=1024, grace_s=options.grace)
    lengths = [length.audio_s for length in _MIX.classes]
    clip = library.clip(_CLIP_S)
    content = library.path(clip).read_bytes()
    async with open_client(url, bounds) as client:
        texts = await library.texts((library.clip(audio_s) for audio_s in lengths), client)
        _tell("measuring the idle service")
        before = await probe(client, content, texts[clip], options.probes)
        with MemoryWatch() as watch:
            _tell("measuring its capacity")
            capacity = await measure_capacity(
                client, library, texts, _MIX, seconds=options.capacity_s, num_workers=8
            )
            rate = arrivals.steady(capacity.requests_per_s * options.factor)
            dice = random.Random(options.seed)  # noqa: S311, nothing secret
            planned = arrivals.draw(rate, _MIX, options.duration, dice)
            _tell(f"sending {len(planned)} requests in {options.duration:.0f} s")
            load = Load(planned, texts)
            began_s = time.monotonic()
            outcomes = await Generator(client, library, load, bounds).run()
            ended_s = began_s + options.duration
        _tell("measuring the idle service again")
        await _settled(client)
        after = await probe(client, content, texts[clip], options.probes)
    histories = list(watch.histories.values())
    return Overload(capacity, outcomes, histories, began_s, ended_s, before, after)


async def _settled(client: httpx.AsyncClient) -> None:
    await asyncio.sleep(_SETTLE_S)
    (await client.get("/readyz")).raise_for_status()


def check(found: Overload, max_retry_after_s: float) -> list[Check]:
    """Returns every promise with what became of it."""
    refusals = attempts_of(found.outcomes, Fate.REFUSED)
    bad = bad_refusals(refusals, max_retry_after_s)
    retry_after_s = [refusal.retry_after_s or 0.0 for refusal in refusals]
    lost = sum(outcome.lost for outcome in found.outcomes)
    partial = count(found.outcomes, Fate.PARTIAL)
    accepted = sum(outcome.accepted for outcome in found.outcomes)
    right = count(found.outcomes, Fate.RIGHT)
    others = len(found.outcomes) - accepted - len(refusals)
    growth = max_growth_bytes(found.histories, found.began_s, found.ended_s)
    slowdown = found.after.slowdown_from(found.before)
    yardstick = found.after.yardstick_s / found.before.yardstick_s
    cpu = found.after.cpu_s / found.before.cpu_s
    span = f"{min(retry_after_s):.0f} to {max(retry_after_s):.0f} s" if refusals else "none"
    return [
        Check(
            "accepted, then lost: 0",
            f"{accepted} accepted, {right} right, {partial} partial, {lost} lost",
            lost == partial == 0,
        ),
        Check(
            f"every refusal a 429 with Retry-After 1 to {max_retry_after_s:.0f} s",
            f"{len(refusals)} 429s ({span}), {len(bad)} without; {others} other refusals",
            bool(refusals) and not bad and others == 0,
        ),
        Check(
            "memory of every process bounded",
            f"largest growth, last third over second: {growth / 2**20:.1f} MiB",
            growth <= _ALLOWED_GROWTH_BYTES,
        ),
        Check(
            "as fast as before",
            f"a 3 s clip, alone: {found.before.median_s:.3f} s before, "
            f"{found.after.median_s:.3f} s after, the yardstick {yardstick:.2f} times as long: "
            f"{slowdown:.2f}; CPU {cpu:.2f}",
            slowdown <= _ALLOWED_SLOWDOWN and found.after.num_other == 0,
        ),
    ]


def max_growth_bytes(histories: list[History], began_s: float, ended_s: float) -> int:
    """Returns the largest growth of a process from the second third of the load to the last."""
    third_s = (ended_s - began_s) / 3
    worst = 0
    for history in histories:
        second = history.most_own_bytes(began_s + third_s, ended_s - third_s)
        last = history.most_own_bytes(ended_s - third_s, ended_s)
        if second is not None and last is not None:
            worst = max(worst, last - second)
    return worst


def memory_table(histories: list[History], began_s: float, ended_s: float) -> Table:
    """Returns the processes with the most memory of their own, over time, in MiB."""
    third_s = (ended_s - began_s) / 3
    spans = [(began_s + n * third_s, began_s + (n + 1) * third_s) for n in range(3)]
    spans = [(-float("inf"), began_s), *spans]
    rows = []
    for history in histories:
        values = [history.most_own_bytes(*span) for span in spans]
        cells = ["-" if value is None else f"{value / 2**20:.1f}" for value in values]
        most = max((value for value in values if value is not None), default=0)
        last = f"{history.last_proportional_bytes() / 2**20:.1f}"
        rows.append((most, (history.name, *cells, last)))
    rows.sort(key=lambda row: -row[0])
    return Table(
        "Anonymous memory in MiB, the most in each span",
        ("process", "before", "1st third", "2nd third", "3rd third", "PSS at the end"),
        tuple(cells for _, cells in rows[:16]),
    )


def _check_table(checks: list[Check]) -> Table:
    rows = tuple((each.what, each.found, "yes" if each.kept else "NO") for each in checks)
    return Table("Promises", ("promise", "found", "kept"), rows)


def _tell(message: str) -> None:
    print(message, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests overload", description=__doc__)
    add = parser.add_argument
    add("--factor", type=float, default=3.0, help="times the capacity")
    add("--duration", type=float, default=180.0, help="s of overload")
    add("--capacity-s", type=float, default=15.0, help="s of the closed loop")
    add("--probes", type=int, default=40, help="clips before, and after")
    add("--grace", type=float, default=120.0, help="s to wait for the last answers")
    add("--seed", type=int, default=1)
    add("--set", action="append", metavar="NAME=VALUE", help="setting of the service")
    add("--output", type=Path, default=Path("bench-results/overload"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
