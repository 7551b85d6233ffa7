"""The state of the batch jobs of a cluster, from Ray's job details.

Jobs submitted by other means (`ray job submit`, a RayJob) count as well. They are recognized
by their command, or by our metadata if a script runs the command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from ray.job_submission import JobDetails, JobStatus, JobType

from serve_app.batch.arguments import find_job_paths

JobPhase = Literal[
    "pending", "running", "done", "done_with_failures", "failed", "cancelled", "lost"
]
"""Phase of a job; "lost" if the node of its driver died and Ray has not noticed."""

KIND = "paraserve-batch"
"""Value of `kind` in the metadata of batch jobs."""

_MAX_LOG_LINES = 400
_LOST = (
    "the node of its driver is gone; finished recordings are kept, and `paraserve batch resume` "
    "continues from there"
)


class ExitCode(IntEnum):
    """Exit codes of `paraserve batch` and of the job itself."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_RECORDINGS_FAILED = 3
    STILL_RUNNING = 4
    INTERRUPTED = 130


EXIT_CODES: Mapping[JobPhase, ExitCode] = {
    "pending": ExitCode.STILL_RUNNING,
    "running": ExitCode.STILL_RUNNING,
    "done": ExitCode.DONE,
    "done_with_failures": ExitCode.SOME_RECORDINGS_FAILED,
    "failed": ExitCode.FAILED,
    "cancelled": ExitCode.FAILED,
    "lost": ExitCode.FAILED,
}


@dataclass(frozen=True, slots=True)
class JobInfo:
    """The state of a job.

    Attributes:
        job_id: Ray's submission id.
        phase: of the job.
        source: where it reads.
        output: where it writes.
        began_unix_s: start; None if it has not started.
        ended_unix_s: end; None if it has not ended.
        message: Ray's message about its end.
        progress: the last progress that the job logged; empty before the first.
    """

    job_id: str
    phase: JobPhase
    source: str
    output: str
    began_unix_s: float | None
    ended_unix_s: float | None
    message: str
    progress: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        return self.phase not in ("pending", "running")


def last_progress(logs: str) -> Mapping[str, Any]:
    """Returns the last progress that a job logged; empty if there is none."""
    for line in reversed(logs.splitlines()[-_MAX_LOG_LINES:]):
        if '"progress"' not in line:
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("progress"), dict):
            return dict(record["progress"])
    return {}


def is_batch(details: JobDetails) -> bool:
    """Returns whether a job of the cluster transcribes recordings, whoever submitted it."""
    # Ray keeps neither logs nor exit code of a driver that was not submitted.
    if details.type != JobType.SUBMISSION:
        return False
    if (details.metadata or {}).get("kind") == KIND:
        return True
    return find_job_paths(str(details.entrypoint)) is not None


def job_info_of(
    details: JobDetails, progress: Mapping[str, Any], *, is_lost: bool = False
) -> JobInfo:
    """Returns the state of a job; without metadata, source and output come from its command.

    Args:
        details: Ray's.
        progress: `last_progress`.
        is_lost: its driver is gone, whatever Ray reports.
    """
    metadata = details.metadata or {}
    found = find_job_paths(str(details.entrypoint))
    return JobInfo(
        str(details.submission_id or details.job_id),
        "lost" if is_lost else _phase(details),
        metadata.get("source") or (found.source if found else ""),
        metadata.get("output") or (found.output if found else ""),
        _unix_s(details.start_time),
        _unix_s(details.end_time),
        _LOST if is_lost else details.message or "",
        progress,
    )


def _phase(details: JobDetails) -> JobPhase:
    if details.status == JobStatus.PENDING:
        return "pending"
    if details.status == JobStatus.RUNNING:
        return "running"
    if details.status == JobStatus.SUCCEEDED:
        return "done"
    if details.status == JobStatus.STOPPED:
        return "cancelled"
    some_failed = details.driver_exit_code == ExitCode.SOME_RECORDINGS_FAILED
    return "done_with_failures" if some_failed else "failed"


def _unix_s(time_ms: int | None) -> float | None:
    return None if not time_ms else time_ms / 1000
