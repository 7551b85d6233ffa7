"""Measures each row in a fresh process and formats the Markdown table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.modeltools.memory_bench.rows import Row

RESULT_PREFIX = "RESULT "  # marks the output line of the child
_SHOWN_CHARACTERS = 300
# Spinning threads would count as CPU time of the model.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """A row with its measurements, or the reason why there are none.

    Attributes:
        key: of the row.
        title: of the row.
        packs: labels of what was loaded.
        is_random: whether any of them has random weights.
        weights_bytes: of the packs' files.
        imported_bytes: resident before anything was loaded.
        load_s: until all stages were loaded.
        rss_bytes: resident after the audio was run.
        pss_bytes: likewise, shared pages divided among their owners.
        peak_bytes: the most that was resident.
        gpu_bytes: reserved on the device; None without one.
        rtfx: seconds of audio per second; None for a row without a stage.
        rtfx_a_core: seconds of audio per CPU second, on which other work on the machine has
            little effect; likewise.
        problem: why it was not measured; None if it was.
    """

    key: str
    title: str
    packs: tuple[str, ...]
    is_random: bool
    weights_bytes: int = 0
    imported_bytes: int = 0
    load_s: float = 0.0
    rss_bytes: int = 0
    pss_bytes: int = 0
    peak_bytes: int = 0
    gpu_bytes: int | None = None
    rtfx: float | None = None
    rtfx_a_core: float | None = None
    problem: str | None = None


def measure_rows(
    rows: Sequence[Row],
    *,
    device: str,
    num_threads: int,
    seconds: float,
    pack_dir: Path,
    before: Callable[[Row], None] = lambda row: None,
) -> Iterator[MeasuredRow]:
    """Runs one process per row, one at a time.

    Args:
        rows: what to load.
        device: of recognizer and punctuation model.
        num_threads: compute threads of each stage.
        seconds: duration of the synthesized audio.
        pack_dir: of pulled packs.
        before: called with each row before it starts.
    """
    for row in rows:
        before(row)
        arguments = {
            "settings": _settings(row, device, num_threads, pack_dir),
            "stages": row.stages,
            "seconds": seconds,
        }
        yield _run(row, json.dumps(arguments), num_threads, seconds)


def _settings(row: Row, device: str, num_threads: int, pack_dir: Path) -> dict[str, Any]:
    deployment = {"num_gpus": 0.0 if device == "cpu" else 1.0}
    dtype = "bfloat16" if device != "cpu" else row.dtype
    return {
        "profile": "demo",
        "pack_dir": str(pack_dir),
        "segmenter": {"num_threads": num_threads},
        "vad": {"pack": row.vad.name},
        "recognizer": {
            "pack": row.asr.name,
            "engine": row.engine,
            "dtype": dtype,
            "device": device,
            "num_threads": num_threads,
            "deployment": deployment,
        },
        "punctuator": {
            "pack": row.punctuation.name,
            "device": device,
            "num_threads": num_threads,
            "deployment": deployment,
        },
        "speaker_embedder": {
            "pack": row.speakers.name,
            "device": device,
            "num_threads": num_threads,
            "deployment": deployment,
        },
    }


def _run(row: Row, arguments: str, num_threads: int, seconds: float) -> MeasuredRow:
    labels = tuple(pack.label for pack in row.packs)
    is_random = any(pack.is_random for pack in row.packs)
    child = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "serve_app.modeltools.memory_bench.child", arguments],
        env=os.environ | _ENVIRONMENT | {"OMP_NUM_THREADS": str(num_threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in child.stdout.splitlines() if line.startswith(RESULT_PREFIX)]
    if child.returncode != 0 or not found:
        return MeasuredRow(row.key, row.title, labels, is_random, problem=_reason(child))
    measured = json.loads(found[-1].removeprefix(RESULT_PREFIX))
    run_s, run_cpu_s = measured.pop("run_s"), measured.pop("run_cpu_s")
    speeds = {"rtfx": seconds / run_s, "rtfx_a_core": seconds / run_cpu_s} if row.stages else {}
    return MeasuredRow(row.key, row.title, labels, is_random, **measured, **speeds)


def _reason(child: subprocess.CompletedProcess[str]) -> str:
    if child.returncode < 0:
        return f"ended by signal {-child.returncode}; signal 9 may mean out of memory"
    lines = child.stderr.strip().splitlines()
    return lines[-1][:_SHOWN_CHARACTERS] if lines else f"ended with code {child.returncode}"


_MEGABYTE = 1_000_000


def markdown(rows: Sequence[MeasuredRow]) -> str:
    """Returns the table, with a GPU column if a GPU was used."""
    on_gpu = any(row.gpu_bytes is not None for row in rows)
    heads = ["loaded", "packs", "weights MB", "load s", "resident MB", "PSS MB", "peak MB"]
    heads += ["GPU MB"] if on_gpu else []
    heads += ["RTFx", "RTFx a core"]
    lines = [_line(heads), _line(["---", "---", *["---:"] * (len(heads) - 2)])]
    lines += [_line(_cells(row, on_gpu)) for row in rows]
    notes = [f"- {row.title}: not measured: {row.problem}" for row in rows if row.problem]
    if any(row.is_random for row in rows):
        notes.append(
            "- \\*: random weights of the published architecture: memory and speed are the same, "
            "the text is meaningless"
        )
    return "\n".join([*lines, "", *notes]) + "\n"


def _cells(row: MeasuredRow, on_gpu: bool) -> list[str]:
    packs = ", ".join(row.packs) + ("\\*" if row.is_random else "")
    num_figures = 7 + on_gpu
    if row.problem is not None:
        return [row.title, packs, *["-"] * num_figures]
    figures = [
        _megabytes(row.weights_bytes),
        f"{row.load_s:.1f}",
        _megabytes(row.rss_bytes),
        _megabytes(row.pss_bytes),
        _megabytes(row.peak_bytes),
    ]
    if on_gpu:
        figures.append("-" if row.gpu_bytes is None else _megabytes(row.gpu_bytes))
    speeds = ("-" if speed is None else f"{speed:,.1f}" for speed in (row.rtfx, row.rtfx_a_core))
    return [row.title, packs, *figures, *speeds]


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / _MEGABYTE:,.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
