from __future__ import annotations

import copy
import json
import shlex
from typing import Any, cast

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient, JobType

from loadtests.ports import free_port
from serve_app.batch.client import BatchJobs, JobRequest, connect
from serve_app.batch.job_status import EXIT_CODES, ExitCode, JobInfo, last_progress
from serve_app.core.errors import ClusterError
from tests.fakes.ray_jobs import FakeRay


@pytest.fixture
def ray_jobs() -> FakeRay:
    return FakeRay()


@pytest.fixture
def jobs(ray_jobs: FakeRay) -> BatchJobs:
    return BatchJobs(cast(JobSubmissionClient, ray_jobs))


REQUEST = JobRequest("/in put/list.jsonl", "s3://b/out", ("--stages", "asr"))


def test_entrypoint_survives_a_shell() -> None:
    assert shlex.split(REQUEST.entrypoint) == [
        "python", "-m", "serve_app.batch", "/in put/list.jsonl", "s3://b/out", "--stages", "asr",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "exit_code", "expected"),
    [
        (JobStatus.PENDING, None, ExitCode.STILL_RUNNING),
        (JobStatus.RUNNING, None, ExitCode.STILL_RUNNING),
        (JobStatus.SUCCEEDED, 0, ExitCode.DONE),
        (JobStatus.FAILED, 3, ExitCode.SOME_RECORDINGS_FAILED),
        (JobStatus.FAILED, 1, ExitCode.FAILED),
        (JobStatus.FAILED, None, ExitCode.FAILED),
        (JobStatus.STOPPED, None, ExitCode.FAILED),
    ],
)
def test_exit_code_tells_how_a_job_stands(
    jobs: BatchJobs,
    ray_jobs: FakeRay,
    status: JobStatus,
    exit_code: int | None,
    expected: ExitCode,
) -> None:
    job_id = jobs.submit(REQUEST)
    ray_jobs.end(job_id, status, exit_code)

    assert EXIT_CODES[jobs.view(job_id).phase] == expected


def test_cluster_that_is_still_starting_is_waited_for(
    jobs: BatchJobs, ray_jobs: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.batch.client._POLL_S", 0.0)
    ray_jobs.num_refusals = 2

    assert jobs.submit(REQUEST) == "raysubmit_0"


def test_cluster_without_agents_is_given_up_in_the_end(
    jobs: BatchJobs, ray_jobs: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.batch.client._POLL_S", 0.0)
    monkeypatch.setattr("serve_app.batch.client._AGENT_TIMEOUT_S", 0.0)
    ray_jobs.num_refusals = 2

    with pytest.raises(ClusterError, match="did not take the job"):
        jobs.submit(REQUEST)


def test_two_jobs_never_write_to_one_place(jobs: BatchJobs) -> None:
    first = jobs.submit(REQUEST)

    with pytest.raises(ClusterError, match=first):
        jobs.submit(REQUEST)


def test_resumed_job_is_the_same_command(jobs: BatchJobs, ray_jobs: FakeRay) -> None:
    first = jobs.submit(REQUEST)
    ray_jobs.end(first, JobStatus.FAILED)

    second = jobs.resume(first)

    assert second != first
    assert ray_jobs.details[second].entrypoint == ray_jobs.details[first].entrypoint


def test_running_job_is_not_resumed(jobs: BatchJobs) -> None:
    job_id = jobs.submit(REQUEST)

    with pytest.raises(ClusterError, match="nothing to resume"):
        jobs.resume(job_id)


def test_cancel_returns_whether_something_was_running(jobs: BatchJobs) -> None:
    job_id = jobs.submit(REQUEST)

    assert jobs.cancel(job_id)
    assert not jobs.cancel(job_id)
    assert jobs.view(job_id).phase == "cancelled"


def test_jobs_of_others_are_left_alone(jobs: BatchJobs, ray_jobs: FakeRay) -> None:
    other = ray_jobs.submit_job(entrypoint="python train.py", metadata={})

    assert jobs.jobs() == []
    with pytest.raises(ClusterError, match="not a batch transcription"):
        jobs.resume(other)


def test_job_that_others_submitted_is_known_by_its_command(
    jobs: BatchJobs, ray_jobs: FakeRay
) -> None:
    command = "python -m serve_app.batch s3://b/in s3://b/out --profile paraformer-large"
    job_id = ray_jobs.submit_job(entrypoint=command, metadata={})

    (job,) = jobs.jobs()
    assert (job.job_id, job.source, job.output) == (job_id, "s3://b/in", "s3://b/out")
    with pytest.raises(ClusterError, match=job_id):
        jobs.submit(JobRequest("else", "s3://b/out"))


def test_job_behind_a_script_is_known_by_its_metadata(jobs: BatchJobs, ray_jobs: FakeRay) -> None:
    metadata = {"kind": "paraserve-batch", "source": "in", "output": "out"}
    job_id = ray_jobs.submit_job(entrypoint="./nightly.sh", metadata=metadata)

    assert (jobs.view(job_id).source, jobs.view(job_id).output) == ("in", "out")


def test_driver_that_was_not_submitted_is_left_alone(jobs: BatchJobs, ray_jobs: FakeRay) -> None:
    job_id = jobs.submit(REQUEST)
    ray_jobs.details[job_id].type = JobType.DRIVER

    assert jobs.jobs() == []


def test_resumed_job_of_others_keeps_its_command_and_environment(
    jobs: BatchJobs, ray_jobs: FakeRay
) -> None:
    command = "cd /app && TZ=UTC python3 -m serve_app.batch in out && ./tell.sh"
    environment: dict[str, object] = {"env_vars": {"AWS_REGION": "eu-west-1"}}
    first = ray_jobs.submit_job(entrypoint=command, metadata={}, runtime_env=environment)
    ray_jobs.end(first, JobStatus.FAILED)

    second = jobs.resume(first)

    assert ray_jobs.details[second].entrypoint == command
    assert ray_jobs.details[second].runtime_env == environment
    assert jobs.view(second).output == "out"


def test_unknown_job_is_one_clear_error(jobs: BatchJobs) -> None:
    with pytest.raises(ClusterError, match="there is no job nothing"):
        jobs.resume("nothing")


def test_last_job_comes_first(jobs: BatchJobs) -> None:
    first = jobs.submit(REQUEST)
    second = jobs.submit(JobRequest("in", "out"))

    assert [job.job_id for job in jobs.jobs()] == [second, first]


def test_waiting_tells_of_changes_and_ends_with_the_job(
    jobs: BatchJobs, ray_jobs: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = jobs.submit(REQUEST)
    seen: list[JobInfo] = []

    def tell(job: JobInfo) -> None:
        seen.append(job)
        ray_jobs.end(job_id, JobStatus.SUCCEEDED, 0)

    monkeypatch.setattr("serve_app.batch.client._POLL_S", 0.0)

    assert jobs.wait(job_id, tell).phase == "done"
    assert [job.phase for job in seen] == ["running", "done"]


def test_progress_is_the_last_that_was_logged() -> None:
    def line(done: int) -> str:
        return json.dumps({"message": "batch", "progress": {"done": done}})

    logs = "\n".join([line(1), "Running Dataset: progress", line(2), '{"progress": broken'])

    progress: Any = last_progress(logs)
    assert progress == {"done": 2}
    assert last_progress("nothing yet") == {}


def test_cluster_out_of_reach_is_one_clear_error() -> None:
    with pytest.raises(ClusterError, match="cannot reach Ray's jobs"):
        connect(f"http://127.0.0.1:{free_port()}")


def test_job_whose_node_died_is_lost_and_can_be_resumed(ray_jobs: FakeRay) -> None:
    living: set[str] = set()
    jobs = BatchJobs(cast(JobSubmissionClient, ray_jobs), lambda: frozenset(living))
    first = jobs.submit(REQUEST)
    living.add(first)
    assert jobs.view(first).phase == "running"
    living.clear()
    view = jobs.view(first)
    assert (view.phase, view.ended, EXIT_CODES[view.phase]) == ("lost", True, ExitCode.FAILED)
    assert "resume" in view.message
    assert [each.phase for each in jobs.jobs()] == ["lost"]
    assert jobs.wait(first, lambda view: None).phase == "lost"

    second = jobs.resume(first)

    assert ray_jobs.details[second].entrypoint == ray_jobs.details[first].entrypoint


def test_job_that_ends_while_it_is_asked_after_is_not_lost(ray_jobs: FakeRay) -> None:
    def ends_meanwhile() -> frozenset[str]:
        ray_jobs.details["raysubmit_0"] = copy.copy(ray_jobs.details["raysubmit_0"])
        ray_jobs.end("raysubmit_0", JobStatus.SUCCEEDED, 0)
        return frozenset()

    jobs = BatchJobs(cast(JobSubmissionClient, ray_jobs), ends_meanwhile)
    assert jobs.view(jobs.submit(REQUEST)).phase != "lost"


def test_job_status_is_that_of_ray_without_a_supervisor(ray_jobs: FakeRay) -> None:
    jobs = BatchJobs(cast(JobSubmissionClient, ray_jobs), lambda: None)
    assert jobs.view(jobs.submit(REQUEST)).phase == "running"
