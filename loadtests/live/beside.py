"""Clips over HTTP, with and without people who speak beside them."""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import Probe, joined, probe, times
from loadtests.harness.report import Report
from loadtests.harness.requests import Caller, Request, percentiles
from loadtests.live.results import LiveResult, add_result, add_table, promise_text
from loadtests.live.service import live_service, measure, warm_up

_CLIP_S = 3.0
_SETTLE_S = 5.0
_MAX_RATIO = 1.5


def run(options: argparse.Namespace, report: Report) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        live_service(options) as url,
    ):
        warm_up(url)
        content = ClipLibrary(Path(directory)).content(_CLIP_S)
        rounds = asyncio.run(_rounds(url, content, options, report))
    alone, beside = (joined([pair[at] for pair in rounds]) for at in (0, 1))
    report.table(f"Clips of {_CLIP_S:g} s by HTTP", ("beside", "right", "other", "p50 s", "p95 s"))
    for name, found in (("nothing", alone), (f"{options.sessions} sessions", beside)):
        figures = percentiles(found.latencies_s)
        other = found.num_refused + found.num_other
        report.row(name, len(found.latencies_s), other, figures.p50, figures.p95)
    ratio = _p95_s(beside) / _p95_s(alone)
    promise = f"p95 beside sessions at most {_MAX_RATIO}x of without"
    report.promise(promise, f"{ratio:.2f}", ratio <= _MAX_RATIO)


async def _rounds(
    url: str, content: bytes, options: argparse.Namespace, report: Report
) -> list[tuple[Probe, Probe]]:
    """Returns of each round the clips alone and those beside the sessions."""
    rounds = []
    add_table(report, "The sessions beside the clips")
    async with Caller(url) as caller:
        request = Request(content, await caller.text(content))
        for number in range(options.rounds):
            report.say(f"round {number + 1}: {options.clips} clips alone")
            alone = await probe(caller, request, times(options.clips))
            report.say(f"round {number + 1}: clips beside {options.sessions} sessions")
            speaking = asyncio.create_task(measure(url, options.sessions, options.seconds))
            await asyncio.sleep(min(_SETTLE_S, options.seconds / 4))
            beside = await probe(caller, request, _while_running(speaking))
            result = await speaking
            add_result(report, result)
            promise_text(report, result)
            rounds.append((alone, beside))
    return rounds


def _while_running(task: asyncio.Task[LiveResult]) -> Callable[[int], bool]:
    return lambda _: not task.done()


def _p95_s(found: Probe) -> float:
    return percentiles(found.latencies_s).p95 or math.inf
