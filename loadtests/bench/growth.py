"""How speed and memory grow with recognizers on a machine, and with recordings at a time."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from loadtests.bench.engine import speech
from loadtests.bench.measuring import (
    Child,
    Cost,
    Meter,
    forget_peak,
    hold,
    machine,
    peak_bytes,
    private_bytes,
    proportional_bytes,
    report,
    resident_bytes,
    run_child,
)
from loadtests.bench.options import Options, as_flac, open_named, short
from loadtests.bench.peers import Packed
from loadtests.bench.tables import Bar, Cell, Comparison, Table, megabytes
from serve_app.core.records import SAMPLE_RATE_HZ, STAGES, FileBytes
from serve_app.inference.local import LocalTranscriber
from serve_app.transcript.transcript import collect

REPLICAS = (1, 2, 4, 8)
CLIENTS = (1, 2, 4, 8, 16)
_MODULE = "loadtests.bench.growth"
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Replica:
    """One recognizer among others: what it took, and its memory."""

    cost: Cost
    audio_s: float
    private_bytes: int
    proportional_bytes: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """Recordings at a time in one process.

    Attributes:
        num_clients: each with the whole recording.
        wall_s: until the last had its text.
        cpu_s: of all together.
        before_bytes: resident before them, with the file.
        peak_bytes: the most that was resident.
    """

    num_clients: int
    wall_s: float
    cpu_s: float
    before_bytes: int
    peak_bytes: int


def compare(options: Options, command: str) -> Comparison:
    """Recognizers: as many as cores at most. Recordings at a time: in one process."""
    where = machine()
    counts = [count for count in REPLICAS if count <= (os.cpu_count() or 1)]
    replicas = {
        count: [_side_by_side(count, options) for _ in range(options.repeats)] for count in counts
    }
    child: Any = run_child(_MODULE, ["clients", options.to_json()])
    crowds = [Crowd(*row) for row in child]
    rows = tuple(_replica_row(count, runs) for count, runs in replicas.items())
    first = Table(
        f"Recognizers side by side, {short(options.pack)}, one thread each, "
        f"median of {options.repeats}",
        ("recognizers", "RTFx of all", "RTFx a core", "private MB each", "PSS MB each"),
        rows,
        ("the same speech to each of them; weights come from one mapped file",),
    )
    more = tuple(_client_row(options.seconds, crowd) for crowd in crowds)
    second = Table(
        f"Recordings of {options.seconds:.0f} s at a time in one process, bytes to text, "
        f"{short(options.pack)} and {short(options.punctuation_pack)}, one thread a stage, "
        f"median of {options.repeats}",
        ("recordings", "wall s", "RTFx of all", "RTFx a core", "MB before", "peak MB", "growth MB"),
        more,
    )
    labels = tuple(f"{row[0]} at a time" for row in more)
    charts = (
        Bar(
            "RTFx of all",
            tuple(f"{row[0]} recognizers" for row in rows),
            tuple(float(row[1]) for row in rows),
        ),
        Bar("RTFx of all", labels, tuple(float(row[2]) for row in more)),
        Bar("peak MB", labels, tuple(float(row[5]) for row in more)),
    )
    return Comparison("growth", command, where, (first, second), charts)


def _replica_row(count: int, runs: list[list[Replica]]) -> tuple[Cell, ...]:
    """Speed from the median run, memory from the largest replica of the last one."""
    last = runs[-1]
    return (
        str(count),
        median(sum(one.audio_s / one.cost.wall_s for one in run) for run in runs),
        median(
            sum(one.audio_s for one in run) / sum(one.cost.cpu_s for one in run) for run in runs
        ),
        megabytes(max(one.private_bytes for one in last)),
        megabytes(max(one.proportional_bytes for one in last)),
    )


def _client_row(seconds: float, crowd: Crowd) -> tuple[Cell, ...]:
    audio_s = seconds * crowd.num_clients
    return (
        str(crowd.num_clients),
        crowd.wall_s,
        audio_s / crowd.wall_s,
        audio_s / crowd.cpu_s,
        megabytes(crowd.before_bytes),
        megabytes(crowd.peak_bytes),
        megabytes(crowd.peak_bytes - crowd.before_bytes),
    )


def _side_by_side(count: int, options: Options) -> list[Replica]:
    """Starts recognizers, lets them begin together, looks at them while all live."""
    with tempfile.TemporaryDirectory() as directory:
        children: list[Child] = []
        try:
            for number in range(count):
                arguments = ["replica", options.to_json(), directory, str(number)]
                children.append(Child(_MODULE, arguments))
            while len(list(Path(directory).glob("ready-*"))) < count:
                if not all(child.is_running for child in children):
                    raise RuntimeError("a recognizer did not start")
                time.sleep(_POLL_S)
            (Path(directory) / "go").touch()
            results: list[Any] = [child.result() for child in children]
            return [
                Replica(
                    Cost(wall_s, cpu_s),
                    audio_s,
                    private_bytes(child.pid),
                    proportional_bytes(child.pid),
                )
                for child, (wall_s, cpu_s, audio_s) in zip(children, results, strict=True)
            ]
        finally:
            for child in children:
                child.release()


def _hear(options: Options, directory: Path, number: str) -> list[float]:
    """Runs in a child: one recognizer among others."""
    torch.set_num_threads(1)
    segments = speech(options)
    peer = Packed(open_named(options.pack))
    peer.hear(segments)
    (directory / f"ready-{number}").touch()
    while not (directory / "go").exists():
        time.sleep(_POLL_S)
    with Meter() as meter:
        peer.hear(segments)
    return [meter.cost.wall_s, meter.cost.cpu_s, sum(map(len, segments)) / SAMPLE_RATE_HZ]


async def _crowds(options: Options) -> list[Crowd]:
    """Runs in a child: more and more recordings at a time."""
    torch.set_num_threads(1)
    async with LocalTranscriber(options.settings()) as transcriber:

        async def text(audio: FileBytes) -> str:
            return (await collect(transcriber.transcribe(audio, frozenset(STAGES)))).text

        audio = as_flac(options.samples())
        expected = await text(audio)
        crowds = []
        for count in CLIENTS:
            runs = []
            for _ in range(options.repeats):
                gc.collect()
                forget_peak()
                before_bytes = resident_bytes()
                with Meter() as meter:
                    texts = await asyncio.gather(*(text(audio) for _ in range(count)))
                if set(texts) != {expected}:
                    raise RuntimeError("a text depends on what else is transcribed")
                runs.append((meter.cost, before_bytes, peak_bytes()))
            crowds.append(
                Crowd(
                    count,
                    median(cost.wall_s for cost, _, _ in runs),
                    median(cost.cpu_s for cost, _, _ in runs),
                    runs[0][1],
                    max(peak for _, _, peak in runs),
                )
            )
        return crowds


if __name__ == "__main__":
    given = Options.from_json(sys.argv[2])
    if sys.argv[1] == "replica":
        report(_hear(given, Path(sys.argv[3]), sys.argv[4]))
    else:
        report([astuple(crowd) for crowd in asyncio.run(_crowds(given))])
    hold()
