"""What a caller with a 3 s clip notices of a job on the service's spare capacity.

The service is asked for the clip at a steady rate, in turns without and with a job beside
it, which is a process of its own and stopped at the end of each turn.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtests.batch.outputs import read_progress
from loadtests.batch.recordings import clip_lengths_s, make_collection
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import open_loop
from loadtests.harness.report import Report
from loadtests.harness.requests import WHISPER, percentiles
from loadtests.serving import own_settings, service
from serve_app.client import AsyncParaserve

_CLIP_S = 3.0
_LONG_S = 3600.0
_NUM_CLIPS, _NUM_LONG = 40, 5
_WANTED = 1.5
_NUM_CPUS = 4
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
_WARM_UP = 10


def run(options: argparse.Namespace, report: Report) -> None:
    """Asks for clips in turns, without and with a job."""
    settings = own_settings([f"cluster.num_cpus={_NUM_CPUS}", *options.set])
    with tempfile.TemporaryDirectory() as name, service(None, settings) as url:
        directory = Path(name)
        (directory / "clips").mkdir()
        library = ClipLibrary(directory / "clips")
        lengths_s = [*clip_lengths_s(_NUM_CLIPS), *[_LONG_S] * _NUM_LONG]
        make_collection(directory / "in", library, lengths_s)
        _turns(options, url, library.content(_CLIP_S), directory, report)


def _turns(
    options: argparse.Namespace, url: str, clip: bytes, directory: Path, report: Report
) -> None:
    columns = ("turn", "p95 ms alone", "p95 ms beside a job", "the job's RTFx")
    report.table("A 3 s clip beside a batch job", columns)
    asyncio.run(_p95_ms(url, clip, _WARM_UP, options.rate))
    turns: list[tuple[float, float]] = []
    for i in range(options.rounds):
        alone_ms = asyncio.run(_p95_ms(url, clip, options.requests, options.rate))
        output = directory / f"out-{i}"
        with _job(directory / "in", output, options.set):
            began, began_s = _done_s(output), time.monotonic()
            beside_ms = asyncio.run(_p95_ms(url, clip, options.requests, options.rate))
            rtfx = (_done_s(output) - began) / (time.monotonic() - began_s)
        turns.append((alone_ms, beside_ms))
        report.row(str(i + 1), alone_ms, beside_ms, rtfx)
    alone_ms, beside_ms = map(statistics.median, zip(*turns, strict=True))
    ratio = beside_ms / alone_ms
    report.promise(
        f"p95 beside a job / alone at most {_WANTED}, medians of the turns",
        f"{alone_ms:.0f} and {beside_ms:.0f} ms: {ratio:.2f}",
        ratio <= _WANTED,
    )


async def _p95_ms(url: str, clip: bytes, num_requests: int, rate: float) -> float:
    async with AsyncParaserve(url, "", timeout_s=60, max_retries=0) as client:

        async def once(number: int, due_s: float) -> float:
            began_s = time.monotonic()
            await client.transcribe_as(clip, "json", WHISPER)
            return time.monotonic() - began_s

        found = await open_loop((i / rate for i in range(num_requests)), once)
    return 1000 * (percentiles([took_s for took_s in found if took_s is not None]).p95 or 0.0)


@contextmanager
def _job(source: Path, output: Path, assignments: Sequence[str]) -> Iterator[None]:
    """Runs a job for the length of the block, from when it does something."""
    import ray

    command = [sys.executable, "-m", "serve_app.batch", str(source), str(output)]
    for assignment in ("batch.resources=serve", "batch.log_interval_s=5", *assignments):
        command += ["--set", assignment]
    address = ray.get_runtime_context().gcs_address
    log = output.with_suffix(".log")
    with log.open("wb") as file:
        job = subprocess.Popen(  # noqa: S603 - our own command
            command, env=os.environ | {"RAY_ADDRESS": address}, stdout=file, stderr=file
        )
    try:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while _done_s(output) == 0.0:
            if job.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(log.read_text()[-3000:])
            time.sleep(0.5)
        yield
        if job.poll() is not None:
            raise RuntimeError("the job was over before the turn was")
    finally:
        job.send_signal(signal.SIGTERM)
        try:
            job.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            job.kill()


def _done_s(output: Path) -> float:
    """Returns the audio that the job's recognizers have dealt with, in s."""
    progress = read_progress(output)
    return 0.0 if progress is None else float(progress["computed_audio_h"]) * 3600
