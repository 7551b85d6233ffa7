"""What KubeRay writes into the status of RayServices and RayClusters."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tests.deploy.charting import Json
from tests.e2e.operator_objects import amount, head_service_name

_PORTS = {
    "client": "10001",
    "dashboard": "8265",
    "gcs-server": "6379",
    "metrics": "8080",
    "serve": "8000",
}


def cluster_status(cluster: Json, pods: list[Json]) -> Json:
    """Returns the status of a RayCluster with these pods."""
    old = cluster.get("status") or {}
    groups = cluster["spec"]["workerGroupSpecs"]
    workers = [pod for pod in pods if _label(pod, "ray.io/node-type") == "worker"]
    heads = [pod for pod in pods if _label(pod, "ray.io/node-type") == "head"]
    desired = sum(
        min(max(group["replicas"], group["minReplicas"]), group["maxReplicas"]) for group in groups
    )
    ready = sum(_is_ready(pod) for pod in workers)
    head_ready = any(_is_ready(pod) for pod in heads)
    provisioned = _holds(old, "RayClusterProvisioned") or (head_ready and ready >= desired)
    status: Json = {
        "desiredWorkerReplicas": desired,
        "availableWorkerReplicas": sum(pod["status"].get("phase") == "Running" for pod in workers),
        "readyWorkerReplicas": ready,
        "minWorkerReplicas": sum(group["minReplicas"] for group in groups),
        "maxWorkerReplicas": sum(group["maxReplicas"] for group in groups),
        **_resources(cluster["spec"]),
        "endpoints": _PORTS,
        "head": _head(cluster, heads),
        "observedGeneration": cluster["metadata"].get("generation", 1),
        "conditions": _cluster_conditions(old, head_ready, provisioned),
        "lastUpdateTime": old.get("lastUpdateTime", _now()),
    }
    if provisioned:
        status["state"] = "ready"
        times = old.get("stateTransitionTimes") or {"ready": _now()}
        status["stateTransitionTimes"] = times
    return status


def _cluster_conditions(old: Json, head_ready: bool, provisioned: bool) -> list[Json]:
    return [
        _condition(
            old,
            "HeadPodReady",
            head_ready,
            "HeadPodRunningAndReady" if head_ready else "HeadPodNotReady",
        ),
        _condition(
            old,
            "RayClusterProvisioned",
            provisioned,
            "AllPodRunningAndReadyFirstTime" if provisioned else "RayClusterPodsProvisioning",
            "All Ray Pods are ready for the first time" if provisioned else "",
        ),
        _condition(old, "RayClusterSuspended", False, "RayClusterSuspended"),
        _condition(old, "RayClusterSuspending", False, "RayClusterSuspending"),
    ]


def _resources(spec: Json) -> Json:
    """Returns what the pods ask for, all groups at their wanted size."""
    parts = [(1, spec["headGroupSpec"]["template"])]
    parts += [(group["replicas"], group["template"]) for group in spec["workerGroupSpecs"]]
    sums = dict.fromkeys(("cpu", "memory", "nvidia.com/gpu"), Decimal(0))
    for count, template in parts:
        for container in template["spec"]["containers"]:
            resources = container.get("resources", {})
            wanted = {**resources.get("limits", {}), **resources.get("requests", {})}
            for key in sums:
                sums[key] += count * amount(wanted.get(key, "0"))
    cpus = int(sums["cpu"] * 1000)
    memory, gi = int(sums["memory"]), 2**30
    return {
        "desiredCPU": f"{cpus}m" if cpus % 1000 else str(cpus // 1000),
        "desiredGPU": str(int(sums["nvidia.com/gpu"])),
        "desiredMemory": f"{memory // gi}Gi" if memory % gi == 0 else f"{memory // 2**20}Mi",
        "desiredTPU": "0",
    }


def _head(cluster: Json, heads: list[Json]) -> Json:
    name = head_service_name(cluster["metadata"]["name"])
    pod = heads[0] if heads else {"metadata": {}, "status": {}}
    address = pod.get("status", {}).get("podIP")
    found = {"serviceName": name}
    if pod["metadata"].get("name"):
        found["podName"] = pod["metadata"]["name"]
    return found | ({"podIP": address, "serviceIP": address} if address else {})


def service_status(
    service: Json,
    active: Json | None,
    pending: Json | None,
    applications: dict[str, Json],
    num_endpoints: int,
) -> Json:
    """Returns the status of a RayService.

    Args:
        service: as it is.
        active: the RayCluster that has the traffic.
        pending: the one that will.
        applications: by RayCluster, as Serve's dashboard tells.
        num_endpoints: ready addresses of the serve Service.
    """
    old = service.get("status") or {}
    generation = service["metadata"]["generation"]
    if num_endpoints:
        ready = _condition(
            old,
            "Ready",
            True,
            "NonZeroServeEndpoints",
            "Number of serve endpoints is greater than 0",
        )
    elif any(entry["type"] == "Ready" for entry in old.get("conditions") or ()) and active:
        ready = _condition(
            old,
            "Ready",
            False,
            "ZeroServeEndpoints",
            "Number of serve endpoints dropped to 0",
        )
    else:
        ready = _condition(old, "Ready", False, "Initializing", "RayService is initializing")
    status: Json = {
        "observedGeneration": generation,
        "numServeEndpoints": num_endpoints,
        "serviceStatus": "Running" if num_endpoints else "",
        "activeServiceStatus": _cluster_part(active, applications),
        "pendingServiceStatus": _cluster_part(pending, applications),
        "conditions": [ready, _upgrade_condition(old, active, pending)],
        "lastUpdateTime": old.get("lastUpdateTime", _now()),
    }
    for condition in status["conditions"]:
        condition["observedGeneration"] = generation
    return status


def _upgrade_condition(old: Json, active: Json | None, pending: Json | None) -> Json:
    if active is None:
        reason, message = "NoActiveCluster", "No active Ray cluster exists"
        return _condition(old, "UpgradeInProgress", False, reason, message)
    if pending is None:
        reason, message = (
            "NoPendingCluster",
            "Active Ray cluster exists and no pending Ray cluster",
        )
        return _condition(old, "UpgradeInProgress", False, reason, message)
    reason = "BothActivePendingClustersExist"
    message = "Both active and pending Ray clusters exist"
    return _condition(old, "UpgradeInProgress", True, reason, message)


def _cluster_part(cluster: Json | None, applications: dict[str, Json]) -> Json:
    if cluster is None:
        nothing = dict.fromkeys(("desiredCPU", "desiredGPU", "desiredMemory", "desiredTPU"), "0")
        return {"rayClusterStatus": {**nothing, "head": {}}}
    name = cluster["metadata"]["name"]
    return {
        "rayClusterName": name,
        "rayClusterStatus": cluster.get("status") or {},
        "applicationStatuses": {
            key: _application(value) for key, value in applications.get(name, {}).items()
        },
    }


def _application(told: Json) -> Json:
    statuses = {key: _status(part) for key, part in (told.get("deployments") or {}).items()}
    return {**_status(told), "serveDeploymentStatuses": statuses}


def _status(part: Json) -> Json:
    message = part.get("message")
    return {"status": part["status"], **({"message": message} if message else {})}


def _condition(old: Json, kind: str, holds: bool, reason: str, message: str = "") -> Json:
    status = "True" if holds else "False"
    since = _now()
    for entry in old.get("conditions") or ():
        if entry["type"] == kind and entry["status"] == status:
            since = entry["lastTransitionTime"]
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }


def _holds(status: Json, kind: str) -> bool:
    return any(
        entry["type"] == kind and entry["status"] == "True"
        for entry in status.get("conditions") or ()
    )


def _label(pod: Json, name: str) -> str:
    return str(pod["metadata"].get("labels", {}).get(name, ""))


def _is_ready(pod: Json) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return _holds(pod.get("status") or {}, "Ready")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
