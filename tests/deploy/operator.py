"""Plays the KubeRay operator, which no test has: it makes RayClusters and writes status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client

from serve_app.ops.kube import RAY_SERVICE, Kube

HEALTHY = {
    "Ingress": "HEALTHY",
    "Segmenter": "HEALTHY",
    "Recognizer": "HEALTHY",
    "Punctuator": "HEALTHY",
}


@contextmanager
def create_cluster(kube: Kube, service: str, suffix: str) -> Iterator[str]:
    """Makes the RayCluster of a RayService; it is removed in the end."""
    name = f"{service}-{suffix}"
    spec = kube.get(RAY_SERVICE, service).at("spec", "rayClusterConfig").value
    context = ("ray.io", "v1", kube.namespace, "rayclusters")
    api = client.CustomObjectsApi(kube._client.client)
    body = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": kube.namespace,
            "labels": {
                "ray.io/originated-from-cr-name": service,
                "ray.io/originated-from-crd": "RayService",
            },
        },
        "spec": spec,
    }
    api.create_namespaced_custom_object(*context, body)
    try:
        with head_pod(kube, name):
            yield name
    finally:
        api.delete_namespaced_custom_object(*context, name)


@contextmanager
def head_pod(kube: Kube, cluster: str) -> Iterator[str]:
    """Makes the pod of a head, which is ready; it is removed in the end."""
    name = f"{cluster}-head"
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head", "ray.io/group": "headgroup"}
    api = client.CoreV1Api(kube._client.client)
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels=labels),
        spec=client.V1PodSpec(containers=[client.V1Container(name="ray-head", image="paraserve")]),
    )
    api.create_namespaced_pod(kube.namespace, pod)
    set_ready(kube, name, is_ready=True)
    try:
        yield name
    finally:
        api.delete_namespaced_pod(name, kube.namespace, grace_period_seconds=0)


def set_ready(kube: Kube, pod: str, *, is_ready: bool) -> None:
    """Writes a pod's readiness, as a kubelet does."""
    condition = {"type": "Ready", "status": "True" if is_ready else "False"}
    client.CoreV1Api(kube._client.client).patch_namespaced_pod_status(
        pod, kube.namespace, {"status": {"phase": "Running", "conditions": [condition]}}
    )


def cluster_status(
    name: str, application: str = "RUNNING", deployments: dict[str, str] | None = None
) -> dict[str, Any]:
    """Returns what KubeRay writes of a cluster."""
    statuses = {
        key: {"status": value, "message": "fine"} for key, value in (deployments or HEALTHY).items()
    }
    return {
        "rayClusterName": name,
        "rayClusterStatus": {
            "state": "ready",
            "readyWorkerReplicas": 4,
            "desiredWorkerReplicas": 4,
            "head": {"serviceName": f"{name}-head-svc"},
        },
        "applicationStatuses": {
            "paraserve": {
                "status": application,
                "message": "fine",
                "serveDeploymentStatuses": statuses,
            }
        },
    }


def play_operator(
    kube: Kube,
    service: str,
    active: str | None = None,
    pending: str | None = None,
    application: str = "RUNNING",
    deployments: dict[str, str] | None = None,
    settled: bool = True,
) -> None:
    """Writes the status of a RayService, as of its present generation."""
    live = kube.get(RAY_SERVICE, service)
    now = "2026-01-01T00:00:00Z"

    def condition(kind: str, holds: bool, reason: str) -> dict[str, str]:
        status = "True" if holds else "False"
        fields = {"type": kind, "status": status, "reason": reason, "message": "fine"}
        return {**fields, "lastTransitionTime": now}

    generation = live.at("metadata", "generation").count()
    status: dict[str, Any] = {
        "observedGeneration": generation if settled else generation - 1,
        "numServeEndpoints": 4 if active else 0,
        "conditions": [
            condition("Ready", active is not None, "NonZeroServeEndpoints"),
            condition("UpgradeInProgress", pending is not None, "BothActivePendingClustersExist"),
        ],
        "activeServiceStatus": cluster_status(active, application, deployments) if active else {},
        "pendingServiceStatus": cluster_status(pending, "DEPLOYING") if pending else {},
    }
    client.CustomObjectsApi(kube._client.client).patch_namespaced_custom_object_status(
        *("ray.io", "v1", kube.namespace, "rayservices", service),
        {"status": status},
        field_manager="kuberay-operator",
        _content_type="application/merge-patch+json",
    )


__all__ = ["HEALTHY", "cluster_status", "create_cluster", "play_operator"]
