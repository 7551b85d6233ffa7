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

import psutil

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.jobs.caller import FINAL, JobCaller
from loadtests.jobs.setup import job_settings, new_secret
from loadtests.outages import SupervisedService, supervised

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
        async with JobCaller(service.url) as caller:
            one = library.path(library.clip(library.part_s)).read_bytes()
            expected = await _finished_text(caller, "one", one) * clip.repetitions
            before_cpu_s = _cpu_s(service)
            began_s = time.monotonic()
            job_id = await caller.create("long", library.path(clip).read_bytes())
            killed_at_s = await _kill_at(service, caller, job_id, at * clip.audio_s)
            await _ended(caller, job_id)
            took_s = time.monotonic() - began_s
            again_s = killed_at_s - _reused_s(service, job_id)
            share = max(0.0, again_s) / clip.audio_s
            report.row(
                round(clip.audio_s),
                round(killed_at_s),
                f"{again_s:.0f}",
                f"{share:.1%}",
                round(took_s),
                round(_cpu_s(service) - before_cpu_s),
            )
            text = await caller.text(job_id)
            report.promise(
                "the text of the whole recording", f"{len(text)} characters", text == expected
            )
            report.promise(
                f"at most {_AGAIN_LIMIT:.0%} recognized again", f"{share:.1%}", share < _AGAIN_LIMIT
            )


async def _finished_text(caller: JobCaller, name: str, content: bytes) -> str:
    job_id = await caller.create(name, content)
    await _ended(caller, job_id)
    return await caller.text(job_id)


async def _kill_at(
    service: SupervisedService, caller: JobCaller, job_id: str, audio_s: float
) -> float:
    """Kills the runner once so much is recognized; returns how much was."""
    give_up_s = time.monotonic() + _LIMIT_S
    while time.monotonic() < give_up_s:
        done_s = float((await caller.get(job_id))["progress"]["audio_s"])
        if done_s >= audio_s:
            (runner,) = service.victims("job runner")
            runner.send_signal(signal.SIGKILL)
            return done_s
        await asyncio.sleep(0.5)
    raise TimeoutError("the job does not get on")


async def _ended(caller: JobCaller, job_id: str) -> None:
    give_up_s = time.monotonic() + _LIMIT_S
    while time.monotonic() < give_up_s:
        if await caller.status(job_id) in FINAL:
            return
        await asyncio.sleep(1.0)
    raise TimeoutError("the job does not end")


def _reused_s(service: SupervisedService, job_id: str) -> float:
    """Returns the audio that the last runner took over from checkpoints."""
    for path in service.logs("JobRunner"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("paraserve_job_id") == job_id and "reused_audio_s" in record:
                return float(record["reused_audio_s"])
    raise LookupError("no runner has logged the end of the job")


def _cpu_s(service: SupervisedService) -> float:
    """Returns the CPU time of all processes that run."""
    total = 0.0
    for process in service.processes():
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return total
