"""Batch jobs of the chart: their command, their models, and what `paraserve batch` sees."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import cast

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from serve_app.batch.arguments import parse_arguments
from serve_app.batch.client import BatchJobs, JobRequest
from serve_app.settings.assignments import load_settings
from tests.deploy.charting import (
    EVERYTHING,
    READY_MADE,
    ROOT,
    Json,
    cluster_specs,
    combined,
    only,
    ready_values,
    render,
)
from tests.deploy.test_values import refusal
from tests.fakes.ray_jobs import FakeRay

SOURCE = "s3://calls/2026/"
OUTPUT = "s3://texts/2026/"
JOB: Json = {"batch": {"job": {"enabled": True}, "source": SOURCE, "output": OUTPUT}}


def job_of(values: Json) -> Json:
    """Returns the specification of the RayJob."""
    spec: Json = only(render(combined(values, JOB)), "RayJob")["spec"]
    return spec


def documented_values() -> Json:
    """Returns the values file of docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(batch:.*?)```", text, flags=re.DOTALL)
    values: Json = yaml.safe_load(block)
    return values


def use_variables(container: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PARASERVE_")]:
        monkeypatch.delenv(name)
    for entry in container["env"]:
        if entry["name"].startswith("PARASERVE_"):
            monkeypatch.setenv(entry["name"], entry["value"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"options": []},
        {"source": "/mnt/all calls/it's.jsonl", "options": ["--formats", "srt,vtt", "--itn"]},
        {"profile": "cpu-int8", "options": ["--set", 'recognizer.languages=["zh"]']},
    ],
)
def test_command_is_the_one_that_paraserve_would_submit(changes: Json) -> None:
    batch = {**JOB["batch"], "options": ["--accept-failures"], **changes}
    given = combined(ready_values("demo-cpu"), JOB, {"batch": changes})
    spec = only(render(given), "RayJob")["spec"]
    options = ("--profile", batch.get("profile", "demo"), *batch["options"])
    assert spec["entrypoint"] == JobRequest(batch["source"], batch["output"], options).entrypoint


@pytest.mark.parametrize("name", READY_MADE)
def test_command_is_understood_and_accepts_failures(name: str) -> None:
    values = ready_values(name)
    command = shlex.split(job_of(values)["entrypoint"])
    assert command[:3] == ["python", "-m", "serve_app.batch"]
    options = parse_arguments(command[3:], None)
    assert (options.source, options.output) == (SOURCE, OUTPUT)
    assert options.profile == values["settings"]["profile"]
    assert options.accept_failures is True


def test_command_of_the_operations_page_is_the_one_that_is_rendered() -> None:
    values = combined(ready_values("one-gpu"), documented_values())
    spec = only(render(values), "RayJob")["spec"]
    assert spec["entrypoint"] in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    options = parse_arguments(shlex.split(spec["entrypoint"])[3:], None)
    batch = load_settings(options.profile, options.set).batch
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    pools = (batch.segmenters, batch.recognizers, batch.punctuators)
    assert sum(pool.num_actors * pool.num_cpus for pool in pools) <= float(limits["cpu"])
    asked = sum(pool.num_actors * pool.num_gpus for pool in pools)
    assert 0 < asked <= float(limits["nvidia.com/gpu"])


@pytest.mark.parametrize("name", READY_MADE)
def test_job_finds_the_models_of_the_chart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = combined(ready_values(name), {"models": {"mountPath": "/packs"}})
    cluster = job_of(values)["rayClusterSpec"]
    for part in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        (container,) = part["template"]["spec"]["containers"]
        use_variables(container, monkeypatch)
        # Refuses variables with our prefix that name no setting.
        settings = load_settings(values["settings"]["profile"])
        assert settings.pack_dir == Path("/packs")
        assert settings.offline


@pytest.mark.parametrize("is_offline", [False, True])
def test_job_fetches_where_each_pod_does_unless_the_settings_forbid(
    is_offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: Json = {"models": {"source": "ephemeral"}, "settings": {"offline": is_offline}}
    cluster = job_of(combined(ready_values("demo-cpu"), changes))["rayClusterSpec"]
    use_variables(cluster["headGroupSpec"]["template"]["spec"]["containers"][0], monkeypatch)
    assert load_settings("demo").offline is is_offline


def test_job_that_is_submitted_to_the_service_finds_its_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (cluster,) = cluster_specs(only(render(ready_values("one-gpu")), "RayService"))
    use_variables(cluster["headGroupSpec"]["template"]["spec"]["containers"][0], monkeypatch)
    settings = load_settings("demo")
    assert (settings.pack_dir, settings.offline) == (Path("/models"), True)


def test_all_pods_of_a_job_wait_for_the_models_since_its_driver_is_on_the_head() -> None:
    rendered = render(combined(ready_values("one-gpu"), JOB))
    (job,) = cluster_specs(only(rendered, "RayJob"))
    (service,) = cluster_specs(only(rendered, "RayService"))
    for part in [job["headGroupSpec"], *job["workerGroupSpecs"]]:
        (waits,) = part["template"]["spec"]["initContainers"]
        assert waits["name"] == "await-models"
    # That of a service only schedules.
    assert "initContainers" not in service["headGroupSpec"]["template"]["spec"]


def test_failed_job_begins_no_second_cluster() -> None:
    assert job_of(ready_values("demo-cpu"))["backoffLimit"] == 0


def test_paraserve_batch_knows_a_job_of_the_chart() -> None:
    spec = job_of(ready_values("demo-cpu"))
    fake = FakeRay()
    jobs = BatchJobs(cast(JobSubmissionClient, fake))
    job_id = fake.submit_job(entrypoint=spec["entrypoint"], metadata=spec["metadata"])
    (job,) = jobs.jobs()
    assert (job.job_id, job.source, job.output) == (job_id, SOURCE, OUTPUT)
    fake.end(job_id, JobStatus.FAILED, 1)
    again = fake.details[jobs.resume(job_id)]
    assert (again.entrypoint, again.metadata) == (spec["entrypoint"], spec["metadata"])


def test_metadata_are_those_that_paraserve_submits() -> None:
    fake = FakeRay()
    job_id = BatchJobs(cast(JobSubmissionClient, fake)).submit(JobRequest(SOURCE, OUTPUT))
    assert job_of(ready_values("demo-cpu"))["metadata"] == fake.details[job_id].metadata


def test_jobs_by_the_clock_are_the_same() -> None:
    rendered = render(combined(ready_values("many-gpus"), EVERYTHING))
    assert only(rendered, "RayCronJob")["spec"]["jobTemplate"] == only(rendered, "RayJob")["spec"]


@pytest.mark.parametrize("kind", ["job", "cron"])
@pytest.mark.parametrize("places", [{}, {"source": SOURCE}, {"output": OUTPUT}])
def test_job_without_source_or_output_is_refused(kind: str, places: Json) -> None:
    values = combined(ready_values("demo-cpu"), {"batch": {kind: {"enabled": True}, **places}})
    assert "A batch job needs batch.source and batch.output" in refusal(values)
