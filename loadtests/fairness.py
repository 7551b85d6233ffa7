"""How long does a 3 s clip take while four one-hour files run?

    python -m loadtests fairness [--rounds 3] [--clips 25]

Starts the demo profile on this machine, told to work on eight requests at once (four
long files would fill its own three places, and the clip wait in line), and sends 3 s
clips one after another, in turns alone and beside four one-hour files that are sent
again as soon as they end.
Exit code 0 if the clip's p95 beside them is at most twice its p95 alone, and every
answer, the last four long ones included, was right.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import Probe, joined, probe, times
from loadtests.harness.report import Report, parse, parser
from loadtests.harness.requests import Attempt, Caller, Fate, Request, percentiles
from loadtests.harness.watch import cluster_cpu_s
from loadtests.serving import add_service_options, own_settings, service

_CLIP_S = 3.0
_PAUSE_S = 0.3
_TARGET = 2.0
_MAX_RUNNING = 8
_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 3600.0
_QUIET_TIMEOUT_S = 60
_QUIET_CORES = 0.25


def main(given: Sequence[str] | None = None) -> int:
    made = parser("fairness", __doc__)
    add_service_options(made)
    add = made.add_argument
    add("--rounds", type=int, default=3, help="of clips alone, then beside the files")
    add("--clips", type=int, default=25, help="in each half of a round")
    add("--files", type=int, default=4, help="long files at once")
    add("--minutes", type=float, default=60.0, help="length of a long file")
    options = parse(made, given)
    settings = own_settings((f"admission.max_running={_MAX_RUNNING}", *options.set))
    with (
        tempfile.TemporaryDirectory() as directory,
        service(options.url, settings) as url,
        Report("fairness", options) as report,
    ):
        asyncio.run(_run(url, ClipLibrary(Path(directory)), options, report))
    return report.exit_code


async def _run(url: str, library: ClipLibrary, options: argparse.Namespace, report: Report) -> None:
    clip, long = library.clip(_CLIP_S), library.clip(60 * options.minutes)
    alone: list[Probe] = []
    beside: list[Probe] = []
    ended: list[Attempt] = []
    underway: list[int] = []
    async with Caller(url) as caller:
        texts = await library.texts((clip, long), caller.text)
        request = Request(library.path(clip).read_bytes(), texts[clip])
        big = Request(library.path(long).read_bytes(), texts[long], stream=True)
        columns = ("3 s clip", "answers", "not right", "p50 s", "p95 s", "p99 s")
        report.table("A short clip beside long files", columns)
        for number in range(1, options.rounds + 1):
            await _quiet()
            report.say(f"round {number}: {options.clips} clips alone")
            alone.append(await probe(caller, request, times(options.clips), pause_s=_PAUSE_S))
            last = number == options.rounds
            async with _files(caller, big, options.files, ended, finish=last) as begun:
                underway.append(begun)
                report.say(f"round {number}: {options.clips} clips beside {options.files} files")
                beside.append(await probe(caller, request, times(options.clips), pause_s=_PAUSE_S))
            report.row(*_cells(f"round {number}, alone", alone[-1]))
            report.row(*_cells(f"round {number}, beside {options.files} files", beside[-1]))
    report.row(*_cells("all, alone", joined(alone)))
    report.row(*_cells("all, beside", joined(beside)))
    report.note(f"long files under way in the worst round: {min(underway)} of {options.files}")
    judge(report, joined(alone), joined(beside), ended)


@asynccontextmanager
async def _files(
    caller: Caller, request: Request, number: int, ended: list[Attempt], *, finish: bool
) -> AsyncIterator[int]:
    """Keeps long files running in the block; then lets them end, or hangs up.

    Yields how many have begun to be answered.
    """
    begun = [asyncio.Event() for _ in range(number)]
    stopping = asyncio.Event()

    async def keep_running(first: asyncio.Event) -> None:
        while not stopping.is_set():
            tried = await caller.attempt(request, first.set)
            ended.append(tried)
            await asyncio.sleep(0.0 if tried.fate is Fate.RIGHT else 1.0)

    tasks = [asyncio.create_task(keep_running(first)) for first in begun]
    waiting = [asyncio.create_task(first.wait()) for first in begun]
    await asyncio.wait(waiting, timeout=_START_TIMEOUT_S)
    try:
        yield sum(first.is_set() for first in begun)
    finally:
        stopping.set()
        if finish:
            await asyncio.wait(tasks, timeout=_END_TIMEOUT_S)
        for task in (*tasks, *waiting):
            task.cancel()
        results = await asyncio.gather(*tasks, *waiting, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _quiet() -> None:
    """Returns when the cluster does nothing, or after a minute."""
    for _ in range(_QUIET_TIMEOUT_S):
        before_s = cluster_cpu_s()
        await asyncio.sleep(1.0)
        if cluster_cpu_s() - before_s < _QUIET_CORES:
            return


def judge(report: Report, alone: Probe, beside: Probe, ended: Sequence[Attempt]) -> None:
    """Adds the promises, and what became of them."""
    p95_alone_s = percentiles(alone.latencies_s).p95 or float("nan")
    p95_beside_s = percentiles(beside.latencies_s).p95 or float("nan")
    ratio = p95_beside_s / p95_alone_s
    others = sum(each.num_other + each.num_refused for each in (alone, beside))
    wrong = [each for each in ended if each.fate is not Fate.RIGHT]
    report.promise(
        f"p95 beside / alone at most {_TARGET:.0f}", f"{ratio:.2f}", round(ratio, 6) <= _TARGET
    )
    report.promise("every clip answered right", f"{others} not", others == 0)
    report.promise(
        "every long file answered right",
        "; ".join(
            [f"{len(ended) - len(wrong)} right", *(f"{each.fate}, {each.detail}" for each in wrong)]
        ),
        bool(ended) and not wrong,
    )


def _cells(name: str, measured: Probe) -> tuple[str | int, ...]:
    shown = percentiles(measured.latencies_s)
    values = (f"{value or 0.0:.3f}" for value in (shown.p50, shown.p95, shown.p99))
    return name, len(measured.latencies_s), measured.num_refused + measured.num_other, *values


if __name__ == "__main__":
    sys.exit(main())
