"""Time and peak memory of the whole pipeline as recordings grow."""

from __future__ import annotations

import asyncio
import gc
import sys
from statistics import median
from typing import Any

import numpy as np
import torch

from loadtests.bench.options import Options, as_flac, long_flac, short, text_of
from loadtests.harness.child import Meter, run_child, send
from loadtests.harness.report import Report, megabytes
from loadtests.harness.watch import forget_peak, memory
from serve_app.inference.local import LocalTranscriber

MINUTES = (1.0, 5.0, 20.0, 60.0, 180.0, 600.0)
_WARM_UP_S = 30.0
_COLUMNS = (
    *("minutes", "wall s", "CPU s", "RTFx", "RTFx a core"),
    *("file MB", "MB before", "peak MB", "growth MB", "characters"),
)


def compare(options: Options, report: Report) -> None:
    """Measures each length in fresh processes, in turns."""
    lengths = [minutes for minutes in MINUTES if minutes <= options.max_minutes]
    lengths = lengths or [options.max_minutes]
    report.table(
        f"From bytes to text by length, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, one compute thread a stage, "
        f"median of {options.repeats}",
        _COLUMNS,
    )
    runs: dict[float, list[list[float]]] = {}
    for _ in range(options.repeats):
        for minutes in lengths:
            child: Any = run_child("loadtests.bench.length", str(minutes), options.to_json())
            runs.setdefault(minutes, []).append(child)
            report.rows(_row(of, measured) for of, measured in runs.items())
    rows = report.tables[-1].rows
    labels = [f"{minutes:g} min" for minutes in runs]
    report.bars(
        ("RTFx a core", labels, [row[4] for row in rows]),
        ("peak MB", labels, [row[7] for row in rows]),
    )


def _row(minutes: float, runs: list[list[float]]) -> tuple[str | float | int, ...]:
    wall_s, cpu_s, file_bytes, before, peak, num_characters = map(median, zip(*runs, strict=True))
    return (
        f"{minutes:g}",
        wall_s,
        cpu_s,
        60 * minutes / wall_s,
        60 * minutes / cpu_s,
        *map(megabytes, (file_bytes, before, peak, peak - before)),
        int(num_characters),
    )


async def _measure(minutes: float, options: Options) -> list[float]:
    torch.set_num_threads(1)
    async with LocalTranscriber(options.settings()) as transcriber:
        await text_of(transcriber, as_flac(options.samples(_WARM_UP_S)))
        # A copy of the file alone: making it took memory that must not count.
        audio = np.copy(long_flac(options, 60 * minutes))
        gc.collect()
        forget_peak()
        before_bytes = memory().resident_bytes
        with Meter() as meter:
            transcript = await text_of(transcriber, audio)
        peak_bytes = memory().peak_bytes
    return [
        meter.cost.wall_s,
        meter.cost.cpu_s,
        len(audio),
        before_bytes,
        peak_bytes,
        len(transcript),
    ]


if __name__ == "__main__":
    send(asyncio.run(_measure(float(sys.argv[1]), Options.from_json(sys.argv[2]))))
