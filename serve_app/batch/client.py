"""Batch jobs on a cluster, over the Ray Job API.

A job is the command `python -m serve_app.batch`. Its entrypoint and metadata hold all that is
needed to find and resume it, so callers store nothing.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from serve_app.batch.arguments import MODULE
from serve_app.batch.job_status import KIND, JobInfo, is_batch, job_info_of, last_progress
from serve_app.batch.session import LiveSupervisors, live_supervisors
from serve_app.core.errors import ClusterError

_POLL_S = 1.0
_NO_AGENT = "No available agent"
_AGENT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to submit.

    Attributes:
        source: manifest, directory, glob or prefix, as seen from the cluster.
        output: directory or prefix of the results, as seen from the cluster.
        options: further arguments of `python -m serve_app.batch`.
    """

    source: str
    output: str
    options: tuple[str, ...] = ()

    @property
    def entrypoint(self) -> str:
        return shlex.join(["python", "-m", MODULE, self.source, self.output, *self.options])


def connect(address: str, token: str | None = None) -> BatchJobs:
    """Returns the batch jobs of the cluster at an address.

    Args:
        address: of Ray's dashboard, such as http://127.0.0.1:8265.
        token: for Ray; None if it requires none.

    Raises:
        ClusterError: there is no Ray at the address, or it refuses the token.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else None
    with _ray_errors(f"cannot reach Ray's jobs at {address}"):
        client = JobSubmissionClient(address, headers=headers)
    return BatchJobs(client, lambda: live_supervisors(address, headers))


class BatchJobs:
    """The batch jobs of one cluster.

    Args:
        client: of Ray's Job API.
        supervisors: returns the jobs whose supervisor is alive; by default unknown, so that
            a job's state is Ray's.
    """

    def __init__(
        self,
        client: JobSubmissionClient,
        supervisors: LiveSupervisors = lambda: None,
    ) -> None:
        self._client = client
        self._supervisors = supervisors

    def submit(self, request: JobRequest) -> str:
        """Submits a job and returns its id.

        Raises:
            ClusterError: a job that writes to the same output is still active, or Ray refuses.
        """
        return self._submit(request.entrypoint, request.source, request.output, None)

    def _submit(
        self, entrypoint: str, source: str, output: str, runtime_env: dict[str, Any] | None
    ) -> str:
        for other in self.jobs():
            if not other.ended and other.output == output:
                raise ClusterError(
                    f"job {other.job_id} is writing to {output}: wait for it or cancel it"
                )
        metadata = {"kind": KIND, "source": source, "output": output}
        give_up_at = time.monotonic() + _AGENT_TIMEOUT_S
        while True:
            with _ray_errors("Ray did not take the job"):
                try:
                    return str(
                        self._client.submit_job(
                            entrypoint=entrypoint, metadata=metadata, runtime_env=runtime_env
                        )
                    )
                except RuntimeError as error:
                    # The cluster has just started or lost a node; nothing was submitted.
                    if _NO_AGENT not in str(error) or time.monotonic() >= give_up_at:
                        raise
            time.sleep(_POLL_S)

    def resume(self, job_id: str) -> str:
        """Submits the command of a job again; finished recordings are kept.

        Raises:
            ClusterError: there is no such job, it is still active, or Ray refuses.
        """
        job = self.view(job_id)
        if not job.ended:
            raise ClusterError(f"job {job_id} is {job.phase}; there is nothing to resume")
        details = self._details(job_id)
        # Unchanged, with its runtime environment: others may have submitted it.
        return self._submit(
            str(details.entrypoint), job.source, job.output, details.runtime_env or None
        )

    def jobs(self) -> list[JobInfo]:
        """Returns the batch jobs of the cluster, the latest first, without progress."""
        with _ray_errors("Ray does not list its jobs"):
            found: list[JobDetails] = self._client.list_jobs()
        batch = [details for details in found if is_batch(details)]
        lost = self._lost_among(batch)
        infos = [job_info_of(each, {}, is_lost=_id_of(each) in lost) for each in batch]
        return sorted(infos, key=lambda info: info.began_unix_s or 0.0, reverse=True)

    def view(self, job_id: str) -> JobInfo:
        """Returns a job, with its progress if its node still answers.

        Raises:
            ClusterError: there is no such job.
        """
        details = self._details(job_id)
        if self._lost_among([details]):
            # Its log was on the node that is gone.
            return job_info_of(details, {}, is_lost=True)
        return job_info_of(details, last_progress(self.logs(job_id)))

    def logs(self, job_id: str) -> str:
        """Returns the log of the job's driver.

        Raises:
            ClusterError: there is no such job.
        """
        with _ray_errors(f"no logs of job {job_id}"):
            return str(self._client.get_job_logs(job_id))

    async def follow(self, job_id: str) -> AsyncIterator[str]:
        """Yields the log of the job's driver until the job ends.

        Raises:
            ClusterError: there is no such job.
        """
        with _ray_errors(f"no logs of job {job_id}"):
            async for lines in self._client.tail_job_logs(job_id):
                yield lines

    def wait(self, job_id: str, on_change: Callable[[JobInfo], None]) -> JobInfo:
        """Waits for the end of a job; calls `on_change` after each change.

        Raises:
            ClusterError: there is no such job, or the cluster went away.
        """
        last: JobInfo | None = None
        while True:
            job = self.view(job_id)
            if job != last:
                on_change(job)
                last = job
            if job.ended:
                return job
            time.sleep(_POLL_S)

    def cancel(self, job_id: str) -> bool:
        """Stops a job and keeps its results. Returns whether it was still active.

        Raises:
            ClusterError: there is no such job.
        """
        with _ray_errors(f"cannot cancel job {job_id}"):
            return bool(self._client.stop_job(job_id))

    def _lost_among(self, jobs: Sequence[JobDetails]) -> set[str]:
        """Returns the ids of jobs that Ray reports as running although their driver is gone.

        The supervisor actor of a job records its end, or a process that monitors that actor.
        If both are on a node that dies, the end is never recorded.
        """
        running = [_id_of(each) for each in jobs if each.status == JobStatus.RUNNING]
        living = self._supervisors() if running else None
        if living is None:
            return set()
        suspects = [job_id for job_id in running if job_id not in living]
        # A supervisor records the end before it exits, so the state is final now.
        return {job_id for job_id in suspects if self._details(job_id).status == JobStatus.RUNNING}

    def _details(self, job_id: str) -> JobDetails:
        with _ray_errors(f"there is no job {job_id}"):
            details: JobDetails = self._client.get_job_info(job_id)
        if not is_batch(details):
            raise ClusterError(
                f"job {job_id} is not a batch transcription: its command does not run "
                f"python -m {MODULE} SOURCE OUTPUT, and its metadata has no kind {KIND}"
            )
        return details


def _id_of(details: JobDetails) -> str:
    return str(details.submission_id or details.job_id)


@contextmanager
def _ray_errors(what: str) -> Iterator[None]:
    """Turns errors of Ray's client into a one-line `ClusterError`."""
    try:
        yield
    except (RuntimeError, ConnectionError, OSError) as error:
        raise ClusterError(f"{what}: {_last_line(error)}") from None


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
