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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.bench.tables import Cell, Table
from loadtests.load.clips import ClipLibrary
from loadtests.load.generator import Bounds, open_client
from loadtests.load.memory import cluster_cpu_s
from loadtests.load.outcomes import Attempt, Fate, percentiles
from loadtests.load.probing import Probe, joined, probe
from loadtests.load.sending import Reply, Request, attempt
from loadtests.load.target import machine, own_settings, service

_CLIP_S = 3.0
_LONG_S = 3600.0
_TARGET = 2.0
_MAX_RUNNING = 8
_START_TIMEOUT_S = 30.0
_POLL_S = 0.1
_QUIET_TIMEOUT_S = 60.0
_QUIET_CORES = 0.25


@dataclass(slots=True)
class Background:
    """Long files that run beside the clips.

    Attributes:
        underway: files whose first text has come, in the worst round.
        ended: how those that came to an end did.
    """

    underway: int
    ended: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fairness:
    """All that the run found out."""

    alone: Probe
    beside: Probe
    background: Background


def main() -> int:
    options = _parser().parse_args()
    settings = own_settings((f"admission.max_running={_MAX_RUNNING}", *(options.set or ())))
    with tempfile.TemporaryDirectory() as directory, service(None, settings) as url:
        found = asyncio.run(_measure(url, ClipLibrary(Path(directory)), options))
    table, fair = judge(found, options.files)
    print(f"\n{table.text()}")
    return 0 if fair else 1


async def _measure(url: str, library: ClipLibrary, options: argparse.Namespace) -> Fairness:
    clip, long = library.clip(_CLIP_S), library.clip(_LONG_S)
    content = library.path(clip).read_bytes()
    alone: list[Probe] = []
    beside: list[Probe] = []
    background = Background(options.files)
    async with open_client(url, Bounds()) as client:
        texts = await library.texts((clip, long), client)
        text = texts[clip]
        for number in range(1, options.rounds + 1):
            await _quiet()
            _tell(f"round {number}: {options.clips} clips alone")
            alone.append(await probe(client, content, text, options.clips, pause_s=0.3))
            request = Request(library.path(long).read_bytes(), texts[long], stream=True)
            last = number == options.rounds
            async with _files(client, request, options.files, background, finish=last):
                _tell(f"round {number}: {options.clips} clips beside {options.files} files")
                beside.append(await probe(client, content, text, options.clips, pause_s=0.3))
    return Fairness(joined(alone), joined(beside), background)


@asynccontextmanager
async def _files(
    client: httpx.AsyncClient, request: Request, number: int, seen: Background, *, finish: bool
) -> AsyncIterator[None]:
    """Keeps long files running in the block; then lets them end, or hangs up."""
    replies = [Reply() for _ in range(number)]
    clock = asyncio.get_running_loop().time
    stopping = asyncio.Event()

    async def keep_running(reply: Reply) -> None:
        while not stopping.is_set():
            tried, _ = await attempt(client, request, clock, reply)
            seen.ended.append(tried)
            reply = Reply()
            await asyncio.sleep(0.0 if tried.fate is Fate.RIGHT else 1.0)

    tasks = [asyncio.create_task(keep_running(reply)) for reply in replies]
    for _ in range(round(_START_TIMEOUT_S / _POLL_S)):
        if all(reply.first_byte_at_s is not None for reply in replies):
            break
        await asyncio.sleep(_POLL_S)
    seen.underway = min(seen.underway, sum(r.first_byte_at_s is not None for r in replies))
    try:
        yield
    finally:
        stopping.set()
        if finish:
            _tell("letting the long files end")
            await asyncio.wait(tasks, timeout=_LONG_S)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _quiet() -> None:
    """Returns when the cluster does nothing, or after a minute."""
    for _ in range(int(_QUIET_TIMEOUT_S)):
        before_s = cluster_cpu_s()
        await asyncio.sleep(1.0)
        if cluster_cpu_s() - before_s < _QUIET_CORES:
            return


def judge(found: Fairness, num_files: int) -> tuple[Table, bool]:
    """Returns the figures, and whether they are fair."""
    rows = [_row("alone", found.alone), _row(f"beside {num_files} files of 1 h", found.beside)]
    alone, beside = percentiles(found.alone.latencies_s), percentiles(found.beside.latencies_s)
    ratio = (beside.p95 or 0.0) / (alone.p95 or 1.0)
    wrong = [each for each in found.background.ended if each.fate is not Fate.RIGHT]
    others = found.alone.num_other + found.beside.num_other
    notes = (
        f"p95 beside / alone: {ratio:.2f} (target: at most {_TARGET:.0f})",
        f"long files under way in the worst round: {found.background.underway} of {num_files}; "
        f"ended right: {len(found.background.ended) - len(wrong)}, otherwise: {len(wrong)}",
        *(f"a long file: {each.fate}, {each.detail}" for each in wrong),
        machine(),
    )
    fair = ratio <= _TARGET and not wrong and others == 0 and bool(found.background.ended)
    columns = ("3 s clip", "answers", "not right", "p50 s", "p95 s", "p99 s")
    return Table("A short clip beside long files", columns, tuple(rows), notes), fair


def _row(name: str, measured: Probe) -> tuple[Cell, ...]:
    shown = percentiles(measured.latencies_s)
    values = (f"{value or 0.0:.3f}" for value in (shown.p50, shown.p95, shown.p99))
    return (name, len(measured.latencies_s), measured.num_other, *values)


def _tell(message: str) -> None:
    print(message, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests fairness", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="of clips alone, then beside the files")
    add("--clips", type=int, default=25, help="in each half of a round")
    add("--files", type=int, default=4, help="one-hour files at once")
    add("--set", action="append", metavar="NAME=VALUE", help="setting of the service")
    return parser


if __name__ == "__main__":
    sys.exit(main())
