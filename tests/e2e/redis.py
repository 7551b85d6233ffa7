"""A Redis for the release's control store."""

from __future__ import annotations

from tests.deploy.charting import Json
from tests.e2e.release import ReleaseUnderTest

NAME = "e2e-redis"
ADDRESS = f"{NAME}:6379"


def redis_objects(image: str) -> list[Json]:
    """Returns a pod with Redis and its Service."""
    metadata = {"name": NAME, "labels": {"app": NAME}}
    container = {
        "name": "redis",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"],
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001},
            "containers": [container],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": NAME}, "ports": [{"port": 6379}]},
    }
    return [pod, service]


def num_keys(release: ReleaseUnderTest) -> int:
    """Returns how many keys Redis holds."""
    told = release.kubectl("exec", NAME, "--", "redis-cli", "dbsize")
    return int(told.split()[-1])
