"""How speed and memory grow with recognizers on a machine, and with recordings at a time."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch

from loadtests.bench.engine import speech
from loadtests.bench.options import Options, as_flac, open_named, short, text_of
from loadtests.bench.peers import Packed
from loadtests.harness.child import Child, Meter, hold, median_cost, send
from loadtests.harness.report import Cell, Report, megabytes
from loadtests.harness.watch import forget_peak, memory, private_and_proportional_bytes
from serve_app.core.records import SAMPLE_RATE_HZ
from serve_app.inference.local import LocalTranscriber

REPLICAS = (1, 2, 4, 8)
CLIENTS = (1, 2, 4, 8, 16)
_MODULE = "loadtests.bench.growth"
_POLL_S = 0.01


def compare(options: Options, report: Report) -> None:
    """Recognizers: as many as cores at most. Recordings at a time: in one process."""
    packs = f"{short(options.pack)} and {short(options.punctuation_pack)}"
    report.table(
        f"Recognizers side by side, {short(options.pack)}, one thread each, "
        f"median of {options.repeats}",
        ("recognizers", "RTFx of all", "RTFx a core", "private MB each", "PSS MB each"),
        ("the same speech to each of them; weights come from one mapped file",),
    )
    for count in REPLICAS:
        if count <= (os.cpu_count() or 1):
            runs = [_side_by_side(count, options) for _ in range(options.repeats)]
            report.row(*_replica_row(count, runs))
    report.table(
        f"Recordings of {options.seconds:.0f} s at a time in one process, bytes to text, {packs}, "
        f"one thread a stage, median of {options.repeats}",
        ("recordings", "wall s", "RTFx of all", "RTFx a core", "MB before", "peak MB", "growth MB"),
    )
    child = Child(_MODULE, "clients", options.to_json())
    for row in child.results():
        report.row(*row)  # type: ignore[misc]  # of cells
    first, second = (table.rows for table in report.tables)
    labels = [f"{row[0]} at a time" for row in second]
    report.bars(
        ("RTFx of all", [f"{row[0]} recognizers" for row in first], [row[1] for row in first]),
        ("RTFx of all", labels, [row[2] for row in second]),
        ("peak MB", labels, [row[5] for row in second]),
    )


def _replica_row(count: int, runs: Sequence[Sequence[Sequence[float]]]) -> Sequence[Cell]:
    """Speed from the median run, memory from the largest replica of the last one."""
    return (
        str(count),
        median(sum(audio_s / wall_s for wall_s, _, audio_s, _, _ in run) for run in runs),
        median(sum(one[2] for one in run) / sum(one[1] for one in run) for run in runs),
        *(megabytes(max(one[kind] for one in runs[-1])) for kind in (3, 4)),
    )


def _side_by_side(count: int, options: Options) -> list[list[float]]:
    """Starts recognizers, lets them begin together, looks at them while all live.

    Returns:
        Of each the wall time, CPU time and audio in s, and the private and proportional bytes.
    """
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        children = []
        for number in range(count):
            child = Child(_MODULE, "replica", options.to_json(), directory, str(number))
            stack.callback(child.release)
            children.append(child)
        while len(list(Path(directory).glob("ready-*"))) < count:
            if not all(child.is_running for child in children):
                raise RuntimeError("a recognizer did not start")
            time.sleep(_POLL_S)
        (Path(directory) / "go").touch()
        results: list[Any] = [child.result() for child in children]
        return [
            [*result, *private_and_proportional_bytes(child.pid)]
            for child, result in zip(children, results, strict=True)
        ]


def _hear(options: Options, directory: Path, number: str) -> None:
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
    send([meter.cost.wall_s, meter.cost.cpu_s, sum(map(len, segments)) / SAMPLE_RATE_HZ])
    hold()


async def _crowds(options: Options) -> None:
    """Runs in a child: more and more recordings at a time."""
    torch.set_num_threads(1)
    async with LocalTranscriber(options.settings()) as transcriber:
        audio = as_flac(options.samples())
        expected = await text_of(transcriber, audio)
        for count in CLIENTS:
            costs, held_bytes, peaks_bytes = [], [], []
            for _ in range(options.repeats):
                gc.collect()
                forget_peak()
                held_bytes.append(memory().resident_bytes)
                with Meter() as meter:
                    texts = await asyncio.gather(
                        *(text_of(transcriber, audio) for _ in range(count))
                    )
                if set(texts) != {expected}:
                    raise RuntimeError("a text depends on what else is transcribed")
                costs.append(meter.cost)
                peaks_bytes.append(memory().peak_bytes)
            cost, audio_s = median_cost(costs), options.seconds * count
            held = (held_bytes[0], max(peaks_bytes), max(peaks_bytes) - held_bytes[0])
            speeds = (audio_s / cost.wall_s, audio_s / cost.cpu_s)
            send([str(count), cost.wall_s, *speeds, *map(megabytes, held)])


if __name__ == "__main__":
    given = Options.from_json(sys.argv[2])
    if sys.argv[1] == "replica":
        _hear(given, Path(sys.argv[3]), sys.argv[4])
    else:
        asyncio.run(_crowds(given))
