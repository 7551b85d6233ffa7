"""The RayClusters of a release: the serving one, its successor, and old ones that hold cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import RAY_CLUSTER, Kube
from serve_app.ops.service import ClusterState, ServiceState, is_ready_pod

Role: TypeAlias = Literal["active", "pending", "old"]

CLUSTER_LABEL = "ray.io/cluster"
_OWNER = "ray.io/originated-from-cr-name={},ray.io/originated-from-crd=RayService"
_REDIS_FINALIZER = "ray.io/gcs-ft-redis-cleanup-finalizer"
_DELETION_DELAY_S = 60


@dataclass(frozen=True, slots=True)
class ReleaseCluster:
    """A RayCluster that KubeRay made of the RayService.

    Attributes:
        name: of the RayCluster.
        role: active if it serves, pending if it will, old if it did.
        age_s: since it was created.
        state: as KubeRay reports it; empty if unknown.
        ready_workers: pods that are ready.
        desired_workers: pods that KubeRay wants.
        cpus: cores that its pods request, as Kubernetes writes them.
        waits_for: what it waits for, as a clause; empty if nothing.
    """

    name: str
    role: Role
    age_s: float
    state: str
    ready_workers: int
    desired_workers: int
    cpus: str
    waits_for: str


def read_clusters(
    kube: Kube, service: JsonView, state: ServiceState, pods: Sequence[JsonView], now: datetime
) -> list[ReleaseCluster]:
    """Returns all RayClusters of the RayService, the oldest first.

    Args:
        kube: namespace.
        service: the RayService.
        state: its status.
        pods: of its active and pending cluster.
        now: current time.

    Raises:
        ClusterRefused: the API server refuses.
    """
    found = kube.list(RAY_CLUSTER, label_selector=_OWNER.format(state.name))
    clusters = [_release_cluster(each, service, state, pods, now) for each in found]
    return sorted(clusters, key=lambda cluster: -cluster.age_s)


def head_problem(cluster: ClusterState, pods: Sequence[JsonView]) -> str | None:
    """Returns why the head of a cluster does not work; None if it does.

    KubeRay's status of the RayService is older than the pods.

    Args:
        cluster: whose head.
        pods: all pods of the cluster.
    """
    heads = [
        pod
        for pod in pods
        if pod.at("metadata", "labels", "ray.io/node-type").text() == "head"
        and pod.at("metadata", "labels", CLUSTER_LABEL).text() == cluster.name
    ]
    if any(is_ready_pod(pod) for pod in heads):
        return None
    if not heads:
        return f"the head of {cluster.name} has no pod"
    pod = heads[-1]
    name = pod.at("metadata", "name").text()
    if pod.at("metadata", "deletionTimestamp").is_there:
        return f"the head of {cluster.name} is being deleted ({name})"
    return f"the head of {cluster.name} is not ready ({name}: {_pod_reason(pod)})"


def unschedulable(pod: JsonView) -> str | None:
    """Returns why the scheduler finds no node for a pod; None if it found one."""
    for condition in pod.at("status", "conditions").each():
        if condition.at("reason").text() == "Unschedulable":
            return condition.at("message").text("no reason given")
    return None


def age_text(age_s: float) -> str:
    """Returns a duration as kubectl writes it, such as 3m or 2h10m."""
    seconds = max(0, int(age_s))
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h{minutes % 60}m" if hours < 48 else f"{hours // 24}d"


def seconds_since(time: str, now: datetime) -> float | None:
    """Returns the seconds since a time as Kubernetes writes it; None if it is none."""
    try:
        return (now - datetime.fromisoformat(time)).total_seconds()
    except (TypeError, ValueError):
        return None


def _release_cluster(
    cluster: JsonView,
    service: JsonView,
    state: ServiceState,
    pods: Sequence[JsonView],
    now: datetime,
) -> ReleaseCluster:
    name = cluster.at("metadata", "name").text()
    role: Role = "pending" if state.active is None else "old"
    if state.active is not None and state.active.name == name:
        role = "active"
    elif state.pending is not None and state.pending.name == name:
        role = "pending"
    status = cluster.at("status")
    return ReleaseCluster(
        name=name,
        role=role,
        age_s=seconds_since(cluster.at("metadata", "creationTimestamp").text(), now) or 0.0,
        state=status.at("state").text(),
        ready_workers=status.at("readyWorkerReplicas").count(),
        desired_workers=status.at("desiredWorkerReplicas").count(),
        cpus=status.at("desiredCPU").text("0"),
        waits_for=_waits_for(cluster, role, service, state, pods, now),
    )


def _waits_for(
    cluster: JsonView,
    role: Role,
    service: JsonView,
    state: ServiceState,
    pods: Sequence[JsonView],
    now: datetime,
) -> str:
    metadata = cluster.at("metadata")
    if metadata.at("deletionTimestamp").is_there:
        finalizers = [each.text() for each in metadata.at("finalizers").each()]
        emptied = " (after the job that empties Redis)" if _REDIS_FINALIZER in finalizers else ""
        return f"its pods to finish their requests, then it is deleted{emptied}"
    known = state.active if role == "active" else state.pending
    if role == "old" or known is None:
        return _deletion(service, state, now)
    problem = head_problem(known, pods) if pods else None
    homeless = sum(
        unschedulable(pod) is not None
        for pod in pods
        if pod.at("metadata", "labels", CLUSTER_LABEL).text() == known.name
    )
    if homeless:
        return f"nodes for {homeless} pods"
    if problem is not None:
        return "its head"
    if known.unready:
        return ", ".join(known.unready)
    return "the traffic" if role == "pending" else ""


def _deletion(service: JsonView, state: ServiceState, now: datetime) -> str:
    """Returns when KubeRay deletes a cluster that no longer serves."""
    delay_s = service.at("spec", "rayClusterDeletionDelaySeconds").count(_DELETION_DELAY_S)
    upgrade = next(
        (
            each
            for each in service.at("status", "conditions").each()
            if each.at("type").text() == "UpgradeInProgress"
        ),
        JsonView(),
    )
    elapsed_s = seconds_since(upgrade.at("lastTransitionTime").text(), now)
    if state.pending is not None or elapsed_s is None:
        return f"its deletion, {delay_s} s after it stopped serving"
    left_s = max(0.0, delay_s - elapsed_s)
    return f"its deletion in about {age_text(left_s)} ({delay_s} s after it stopped serving)"


def _pod_reason(pod: JsonView) -> str:
    """Returns why a pod is not ready."""
    homeless = unschedulable(pod)
    if homeless is not None:
        return f"no node: {homeless}"
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in pod.at("status", kind).each():
            waiting = status.at("state", "waiting", "reason").text()
            ended = status.at("state", "terminated", "reason").text()
            if waiting or ended:
                return f"{status.at('name').text()} is in {waiting or ended}"
    return pod.at("status", "phase").text("not started")
