"""What a caller with a 3 s clip notices of a job on the service's spare capacity.

The service is asked for the clip at a steady rate, in turns without and with a job beside
it, which is a process of its own and stopped at the end of each turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.batch.outputs import read_progress
from loadtests.batch.recordings import make_collection
from loadtests.load.clips import ClipLibrary
from loadtests.load.target import machine, own_settings, service
from serve_app.client import AsyncParaserve, TranscriptionRequest

_CLIP_S = 3.0
_WANTED = 1.5
_NUM_CPUS = 4
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
_WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Result:
    """All turns.

    Attributes:
        alone_s: times of the requests of each turn without a job.
        beside_s: of each turn with one.
        job_rtfx: seconds of audio that the job did per second meanwhile, by turn.
        p95_alone_s: median of the turns.
        p95_beside_s: median of the turns.
        machine: where it ran.
    """

    alone_s: tuple[tuple[float, ...], ...]
    beside_s: tuple[tuple[float, ...], ...]
    job_rtfx: tuple[float, ...]
    p95_alone_s: float
    p95_beside_s: float
    machine: str

    @property
    def ratio(self) -> float:
        return self.p95_beside_s / self.p95_alone_s


def beside(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 if callers hardly notice."""
    settings = own_settings([f"cluster.num_cpus={_NUM_CPUS}", *(options.set or ())])
    with tempfile.TemporaryDirectory() as name, service(None, settings) as url:
        directory = Path(name)
        (directory / "clips").mkdir()
        library = ClipLibrary(directory / "clips")
        make_collection(directory / "in", library, num_clips=40, num_long=5, num_bad=0)
        clip = library.path(library.clip(_CLIP_S)).read_bytes()
        result = _turns(options, url, clip, directory)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "beside.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    print(
        f"p95 of a 3 s clip: {result.p95_alone_s * 1000:.0f} ms alone, "
        f"{result.p95_beside_s * 1000:.0f} ms beside a job, ratio {result.ratio:.2f}; "
        f"the job ran at {statistics.median(result.job_rtfx):.0f} x real time"
    )
    return 0 if result.ratio <= _WANTED else 1


def _turns(options: argparse.Namespace, url: str, clip: bytes, directory: Path) -> Result:
    def ask(num_requests: int) -> tuple[float, ...]:
        return tuple(asyncio.run(_ask(url, clip, num_requests, options.rate)))

    ask(_WARM_UP)
    alone: list[tuple[float, ...]] = []
    with_job: list[tuple[float, ...]] = []
    rates: list[float] = []
    for i in range(options.rounds):
        alone.append(ask(options.requests))
        output = directory / f"out-{i}"
        with _job(directory / "in", output, options.set or ()):
            began = _done(output)
            began_s = time.monotonic()
            with_job.append(ask(options.requests))
            rates.append((_done(output) - began) / (time.monotonic() - began_s))
        p95 = [_p95(turn) * 1000 for turn in (alone[-1], with_job[-1])]
        print(f"turn {i + 1}: p95 {p95[0]:.0f} ms, with a job {p95[1]:.0f} ms", flush=True)
    return Result(
        tuple(alone),
        tuple(with_job),
        tuple(rates),
        statistics.median(_p95(turn) for turn in alone),
        statistics.median(_p95(turn) for turn in with_job),
        machine(),
    )


async def _ask(url: str, clip: bytes, num_requests: int, rate: float) -> list[float]:
    async with AsyncParaserve(url, "", timeout_s=60, max_retries=0) as client:

        async def once(at_s: float) -> float:
            await asyncio.sleep(at_s)
            began_s = time.monotonic()
            await client.transcribe_as(clip, "json", TranscriptionRequest(model="whisper-1"))
            return time.monotonic() - began_s

        return await asyncio.gather(*(once(i / rate) for i in range(num_requests)))


@contextmanager
def _job(source: Path, output: Path, assignments: Sequence[str]) -> Iterator[None]:
    """Runs a job for the length of the block, from when it does something."""
    import ray

    command = [sys.executable, "-m", "serve_app.batch", str(source), str(output)]
    for assignment in ("batch.resources=serve", "batch.log_interval_s=5", *assignments):
        command += ["--set", assignment]
    address = ray.get_runtime_context().gcs_address
    log = output.with_suffix(".log").open("wb")
    job = subprocess.Popen(  # noqa: S603 - our own command
        command, env=os.environ | {"RAY_ADDRESS": address}, stdout=log, stderr=log
    )
    try:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while _done(output) == 0.0:
            if job.poll() is not None or time.monotonic() > deadline_s:
                log.flush()
                raise RuntimeError(output.with_suffix(".log").read_text()[-3000:])
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
        log.close()


def _done(output: Path) -> float:
    """Returns the audio that the job's recognizers have dealt with, in s."""
    progress = read_progress(output)
    return 0.0 if progress is None else float(progress["computed_audio_h"]) * 3600


def _p95(times_s: Sequence[float]) -> float:
    return statistics.quantiles(times_s, n=20)[-1]
