"""What thousands of queued jobs cost those who create and list jobs, and the database.

    python -m loadtests jobs queue [--jobs 10000] [--database sqlite postgresql]

The service works on one job at a time, so that the others wait. Times are those of the caller,
with four creations at once; queries are PostgreSQL's own count of transactions, over half a
minute in which nobody asks and nothing runs.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.requests import WHISPER, percentiles
from loadtests.jobs.setup import Database, database, job_client, job_settings, new_secret
from loadtests.outages import supervised

_AT_ONCE = 4
_LISTS = 100
_IDLE_S = 30.0


def run(options: argparse.Namespace, report: Report) -> None:
    columns = ("database", "queued", "create p50 s", "p95 s", "list of 100 p95 s", "queries/s idle")
    report.table("Thousands of queued jobs", columns)
    for kind in options.database:
        with tempfile.TemporaryDirectory() as directory, database(kind, Path(directory)) as found:
            asyncio.run(_run(Path(directory), found, options.jobs, options.longest, report))


async def _run(
    directory: Path, found: Database, num_jobs: int, longest_s: float, report: Report
) -> None:
    library = ClipLibrary(directory)
    clip, longest = library.content(3.0), library.content(longest_s)
    settings = [
        *found.settings,
        *job_settings(directory, new_secret()),
        "jobs.max_running=1",
        f"jobs.max_queued={num_jobs + 10}",
    ]
    with supervised(directory / "serve.log", *settings) as service:
        async with job_client(service.url) as client:
            idle = await _queries_per_s(found)
            first = await client.jobs.create(longest, WHISPER)
            room = asyncio.Semaphore(_AT_ONCE)
            created_s: list[float] = []

            async def create() -> None:
                async with room:
                    created_s.append(await _timed(lambda: client.jobs.create(clip, WHISPER)))

            await asyncio.gather(*(create() for _ in range(num_jobs)))
            listed_s = [await _timed(lambda: client.jobs.page(limit=100)) for _ in range(_LISTS)]
            await client.jobs.cancel(first)
    created = percentiles(created_s)
    report.row(
        found.kind,
        num_jobs,
        created.p50,
        created.p95,
        percentiles(listed_s).p95,
        idle,
    )
    if idle is not None:
        report.promise("at most one query a second when idle", f"{idle:.2f}", idle <= 1.0)


async def _queries_per_s(found: Database) -> float | None:
    """Returns the transactions a second while nothing is to be done; None for SQLite."""
    before = found.num_transactions()
    if before is None:
        return None
    began_s = time.monotonic()
    await asyncio.sleep(_IDLE_S)
    after = found.num_transactions() or 0
    # The question itself is one.
    return max(0, after - before - 1) / (time.monotonic() - began_s)


async def _timed(do: Callable[[], Awaitable[object]]) -> float:
    began_s = time.monotonic()
    await do()
    return time.monotonic() - began_s
