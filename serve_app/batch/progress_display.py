"""A job's progress as text: lines of JSON for logs, a bar for terminals, phrases for both."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from serve_app.batch.progress import Snapshot
from serve_app.batch.waiting import waiting_phrase


def print_json_line(snapshot: Snapshot) -> None:
    """Prints `{"progress": {...}}` to standard error; `job_status` reads it from a job's log."""
    print(json.dumps({"progress": asdict(snapshot)}), file=sys.stderr, flush=True)


class ProgressBar:
    """Shows the progress of a run on a terminal, for the length of the block."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
        )
        self._task = self._bar.add_task("preparing", total=None, figures="")

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._bar.update(
            self._task,
            description=snapshot.state,
            total=snapshot.total or None,
            completed=snapshot.done + snapshot.failed,
            figures=", ".join(progress_figures(asdict(snapshot))),
        )


def progress_figures(progress: Mapping[str, Any]) -> list[str]:
    """Returns the known figures of a snapshot's fields as phrases."""
    waiting = waiting_phrase(progress)
    shown = [] if waiting is None else [waiting]
    # On a full cluster "0 of 8 done" would look like a job that hangs.
    if "done" in progress and (waiting is None or progress["done"]):
        shown.append(f"{progress['done']:,} of {progress.get('total', 0):,} done")
    if progress.get("failed"):
        shown.append(f"{progress['failed']:,} failed")
    for name, unit in (("audio_h", "h of audio"), ("rtfx", "x real time")):
        if progress.get(name) is not None:
            shown.append(f"{progress[name]:,.1f} {unit}")
    if progress.get("eta_s") is not None and progress.get("left"):
        shown.append(f"{duration_text(progress['eta_s'])} left")
    return shown


def duration_text(seconds: float) -> str:
    """Returns a duration in hours and minutes, minutes and seconds, or seconds."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
