"""Batch jobs on a cluster, over the Ray Job API.

A job is the command `python -m serve_app.batch`; what is needed to find and resume it
is in its entrypoint and metadata, so that nothing has to be kept on the caller's side.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from serve_app.core.errors import ClusterError

JobPhase = Literal["pending", "running", "done", "done_with_failures", "failed", "cancelled"]

_KIND = "paraserve-batch"
_POLL_S = 1.0
_NO_AGENT = "No available agent"
_AGENT_PATIENCE_S = 60.0
_MAX_LOG_LINES = 400


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
}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as it is asked for.

    Attributes:
        source: manifest, directory, glob or prefix, as the cluster sees it.
        output: directory or prefix of the results, as the cluster sees it.
        options: further arguments of `python -m serve_app.batch`.
    """

    source: str
    output: str
    options: tuple[str, ...] = ()

    @property
    def entrypoint(self) -> str:
        return shlex.join(
            ["python", "-m", "serve_app.batch", self.source, self.output, *self.options]
        )


@dataclass(frozen=True, slots=True)
class JobView:
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


def connect(address: str, token: str | None = None) -> BatchJobs:
    """Returns the batch jobs of the cluster at an address.

    Args:
        address: of Ray's dashboard, as http://127.0.0.1:8265.
        token: Ray's; None where it asks for none.

    Raises:
        ClusterError: there is no Ray at the address, or it refuses the token.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else None
    with _ray_errors(f"cannot reach Ray's jobs at {address}"):
        return BatchJobs(JobSubmissionClient(address, headers=headers))


class BatchJobs:
    """The batch jobs of one cluster.

    Args:
        client: Ray's.
    """

    def __init__(self, client: JobSubmissionClient) -> None:
        self._client = client

    def submit(self, request: JobRequest) -> str:
        """Begins a job; returns its id.

        Raises:
            ClusterError: another job that writes to the same place is not over yet, or Ray refuses.
        """
        for other in self.jobs():
            if not other.ended and other.output == request.output:
                raise ClusterError(
                    f"job {other.job_id} is writing to {request.output}: wait for it or cancel it"
                )
        metadata = {"kind": _KIND, "source": request.source, "output": request.output}
        give_up_at = time.monotonic() + _AGENT_PATIENCE_S
        while True:
            with _ray_errors("Ray did not take the job"):
                try:
                    return str(
                        self._client.submit_job(entrypoint=request.entrypoint, metadata=metadata)
                    )
                except RuntimeError as error:
                    # A cluster that has just started or lost a node; nothing was submitted.
                    if _NO_AGENT not in str(error) or time.monotonic() >= give_up_at:
                        raise
            time.sleep(_POLL_S)

    def resume(self, job_id: str) -> str:
        """Begins a job's command anew; what is finished is not done again.

        Raises:
            ClusterError: there is no such job, it is not over yet, or Ray refuses.
        """
        job = self.view(job_id)
        if not job.ended:
            raise ClusterError(f"job {job_id} is {job.phase}; there is nothing to resume")
        words = shlex.split(str(self._details(job_id).entrypoint))
        return self.submit(JobRequest(job.source, job.output, tuple(words[5:])))

    def jobs(self) -> list[JobView]:
        """Returns the cluster's batch jobs, the last one first, without their progress."""
        with _ray_errors("Ray does not list its jobs"):
            found: list[JobDetails] = self._client.list_jobs()
        views = [_view(details, {}) for details in found if _is_batch(details)]
        return sorted(views, key=lambda view: view.began_unix_s or 0.0, reverse=True)

    def view(self, job_id: str) -> JobView:
        """Returns a job with its progress.

        Raises:
            ClusterError: there is no such job.
        """
        return _view(self._details(job_id), last_progress(self.logs(job_id)))

    def logs(self, job_id: str) -> str:
        """Returns what the job's driver has written.

        Raises:
            ClusterError: there is no such job.
        """
        with _ray_errors(f"no logs of job {job_id}"):
            return str(self._client.get_job_logs(job_id))

    async def follow(self, job_id: str) -> AsyncIterator[str]:
        """Yields what the job's driver writes, until it ends.

        Raises:
            ClusterError: there is no such job.
        """
        with _ray_errors(f"no logs of job {job_id}"):
            async for lines in self._client.tail_job_logs(job_id):
                yield lines

    def wait(self, job_id: str, on_change: Callable[[JobView], None]) -> JobView:
        """Waits for a job's end, telling of each change.

        Raises:
            ClusterError: there is no such job, or the cluster went away.
        """
        told: JobView | None = None
        while True:
            job = self.view(job_id)
            if job != told:
                on_change(job)
                told = job
            if job.ended:
                return job
            time.sleep(_POLL_S)

    def cancel(self, job_id: str) -> bool:
        """Ends a job; what it finished stays. Returns whether it was still under way.

        Raises:
            ClusterError: there is no such job.
        """
        with _ray_errors(f"cannot cancel job {job_id}"):
            return bool(self._client.stop_job(job_id))

    def _details(self, job_id: str) -> JobDetails:
        with _ray_errors(f"there is no job {job_id}"):
            details: JobDetails = self._client.get_job_info(job_id)
        if not _is_batch(details):
            raise ClusterError(f"job {job_id} is not a batch transcription")
        return details


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


@contextmanager
def _ray_errors(what: str) -> Iterator[None]:
    """Turns what Ray's client raises into one line of ours."""
    try:
        yield
    except (RuntimeError, ConnectionError, OSError) as error:
        raise ClusterError(f"{what}: {_line(error)}") from None


def _is_batch(details: JobDetails) -> bool:
    return (details.metadata or {}).get("kind") == _KIND


def _view(details: JobDetails, progress: Mapping[str, Any]) -> JobView:
    metadata = details.metadata or {}
    return JobView(
        str(details.submission_id or details.job_id),
        _phase(details),
        metadata.get("source", ""),
        metadata.get("output", ""),
        _unix_s(details.start_time),
        _unix_s(details.end_time),
        details.message or "",
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


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
