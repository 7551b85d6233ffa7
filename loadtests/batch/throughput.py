"""A job's pace against that of the same engines in a plain loop with the same threads.

The loop is `LocalTranscriber` in one process: a thread that decodes and cuts, one that
recognizes in full batches, one that punctuates, over as many recordings at once as the
job's segmenter has open. The job has one actor of each kind. Both are timed from the first
recording that is opened to the last result; loading models and starting actors is left
out, since it does not grow with the work. CPU seconds of a job are with all of Ray and its start.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from loadtests.batch.recordings import CLIP_LENGTHS_S, make_collection
from loadtests.harness.child import Cost
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.watch import cpu_s, own_processes
from serve_app.inference.local import LocalTranscriber
from serve_app.launch import prepare_environment
from serve_app.settings import Settings, load_settings
from serve_app.transcript.transcript import collect

_WANTED = 0.95
_NUM_CPUS = 4


def run(options: argparse.Namespace, report: Report) -> None:
    """Times loop and job in turns."""
    settings = load_settings("demo", options.set)
    prepare_environment(settings)
    import ray

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "clips").mkdir()
        # Half of the audio in one long recording.
        audio_s = options.minutes * 60
        mean_s = sum(CLIP_LENGTHS_S) / len(CLIP_LENGTHS_S)
        num_times = -(-audio_s // (2 * mean_s * len(CLIP_LENGTHS_S)))
        lengths_s = [audio_s / 2, *CLIP_LENGTHS_S * int(num_times)]
        library = ClipLibrary(directory / "clips")
        collection = make_collection(directory / "in", library, lengths_s)
        report.table(
            f"{len(collection.files)} recordings, {collection.audio_s / 60:.0f} min",
            ("round", "loop s", "its CPU s", "job s", "its CPU s", "pace of the job"),
        )
        ray.init(address="local", num_cpus=_NUM_CPUS, include_dashboard=False, log_to_driver=False)
        try:
            ratios = []
            for i in range(options.rounds):
                loop = asyncio.run(_loop(settings, collection.files))
                job = _job(settings, collection.files, directory / "out")
                shutil.rmtree(directory / "out")
                ratios.append(loop.wall_s / job.wall_s)
                spent_s = (loop.wall_s, loop.cpu_s, job.wall_s, job.cpu_s)
                report.row(str(i + 1), *spent_s, ratios[-1])
        finally:
            ray.shutdown()
    middle = statistics.median(ratios)
    report.promise(
        f"a job at {_WANTED} of the loop's pace or more", f"{middle:.2f}", middle >= _WANTED
    )


async def _loop(settings: Settings, files: Sequence[Path]) -> Cost:
    room = asyncio.Semaphore(settings.batch.open_recordings * settings.batch.segmenters.num_actors)
    async with LocalTranscriber(settings) as transcriber:

        async def transcribe(path: Path) -> None:
            async with room:
                audio = np.memmap(path, np.uint8, "r")
                stages = frozenset(settings.stages)
                await collect(transcriber.transcribe(audio, stages, path.name))

        began_s, began_cpu_s = time.monotonic(), time.process_time()
        await asyncio.gather(*(transcribe(path) for path in files))
        return Cost(time.monotonic() - began_s, time.process_time() - began_cpu_s)


def _job(settings: Settings, files: Sequence[Path], output: Path) -> Cost:
    from serve_app.batch.pending import Work
    from serve_app.batch.punctuate_stage import Finished
    from serve_app.batch.ray_data import OwnActors
    from serve_app.batch.records import BatchItem

    stages = frozenset(settings.stages)
    works = [
        Work(BatchItem(path.name, str(path)), path.name, stages, path.stat().st_size)
        for path in files
    ]
    before_s = _all_cpu_s()
    first_s, last_s, most_cpu_s = float("inf"), 0.0, before_s
    for outcome in OwnActors(settings, str(output), (), {}).outcomes(works):
        now_s = time.monotonic()
        # Actors that have ended are no longer counted.
        most_cpu_s = max(most_cpu_s, _all_cpu_s())
        if isinstance(outcome, Finished):
            first_s = min(first_s, now_s - outcome.times.wall_s)
            last_s = now_s
    return Cost(last_s - first_s, most_cpu_s - before_s)


def _all_cpu_s() -> float:
    return cpu_s([psutil.Process(), *own_processes()])
