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
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from loadtests import load
from loadtests.harness import arrivals
from loadtests.harness.arrivals import MIXES, Mix
from loadtests.harness.clips import Clip, ClipLibrary
from loadtests.harness.loops import Probe, closed_loop, probe, send_arrivals, times
from loadtests.harness.report import Cell, Report, mib, parse, parser
from loadtests.harness.requests import (
    Caller,
    Fate,
    Outcome,
    Request,
    attempts_of,
    bad_refusals,
    count,
)
from loadtests.harness.watch import (
    History,
    Watch,
    max_growth_bytes,
    private_and_proportional_bytes,
)
from loadtests.serving import add_service_options, own_settings, service
from serve_app.scheduling.admission import MAX_RETRY_AFTER_S

_MIX = MIXES["short"]
_CLIP_S = 3.0
_SETTLE_S = 5.0
_REFUSED_PAUSE_S = 0.2
_NUM_WORKERS = 8
_NUM_PROCESSES_SHOWN = 16
_ALLOWED_GROWTH_BYTES = 32 * 2**20
_ALLOWED_SLOWDOWN = 1.25


def main(given: Sequence[str] | None = None) -> int:
    made = parser("overload", __doc__)
    add_service_options(made)
    add = made.add_argument
    add("--factor", type=float, default=3.0, help="times the capacity")
    add("--duration", type=float, default=180.0, help="s of overload")
    add("--capacity-s", type=float, default=15.0, help="s of the closed loop")
    add("--probes", type=int, default=40, help="clips before, and after")
    add("--seed", type=int, default=1)
    options = parse(made, given)
    with (
        tempfile.TemporaryDirectory() as directory,
        service(options.url, own_settings(options.set)) as url,
        Report("overload", options) as report,
    ):
        asyncio.run(_run(url, ClipLibrary(Path(directory)), options, report))
    return report.exit_code


async def _run(url: str, library: ClipLibrary, options: argparse.Namespace, report: Report) -> None:
    async with Caller(url, max_connections=1024) as caller:
        clips = [library.clip(audio_s) for audio_s in _MIX.weights]
        texts = await library.texts(clips, caller.text)
        request = Request(library.content(_CLIP_S), texts[library.clip(_CLIP_S)])
        report.say("measuring the idle service")
        before = await probe(caller, request, times(options.probes))
        with Watch() as watch:
            report.say("measuring its capacity")
            per_s, audio_per_s = await capacity(caller, library, texts, _MIX, options.capacity_s)
            dice = random.Random(options.seed)  # noqa: S311, nothing secret
            rate = arrivals.steady(per_s * options.factor)
            planned = arrivals.draw(rate, _MIX, options.duration, dice)
            table = report.table(load.TITLE, load.COLUMNS)
            report.say(f"sending {len(planned)} requests in {options.duration:.0f} s")
            began_s = time.monotonic()
            outcomes = await send_arrivals(caller, library, planned, texts)
        load.fill(report, table, outcomes)
        report.note(
            f"capacity, closed loop: {per_s:.1f} requests, {audio_per_s:.0f} s of audio a s"
        )
        histories = list(watch.histories.values())
        show_memory(report, watch.histories, began_s, began_s + options.duration)
        report.say("measuring the idle service again")
        await asyncio.sleep(_SETTLE_S)
        after = await probe(caller, request, times(options.probes))
    growth = max_growth_bytes(histories, began_s, began_s + options.duration)
    check(report, outcomes, growth, before, after)
    report.draw(partial(load.draw, outcomes))


async def capacity(
    caller: Caller, library: ClipLibrary, texts: Mapping[Clip, str], mix: Mix, seconds: float
) -> tuple[float, float]:
    """Returns how many requests, and how much audio, are answered right a second at most.

    A refusal is followed by a short pause, whatever its Retry-After says: the
    service is to be kept full.

    Raises:
        ValueError: nothing was answered right.
    """
    dice = random.Random(1)  # noqa: S311, nothing secret
    began_s = ended_s = time.monotonic()
    answered: list[float] = []

    def lengths() -> Iterator[float]:
        while time.monotonic() - began_s < seconds:
            yield mix.draw(dice)

    async def work(audio_s: float) -> None:
        nonlocal ended_s
        clip = library.clip(audio_s)
        tried = await caller.attempt(Request(library.content(audio_s), texts[clip]))
        if tried.fate is Fate.RIGHT:
            answered.append(clip.audio_s)
            ended_s = max(ended_s, tried.ended_s)
        else:
            await asyncio.sleep(_REFUSED_PAUSE_S)

    await closed_loop(lengths(), work, _NUM_WORKERS)
    if not answered:
        raise ValueError("the service answered nothing right")
    return len(answered) / (ended_s - began_s), sum(answered) / (ended_s - began_s)


def check(
    report: Report, outcomes: Sequence[Outcome], growth_bytes: int, before: Probe, after: Probe
) -> None:
    """Adds every promise with what became of it."""
    refusals = attempts_of(outcomes, Fate.REFUSED)
    bad = bad_refusals(refusals, MAX_RETRY_AFTER_S)
    waits_s = [refusal.retry_after_s or 0.0 for refusal in refusals] or [0.0]
    lost = sum(outcome.lost for outcome in outcomes)
    partial_ = count(outcomes, Fate.PARTIAL)
    accepted = sum(outcome.accepted for outcome in outcomes)
    others = len(outcomes) - accepted - len(refusals)
    report.promise(
        "accepted, then lost: 0",
        f"{accepted} accepted, {count(outcomes, Fate.RIGHT)} right, "
        f"{partial_} partial, {lost} lost",
        lost == partial_ == 0,
    )
    report.promise(
        f"every refusal a 429 with Retry-After 1 to {MAX_RETRY_AFTER_S:.0f} s",
        f"{len(refusals)} 429s ({min(waits_s):.0f} to {max(waits_s):.0f} s), {len(bad)} without; "
        f"{others} other refusals",
        bool(refusals) and not bad and others == 0,
    )
    report.promise(
        "memory of every process bounded",
        f"largest growth, last third over second: {mib(growth_bytes)} MiB",
        growth_bytes <= _ALLOWED_GROWTH_BYTES,
    )
    slowdown = after.slowdown_from(before)
    report.promise(
        "as fast as before",
        f"a 3 s clip, alone: {before.median_s:.3f} s before, {after.median_s:.3f} s after, the "
        f"yardstick {after.yardstick_s / before.yardstick_s:.2f} times as long: {slowdown:.2f}; "
        f"CPU {after.cpu_s / max(before.cpu_s, 1e-9):.2f}",
        slowdown <= _ALLOWED_SLOWDOWN and after.num_refused == after.num_other == 0,
    )


def show_memory(
    report: Report, histories: Mapping[int, History], began_s: float, ended_s: float
) -> None:
    """Adds a table of the processes with the most memory of their own, over time."""
    third_s = (ended_s - began_s) / 3
    spans = [(began_s + n * third_s, began_s + (n + 1) * third_s) for n in range(3)]
    spans = [(-float("inf"), began_s), *spans]
    report.table(
        "Anonymous memory in MiB, the most in each span",
        ("process", "before", "1st third", "2nd third", "3rd third", "PSS at the end"),
    )
    by_size = sorted(histories.items(), key=lambda item: -(item[1].most_own_bytes() or 0))
    for pid, history in by_size[:_NUM_PROCESSES_SHOWN]:
        values = [history.most_own_bytes(*span) for span in spans]
        cells: list[Cell] = [None if value is None else mib(value) for value in values]
        try:
            shared: Cell = mib(private_and_proportional_bytes(pid)[1])
        except OSError:
            shared = None
        report.row(history.name, *cells, shared)


if __name__ == "__main__":
    sys.exit(main())
