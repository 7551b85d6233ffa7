"""Is every request answered while replicas, the controller and nodes are killed?

    python -m loadtests chaos [--kills 24] [--duration 300] [--seed 1]

Runs a head and three worker nodes with two replicas of each deployment, and kills by a seeded
schedule while recordings of 3 s to 10 min are sent. What is promised: a request whose ingress
lives is answered, whichever other process dies. A request whose ingress dies ends with its
connection, and only its client can send it again; OpenAI's clients do so by themselves. Such
breaks are counted apart. Exit code 0 if nothing was lost or wrong over enough kills.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests.chaos.kills import Death, Kill, KillRunner, Target, plan_kills
from loadtests.harness import arrivals
from loadtests.harness.arrivals import Mix
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import send_arrivals
from loadtests.harness.nodes import application, replicated_settings
from loadtests.harness.report import Report, parse, parser
from loadtests.harness.requests import (
    Caller,
    Fate,
    Outcome,
    Retries,
    attempts_of,
    count,
    percentiles,
)

_MIX = Mix({3.0: 55, 15.0: 25, 60.0: 15, 600.0: 2})
_RETRIES = Retries(refusals=True, breaks=True)
_LEAST_KILLS = 20
_BLAMED_FOR_S = 20.0


def main(given: Sequence[str] | None = None) -> int:
    made = parser("chaos", __doc__)
    add = made.add_argument
    add("--kills", type=int, default=24)
    add("--duration", type=float, default=300.0, help="s of load")
    add("--rate", type=float, default=1.0, help="requests per second on average")
    add("--nodes", type=int, default=3, help="worker nodes")
    add("--seed", type=int, default=1)
    add("--grace", type=float, default=120.0, help="s to wait for the last answers")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="setting of the service")
    options = parse(made, given)
    # Before anything is started.
    dice = random.Random(options.seed)  # noqa: S311, nothing secret
    try:
        kills = plan_kills(options.kills, options.duration, dice)
    except ValueError as error:
        made.error(str(error))
    settings = replicated_settings(options.set)
    with (
        tempfile.TemporaryDirectory() as directory,
        application(settings, options.nodes) as (url, nodes),
        Report("chaos", options) as report,
    ):
        runner = KillRunner(nodes, settings.app_name, dice, report.say)
        library = ClipLibrary(Path(directory))
        outcomes = asyncio.run(_run(options, library, url, runner, kills, dice))
        show(report, outcomes, runner.deaths)
        judge(report, outcomes, len(runner.deaths), min(_LEAST_KILLS, options.kills))
    return report.exit_code


async def _run(
    options: argparse.Namespace,
    library: ClipLibrary,
    url: str,
    runner: KillRunner,
    kills: list[Kill],
    dice: random.Random,
) -> list[Outcome]:
    async with Caller(url, timeout_s=options.grace) as caller:
        clips = [library.clip(audio_s) for audio_s in _MIX.weights]
        texts = await library.texts(clips, caller.text)
        loads = []
        for stream in (False, True):
            rate = arrivals.steady(options.rate / 2)
            planned = arrivals.draw(rate, _MIX, options.duration, dice)
            loads.append(
                send_arrivals(
                    caller,
                    library,
                    planned,
                    texts,
                    stream=stream,
                    retries=_RETRIES,
                    grace_s=options.grace,
                )
            )
        killing = asyncio.create_task(runner.carry_out(kills, time.monotonic()))
        try:
            runs = await asyncio.gather(*loads)
        finally:
            if not killing.done():
                killing.cancel()
            (killed,) = await asyncio.gather(killing, return_exceptions=True)
    if isinstance(killed, Exception):
        raise killed
    return [outcome for run in runs for outcome in run]


def show(report: Report, outcomes: Sequence[Outcome], deaths: Sequence[Death]) -> None:
    """Adds what was killed, and what became of the requests."""
    breaks = [cause(broken.ended_s, deaths) for broken in attempts_of(outcomes, Fate.BROKEN)]
    whole = sum(death.whole for death in deaths)
    report.table(
        f"{len(deaths)} kills, {whole} after their target's recovery",
        ("target", "killed", "breaks seen by clients after it", "slowest right answer s"),
    )
    for target in Target:
        at_s = [death.at_s for death in deaths if death.target is target]
        report.row(target, len(at_s), breaks.count(target), f"{slowest_s(outcomes, at_s):.1f}")
    report.table("Requests", ("what became of them", "number"))
    wrong = count(outcomes, Fate.WRONG)
    not_taken = [outcome for outcome in outcomes if not outcome.accepted]
    rows = {
        "sent": len(outcomes),
        "accepted": len(outcomes) - len(not_taken),
        "answered right": count(outcomes, Fate.RIGHT),
        "partial": count(outcomes, Fate.PARTIAL),
        "wrong": wrong,
        "lost": sum(outcome.lost for outcome in outcomes) - wrong,
        "refused to the end": len(not_taken) - count(not_taken, Fate.UNAVAILABLE),
        "found nobody to the end": count(not_taken, Fate.UNAVAILABLE),
        "sent again by the client": sum(len(outcome.attempts) > 1 for outcome in outcomes),
        "connections broken under a client": len(breaks),
        "answered 503, or not connected": len(attempts_of(outcomes, Fate.UNAVAILABLE)),
        "answered 429": len(attempts_of(outcomes, Fate.REFUSED)),
    }
    report.rows(rows.items())
    took = percentiles([o.complete_s for o in outcomes if o.fate is Fate.RIGHT])
    latencies = ", ".join(f"{value or 0.0:.2f}" for value in (took.p50, took.p95, took.p99))
    report.note(f"complete, with all retries: p50, p95, p99 {latencies} s")
    for outcome in outcomes:
        if outcome.fate is not Fate.RIGHT:
            last = outcome.attempts[-1]
            report.note(
                f"{outcome.audio_s:.0f} s of audio, {last.fate} ({last.detail}) in attempt "
                f"{len(outcome.attempts)}, after the kill of a {cause(last.ended_s, deaths)}"
            )


def judge(report: Report, outcomes: Sequence[Outcome], num_kills: int, least_kills: int) -> None:
    """Adds the promises: everything that was not refused is answered, whole and right."""
    not_held = [
        outcome
        for outcome in outcomes
        if outcome.lost
        or outcome.fate is Fate.PARTIAL
        or (not outcome.accepted and outcome.fate is Fate.UNAVAILABLE)
    ]
    report.promise(
        "none lost, wrong, partial or without anybody who took it",
        f"{len(not_held)} of {len(outcomes)}",
        not not_held,
    )
    report.promise(f"at least {least_kills} kills", str(num_kills), num_kills >= least_kills)


def cause(at_s: float, deaths: Sequence[Death]) -> Target | None:
    """Returns what the last kill before a moment hit, if it was not long ago."""
    before = [death for death in deaths if 0 <= at_s - death.at_s <= _BLAMED_FOR_S]
    return before[-1].target if before else None


def slowest_s(outcomes: Sequence[Outcome], kills_s: Sequence[float]) -> float:
    """Returns the longest right answer that was under way at one of the kills."""
    return max(
        (
            outcome.complete_s
            for at_s in kills_s
            for outcome in outcomes
            if outcome.fate is Fate.RIGHT
            and outcome.due_s <= at_s <= outcome.due_s + outcome.complete_s
        ),
        default=0.0,
    )


if __name__ == "__main__":
    sys.exit(main())
