"""A job's pace against that of the same engines in a plain loop with the same threads.

The loop is `LocalTranscriber` in one process: a thread that decodes and cuts, one that
recognizes in full batches, one that punctuates, over as many recordings at once as the
job's segmenter has open. The job has one actor of each kind. Both are timed from the first
recording that is opened to the last result; loading models and starting actors is left
out, since it does not grow with the work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from loadtests.batch.recordings import make_files
from loadtests.load.clips import ClipLibrary
from loadtests.load.memory import cluster_cpu_s
from loadtests.load.target import machine
from serve_app.inference.local import LocalTranscriber
from serve_app.launch import prepare_environment
from serve_app.settings import Settings, load_settings
from serve_app.transcript.transcript import collect

_WANTED = 0.95
_NUM_CPUS = 4


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over all recordings.

    Attributes:
        elapsed_s: from the first that was opened to the last result.
        cpu_s: processor time meanwhile; of the job with all of Ray, its start included.
    """

    elapsed_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds.

    Attributes:
        audio_s: of a pass.
        loop: its passes.
        job: its passes.
        ratios: of the job's pace to that of the loop, by round.
        machine: where it ran.
    """

    audio_s: float
    loop: tuple[Pass, ...]
    job: tuple[Pass, ...]
    ratios: tuple[float, ...]
    machine: str


def throughput(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 if the job is as fast as the loop, or nearly."""
    settings = load_settings("demo", list(options.set or ()))
    prepare_environment(settings)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "clips").mkdir()
        library = ClipLibrary(directory / "clips")
        files, audio_s = make_files(directory / "in", library, options.minutes * 60)
        print(f"{len(files)} recordings, {audio_s / 60:.0f} min", flush=True)
        loops, jobs = _rounds(settings, files, directory, options.rounds)
    ratios = tuple(loop.elapsed_s / job.elapsed_s for loop, job in zip(loops, jobs, strict=True))
    result = Result(audio_s, tuple(loops), tuple(jobs), ratios, machine())
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "throughput.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    middle = statistics.median(ratios)
    print(f"job : loop {middle:.2f} (rounds {', '.join(f'{one:.2f}' for one in ratios)})")
    return 0 if middle >= _WANTED else 1


def _rounds(
    settings: Settings, files: Sequence[Path], directory: Path, num_rounds: int
) -> tuple[list[Pass], list[Pass]]:
    import ray

    loops: list[Pass] = []
    jobs: list[Pass] = []
    ray.init(address="local", num_cpus=_NUM_CPUS, include_dashboard=False, log_to_driver=False)
    try:
        for i in range(num_rounds):
            loops.append(asyncio.run(_loop(settings, files)))
            jobs.append(_job(settings, files, directory / f"out-{i}"))
            shutil.rmtree(directory / f"out-{i}")
            print(
                f"round {i + 1}: {_shown('loop', loops[-1])}, {_shown('job', jobs[-1])}", flush=True
            )
    finally:
        ray.shutdown()
    return loops, jobs


async def _loop(settings: Settings, files: Sequence[Path]) -> Pass:
    room = asyncio.Semaphore(settings.batch.open_recordings * settings.batch.segmenters.num_actors)
    async with LocalTranscriber(settings) as transcriber:

        async def transcribe(path: Path) -> None:
            async with room:
                audio = np.memmap(path, np.uint8, "r")
                stages = frozenset(settings.stages)
                await collect(transcriber.transcribe(audio, stages, path.name))

        began_s, began_cpu_s = time.monotonic(), _own_cpu_s()
        await asyncio.gather(*(transcribe(path) for path in files))
        return Pass(time.monotonic() - began_s, _own_cpu_s() - began_cpu_s)


def _job(settings: Settings, files: Sequence[Path], output: Path) -> Pass:
    from serve_app.batch.pending import Work
    from serve_app.batch.punctuate_stage import Finished
    from serve_app.batch.ray_data import OwnActors
    from serve_app.batch.records import BatchItem

    works = [
        Work(BatchItem(path.name, str(path)), path.name, frozenset(settings.stages), size)
        for path in files
        if (size := path.stat().st_size)
    ]
    before_s = _own_cpu_s() + cluster_cpu_s()
    first_s, last_s, most_cpu_s = float("inf"), 0.0, before_s
    for outcome in OwnActors(settings, str(output), (), {}).outcomes(works):
        now_s = time.monotonic()
        # Actors that have ended are no longer counted.
        most_cpu_s = max(most_cpu_s, _own_cpu_s() + cluster_cpu_s())
        if isinstance(outcome, Finished):
            first_s = min(first_s, now_s - outcome.times.wall_s)
            last_s = now_s
    return Pass(last_s - first_s, most_cpu_s - before_s)


def _own_cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


def _shown(name: str, one: Pass) -> str:
    return f"{name} {one.elapsed_s:.1f} s ({one.cpu_s:.1f} s of CPU)"
