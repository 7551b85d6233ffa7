"""Ray's Job API in memory."""

from __future__ import annotations

from ray.job_submission import JobDetails, JobStatus, JobType


class FakeRay:
    """Ray's client over jobs in memory."""

    def __init__(self) -> None:
        self.details: dict[str, JobDetails] = {}
        self.written: dict[str, str] = {}
        self.num_refusals = 0
        """Submissions that are still to find no agent."""
        self.seen: tuple[str, str | None] | None = None
        """Address and token that were used."""
        self.ends_at_once: tuple[JobStatus, int] | None = None
        """How the next job ends as soon as it is submitted."""

    def submit_job(
        self,
        *,
        entrypoint: str,
        metadata: dict[str, str],
        runtime_env: dict[str, object] | None = None,
    ) -> str:
        if self.num_refusals:
            self.num_refusals -= 1
            raise RuntimeError("Request failed with status code 500: No available agent")
        job_id = f"raysubmit_{len(self.details)}"
        self.details[job_id] = JobDetails(
            type=JobType.SUBMISSION,
            submission_id=job_id,
            status=JobStatus.RUNNING,
            entrypoint=entrypoint,
            metadata=metadata,
            runtime_env=runtime_env,
            start_time=1000 * (1 + len(self.details)),
        )
        if self.ends_at_once is not None:
            self.end(job_id, *self.ends_at_once)
        return job_id

    def list_jobs(self) -> list[JobDetails]:
        return list(self.details.values())

    def get_job_info(self, job_id: str) -> JobDetails:
        if job_id not in self.details:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist")
        return self.details[job_id]

    def get_job_logs(self, job_id: str) -> str:
        return self.written.get(job_id, "")

    def stop_job(self, job_id: str) -> bool:
        was_running = self.get_job_info(job_id).status == JobStatus.RUNNING
        self.end(job_id, JobStatus.STOPPED)
        return was_running

    def end(self, job_id: str, status: JobStatus, exit_code: int | None = None) -> None:
        self.details[job_id].status = status
        self.details[job_id].driver_exit_code = exit_code
