"""The generator's command line; `python -m loadtests load --help`."""

from __future__ import annotations

import argparse
import asyncio
import random
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from loadtests.load import arrivals, reports
from loadtests.load.arrivals import Arrival
from loadtests.load.clips import ClipLibrary
from loadtests.load.generator import Bounds, Generator, Load, Retries, open_client
from loadtests.load.mixes import MIXES
from loadtests.load.outcomes import Outcome
from loadtests.load.target import RemoteRefused, check_local, machine, own_settings, service
from serve_app.core.errors import ParaserveError

_PROCESSES = ("poisson", "bursts", "ramp", "square")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if nothing that was accepted got lost, 2 if nothing was sent."""
    given = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(given)
    try:
        planned = _arrivals(options)
        if options.url is not None:
            check_local(options.url, allow_remote=options.allow_remote)
    except (OSError, ValueError, RemoteRefused) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        settings = own_settings(options.set or ())
        with tempfile.TemporaryDirectory() as directory, service(options.url, settings) as url:
            outcomes = asyncio.run(_run(options, planned, ClipLibrary(Path(directory)), url))
    except (httpx.HTTPError, ParaserveError) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    command = shlex.join(["python", "-m", "loadtests.load", *given])
    summary = reports.report(outcomes, command=command, machine=machine())
    print(f"\n{summary.table().text()}")
    for path in reports.write(summary, outcomes, options.output):
        print(path)
    return 1 if any(outcome.lost for outcome in outcomes) else 0


async def _run(
    options: argparse.Namespace, planned: list[Arrival], library: ClipLibrary, url: str
) -> list[Outcome]:
    bounds = Bounds(options.max_connections, options.grace, options.timeout)
    keys = tuple(options.api_key or ())
    async with open_client(url, bounds) as client:
        if keys:
            client.headers["Authorization"] = f"Bearer {keys[0]}"
        print("asking for the right texts", flush=True)
        texts = await library.texts((library.clip(each.audio_s) for each in planned), client)
        retries = Retries(options.honor_retry_after, options.retry_breaks)
        load = Load(planned, texts, keys, options.stream, retries)
        print(f"sending {len(planned)} requests", flush=True)
        return await Generator(client, library, load, bounds).run()


def _arrivals(options: argparse.Namespace) -> list[Arrival]:
    if options.trace is not None:
        planned = arrivals.read_trace(options.trace)
        planned = [each for each in planned if each.at_s < options.duration]
    else:
        dice = random.Random(options.seed)  # noqa: S311, nothing secret
        rate = {
            "poisson": lambda: arrivals.steady(options.rate),
            "bursts": lambda: arrivals.bursts(options.rate, options.duration, dice),
            "ramp": lambda: arrivals.ramp(options.rate, options.duration),
            "square": lambda: arrivals.square(options.rate, options.period),
        }[options.arrivals]()
        num_keys = max(1, len(options.api_key or ()))
        mix = MIXES[options.profile]
        planned = arrivals.draw(rate, mix, options.duration, dice, num_keys=num_keys)
    if not planned:
        raise ValueError("no request is due within the duration")
    if len(planned) > options.max_requests:
        raise ValueError(f"{len(planned)} requests are more than --max-requests allows")
    return planned


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests load", description="Load a service, open loop, and report."
    )
    add = parser.add_argument
    add("--url", help="a running service; without it one is started for the run")
    add("--allow-remote", action="store_true", help="let --url be another machine")
    add("--set", action="append", metavar="NAME=VALUE", help="setting of the service started here")
    add("--profile", choices=sorted(MIXES), default="mixed", help="mix of lengths")
    add("--arrivals", choices=_PROCESSES, default="poisson", help="arrival process")
    add("--rate", type=float, default=1.0, help="requests per second on average")
    add("--duration", type=float, default=60.0, help="s during which requests are due")
    add("--period", type=float, default=60.0, help="s of one period of the square wave")
    add("--trace", type=Path, help="CSV with arrival_s, audio_s and, optionally, key")
    add("--seed", type=int, default=1)
    add("--stream", action="store_true", help="ask for server-sent events")
    add("--api-key", action="append", help="repeat it for several keys")
    add("--honor-retry-after", action="store_true", help="send a refused request again")
    add("--retry-breaks", action="store_true", help="send again after a broken connection")
    add("--max-requests", type=int, default=100_000)
    add("--max-connections", type=int, default=256)
    add("--grace", type=float, default=120.0, help="s to wait for answers after the last arrival")
    add("--timeout", type=float, default=600.0, help="s without a byte")
    add("--output", type=Path, default=Path("bench-results/load"), help="directory of the report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
