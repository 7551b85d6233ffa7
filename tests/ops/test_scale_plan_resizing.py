"""What Serve makes of the options that a scaling writes, by Ray's own merging."""

from __future__ import annotations

import pytest
import yaml
from ray.serve._private.application_state import override_deployment_info
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from serve_app.deployments.options import (
    as_deployment,
    recognizer_autoscaling,
    segmenter_autoscaling,
)
from serve_app.ops.json_view import JsonView
from serve_app.ops.scale_plan import ScaleRequest, of_deployment
from serve_app.settings import Settings
from tests.fakes.recorded_kube import SETTINGS, ray_service


class Stage:
    """Any deployment."""


def merged(deployment: str, request: ScaleRequest) -> AutoscalingConfig | None:
    """Returns the autoscaling that Serve ends with after the scaling."""
    change = of_deployment(JsonView(ray_service()), deployment, request)
    config = ServeDeploySchema(**yaml.safe_load(str(change.operations[0].value)))
    settings = Settings(**SETTINGS)
    infos = {}
    for name, size, scaling in (
        ("Recognizer", settings.recognizer.deployment, recognizer_autoscaling(settings)),
        ("Segmenter", settings.segmenter.deployment, segmenter_autoscaling(settings)),
        ("Punctuator", settings.punctuator.deployment, None),
    ):
        built = as_deployment(Stage, name, size, "INFO", scaling)
        infos[name] = DeploymentInfo(
            deployment_config=built._deployment_config,
            replica_config=built._replica_config,
            start_time_ms=0,
            deployer_job_id="",
        )
    return override_deployment_info(infos, config.applications[0])[
        deployment
    ].deployment_config.autoscaling_config


@pytest.mark.parametrize("deployment", ["Recognizer", "Segmenter"])
def test_serve_ends_with_what_a_start_with_these_bounds_would_give(deployment: str) -> None:
    result = merged(deployment, ScaleRequest(replicas=3))
    settings = Settings(**SETTINGS)
    expected = recognizer_autoscaling(settings)
    if deployment == "Segmenter":
        expected = segmenter_autoscaling(settings)
    assert result is not None
    assert expected is not None
    assert (result.min_replicas, result.max_replicas) == (3, 3)
    told, wanted = result.model_dump(), expected.model_dump()
    for bound in ("min_replicas", "max_replicas"):
        wanted[bound] = 3
        limits = wanted["policy"]["policy_kwargs"].get("limits")
        if limits is not None:
            limits[bound] = 3
    assert told == wanted


def test_fixed_deployment_stays_without_autoscaling() -> None:
    assert merged("Punctuator", ScaleRequest(replicas=6)) is None
