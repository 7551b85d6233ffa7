"""The progress bar of a job, and its times and states as text."""

from __future__ import annotations

import sys
from datetime import datetime

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from serve_app.cli.console import console_for
from serve_app.client import Job


def progress_bar() -> Progress:
    """Returns a progress bar on standard error, which is silent unless that is a terminal."""
    console = console_for(sys.stderr)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[position]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def show_job(progress: Progress, task: TaskID, job: Job) -> None:
    """Brings a bar up to date."""
    total_s = job.progress.total_audio_s
    if job.is_final:
        progress.update(task, total=1, completed=1, position=job.status)
    elif job.status == "queued":
        progress.update(task, total=None, position=position_text(job))
    else:
        done_s = min(job.progress.audio_s, total_s or job.progress.audio_s)
        progress.update(task, total=total_s, completed=done_s, position=position_text(job))


def position_text(job: Job) -> str:
    """Returns how far a job is."""
    if job.status == "queued":
        return "queued" if job.position is None else f"queued, {job.position} before it"
    if job.status != "running":
        return job.status
    total_s = job.progress.total_audio_s
    done = clock_text(job.progress.audio_s)
    if not total_s:
        return done
    return f"{done} of {clock_text(total_s)} ({job.progress.percent:.0f} %)"


def clock_text(seconds: float | None) -> str:
    """Returns a length such as 1:02:03; a hyphen if it is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_text(time: datetime | None) -> str:
    """Returns a time in this machine's time zone; a hyphen for none."""
    return "-" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def end_text(job: Job) -> str:
    """Returns how a job ended that did not complete."""
    if job.error is not None:
        return job.error.message
    return f"the job is {job.status}"
