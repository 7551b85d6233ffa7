"""How much work is done again when the runner of a long job is killed near its end.

    python -m loadtests jobs takeover [--seconds 18000] [--at 0.8]

Audio that had been recognized when the runner was killed, less what the next one took over from
the checkpoints, by its log line. The recording is decoded and segmented again from its start;
that is in the CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import tempfile
import time
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.requests import WHISPER
from loadtests.harness.watch import cpu_s
from loadtests.jobs.setup import job_client, job_settings, new_secret
from loadtests.outages import SupervisedService, supervised
from serve_app.client import AsyncParaserve

_LIMIT_S = 3600.0
_AGAIN_LIMIT = 0.05


def run(options: argparse.Namespace, report: Report) -> None:
    columns = ("recording s", "killed at s", "recognized again s", "share", "job s", "CPU s")
    report.table("A long job whose runner is killed", columns)
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(Path(directory), options.seconds, options.at, report))


async def _run(directory: Path, seconds: float, at: float, report: Report) -> None:
    library = ClipLibrary(directory)
    clip = library.clip(seconds)
    settings = job_settings(directory, new_secret())
    settings += ["audio.max_duration_s=21600", "admission.max_audio_s=43200"]
    with supervised(directory / "serve.log", *settings) as service:
        async with job_client(service.url) as client:
            one = library.path(library.clip(library.part_s)).read_bytes()
            first = await client.jobs.create(one, WHISPER)
            expected = await _text(client, first.id) * clip.repetitions
            before_cpu_s = cpu_s(service.processes())
            began_s = time.monotonic()
            job_id = (await client.jobs.create(library.path(clip), WHISPER)).id
            killed_at_s = await _kill_at(service, client, job_id, at * clip.audio_s)
            text = await _text(client, job_id)
            took_s = time.monotonic() - began_s
            again_s = killed_at_s - _reused_s(service, job_id)
            share = max(0.0, again_s) / clip.audio_s
            report.row(
                round(clip.audio_s),
                round(killed_at_s),
                f"{again_s:.0f}",
                f"{share:.1%}",
                round(took_s),
                round(cpu_s(service.processes()) - before_cpu_s),
            )
            report.promise(
                "the text of the whole recording", f"{len(text)} characters", text == expected
            )
            report.promise(
                f"at most {_AGAIN_LIMIT:.0%} recognized again", f"{share:.1%}", share < _AGAIN_LIMIT
            )


async def _text(client: AsyncParaserve, job_id: str) -> str:
    """Returns the text of a job once it is completed."""
    await client.jobs.wait(job_id, timeout_s=_LIMIT_S)
    return (await client.jobs.result(job_id)).text


async def _kill_at(
    service: SupervisedService, client: AsyncParaserve, job_id: str, audio_s: float
) -> float:
    """Kills the runner once so much is recognized; returns how much was."""
    give_up_s = time.monotonic() + _LIMIT_S
    while time.monotonic() < give_up_s:
        done_s = (await client.jobs.get(job_id)).progress.audio_s
        if done_s >= audio_s:
            (runner,) = service.victims("job runner")
            runner.send_signal(signal.SIGKILL)
            return done_s
        await asyncio.sleep(0.5)
    raise TimeoutError("the job does not get on")


def _reused_s(service: SupervisedService, job_id: str) -> float:
    """Returns the audio that the last runner took over from checkpoints."""
    for path in service.logs("JobRunner"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("paraserve_job_id") == job_id and "reused_audio_s" in record:
                return float(record["reused_audio_s"])
    raise LookupError("no runner has logged the end of the job")
