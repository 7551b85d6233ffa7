"""A job that is killed three times and resumed, held against one that is not."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.batch.killing import Blow, Killer, Victim, plan_blows
from loadtests.batch.outputs import Comparison, compare, read_progress
from loadtests.batch.recordings import Collection, make_collection
from loadtests.chaos.nodes import LocalNodes
from loadtests.load.clips import ClipLibrary
from loadtests.load.target import machine
from loadtests.ports import free_port
from serve_app.batch.client import BatchJobs, JobRequest, connect
from serve_app.batch.job_status import JobInfo
from serve_app.launch import prepare_environment
from serve_app.settings import load_settings

_POLL_S = 0.3
_GIVE_UP_S = 1800.0
_MOST_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of the command.

    Attributes:
        phase: how it ended.
        elapsed_s: what it took.
        computed_s: speech that its recognizers computed.
        blows: what was killed meanwhile.
    """

    phase: str
    elapsed_s: float
    computed_s: float
    blows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What the run showed.

    Attributes:
        collection: what was transcribed.
        clean: the job that nothing happened to.
        attempts: those of the other one.
        comparison: of their outputs.
        wasted_s: speech that was computed more than once.
        speech_s: all of it.
        machine: where it ran.
    """

    collection: Collection
    clean: Attempt
    attempts: tuple[Attempt, ...]
    comparison: Comparison
    wasted_s: float
    speech_s: float
    machine: str

    @property
    def held(self) -> bool:
        found = self.comparison
        whole = found.num_outputs == self.collection.num_good and not found.num_missing
        equal = not found.different and not found.num_twice and not found.num_leftovers
        failed = found.num_failures == self.collection.num_bad and not found.without_reason
        wanted = "done_with_failures" if self.collection.num_bad else "done"
        return whole and equal and failed and self.attempts[-1].phase == wanted


def resume(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 if nothing was lost, done twice or different."""
    dice = random.Random(options.seed)  # noqa: S311 - nothing secret
    blows = plan_blows(dice)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        (directory / "clips").mkdir()
        collection = make_collection(
            directory / "in",
            ClipLibrary(directory / "clips"),
            num_clips=max(1, round(2000 * options.scale)),
            num_long=max(1, round(5 * options.scale)),
            num_bad=round(200 * options.scale) if options.bad else 0,
        )
        _say(f"{collection.num_good} recordings, {collection.audio_s / 3600:.1f} h")
        with cluster(options.nodes) as (nodes, jobs):
            runner = _Runner(jobs, Killer(nodes, dice), tuple(options.set or ()))
            clean_dir, output = directory / "clean", directory / "out"
            clean = runner.attempt(collection.directory, clean_dir, [], collection.num_good)
            _say(f"clean: {clean.phase} in {clean.elapsed_s:.0f} s")
            attempts = runner.attempts(collection.directory, output, blows, collection.num_good)
        result = _result(collection, clean, attempts, output, clean_dir)
        _tell(result, options.output)
        if options.keep:
            shutil.copytree(output, options.keep, dirs_exist_ok=True)
    return 0 if result.held else 1


def _result(
    collection: Collection,
    clean: Attempt,
    attempts: list[Attempt],
    output: Path,
    clean_dir: Path,
) -> Result:
    speech_s = clean.computed_s
    wasted_s = sum(attempt.computed_s for attempt in attempts) - speech_s
    return Result(
        collection,
        clean,
        tuple(attempts),
        compare(output, clean_dir),
        wasted_s,
        speech_s,
        machine(),
    )


@contextmanager
def cluster(num_nodes: int) -> Iterator[tuple[LocalNodes, BatchJobs]]:
    """Runs a cluster that takes jobs, for the length of the block."""
    prepare_environment(load_settings("demo"))
    # Jobs begin with `python`, which is to be this one.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    port = free_port()
    nodes = LocalNodes(num_nodes, port)
    try:
        yield nodes, connect(f"http://127.0.0.1:{port}")
    finally:
        nodes.shutdown()


class _Runner:
    def __init__(self, jobs: BatchJobs, killer: Killer, assignments: tuple[str, ...]) -> None:
        self._jobs = jobs
        self._killer = killer
        self._options = tuple(word for one in assignments for word in ("--set", one))

    def attempts(
        self, source: Path, output: Path, blows: list[Blow], num_good: int
    ) -> list[Attempt]:
        """Submits the command until it ends by itself."""
        done: list[Attempt] = []
        left = list(blows)
        while len(done) < _MOST_ATTEMPTS:
            done.append(self.attempt(source, output, left, num_good))
            _say(f"attempt {len(done)}: {done[-1].phase} in {done[-1].elapsed_s:.0f} s")
            if done[-1].phase.startswith("done"):
                break
        return done

    def attempt(self, source: Path, output: Path, left: list[Blow], num_good: int) -> Attempt:
        """Submits the command once and strikes when it is time; takes blows out of `left`."""
        began_s, began_unix_s = time.monotonic(), time.time()
        struck: list[str] = []
        computed_s = 0.0
        job_id = self._jobs.submit(JobRequest(str(source), str(output), self._options))

        def look() -> None:
            nonlocal computed_s
            progress = read_progress(output)
            if progress is None or progress["unix_s"] < began_unix_s:
                return
            computed_s = max(computed_s, progress["computed_audio_h"] * 3600)
            share = progress["done"] / num_good
            if left and progress["state"] == "running" and share >= left[0].at_share:
                hit = self._killer.strike(left[0].victim)
                if hit is not None:
                    blow = left.pop(0)
                    struck.append(hit)
                    _say(f"at {share:.0%}: killed {hit}")
                    if blow.victim is Victim.DRIVER:
                        time.sleep(1.0)

        job = self._follow(job_id, look)
        if not job.phase.startswith("done"):
            _say(job.message[-2000:] or self._jobs.logs(job_id)[-2000:])
        return Attempt(job.phase, time.monotonic() - began_s, computed_s, tuple(struck))

    def _follow(self, job_id: str, look: Callable[[], None]) -> JobInfo:
        deadline_s = time.monotonic() + _GIVE_UP_S
        while True:
            job = self._jobs.view(job_id)
            look()
            if job.ended:
                return job
            if time.monotonic() > deadline_s:
                _say(self._jobs.logs(job_id)[-3000:])
                self._jobs.cancel(job_id)
                raise TimeoutError(f"job {job_id} is not over after {_GIVE_UP_S:.0f} s")
            time.sleep(_POLL_S)


def _tell(result: Result, output: Path) -> None:
    found = result.comparison
    num_blows = sum(len(attempt.blows) for attempt in result.attempts)
    _say(
        f"{num_blows} kills, {len(result.attempts)} submissions: {found.num_outputs} outputs of "
        f"{result.collection.num_good}, {len(found.different)} unlike the clean run's, "
        f"{found.num_twice} twice, {found.num_missing} missing, {found.num_failures} failures of "
        f"{result.collection.num_bad} bad files, {found.num_leftovers} leftovers"
    )
    _say(
        f"wasted work: {result.wasted_s:.0f} s of {result.speech_s:.0f} s of speech computed "
        f"again ({result.wasted_s / max(result.speech_s, 1):.1%})"
    )
    _say(("held" if result.held else "NOT held") + f"; {result.machine}")
    output.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(result), indent=1, default=str)
    (output / "resume.json").write_text(content + "\n", encoding="utf-8")


def _say(text: str) -> None:
    print(text, flush=True)
