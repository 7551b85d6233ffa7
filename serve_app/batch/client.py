"""Batch jobs on a cluster, over the Ray Job API.

A job is the command `python -m serve_app.batch`; what is needed to find and resume it
is in its entrypoint and metadata, so that nothing has to be kept on the caller's side.
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
from serve_app.batch.session import LivingSupervisors, ask_for_supervisors
from serve_app.core.errors import ClusterError

_POLL_S = 1.0
_NO_AGENT = "No available agent"
_AGENT_PATIENCE_S = 60.0


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
        return shlex.join(["python", "-m", MODULE, self.source, self.output, *self.options])


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
        client = JobSubmissionClient(address, headers=headers)
    return BatchJobs(client, lambda: ask_for_supervisors(address, headers))


class BatchJobs:
    """The batch jobs of one cluster.

    Args:
        client: Ray's.
        supervisors: tells whose drivers are looked after; by default nobody does, and a job is
            taken to be as Ray says.
    """

    def __init__(
        self,
        client: JobSubmissionClient,
        supervisors: LivingSupervisors = lambda: None,
    ) -> None:
        self._client = client
        self._supervisors = supervisors

    def submit(self, request: JobRequest) -> str:
        """Begins a job; returns its id.

        Raises:
            ClusterError: another job that writes to the same place is not over yet, or Ray refuses.
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
        give_up_at = time.monotonic() + _AGENT_PATIENCE_S
        while True:
            with _ray_errors("Ray did not take the job"):
                try:
                    return str(
                        self._client.submit_job(
                            entrypoint=entrypoint, metadata=metadata, runtime_env=runtime_env
                        )
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
        details = self._details(job_id)
        # Word for word, with the files and variables that it had: it may not be one of ours.
        return self._submit(
            str(details.entrypoint), job.source, job.output, details.runtime_env or None
        )

    def jobs(self) -> list[JobInfo]:
        """Returns the cluster's batch jobs, the last one first, without their progress."""
        with _ray_errors("Ray does not list its jobs"):
            found: list[JobDetails] = self._client.list_jobs()
        batch = [details for details in found if is_batch(details)]
        lost = self._lost_among(batch)
        views = [job_info_of(each, {}, is_lost=_id_of(each) in lost) for each in batch]
        return sorted(views, key=lambda view: view.began_unix_s or 0.0, reverse=True)

    def view(self, job_id: str) -> JobInfo:
        """Returns a job with its progress, as far as its node can still be asked for it.

        Raises:
            ClusterError: there is no such job.
        """
        details = self._details(job_id)
        if self._lost_among([details]):
            # Its log lies, or lay, on the node that is gone.
            return job_info_of(details, {}, is_lost=True)
        return job_info_of(details, last_progress(self.logs(job_id)))

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

    def wait(self, job_id: str, on_change: Callable[[JobInfo], None]) -> JobInfo:
        """Waits for a job's end, telling of each change.

        Raises:
            ClusterError: there is no such job, or the cluster went away.
        """
        told: JobInfo | None = None
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

    def _lost_among(self, jobs: Sequence[JobDetails]) -> set[str]:
        """Returns the ids of jobs that Ray calls running although nobody runs them.

        Ray notes a job's end by the actor that looks after its driver, or by a process that
        watches that actor. When both are on a node that dies, nobody notes it, ever.
        """
        running = [_id_of(each) for each in jobs if each.status == JobStatus.RUNNING]
        living = self._supervisors() if running else None
        if living is None:
            return set()
        suspects = [job_id for job_id in running if job_id not in living]
        # A supervisor notes the end before it goes, so that what is asked now is true.
        return {job_id for job_id in suspects if self._details(job_id).status == JobStatus.RUNNING}

    def _details(self, job_id: str) -> JobDetails:
        with _ray_errors(f"there is no job {job_id}"):
            details: JobDetails = self._client.get_job_info(job_id)
        if not is_batch(details):
            raise ClusterError(
                f"job {job_id} is not a batch transcription: neither does its command run "
                f"python -m {MODULE} SOURCE OUTPUT, nor has it metadata of the kind {KIND}"
            )
        return details


def _id_of(details: JobDetails) -> str:
    return str(details.submission_id or details.job_id)


@contextmanager
def _ray_errors(what: str) -> Iterator[None]:
    """Turns what Ray's client raises into one line of ours."""
    try:
        yield
    except (RuntimeError, ConnectionError, OSError) as error:
        raise ClusterError(f"{what}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
