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
from collections.abc import Sequence
from pathlib import Path

import httpx

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.requests import percentiles
from loadtests.jobs.caller import FINAL, JobCaller
from loadtests.jobs.setup import Database, database, job_settings, new_secret
from loadtests.outages import supervised

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
        async with (
            JobCaller(service.url) as caller,
            httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as client,
        ):
            text = (await _send(client, recording)).json()["text"]
            ids = [await caller.create(f"job-{i}", recording) for i in range(num_jobs)]
            before = await _clips(client, clip, 10.0)
            await asyncio.to_thread(found.stop)
            during = await _clips(client, clip, stopped_s)
            await asyncio.to_thread(found.start)
            states = await _final_states(caller, ids)
            texts = [await caller.text(one) for one in ids if states[one] == "completed"]
    for name, times_s in (("before", before), ("without the database", during)):
        answered = [took_s for took_s in times_s if took_s is not None]
        report.row(name, len(times_s), len(answered), percentiles(answered).p95)
    report.promise(
        "every clip answered", f"{during.count(None)} refused", None not in (*before, *during)
    )
    count = Counter(states.values())
    report.promise("every job completed", f"{dict(count)}", count == {"completed": num_jobs})
    wrong = sum(one != text for one in texts)
    report.promise("every text as the idle service's", f"{wrong} others", wrong == 0)


async def _send(client: httpx.AsyncClient, content: bytes) -> httpx.Response:
    return await client.post(
        "/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("a.flac", content)},
    )


async def _clips(client: httpx.AsyncClient, clip: bytes, seconds: float) -> list[float | None]:
    """Sends clips one after the other; returns how long each took, None for one refused."""
    ends_s = time.monotonic() + seconds
    times_s: list[float | None] = []
    while time.monotonic() < ends_s:
        began_s = time.monotonic()
        answer = await _send(client, clip)
        times_s.append(time.monotonic() - began_s if answer.is_success else None)
    return times_s


async def _final_states(caller: JobCaller, ids: Sequence[str]) -> dict[str, str]:
    give_up_s = time.monotonic() + _LIMIT_S
    states: dict[str, str] = {}
    while len(states) < len(ids) and time.monotonic() < give_up_s:
        for one in ids:
            if one not in states and (status := await caller.status(one)) in FINAL:
                states[one] = status
        await asyncio.sleep(1.0)
    return states
