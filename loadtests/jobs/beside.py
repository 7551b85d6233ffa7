"""What jobs cost the requests beside them.

    python -m loadtests jobs beside [--jobs 200] [--clips 60]

Clips of 3 s are sent one after the other to the idle service, then while jobs run; the medians
and 95th percentiles are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
import time
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.requests import WHISPER, Caller, percentiles
from loadtests.jobs.setup import job_client, job_settings, new_secret
from loadtests.outages import supervised

_CLIP_S = 3.0
_RATIO_LIMIT = 1.5


def run(options: argparse.Namespace, report: Report) -> None:
    report.table("Clips of 3 s by HTTP", ("beside", "clips", "median s", "p95 s"))
    with tempfile.TemporaryDirectory() as directory:
        ratio = asyncio.run(
            _run(Path(directory), options.jobs, options.job_seconds, options.clips, report)
        )
    promise = f"p95 beside jobs at most {_RATIO_LIMIT}x of without"
    report.promise(promise, f"{ratio:.2f}", ratio <= _RATIO_LIMIT)


async def _run(
    directory: Path, num_jobs: int, job_s: float, num_clips: int, report: Report
) -> float:
    """Returns the ratio of the 95th percentiles, with jobs to without."""
    library = ClipLibrary(directory)
    clip, recording = library.content(_CLIP_S), library.content(job_s)
    with supervised(directory / "serve.log", *job_settings(directory, new_secret())) as service:
        async with job_client(service.url) as client, Caller(service.url) as caller:
            await _send(caller, clip, 5)
            alone = await _send(caller, clip, num_clips)
            jobs = [await client.jobs.create(recording, WHISPER) for _ in range(num_jobs)]
            async for job in client.jobs.events(jobs[0]):
                if job.status != "queued":
                    break
            beside = await _send(caller, clip, num_clips)
            if (await client.jobs.get(jobs[-1])).is_final:
                report.note("the jobs ended before the clips: give more --jobs")
    before, during = percentiles(alone), percentiles(beside)
    report.row("nothing", len(alone), before.p50, before.p95)
    report.row(f"{num_jobs} jobs", len(beside), during.p50, during.p95)
    return (during.p95 or math.inf) / (before.p95 or math.inf)


async def _send(caller: Caller, clip: bytes, number: int) -> list[float]:
    """Returns the time of each of some clips, sent one after the other, in s."""
    times_s = []
    for _ in range(number):
        began_s = time.monotonic()
        await caller.text(clip)
        times_s.append(time.monotonic() - began_s)
    return times_s
