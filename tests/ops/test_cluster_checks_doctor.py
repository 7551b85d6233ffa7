"""Each fault is found, and nothing else."""

from __future__ import annotations

import base64
import copy
from importlib import metadata
from typing import Any

import httpx
import pytest
import yaml

from serve_app.api import flow
from serve_app.core.errors import ClusterRefused
from serve_app.ops.cluster_checks import examine, exit_code, hub_findings
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import FIELD_MANAGER
from serve_app.ops.scale import ANNOTATION
from serve_app.ops.scale_plan import ScaleRequest, of_deployment
from serve_app.ops.serve_config import read_config
from serve_app.ops.spec_checks import Finding
from tests.fakes.recorded_kube import (
    CLUSTERS,
    CORE,
    SERVICES,
    SETTINGS,
    RecordedKube,
    pod,
    ray_service,
    serve_config,
)

SECRET = "very-secret-token"
FORBIDDEN = ClusterRefused("olga may not", 403)


def secret(*keys: str) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(SECRET.encode()).decode() for key in keys}}


def answers(service: dict[str, Any] | None = None) -> dict[str, object]:
    """Returns a cluster in which nothing is wrong."""
    service = service or ray_service()
    operator = {"spec": {"containers": [{"image": "quay.io/kuberay/operator:v1.7.0"}]}}
    proxy = f"{CORE}/services/http:speech-a-head-svc:8265/proxy"
    return {
        SERVICES: {"items": [service]},
        f"{CLUSTERS}/speech-a": {"spec": service["spec"]["rayClusterConfig"]},
        f"{CORE}/pods": {"items": [pod("w1", "gpu")]},
        f"{CORE}/secrets/api-keys": secret("keys.yaml"),
        f"{CORE}/secrets/ray-auth": secret("auth_token"),
        f"{CORE}/persistentvolumeclaims/models": {"status": {"phase": "Bound"}},
        "/api/v1/pods": {"items": [operator]},
        "/api/v1/nodes": {"items": [{"status": {"allocatable": {"nvidia.com/gpu": "8"}}}]},
        f"{proxy}/api/version": {"ray_version": metadata.version("ray")},
    }


def found(changed: dict[str, object], service: dict[str, Any] | None = None) -> list[Finding]:
    return list(examine(RecordedKube({**answers(service), **changed}), None, with_hub=False))


def problems(changed: dict[str, object], service: dict[str, Any] | None = None) -> list[str]:
    return [finding.problem for finding in found(changed, service)]


def changed_service(path: str, value: object) -> dict[str, Any]:
    """Returns the sound service with one value changed; None removes it."""
    service = copy.deepcopy(ray_service())
    node: Any = service["spec"]["rayClusterConfig"]
    *parents, last = path.split("/")
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    if value is None:
        del node[last]
    else:
        node[int(last) if last.isdigit() else last] = value
    return service


def test_sound_release_has_no_finding() -> None:
    assert found({}) == []
    assert exit_code([]) == 0


CONTAINER = "workerGroupSpecs/1/template/spec/containers/0"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("rayVersion", "2.9.0", "rayVersion is 2.9.0"),
        (f"{CONTAINER}/image", "paraserve:9.9.9", "the image is 9.9.9"),
        (f"{CONTAINER}/env", [], f"{flow.IMPORT_PATH_VARIABLE} of gpu is not set"),
        (f"{CONTAINER}/env", [], "RAY_SERVE_ENABLE_HA_PROXY of gpu is not set"),
        (f"{CONTAINER}/env", [], "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S of gpu is not set"),
        (f"{CONTAINER}/env", [], "RAY_SERVE_HAPROXY_BINARY_PATH of gpu is not set"),
        (f"{CONTAINER}/resources/requests/memory", None, "gpu has no memory requests"),
        ("headGroupSpec/rayStartParams", {}, "the head offers CPUs"),
        ("workerGroupSpecs/0/template/spec/terminationGracePeriodSeconds", 30, "killed 30 s"),
        ("enableInTreeAutoscaling", False, "the autoscaler is off"),
        ("autoscalerOptions/version", "v1", "the autoscaler is v1"),
        ("workerGroupSpecs/1/maxReplicas", 2, "needs 3 GPUs, the worker groups may have 2"),
        ("authOptions/secretName", "gone", "there is no Secret gone"),
    ],
)
def test_fault_of_the_specification_is_found(path: str, value: object, problem: str) -> None:
    told = problems({}, changed_service(path, value))
    assert any(problem in each for each in told), told


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"auth": {"mode": "off"}}, "asks for no API key"),
        ({"auth": {}}, "demands API keys and has no keys file"),
        ({"http": {"host": "127.0.0.1"}}, "nothing outside of the pod reaches"),
        (
            {"recognizer": {"deployment": {"num_gpus": 0.6}}},
            "Recognizer of paraserve takes 0.6 of a GPU",
        ),
    ],
)
def test_fault_of_the_settings_is_found(settings: dict[str, Any], problem: str) -> None:
    told = problems({}, ray_service(serve_config(SETTINGS | settings)))
    assert any(problem in each for each in told), told


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        (f"{CORE}/secrets/api-keys", secret("other"), "has no key keys.yaml"),
        (f"{CORE}/secrets/api-keys", ClusterRefused("", 404), "there is no Secret api-keys"),
        (f"{CORE}/persistentvolumeclaims/models", {"status": {"phase": "Pending"}}, "is Pending"),
        (f"{CORE}/persistentvolumeclaims/models", ClusterRefused("", 404), "no Persistent"),
        ("/api/v1/nodes", {"items": []}, "a pod of gpu wants 1 GPUs, but no node has more than 0"),
        ("/api/v1/pods", {"items": []}, "no pod of the KubeRay operator"),
        (
            "/api/v1/pods",
            {"items": [{"spec": {"containers": [{"image": "kuberay/operator:v1.4.2"}]}}]},
            "KubeRay is v1.4.2",
        ),
        (
            f"{CORE}/services/http:speech-a-head-svc:8265/proxy/api/version",
            {"ray_version": "2.55.0"},
            "the image has Ray 2.55.0",
        ),
    ],
)
def test_fault_of_the_cluster_is_found(path: str, answer: object, problem: str) -> None:
    told = problems({path: answer})
    assert len(told) == 1
    assert problem in told[0]


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"containerStatuses": [{"name": "ray", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}, "ray of w1 is in ImagePullBackOff"),  # noqa: E501  # one line a case
        ({"containerStatuses": [{"name": "ray", "restartCount": 4, "lastState": {"terminated": {"reason": "OOMKilled"}}}]}, "killed for its memory, 4 restarts"),  # noqa: E501
        ({"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}]}, "w1 finds no node: 0/3 nodes"),  # noqa: E501
    ],
)  # fmt: skip
def test_fault_of_a_pod_is_found(status: dict[str, Any], problem: str) -> None:
    (told,) = problems({f"{CORE}/pods": {"items": [pod("w1", "gpu", **status)]}})
    assert problem in told


def test_bounds_that_the_running_cluster_does_not_have_are_found() -> None:
    service = changed_service("workerGroupSpecs/1/maxReplicas", 12)
    running = ray_service()["spec"]["rayClusterConfig"]
    (told,) = problems({f"{CLUSTERS}/speech-a": {"spec": running}}, service)
    assert "has the bounds 2 to 8, the RayService 2 to 12" in told


def test_scaling_that_hides_newer_settings_is_found() -> None:
    change = of_deployment(JsonView(ray_service()), "Recognizer", ScaleRequest(maximum=6))
    text = str(change.operations[0].value)
    assert problems({}, ray_service(text)) == []
    document = yaml.safe_load(text)
    sizes = document["applications"][0]["args"]["recognizer"]["deployment"]
    sizes["autoscaling"]["target_drain_s"] = 9.0
    (told,) = problems({}, ray_service(yaml.safe_dump(document)))
    assert "Recognizer was scaled before its autoscaling settings changed" in told


def test_scaling_of_a_removed_deployment_is_found() -> None:
    service = ray_service(serve_config(SETTINGS | {"stages": ["vad", "asr"]}, []))
    service["metadata"]["annotations"] = {ANNOTATION: "deployments: {Punctuator: {}}"}
    told = problems({}, service)
    assert any("Punctuator was scaled, but the application has it no more" in t for t in told)


def test_scaling_that_was_cut_short_is_found() -> None:
    service = ray_service()
    service["metadata"]["managedFields"] = [
        {"manager": "helm", "operation": "Apply", "fieldsV1": {}},
        {"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": {"f:spec": {}}},
    ]
    (told,) = problems({}, service)
    assert "a scaling was cut short" in told


def test_what_may_not_be_seen_is_said_and_is_no_fault() -> None:
    findings = found({f"{CORE}/secrets/api-keys": FORBIDDEN, "/api/v1/nodes": FORBIDDEN})
    assert [finding.problem for finding in findings] == [
        "could not see the Secret api-keys: olga may not",
        "could not see the GPUs of the nodes: olga may not",
    ]
    assert exit_code(findings) == 2


def test_known_fault_outweighs_unknown_state() -> None:
    findings = found({"/api/v1/nodes": FORBIDDEN, "/api/v1/pods": {"items": []}})
    assert exit_code(findings) == 1


def test_secrets_are_never_shown() -> None:
    service = changed_service("rayVersion", "2.9.0")
    kube = RecordedKube(answers(service))
    told = str(list(examine(kube, None, with_hub=False)))
    assert SECRET not in told
    assert base64.b64encode(SECRET.encode()).decode() not in told
    # It went where it belongs.
    assert {"X-Ray-Authorization": f"Bearer {SECRET}"} in kube.headers


def refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no route", request=request)


def test_hub_is_tried_only_where_packs_are_fetched() -> None:
    nowhere = httpx.MockTransport(refuse)
    online = read_config(JsonView(ray_service(serve_config(SETTINGS | {"offline": False}))))
    (finding,) = hub_findings(online, nowhere)
    assert finding.problem.startswith("from here (not from the cluster) no hub can be reached")
    assert list(hub_findings(read_config(JsonView(ray_service())), nowhere)) == []


def test_hub_that_answers_yields_no_finding() -> None:
    online = read_config(JsonView(ray_service(serve_config(SETTINGS | {"offline": False}))))
    there = httpx.MockTransport(lambda request: httpx.Response(403))
    assert list(hub_findings(online, there)) == []
