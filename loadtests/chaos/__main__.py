"""The chaos run's command line; `python -m loadtests chaos --help`."""

from __future__ import annotations

import argparse
import asyncio
import random
import shlex
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loadtests.chaos.kill_runner import Death, KillRunner
from loadtests.chaos.nodes import application, replicated_settings
from loadtests.chaos.reports import chaos_report, tables, write
from loadtests.chaos.schedule import Kill, plan_kills
from loadtests.load import arrivals
from loadtests.load.clips import ClipLibrary
from loadtests.load.generator import Bounds, Generator, Load, Retries, open_client
from loadtests.load.mixes import LengthClass, Mix
from loadtests.load.outcomes import Outcome
from loadtests.load.target import machine

_MIX = Mix(
    (
        LengthClass("3 s", 3.0, 55),
        LengthClass("15 s", 15.0, 25),
        LengthClass("1 min", 60.0, 15),
        LengthClass("10 min", 600.0, 2),
    )
)
_LEAST_KILLS = 20


@dataclass(frozen=True, slots=True)
class Chaos:
    """What a run gave."""

    outcomes: list[Outcome]
    deaths: list[Death]
    began_s: float


def main() -> int:
    """Returns the exit code: 0 if nothing was lost or wrong over enough kills."""
    parser = _parser()
    options = parser.parse_args()
    # Before anything is started.
    dice = random.Random(options.seed)  # noqa: S311, nothing secret
    try:
        kills = plan_kills(options.kills, options.duration, dice)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    settings = replicated_settings(tuple(options.set or ()))
    with (
        tempfile.TemporaryDirectory() as directory,
        application(settings, options.nodes) as (url, nodes),
    ):
        library = ClipLibrary(Path(directory))
        runner = KillRunner(nodes, settings.app_name, dice, lambda text: print(text, flush=True))
        found = asyncio.run(_run(options, library, url, runner, kills, dice))
    report = chaos_report(found.outcomes, found.deaths, found.began_s)
    for table in tables(report):
        print(f"\n{table.text()}")
    print(machine())
    write(report, options.output, shlex.join(["python", "-m", "loadtests.chaos", *sys.argv[1:]]))
    return 0 if report.held and report.num_kills >= min(_LEAST_KILLS, options.kills) else 1


async def _run(
    options: argparse.Namespace,
    library: ClipLibrary,
    url: str,
    runner: KillRunner,
    kills: list[Kill],
    dice: random.Random,
) -> Chaos:
    bounds = Bounds(grace_s=options.grace, timeout_s=options.grace)
    async with open_client(url, bounds) as client:
        clips = [library.clip(length.audio_s) for length in _MIX.classes]
        texts = await library.texts(clips, client)
        generators = []
        for stream in (False, True):
            rate = arrivals.steady(options.rate / 2)
            planned = arrivals.draw(rate, _MIX, options.duration, dice)
            retries = Retries(refusals=True, breaks=True)
            load = Load(planned, texts, stream=stream, retries=retries)
            generators.append(Generator(client, library, load, bounds))
        began_s = time.monotonic()
        killing = asyncio.create_task(runner.carry_out(kills, began_s))
        try:
            runs = await asyncio.gather(*(generator.run() for generator in generators))
        finally:
            if not killing.done():
                killing.cancel()
            killed = await asyncio.gather(killing, return_exceptions=True)
    if isinstance(killed[0], Exception):
        raise killed[0]
    return Chaos([outcome for run in runs for outcome in run], runner.deaths, began_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests chaos", description=__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=24)
    add("--duration", type=float, default=300.0, help="s of load")
    add("--rate", type=float, default=1.0, help="requests per second on average")
    add("--nodes", type=int, default=3, help="worker nodes")
    add("--seed", type=int, default=1)
    add("--grace", type=float, default=120.0, help="s to wait for the last answers")
    add("--set", action="append", metavar="NAME=VALUE", help="setting of the service")
    add("--output", type=Path, default=Path("bench-results/chaos"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
