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
    cluster_status,
    head_pod,
    pod,
    ray_cluster,
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
        CLUSTERS: {"items": [ray_cluster("speech-a")]},
        f"{CORE}/pods": {"items": [head_pod(), pod("w1", "gpu")]},
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
        ("enableInTreeAutoscaling", False, "Ray's autoscaler is off"),
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
        ({"auth": {"mode": "off"}}, "requires no API key"),
        ({"auth": {}}, "requires API keys and has no keys file"),
        ({"http": {"host": "127.0.0.1"}}, "cannot be reached from outside the pod"),
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
        (
            "/api/v1/nodes",
            {"items": []},
            "a pod of gpu requests 1 GPUs, but no node has more than 0",
        ),
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
        ({"containerStatuses": [{"name": "ray", "restartCount": 4, "lastState": {"terminated": {"reason": "OOMKilled"}}}]}, "killed because it ran out of memory, 4 restarts"),  # noqa: E501
        ({"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}]}, "w1 finds no node: 0/3 nodes"),  # noqa: E501
    ],
)  # fmt: skip
def test_fault_of_a_pod_is_found(status: dict[str, Any], problem: str) -> None:
    (told,) = problems({f"{CORE}/pods": {"items": [head_pod(), pod("w1", "gpu", **status)]}})
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
    assert any("Punctuator was scaled, but the application no longer has it" in t for t in told)


def test_scaling_that_was_cut_short_is_found() -> None:
    service = ray_service()
    service["metadata"]["managedFields"] = [
        {"manager": "helm", "operation": "Apply", "fieldsV1": {}},
        {"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": {"f:spec": {}}},
    ]
    (told,) = problems({}, service)
    assert "`paraserve cluster scale` was interrupted" in told


def test_what_may_not_be_seen_is_said_and_is_no_fault() -> None:
    findings = found({f"{CORE}/secrets/api-keys": FORBIDDEN, "/api/v1/nodes": FORBIDDEN})
    assert [finding.problem for finding in findings] == [
        "could not check the Secret api-keys: olga may not",
        "could not check the GPUs of the nodes: olga may not",
    ]
    assert exit_code(findings) == 2


@pytest.mark.parametrize(("observed", "is_missed"), [(3, False), (2, True), (None, True)])
def test_operator_without_pods_is_missed_unless_it_has_acted(
    observed: int | None, is_missed: bool
) -> None:
    """A managed operator has no pods that its users see."""
    service = copy.deepcopy(ray_service())
    service["status"]["observedGeneration"] = observed
    told = problems({"/api/v1/pods": {"items": []}}, service)
    assert any("no pod of the KubeRay operator" in each for each in told) is is_missed


def test_known_fault_outweighs_unknown_state() -> None:
    findings = found(
        {
            "/api/v1/nodes": FORBIDDEN,
            f"{CORE}/persistentvolumeclaims/models": ClusterRefused("", 404),
        }
    )
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


def test_head_that_is_down_is_the_only_finding() -> None:
    stale = cluster_status("speech-a", {"Ingress": "UNHEALTHY"})
    down = head_pod(
        ready=False,
        containerStatuses=[{"name": "ray-head", "state": {"waiting": {"reason": "Error"}}}],
    )
    kube = RecordedKube(
        {
            **answers(ray_service(activeServiceStatus=stale)),
            f"{CORE}/pods": {"items": [down, pod("w1", "gpu")]},
        }
    )
    (finding,) = examine(kube, None, with_hub=False)
    assert finding.problem == (
        "the head of speech-a is not ready (speech-a-head: ray-head is in Error)"
    )
    # What needs the head would only time out.
    assert not [path for _, path, _ in kube.sent if "8265" in path]


SCHEDULES = "/apis/ray.io/v1/namespaces/asr/raycronjobs"
GATED = {"args": ["--feature-gates=RayClusterStatusConditions=true,RayCronJob=true"]}


@pytest.mark.parametrize(("operator", "is_found"), [({}, True), (GATED, False)])
def test_schedule_that_the_operator_ignores_is_found(
    operator: dict[str, Any], is_found: bool
) -> None:
    service = ray_service()
    service["metadata"]["labels"] = {"app.kubernetes.io/instance": "speech"}
    container = {"image": "quay.io/kuberay/operator:v1.7.0"} | operator
    told = problems(
        {
            "/api/v1/pods": {"items": [{"spec": {"containers": [container]}}]},
            SCHEDULES: {"items": [{"metadata": {"name": "nightly"}}]},
        },
        service,
    )
    expected = (
        "the KubeRay operator runs without its feature gate RayCronJob: the RayCronJob nightly "
        "never starts a job"
    )
    assert told == ([expected] if is_found else [])


def test_worker_groups_that_the_operator_owns_are_found_with_the_forced_upgrade() -> None:
    groups: dict[str, Any] = {"f:spec": {"f:rayClusterConfig": {"f:workerGroupSpecs": {}}}}
    service = ray_service()
    service["metadata"] |= {
        "namespace": "asr",
        "labels": {"app.kubernetes.io/instance": "speech"},
        "managedFields": [
            {"manager": "helm", "operation": "Apply", "fieldsV1": {}},
            {"manager": "kuberay-operator", "operation": "Update", "fieldsV1": groups},
        ],
    }
    (finding,) = found({SCHEDULES: {"items": []}}, service)
    assert "the KubeRay operator owns the list of worker groups" in finding.problem
    assert "helm upgrade speech CHART -n asr -f VALUES --force-conflicts" in finding.remedy
    # Helm 3 has no conflicts.
    service["metadata"]["managedFields"].pop(0)
    assert not found({SCHEDULES: {"items": []}}, service)


def test_scaling_that_a_rollback_has_undone_is_found() -> None:
    change = of_deployment(JsonView(ray_service()), "Recognizer", ScaleRequest(maximum=6))
    note = {
        "deployments": {"Recognizer": change.options, "Punctuator": {"num_replicas": 6}},
        "workerGroups": {"gpu": {"minReplicas": 4, "maxReplicas": 20, "replicas": 4}},
    }
    service = ray_service()
    service["metadata"]["annotations"] = {ANNOTATION: yaml.safe_dump(note)}
    findings = found({}, service)
    assert [each.problem.split(":")[0] for each in findings] == [
        "Punctuator was scaled to 6, but the release has 4 again",
        "Recognizer was scaled to 2 to 6, but the release has 2 to 8 again",
        "group gpu was scaled to 4 to 20, but the release has 2 to 8 again",
    ]
    assert all("helm rollback" in each.problem for each in findings)
    assert [each.remedy.split(",")[0] for each in findings] == [
        "paraserve cluster scale punctuator --replicas 6",
        "paraserve cluster scale recognizer --min 2 --max 6",
        "paraserve cluster scale group gpu --min 4 --max 20",
    ]


def test_scaling_that_is_in_effect_is_no_finding() -> None:
    change = of_deployment(JsonView(ray_service()), "Recognizer", ScaleRequest(maximum=6))
    service = ray_service(str(change.operations[0].value))
    note = {
        "deployments": {"Recognizer": change.options},
        "workerGroups": {"gpu": {"minReplicas": 2, "maxReplicas": 8, "replicas": 2}},
    }
    service["metadata"]["annotations"] = {ANNOTATION: yaml.safe_dump(note)}
    assert found({}, service) == []


def test_old_clusters_that_pile_up_are_found_with_age_and_cores() -> None:
    names = ("speech-a", "speech-9", "speech-8")
    (told,) = problems({CLUSTERS: {"items": [ray_cluster(name) for name in names]}})
    assert told.startswith("RayClusters that no longer serve hold cores: speech-9 (")
    assert "speech-8 (" in told
    assert "6 cores) waits for its deletion" in told


def test_one_old_cluster_is_a_finding_only_if_pods_find_no_node() -> None:
    clusters = {"items": [ray_cluster("speech-a"), ray_cluster("speech-9")]}
    assert problems({CLUSTERS: clusters}) == []
    condition = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}
    pods = {"items": [head_pod(), pod("w1", "gpu", conditions=[condition])]}
    told = problems({CLUSTERS: clusters, f"{CORE}/pods": pods})
    assert any("no longer serve hold cores: speech-9" in each for each in told)


def test_other_version_is_not_to_be_installed_from_an_index() -> None:
    (finding,) = found({}, changed_service(f"{CONTAINER}/image", "paraserve:9.9.9"))
    assert "checkout or URL" in finding.remedy
    assert "paraserve==" not in finding.remedy
