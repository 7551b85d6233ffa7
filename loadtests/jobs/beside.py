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

import httpx

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.requests import percentiles
from loadtests.jobs.caller import JobCaller
from loadtests.jobs.setup import job_settings, new_secret
from loadtests.outages import supervised

_CLIP_S = 3.0
_RATIO_LIMIT = 1.5
_POLL_S = 0.2


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
        async with (
            JobCaller(service.url) as caller,
            httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as client,
        ):
            await _send(client, clip, 5)
            alone = await _send(client, clip, num_clips)
            ids = [await caller.create(f"beside-{i}", recording) for i in range(num_jobs)]
            while await caller.status(ids[0]) == "queued":  # noqa: ASYNC110, of another process
                await asyncio.sleep(_POLL_S)
            beside = await _send(client, clip, num_clips)
            if await caller.status(ids[-1]) == "completed":
                report.note("the jobs ended before the clips: give more --jobs")
    before, during = percentiles(alone), percentiles(beside)
    report.row("nothing", len(alone), before.p50, before.p95)
    report.row(f"{num_jobs} jobs", len(beside), during.p50, during.p95)
    return (during.p95 or math.inf) / (before.p95 or math.inf)


async def _send(client: httpx.AsyncClient, clip: bytes, number: int) -> list[float]:
    """Returns the time of each of some clips, sent one after the other, in s."""
    times_s = []
    for _ in range(number):
        began_s = time.monotonic()
        answer = await client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("a.flac", clip)},
        )
        answer.raise_for_status()
        times_s.append(time.monotonic() - began_s)
    return times_s
