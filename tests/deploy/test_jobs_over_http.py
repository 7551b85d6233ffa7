"""Jobs over HTTP in the chart: their Secrets reach the pods, and what is missing is said."""

from __future__ import annotations

import helm_python as helm
import pytest

from tests.deploy.charting import Json, cluster_specs, combined, only, render, serve_config

STORAGE = "s3://bucket/jobs"
JOBS: Json = {
    "settings": {"auth": {"mode": "off"}, "jobs": {"enabled": True, "storage": STORAGE}},
    "jobs": {"databaseSecret": "speech-database", "webhookSecret": "speech-webhooks"},
}


def test_secrets_are_files_of_every_serving_pod() -> None:
    (spec,) = cluster_specs(only(render(JOBS), "RayService"))
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for template in (group["template"]["spec"] for group in groups):
        (volume,) = [each for each in template["volumes"] if each["name"] == "jobs"]
        named = {each["secret"]["name"] for each in volume["projected"]["sources"]}
        assert named == {"speech-database", "speech-webhooks"}
        (container,) = template["containers"]
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert mounts["jobs"] == "/etc/paraserve/jobs"


def test_settings_name_the_files_and_never_hold_a_secret() -> None:
    (application,) = serve_config(render(JOBS))["applications"]
    assert application["args"]["jobs"] == {
        "enabled": True,
        "storage": STORAGE,
        "database_url_file": "/etc/paraserve/jobs/database-url",
        "webhook_secrets_file": "/etc/paraserve/jobs/webhook-secrets.yaml",
    }


def test_without_webhooks_there_is_no_file_of_theirs() -> None:
    objects = render(combined(JOBS, {"jobs": {"webhookSecret": ""}}))
    (application,) = serve_config(objects)["applications"]
    assert "webhook_secrets_file" not in application["args"]["jobs"]


def test_without_jobs_nothing_is_mounted() -> None:
    (spec,) = cluster_specs(only(render({"settings": {"auth": {"mode": "off"}}}), "RayService"))
    volumes = spec["workerGroupSpecs"][0]["template"]["spec"]["volumes"]
    assert "jobs" not in {each["name"] for each in volumes}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"jobs": {"databaseSecret": ""}}, "jobs.databaseSecret"),
        ({"settings": {"jobs": {"storage": ""}}}, "settings.jobs.storage"),
    ],
)
def test_what_jobs_need_is_asked_for(change: Json, told: str) -> None:
    with pytest.raises(helm.HelmError, match=told):
        render(combined(JOBS, change))
