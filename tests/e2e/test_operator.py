"""The played operator against a record of what KubeRay 1.7.0 itself made and wrote.

`kuberay-1.7.0.json` is an extract of that record: what the operator adds to the chart's
pods, its Services, rights and statuses, without identities and times. Where KUBERAY_RECORD
names the whole record, the extract is held against it.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.charting import Json
from tests.e2e import operator_objects as objects
from tests.e2e.operator import FINALIZER
from tests.e2e.operator_status import cluster_status, service_status

EXTRACT = Path(__file__).parent / "kuberay-1.7.0.json"
SERVICE, CLUSTER = "speech-paraserve", "speech-paraserve-tbc2p"
CHART_LABELS = {
    "app.kubernetes.io/instance": "speech",
    "app.kubernetes.io/managed-by": "Helm",
    "app.kubernetes.io/name": "paraserve",
    "app.kubernetes.io/part-of": "paraserve",
    "app.kubernetes.io/version": "0.1.0",
    "helm.sh/chart": "paraserve-0.1.0",
}
CHART_ANNOTATIONS = {
    "meta.helm.sh/release-name": "speech",
    "meta.helm.sh/release-namespace": "asr",
}
POD_LABELS = {
    "app.kubernetes.io/instance": "speech",
    "app.kubernetes.io/name": "paraserve",
    "app.kubernetes.io/part-of": "paraserve",
}
TIMES = ("lastTransitionTime", "lastUpdateTime", "stateTransitionTimes")
# Hashes are compared with each other, not with ours.
HASHES = (objects.HASH_ANNOTATION, "ray.io/upgrade-strategy-recreate-hash")


def template(component: str, memory: str, cpus: str, request: str) -> Json:
    """Returns a pod template with as little as the record's pods had from the chart."""
    account = f"{SERVICE}-{component}"
    resources = {
        "requests": {"cpu": request, "memory": memory},
        "limits": {"cpu": cpus, "memory": memory},
    }
    return {
        "metadata": {"labels": {**POD_LABELS, "app.kubernetes.io/component": component}},
        "spec": {
            "serviceAccountName": account,
            "containers": [
                {
                    "name": f"ray-{component}",
                    "image": "paraserve:0.1.0",
                    "resources": resources,
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


@pytest.fixture(scope="module")
def seen() -> Json:
    content: Json = json.loads(EXTRACT.read_text(encoding="utf-8"))
    return content


@pytest.fixture
def service() -> Json:
    worker: Json = {
        "groupName": "cpu",
        "replicas": 1,
        "minReplicas": 1,
        "maxReplicas": 1,
        "rayStartParams": {},
        "template": template("worker", "4Gi", "2", "500m"),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": SERVICE,
            "namespace": "asr",
            "uid": "1",
            "generation": 1,
            "labels": CHART_LABELS,
            "annotations": CHART_ANNOTATIONS,
        },
        "spec": {
            "rayClusterConfig": {
                "authOptions": {"mode": "token", "secretName": "speech-paraserve-ray-auth"},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "env": [{"name": "HOME", "value": "/tmp"}],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                },
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": template("head", "2Gi", "1", "250m"),
                },
                "workerGroupSpecs": [worker],
            }
        },
    }


@pytest.fixture
def cluster(service: Json) -> Json:
    made = objects.ray_cluster(service, service["spec"]["rayClusterConfig"], CLUSTER)
    made["metadata"] |= {"uid": "2", "generation": 1}
    return made


def test_extract_is_what_the_record_says(seen: Json) -> None:
    record = os.environ.get("KUBERAY_RECORD")
    if record is None:
        pytest.skip("NOT RUN: KUBERAY_RECORD names no record of the operator's objects")
    assert extract(json.loads(Path(record).read_text(encoding="utf-8"))) == seen


def test_cluster_is_made_as_seen(seen: Json, cluster: Json) -> None:
    assert described(cluster, "RayService") == seen["made"]["RayCluster"]


def test_services_are_made_as_seen(seen: Json, service: Json, cluster: Json) -> None:
    made = [
        objects.head_service(service, CLUSTER, f"{SERVICE}-head-svc"),
        objects.serve_service(service, CLUSTER),
        objects.head_service(cluster, CLUSTER),
    ]
    assert [described(item) for item in made] == seen["made"]["Service"]


def test_rights_of_the_autoscaler_are_made_as_seen(seen: Json, cluster: Json) -> None:
    role, binding = objects.autoscaler_rights(cluster)
    assert described(role) == seen["made"]["Role"]
    assert described(binding) == seen["made"]["RoleBinding"]


def test_pods_are_made_as_seen(seen: Json, cluster: Json) -> None:
    (group,) = cluster["spec"]["workerGroupSpecs"]
    assert described_pod(objects.head_pod(cluster)) == seen["made"]["head"]
    assert described_pod(objects.worker_pod(cluster, group, 0)) == seen["made"]["worker"]


def test_statuses_are_written_as_seen(seen: Json, service: Json, cluster: Json) -> None:
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    head = objects.head_pod(cluster)
    head["metadata"]["name"] = f"{CLUSTER}-head-frwsd"
    worker = objects.worker_pod(cluster, cluster["spec"]["workerGroupSpecs"][0], 0)
    for pod in (head, worker):
        pod["status"] = copy.deepcopy(ready)
    head["status"]["podIP"] = "10.244.0.53"
    cluster["status"] = cluster_status(cluster, [head, worker])
    names = ("Ingress", "Punctuator", "Recognizer", "Segmenter")
    deployments = {name: {"status": "HEALTHY", "message": ""} for name in names}
    told = {CLUSTER: {"paraserve": {"status": "RUNNING", "deployments": deployments}}}
    status = service_status(service, cluster, None, told, 1)
    assert without_times(status) == seen["rayservice_status"]
    assert without_times(cluster["status"]) == seen["raycluster_status"]


def test_finalizer_is_all_that_the_operator_owns_of_a_canonical_service(seen: Json) -> None:
    assert seen["rayservice_field_owners"] == {"metadata": ["f:finalizers"], "spec": []}
    assert FINALIZER == "ray.io/rayservice-finalizer"


@pytest.mark.parametrize(
    ("change", "is_new_cluster"),
    [
        ({"replicas": 3}, False),
        ({"minReplicas": 2, "maxReplicas": 9}, False),
        ({"scaleStrategy": {"workersToDelete": ["a"]}}, False),
        ({"groupName": "other"}, True),
    ],
)
def test_sizes_of_groups_change_in_place(service: Json, change: Json, is_new_cluster: bool) -> None:
    spec = service["spec"]["rayClusterConfig"]
    changed = copy.deepcopy(spec)
    changed["workerGroupSpecs"][0] |= change
    assert (objects.spec_hash(changed) != objects.spec_hash(spec)) == is_new_cluster


def extract(record: Json) -> Json:
    """Returns the part of the record that the played operator is held to."""
    made: Json = {"Service": []}
    for item in record["made"]:
        kind = item["kind"]
        if kind == "Pod":
            made[item["metadata"]["labels"]["ray.io/node-type"]] = described_pod(item)
        elif kind == "Service":
            made[kind].append(described(item))
        else:
            made[kind] = described(item)
    (cluster,) = (item for item in record["made"] if item["kind"] == "RayCluster")
    (operator,) = (
        owner
        for owner in record["rayservice_field_owners"]
        if owner["manager"] == "kuberay-operator"
    )
    return {
        "made": made,
        "rayservice_status": without_times(record["rayservice_status"]),
        "raycluster_status": without_times(cluster["status"]),
        "rayservice_field_owners": {key: operator[key] for key in ("metadata", "spec")},
    }


def described(item: Json, owner: str | None = None) -> Json:
    """Returns metadata and content of an object, without what a server adds to it."""
    metadata = item["metadata"]
    found: Json = {
        "name": metadata["name"],
        "labels": metadata["labels"],
        "owner": metadata["ownerReferences"][0]["kind"],
    }
    annotations = metadata.get("annotations") or {}
    if annotations:
        found["annotations"] = {
            key: "" if key in HASHES else value for key, value in annotations.items()
        }
    for key in ("rules", "roleRef", "subjects"):
        if key in item:
            found[key] = item[key]
    if item["kind"] == "Service":
        spec = item["spec"]
        found |= {key: spec.get(key) for key in ("selector", "publishNotReadyAddresses")}
        found["headless"] = spec.get("clusterIP") == "None"
        found["ports"] = [
            [port["name"], port["port"], port["targetPort"]] for port in spec["ports"]
        ]
    return found


def described_pod(pod: Json) -> Json:
    """Returns what the operator has added to a pod template of the chart."""
    annotations = pod["metadata"].get("annotations") or {}
    found: Json = {
        "generateName": pod["metadata"]["generateName"],
        "labels": pod["metadata"]["labels"],
        "annotations": {
            key: "" if key in HASHES else value
            for key, value in annotations.items()
            if key.startswith("ray.io/")
        },
        "restartPolicy": pod["spec"]["restartPolicy"],
    }
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        waits = container["name"] == "wait-gcs-ready"
        found[container["name"]] = {
            "command": container["command"],
            # The waiting is KubeRay's own script; that it waits for this address matters.
            "args": "waits for the GCS" if waits else container["args"],
            "env": [entry for entry in container["env"] if is_operators(entry)],
        }
        if waits:
            found[container["name"]]["resources"] = container["resources"]
    return found


def is_operators(entry: Json) -> bool:
    """True for a variable that does not come from the chart's containers."""
    name = entry["name"]
    chart = ("RAY_SERVE_ENABLE", "RAY_SERVE_HTTP", "RAY_ACCEL", "RAY_USAGE_STATS_ENABLED")
    return not name.startswith((*chart, "HOME", "XDG_", "PARASERVE_"))


def without_times(part: Any) -> Any:
    if isinstance(part, list):
        return [without_times(entry) for entry in part]
    if isinstance(part, dict):
        return {key: without_times(value) for key, value in part.items() if key not in TIMES}
    return part
