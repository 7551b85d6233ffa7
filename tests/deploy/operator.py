"""Plays the KubeRay operator, which no test has: it makes RayClusters and writes status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client

from serve_app.ops.kube import Kube
from serve_app.ops.service import RAY, service_path

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
    spec = kube.get(service_path(kube, service)).at("spec", "rayClusterConfig").value
    context = ("ray.io", "v1", kube.namespace, "rayclusters")
    api = client.CustomObjectsApi(kube._client)
    body = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name, "namespace": kube.namespace},
        "spec": spec,
    }
    api.create_namespaced_custom_object(*context, body)
    try:
        yield name
    finally:
        api.delete_namespaced_custom_object(*context, name)


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
    live = kube.get(service_path(kube, service))
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
    client.CustomObjectsApi(kube._client).patch_namespaced_custom_object_status(
        *("ray.io", "v1", kube.namespace, "rayservices", service),
        {"status": status},
        field_manager="kuberay-operator",
        _content_type="application/merge-patch+json",
    )


__all__ = ["HEALTHY", "RAY", "cluster_status", "create_cluster", "play_operator"]
