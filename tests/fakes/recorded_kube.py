"""A Kubernetes API that answers what was recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlencode

import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.dynamic import DynamicClient

from serve_app.api import flow
from serve_app.core.errors import ClusterRefused
from serve_app.ops.kube import Kube

SERVICES = "/apis/ray.io/v1/namespaces/asr/rayservices"
CLUSTERS = "/apis/ray.io/v1/namespaces/asr/rayclusters"
CORE = "/api/v1/namespaces/asr"


class RecordedKube(Kube):
    """Answers by path (and query, where one is recorded with it); 404 for all else."""

    def __init__(self, answers: Mapping[str, object]) -> None:
        super().__init__(ApiClient(Configuration(host="http://recorded")), "asr")
        self.answers = dict(answers)
        self.sent: list[tuple[str, str, object]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self._client = _RecordedClient(self)


class _RecordedClient(DynamicClient):
    """The dynamic client without a server."""

    def __init__(self, kube: RecordedKube) -> None:
        self._kube = kube

    def request(self, method: str, path: str, body: object = None, **parameters: Any) -> Any:
        kube = self._kube
        kube.paths.append(path)
        path = unquote(path)
        kube.sent.append((method.upper(), path, body))
        headers = parameters.get("header_params", {})
        kube.headers.append({key: headers[key] for key in headers if key != "Accept"})
        query = dict(parameters.get("query_params", ()))
        for name, written in (("label_selector", "labelSelector"), ("_continue", "continue")):
            if parameters.get(name):
                query[written] = parameters[name]
        full = f"{path}?{urlencode(query)}" if query else path
        answer = kube.answers.get(full, kube.answers.get(path))
        if answer is None:
            raise ClusterRefused(f"{path} not found", 404)
        if isinstance(answer, Exception | type):
            raise answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return SimpleNamespace(data=text.encode())


def environment(**changes: str) -> list[dict[str, str]]:
    """Returns the variables that the containers should have, some of them changed."""
    right = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "14460",
        "RAY_SERVE_HAPROXY_BINARY_PATH": "/opt/venv/bin/paraserve-haproxy",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        flow.IMPORT_PATH_VARIABLE: flow.IMPORT_PATH,
    }
    return [{"name": name, "value": value} for name, value in (right | changes).items() if value]


def template(gpus: int = 0, **variables: str) -> dict[str, Any]:
    """Returns a pod template in which nothing is wrong."""
    amounts = {"cpu": "2", "memory": "4Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    container = {
        "name": "ray",
        "image": f"registry.local/paraserve:{metadata.version('paraserve')}",
        "env": environment(**variables),
        "resources": {"requests": amounts, "limits": amounts},
    }
    keys = {"secretName": "api-keys", "items": [{"key": "keys.yaml", "path": "keys.yaml"}]}
    volumes = [
        {"name": "keys", "secret": keys},
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
    ]
    return {
        "spec": {
            "terminationGracePeriodSeconds": 3660,
            "containers": [container],
            "volumes": volumes,
        }
    }


SETTINGS: dict[str, Any] = {
    "profile": "paraformer-large",
    "offline": True,
    "http": {"host": "0.0.0.0"},
    "auth": {"keys_file": "/etc/keys.yaml"},
    "recognizer": {
        "deployment": {"num_gpus": 0.75, "autoscaling": {"min_replicas": 2, "max_replicas": 8}}
    },
    "punctuator": {"deployment": {"num_gpus": 0.25}},
}


def serve_config(
    settings: dict[str, Any] | None = None, deployments: list[dict[str, Any]] | None = None
) -> str:
    """Returns a Serve config of one application."""
    application = {
        "name": "paraserve",
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": SETTINGS if settings is None else settings,
        "deployments": deployments or [{"name": "Punctuator", "num_replicas": 4}],
    }
    return yaml.safe_dump({"applications": [application]})


def ray_service(config: str | None = None, **status: Any) -> dict[str, Any]:
    """Returns a RayService in which nothing is wrong."""
    cluster = {
        "rayVersion": "2.60.0",
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2"},
        "authOptions": {"mode": "token", "secretName": "ray-auth"},
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": template()},
        "workerGroupSpecs": [
            {"groupName": "cpu", "replicas": 1, "minReplicas": 1, "maxReplicas": 4}
            | {"template": template()},
            {"groupName": "gpu", "replicas": 2, "minReplicas": 2, "maxReplicas": 8}
            | {"template": template(1)},
        ],
    }
    return {
        "metadata": {
            "name": "speech",
            "generation": 3,
            "resourceVersion": "77",
            "annotations": {},
            "managedFields": [],
        },
        "spec": {"serveConfigV2": config or serve_config(), "rayClusterConfig": cluster},
        "status": healthy_status() | status,
    }


def healthy_status() -> dict[str, Any]:
    """Returns a status with one cluster that serves."""
    names = ("Ingress", "Segmenter", "Recognizer", "Punctuator")
    return {
        "observedGeneration": 3,
        "numServeEndpoints": 3,
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": ""},
        ],
        "activeServiceStatus": cluster_status("speech-a", dict.fromkeys(names, "HEALTHY")),
    }


def cluster_status(
    name: str, deployments: dict[str, str], application: str = "RUNNING", message: str = ""
) -> dict[str, Any]:
    """Returns what KubeRay says of a cluster."""
    statuses = {key: {"status": value, "message": message} for key, value in deployments.items()}
    return {
        "rayClusterName": name,
        "rayClusterStatus": {
            "state": "ready",
            "readyWorkerReplicas": 3,
            "desiredWorkerReplicas": 3,
            "head": {"serviceName": f"{name}-head-svc"},
        },
        "applicationStatuses": {
            "paraserve": {"status": application, "serveDeploymentStatuses": statuses}
        },
    }


def head_pod(cluster: str = "speech-a", ready: bool = True, **status: Any) -> dict[str, Any]:
    """Returns the pod of a cluster's head."""
    found = pod(f"{cluster}-head", "headgroup", ready, **status)
    found["metadata"]["labels"] |= {"ray.io/node-type": "head", "ray.io/cluster": cluster}
    return found


def ray_cluster(name: str, created: str = "2026-11-28T06:00:00Z", **metadata: Any) -> Any:
    """Returns a RayCluster that KubeRay made of the RayService."""
    status = {"state": "ready", "readyWorkerReplicas": 3, "desiredWorkerReplicas": 3}
    return {
        "metadata": {"name": name, "creationTimestamp": created} | metadata,
        "status": status | {"desiredCPU": "6"},
    }


def pod(name: str, group: str, ready: bool = True, **status: Any) -> dict[str, Any]:
    """Returns a worker pod."""
    labels = {"ray.io/group": group, "ray.io/node-type": "worker"}
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels},
        "spec": {"containers": [{"name": "ray"}]},
        "status": {"conditions": [condition]} | status,
    }
