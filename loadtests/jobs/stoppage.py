"""What a database that stops for a minute costs jobs and requests.

    python -m loadtests jobs stoppage [--seconds 60]

PostgreSQL is stopped while jobs run and clips are sent. The clips must be answered as before, the
jobs must go on afterwards, and each must end once with the right text.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.requests import WHISPER, Caller, percentiles
from loadtests.jobs.setup import Database, database, job_client, job_settings, new_secret
from loadtests.outages import supervised
from serve_app.client import ClientError

_LIMIT_S = 900.0
_CLIP_S = 3.0


def run(options: argparse.Namespace, report: Report) -> None:
    columns = ("clips", "sent", "answered", "p95 s")
    report.table("Clips of 3 s while the database stops", columns)
    with (
        tempfile.TemporaryDirectory() as directory,
        database("postgresql", Path(directory)) as found,
    ):
        run = _run(
            Path(directory), found, options.seconds, options.jobs, options.job_seconds, report
        )
        asyncio.run(run)


async def _run(
    directory: Path,
    found: Database,
    stopped_s: float,
    num_jobs: int,
    job_s: float,
    report: Report,
) -> None:
    library = ClipLibrary(directory)
    clip, recording = library.content(_CLIP_S), library.content(job_s)
    settings = [*found.settings, *job_settings(directory, new_secret())]
    with supervised(directory / "serve.log", *settings) as service:
        async with job_client(service.url) as client, Caller(service.url) as caller:
            text = await caller.text(recording)
            ids = [(await client.jobs.create(recording, WHISPER)).id for _ in range(num_jobs)]
            before = await _clips(caller, clip, 10.0)
            await asyncio.to_thread(found.stop)
            during = await _clips(caller, clip, stopped_s)
            await asyncio.to_thread(found.start)
            ended = [await client.jobs.wait(one, timeout_s=_LIMIT_S) for one in ids]
            texts = [
                (await client.jobs.result(job)).text for job in ended if job.status == "completed"
            ]
    for name, times_s in (("before", before), ("without the database", during)):
        answered = [took_s for took_s in times_s if took_s is not None]
        report.row(name, len(times_s), len(answered), percentiles(answered).p95)
    report.promise(
        "every clip answered", f"{during.count(None)} refused", None not in (*before, *during)
    )
    count = Counter(job.status for job in ended)
    report.promise("every job completed", f"{dict(count)}", count == {"completed": num_jobs})
    wrong = sum(one != text for one in texts)
    report.promise("every text as the idle service's", f"{wrong} others", wrong == 0)


async def _clips(caller: Caller, clip: bytes, seconds: float) -> list[float | None]:
    """Sends clips one after the other; returns how long each took, None for one refused."""
    ends_s = time.monotonic() + seconds
    times_s: list[float | None] = []
    while time.monotonic() < ends_s:
        began_s = time.monotonic()
        try:
            await caller.text(clip)
        except ClientError:
            times_s.append(None)
        else:
            times_s.append(time.monotonic() - began_s)
    return times_s
