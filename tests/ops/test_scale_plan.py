"""What a change of size makes of a RayService."""

from __future__ import annotations

import pytest
import yaml

from serve_app.core.errors import ClusterError
from serve_app.ops.json_view import JsonView
from serve_app.ops.scale_plan import ScaleRequest, of_deployment, of_group
from tests.fakes.recorded_kube import SETTINGS, ray_service, serve_config

SERVICE = JsonView(ray_service())


def entries(text: object) -> dict[str, dict[str, object]]:
    document = yaml.safe_load(str(text))
    return {entry["name"]: entry for entry in document["applications"][0]["deployments"]}


def test_fixed_number_is_set_in_serves_list_of_deployments() -> None:
    change = of_deployment(SERVICE, "Punctuator", ScaleRequest(replicas=6))
    (operation,) = change.operations
    assert operation.path == "/spec/serveConfigV2"
    assert entries(operation.value)["Punctuator"] == {"name": "Punctuator", "num_replicas": 6}
    assert change.options == {"num_replicas": 6}
    assert change.told == ("Punctuator: 4 -> 6 replicas; no replica restarts",)


def test_other_deployments_and_the_arguments_stay_as_they_are() -> None:
    change = of_deployment(SERVICE, "Ingress", ScaleRequest(replicas=3))
    document = yaml.safe_load(str(change.operations[0].value))
    assert document["applications"][0]["args"] == SETTINGS
    assert entries(change.operations[0].value)["Punctuator"]["num_replicas"] == 4


def test_bounds_carry_the_whole_policy_because_serve_replaces_it() -> None:
    change = of_deployment(SERVICE, "Recognizer", ScaleRequest(maximum=4))
    scaling = JsonView(change.options).at("autoscaling_config")
    limits = scaling.at("policy", "policy_kwargs", "limits")
    assert (scaling.at("min_replicas").count(), scaling.at("max_replicas").count()) == (2, 4)
    assert limits.at("max_replicas").count() == 4
    assert "QueuedAudioPolicy" in scaling.at("policy", "policy_function").text()


def test_a_number_pins_an_autoscaled_deployment() -> None:
    change = of_deployment(SERVICE, "Recognizer", ScaleRequest(replicas=3))
    assert change.told == ("Recognizer: 2 to 8 -> 3 replicas; no replica restarts",)


def test_segmenter_that_reports_to_the_policy_keeps_reporting() -> None:
    change = of_deployment(SERVICE, "Segmenter", ScaleRequest(replicas=6))
    scaling = JsonView(change.options).at("autoscaling_config")
    assert (scaling.at("min_replicas").count(), scaling.at("max_replicas").count()) == (6, 6)
    assert "SegmenterPolicy" in scaling.at("policy", "policy_function").text()


def test_second_scaling_starts_from_the_first() -> None:
    first = of_deployment(SERVICE, "Recognizer", ScaleRequest(maximum=6))
    scaled = JsonView(ray_service(str(first.operations[0].value)))
    second = of_deployment(scaled, "Recognizer", ScaleRequest(minimum=3))
    assert second.told == ("Recognizer: 2 to 6 -> 3 to 6 replicas; no replica restarts",)


@pytest.mark.parametrize(
    ("deployment", "asked", "reason"),
    [
        ("Recogniser", ScaleRequest(replicas=1), "no deployment Recogniser: choose one of Ingress"),
        ("Ingress", ScaleRequest(maximum=9), "fixed number of replicas"),
        ("Ingress", ScaleRequest(replicas=0), "at least one"),
        ("Recognizer", ScaleRequest(minimum=9), "minimum of 9 above its maximum 8"),
        ("Recognizer", ScaleRequest(minimum=1, replicas=2), "not both"),
        (
            "Recognizer",
            ScaleRequest(replicas=9),
            "need 9 GPUs at least, but the worker groups may have 8",
        ),
    ],
)
def test_impossible_size_of_a_deployment_is_refused(
    deployment: str, asked: ScaleRequest, reason: str
) -> None:
    with pytest.raises(ClusterError, match=reason):
        of_deployment(SERVICE, deployment, asked)


def test_group_moves_into_its_new_bounds() -> None:
    change = of_group(SERVICE, "gpu", ScaleRequest(minimum=4))
    assert {
        operation.path.rsplit("/", 1)[1]: operation.value for operation in change.operations
    } == {
        "minReplicas": 4,
        "maxReplicas": 8,
        "replicas": 4,
    }
    assert change.operations[0].path.startswith("/spec/rayClusterConfig/workerGroupSpecs/1/")


@pytest.mark.parametrize(
    ("group", "asked", "reason"),
    [
        ("tpu", ScaleRequest(replicas=1), "no worker group tpu: choose one of cpu, gpu"),
        ("gpu", ScaleRequest(minimum=9), "minimum of 9 above its maximum 8"),
        ("gpu", ScaleRequest(replicas=9), "outside of the bounds 2 to 8"),
        ("gpu", ScaleRequest(minimum=0, maximum=1), "need 3 GPUs|need 4 GPUs"),
    ],
)
def test_impossible_size_of_a_group_is_refused(
    group: str, asked: ScaleRequest, reason: str
) -> None:
    with pytest.raises(ClusterError, match=reason):
        of_group(SERVICE, group, asked)


@pytest.mark.parametrize("asked", [ScaleRequest(), ScaleRequest(replicas=-1)])
def test_meaningless_request_is_refused(asked: ScaleRequest) -> None:
    with pytest.raises(ClusterError):
        asked.check()


def test_unknown_settings_of_another_version_are_reported_with_their_path() -> None:
    service = JsonView(ray_service(serve_config({"recognizer": {"beam": 3}})))
    with pytest.raises(ClusterError, match=r"recognizer\.beam: Extra inputs"):
        of_deployment(service, "Ingress", ScaleRequest(replicas=1))
