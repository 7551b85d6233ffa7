"""A job that is killed three times and resumed, held against one that is not."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from loadtests.batch.outputs import read_failures, read_progress, read_transcripts
from loadtests.batch.recordings import Collection, clip_lengths_s, make_collection
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.nodes import LocalNodes
from loadtests.harness.report import Report
from loadtests.harness.watch import titled
from loadtests.ports import free_port
from serve_app.batch.client import BatchJobs, JobRequest, connect
from serve_app.batch.job_status import JobInfo
from serve_app.launch import prepare_environment
from serve_app.settings import load_settings

_POLL_S = 0.3
_GIVE_UP_S = 1800.0
_MOST_ATTEMPTS = 5


class Victim(StrEnum):
    """What is hit."""

    DRIVER = "driver"
    ACTOR = "actor"
    RAYLET = "raylet"


# Of the driver, not the shell that Ray runs it in.
_TITLES = {
    Victim.DRIVER: (f"{sys.executable} -m serve_app.batch", "python -m serve_app.batch"),
    Victim.ACTOR: ("ray::MapWorker(",),
}


@dataclass(frozen=True, slots=True)
class Blow:
    """A kill that is due when so much of the recordings is done."""

    victim: Victim
    at_share: float


def plan_blows(dice: random.Random) -> list[Blow]:
    """Returns one of each kind, in random order, at random times."""
    victims = list(Victim)
    dice.shuffle(victims)
    width = 0.8 / len(victims)
    return [
        Blow(victim, 0.1 + width * (i + dice.uniform(0.2, 0.8))) for i, victim in enumerate(victims)
    ]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of the command.

    Attributes:
        phase: how it ended.
        computed_s: speech that its recognizers computed.
    """

    phase: str
    computed_s: float


def run(options: argparse.Namespace, report: Report) -> None:
    """Runs a job undisturbed, then again with kills until it ends by itself."""
    dice = random.Random(options.seed)  # noqa: S311 - nothing secret
    blows = plan_blows(dice)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        (directory / "clips").mkdir()
        num_clips, num_long = (max(1, round(n * options.scale)) for n in (2000, 5))
        collection = make_collection(
            directory / "in",
            ClipLibrary(directory / "clips"),
            [*clip_lengths_s(num_clips), *[60 * options.minutes] * num_long],
            round(200 * options.scale) if options.bad else 0,
        )
        num_good = len(collection.files)
        title = f"Jobs over {num_good} recordings, {collection.audio_s / 3600:.1f} h"
        columns = ("job", "ended", "took s", "speech computed s", "killed meanwhile")
        report.table(title, columns, (f"{collection.num_bad} further files are no audio",))
        with cluster(options.nodes) as (nodes, jobs):
            runner = _Runner(jobs, nodes, dice, report, options.set)
            clean_dir, output = directory / "clean", directory / "out"
            clean = runner.attempt("undisturbed", collection.directory, clean_dir, [], num_good)
            attempts: list[Attempt] = []
            while len(attempts) < _MOST_ATTEMPTS:
                job = f"killed, attempt {len(attempts) + 1}"
                attempts.append(runner.attempt(job, collection.directory, output, blows, num_good))
                if attempts[-1].phase.startswith("done"):
                    break
        wasted_s = sum(attempt.computed_s for attempt in attempts) - clean.computed_s
        share = wasted_s / max(clean.computed_s, 1)
        report.note(f"{wasted_s:.0f} s of speech computed again ({share:.1%})")
        judge(report, collection, output, clean_dir, attempts[-1].phase)


def judge(
    report: Report, collection: Collection, output: Path, clean_dir: Path, phase: str
) -> None:
    """Adds the comparison of a job's outputs with those of one that nothing happened to."""
    found, num_twice = read_transcripts(output)
    expected, _ = read_transcripts(clean_dir)
    failures = read_failures(output)
    num_missing = len(expected.keys() - found.keys())
    num_good, num_bad = len(collection.files), collection.num_bad
    different = [key for key in found if found[key] != expected.get(key)]
    silent = [one for one in failures if not one["reason"] or not one["kind"]]
    leftovers = [path for path in output.rglob("*") if path.name.startswith(".part-")]
    wanted = "done_with_failures" if num_bad else "done"
    for promise, told, kept in (
        (f"the job ends as {wanted}", phase, phase == wanted),
        (
            "every recording has an output",
            f"{len(found)} of {num_good}, {num_missing} missing",
            len(found) == num_good and num_missing == 0,
        ),
        ("none exists twice", f"{num_twice} do", num_twice == 0),
        ("all equal the undisturbed job's", f"{len(different)} do not", not different),
        (
            "every bad file is a failure with its reason",
            f"{len(failures)} of {num_bad}, {len(silent)} without",
            len(failures) == num_bad and not silent,
        ),
        ("no leftovers", f"{len(leftovers)}", not leftovers),
    ):
        report.promise(promise, told, kept)


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
    def __init__(
        self,
        jobs: BatchJobs,
        nodes: LocalNodes,
        dice: random.Random,
        report: Report,
        assignments: list[str],
    ) -> None:
        self._jobs = jobs
        self._nodes = nodes
        self._dice = dice
        self._report = report
        self._options = tuple(word for one in assignments for word in ("--set", one))

    def attempt(
        self, name: str, source: Path, output: Path, left: list[Blow], num_good: int
    ) -> Attempt:
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
                hit = self._strike(left[0].victim)
                if hit is not None:
                    struck.append(f"{hit} at {share:.0%}")
                    self._report.say(f"killed {struck[-1]}")
                    if left.pop(0).victim is Victim.DRIVER:
                        time.sleep(1.0)

        job = self._follow(job_id, look)
        if not job.phase.startswith("done"):
            self._report.say(job.message[-2000:] or self._jobs.logs(job_id)[-2000:])
        took_s = time.monotonic() - began_s
        self._report.row(name, job.phase, took_s, computed_s, "; ".join(struck) or None)
        return Attempt(job.phase, computed_s)

    def _strike(self, victim: Victim) -> str | None:
        """Kills; returns what was hit, None if there was nothing of the kind."""
        if victim is Victim.RAYLET:
            pid = self._nodes.kill(self._dice.randrange(self._nodes.num_workers))
            self._nodes.add()
            return f"raylet {pid} with all on its node"
        found = sorted(titled(*_TITLES[victim]), key=lambda process: process.pid)
        if not found:
            return None
        process = self._dice.choice(found)
        process.send_signal(signal.SIGKILL)
        return f"{victim} {process.pid}"

    def _follow(self, job_id: str, look: Callable[[], None]) -> JobInfo:
        deadline_s = time.monotonic() + _GIVE_UP_S
        while True:
            job = self._jobs.view(job_id)
            look()
            if job.ended:
                return job
            if time.monotonic() > deadline_s:
                self._report.say(self._jobs.logs(job_id)[-3000:])
                self._jobs.cancel(job_id)
                raise TimeoutError(f"job {job_id} is not over after {_GIVE_UP_S:.0f} s")
            time.sleep(_POLL_S)
