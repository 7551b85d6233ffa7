"""Time and peak memory of the whole pipeline as recordings grow."""

from __future__ import annotations

import asyncio
import gc
import sys
from dataclasses import astuple, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from loadtests.bench.measuring import (
    Meter,
    forget_peak,
    hold,
    machine,
    peak_bytes,
    report,
    resident_bytes,
    run_child,
)
from loadtests.bench.options import Options, as_flac, long_flac, short
from loadtests.bench.tables import Bar, Comparison, Table, megabytes
from serve_app.core.records import STAGES, FileBytes
from serve_app.inference.local import LocalTranscriber
from serve_app.transcript.transcript import collect

MINUTES = (1, 5, 20, 60, 180, 600)
_WARM_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class Growth:
    """One recording in a process of its own.

    Attributes:
        wall_s: from bytes to text, by the clock.
        cpu_s: the same, of all cores together.
        file_bytes: the recording as a FLAC file, which is in memory throughout.
        before_bytes: resident before it, with the file, after a short recording.
        peak_bytes: the most that was resident during it.
        num_characters: of the text.
    """

    wall_s: float
    cpu_s: float
    file_bytes: int
    before_bytes: int
    peak_bytes: int
    num_characters: int


def compare(options: Options, command: str) -> Comparison:
    """Measures each length in fresh processes, in turns."""
    where = machine()
    lengths = [minutes for minutes in MINUTES if minutes <= options.max_minutes]
    runs: dict[int, list[Growth]] = {minutes: [] for minutes in lengths}
    for _ in range(options.repeats):
        for minutes, measured in runs.items():
            child: Any = run_child("loadtests.bench.length", [str(minutes), options.to_json()])
            measured.append(Growth(*child))
    rows = tuple(_row(minutes, measured) for minutes, measured in runs.items())
    table = Table(
        f"From bytes to text by length, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, one compute thread a stage, "
        f"median of {options.repeats}",
        (
            "minutes",
            "wall s",
            "CPU s",
            "RTFx",
            "RTFx a core",
            "file MB",
            "MB before",
            "peak MB",
            "growth MB",
            "characters",
        ),
        rows,
    )
    labels = tuple(f"{minutes} min" for minutes in runs)
    charts = (
        Bar("RTFx a core", labels, tuple(float(row[4]) for row in rows)),
        Bar("peak MB", labels, tuple(float(row[7]) for row in rows)),
    )
    return Comparison("length", command, where, (table,), charts)


def _row(minutes: int, runs: list[Growth]) -> tuple[str | float | int, ...]:
    wall_s = median(run.wall_s for run in runs)
    cpu_s = median(run.cpu_s for run in runs)
    extra_bytes = median(run.peak_bytes - run.before_bytes for run in runs)
    return (
        str(minutes),
        wall_s,
        cpu_s,
        60 * minutes / wall_s,
        60 * minutes / cpu_s,
        megabytes(runs[0].file_bytes),
        megabytes(median(run.before_bytes for run in runs)),
        megabytes(median(run.peak_bytes for run in runs)),
        megabytes(extra_bytes),
        runs[0].num_characters,
    )


async def _measure(minutes: float, options: Options) -> Growth:
    torch.set_num_threads(1)
    async with LocalTranscriber(options.settings()) as transcriber:

        async def text(audio: FileBytes) -> str:
            return (await collect(transcriber.transcribe(audio, frozenset(STAGES)))).text

        await text(as_flac(options.samples(_WARM_UP_S)))
        # A copy of the file alone: making it took memory that must not count.
        audio = np.copy(long_flac(options, 60 * minutes))
        gc.collect()
        forget_peak()
        before_bytes = resident_bytes()
        with Meter() as meter:
            transcript = await text(audio)
        return Growth(
            meter.cost.wall_s,
            meter.cost.cpu_s,
            len(audio),
            before_bytes,
            peak_bytes(),
            len(transcript),
        )


if __name__ == "__main__":
    growth = asyncio.run(_measure(float(sys.argv[1]), Options.from_json(sys.argv[2])))
    report(astuple(growth))
    hold()
