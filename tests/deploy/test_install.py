"""The chart on a real API server: installed, changed, rolled back, removed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from kubernetes import client

from tests.deploy.charting import (
    CHART,
    EVERYTHING,
    READY_MADE,
    ROOT,
    Json,
    combined,
    pods_within,
    ready_values,
    render,
)
from tests.deploy.cluster import KubeServer
from tests.deploy.live import NAME, NAMESPACE, gpu_values, install, kubectl, live_config, replicas
from tests.deploy.scaling import RayServices

pytestmark = pytest.mark.k8s


@pytest.mark.parametrize("name", READY_MADE)
def test_ready_made_values_install_and_are_removed(
    releases: helm.Config, services: RayServices, kube: KubeServer, name: str
) -> None:
    values = ready_values(name)
    releases.install(CHART, "speech", values)
    live = services.get(NAME)
    (rendered,) = (item for item in render(values) if item["kind"] == "RayService")
    assert live["spec"]["serveConfigV2"] == rendered["spec"]["serveConfigV2"]
    assert releases.status("speech")["status"] == "deployed"
    releases.uninstall("speech")
    left = kubectl(kube, "get", "rayservice,secret,networkpolicy,role", "-o", "name").stdout
    assert "speech" not in left


def test_server_keeps_every_field_of_the_rayservice(
    releases: helm.Config, services: RayServices
) -> None:
    install(releases, gpu_values())
    (rendered,) = (item for item in render(gpu_values()) if item["kind"] == "RayService")
    assert list(_missing(rendered["spec"], services.get(NAME)["spec"], "")) == []


def _missing(wanted: Any, live: Any, path: str) -> Iterator[str]:
    """Yields what the server has pruned; it adds defaults, which is its right."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            if key not in live:
                yield f"{path}.{key}"
            else:
                yield from _missing(value, live[key], f"{path}.{key}")
    elif isinstance(wanted, list):
        for index, value in enumerate(wanted):
            yield from _missing(value, live[index], f"{path}[{index}]")


@pytest.mark.parametrize("case", [*READY_MADE, "everything"])
def test_server_accepts_every_object_and_every_pod_within(kube: KubeServer, case: str) -> None:
    values = gpu_values(**EVERYTHING) if case == "everything" else ready_values(case)
    rendered = render(values, name="dry", namespace=NAMESPACE)
    pods = [pod for item in rendered for pod in pods_within(item)]
    builtin = [
        item
        for item in rendered
        # The test server is older than the only version of these.
        if item["kind"] not in {"PodDisruptionBudget"}
    ]
    plain = yaml.safe_load((ROOT / "deploy" / "ray-cluster.yaml").read_text(encoding="utf-8"))
    pods += list(pods_within(plain))
    _name_default_accounts(pods)
    text = yaml.safe_dump_all(_in_namespace([*builtin, *pods, plain]))
    done = kubectl(kube, "create", "--dry-run=server", "-f", "-", given=text)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= len(builtin) + len(pods)


def _name_default_accounts(pods: list[Json]) -> None:
    for number, pod in enumerate(pods):
        pod["metadata"]["name"] = f"pod-{number}"


def _in_namespace(items: list[Json]) -> list[Json]:
    for item in items:
        item["metadata"]["namespace"] = NAMESPACE
    return items


def test_fraction_of_a_gpu_on_a_pod_would_be_refused(kube: KubeServer) -> None:
    rendered = render(ready_values("one-gpu"), namespace=NAMESPACE)
    (pod,) = (
        pod
        for item in rendered
        for pod in pods_within(item)
        if pod["metadata"]["name"][-3:] == "gpu"
    )
    resources = pod["spec"]["containers"][0]["resources"]
    resources["limits"]["nvidia.com/gpu"] = resources["requests"]["nvidia.com/gpu"] = "500m"
    done = kubectl(kube, "create", "--dry-run=server", "-f", "-", given=yaml.safe_dump(pod))
    assert done.returncode != 0
    assert "must be an integer" in done.stderr


def test_upgrade_changes_and_rollback_restores(
    releases: helm.Config, services: RayServices
) -> None:
    install(releases, ready_values("demo-cpu"))
    before = live_config(services)
    changed = combined(
        ready_values("demo-cpu"), {"settings": {"recognizer": {"deployment": {"num_replicas": 3}}}}
    )
    releases.upgrade(CHART, "speech", changed)
    assert replicas(live_config(services)) == {**replicas(before), "Recognizer": 3}
    assert live_config(services)["applications"][0]["args"] == before["applications"][0]["args"]
    releases.rollback("speech", version=1)
    assert live_config(services) == before
    assert [entry["status"] for entry in releases.history("speech")] == [
        "superseded",
        "superseded",
        "deployed",
    ]


def test_token_of_ray_outlives_upgrades(releases: helm.Config, kube: KubeServer) -> None:
    def token() -> str:
        with kube.api_client() as api_client:
            secret = client.CoreV1Api(api_client).read_namespaced_secret(
                f"{NAME}-ray-auth", NAMESPACE
            )
        encoded = (secret.data or {})["auth_token"]
        return base64.b64decode(encoded).decode()

    install(releases, ready_values("demo-cpu"))
    before = token()
    releases.upgrade(CHART, "speech", ready_values("demo-cpu"))
    assert token() == before
    assert len(before) == 48


def test_other_packs_make_another_preload_job(releases: helm.Config, kube: KubeServer) -> None:
    def jobs() -> str:
        return kubectl(kube, "get", "job", "-o", "name").stdout.strip()

    install(releases, gpu_values())
    first = jobs()
    releases.upgrade(
        CHART, "speech", gpu_values(settings={"recognizer": {"pack": "paraformer-large-vanilla"}})
    )
    assert jobs() != first
    assert jobs().count("job.batch/") == 1


def test_bad_values_reach_nothing(releases: helm.Config, kube: KubeServer) -> None:
    refused: tuple[Json, ...] = (
        {"settings": {"recognizr": {}}},
        {"workerGroups": {"gpu": {"minReplicas": -1}}},
        {"settings": {"recognizer": {"deployment": {"num_gpus": 0.3}}}},
        {"fullnameOverride": "x" * 60},
    )
    for bad in refused:
        with pytest.raises(helm.HelmError):
            install(releases, gpu_values(**bad))
    assert kubectl(kube, "get", "rayservice,networkpolicy", "-o", "name").stdout == ""


def test_plain_cluster_is_created_by_the_server(kube: KubeServer) -> None:
    path = Path(ROOT / "deploy" / "ray-cluster.yaml")
    created = kubectl(kube, "create", "-f", str(path))
    assert created.returncode == 0, created.stderr
    assert kubectl(kube, "delete", "-f", str(path)).returncode == 0
