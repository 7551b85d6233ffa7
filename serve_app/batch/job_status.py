"""How the batch jobs of a cluster stand, out of what Ray knows of them.

Jobs that others submitted to Ray count, too: with `ray job submit`, or as a RayJob. They
are known by their command, or by metadata like ours where a script of theirs runs it.
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
"""Where a job is; "lost" if its driver's node died and Ray has not noticed."""

KIND = "paraserve-batch"
"""What metadata call such a job, as `kind`."""

_MAX_LOG_LINES = 400
_LOST = (
    "the node of its driver is gone; what it finished is kept, and `paraserve batch resume` goes "
    "on from there"
)


class ExitCode(IntEnum):
    """What the commands of `paraserve batch` and the job itself end with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_RECORDINGS_FAILED = 3
    STILL_RUNNING = 4


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
    """A job as it stands.

    Attributes:
        job_id: Ray's submission id.
        phase: where it is.
        source: what it reads.
        output: where it writes.
        began_unix_s: when it was begun, None if it was not.
        ended_unix_s: when it ended, None if it did not.
        message: Ray's word on how it ended.
        progress: the last figures that the job logged; empty before the first.
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
    """Returns the figures of the last line that a job logged about its progress."""
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
    # Of a driver that was not submitted Ray keeps neither logs nor how it ended.
    if details.type != JobType.SUBMISSION:
        return False
    if (details.metadata or {}).get("kind") == KIND:
        return True
    return find_job_paths(str(details.entrypoint)) is not None


def job_info_of(
    details: JobDetails, progress: Mapping[str, Any], *, is_lost: bool = False
) -> JobInfo:
    """Returns how a job stands; without metadata its command says where it reads and writes.

    Args:
        details: what Ray knows of it.
        progress: `last_progress`.
        is_lost: whoever runs it is gone, whatever Ray says.
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
