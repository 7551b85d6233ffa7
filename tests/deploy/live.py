"""What the tests on the API server share."""

from __future__ import annotations

import subprocess
from typing import Any

import helm_python as helm

from tests.deploy.charting import CHART, Json, combined, command, ready_values, serve_config
from tests.deploy.cluster import KubeServer
from tests.deploy.scaling import RayServices

NAMESPACE = "asr"
NAME = "speech-paraserve"


def gpu_values(**changes: Any) -> Json:
    return combined(ready_values("many-gpus"), changes)


def install(releases: helm.Config, values: Json) -> None:
    releases.install(CHART, "speech", values)


def groups(services: RayServices) -> dict[str, Json]:
    specs = services.get(NAME)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return {spec["groupName"]: spec for spec in specs}


def live_config(services: RayServices) -> Json:
    return serve_config([services.get(NAME)])


def replicas(config: Json) -> dict[str, int]:
    return {
        entry["name"]: entry["num_replicas"] for entry in config["applications"][0]["deployments"]
    }


def kubectl(kube: KubeServer, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            command("kubectl"),
            "--kubeconfig",
            str(kube.kubeconfig),
            "--namespace",
            NAMESPACE,
            *arguments,
        ],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def account(name: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:{NAME}-{name}"
