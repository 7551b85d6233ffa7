"""Scaling on a real API server: by an operator, and by Ray's own autoscaler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm_python as helm
import httpx
import pytest
from kubernetes import client
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.kuberay.node_provider import IKubernetesHttpApiClient
from ray.autoscaler.v2.instance_manager.cloud_providers.kuberay.cloud_provider import (
    KubeRayProvider,
)

from tests.deploy.charting import CHART, Json, as_json
from tests.deploy.cluster import KubeServer
from tests.deploy.live import (
    NAME,
    NAMESPACE,
    account,
    gpu_values,
    groups,
    install,
    live_config,
    replicas,
)
from tests.deploy.scaling import RayServices, scale_deployment, scale_group

pytestmark = pytest.mark.k8s


def test_scaled_group_survives_an_upgrade(releases: helm.Config, services: RayServices) -> None:
    install(releases, gpu_values())
    scale_group(services, NAME, "gpu", minReplicas=4, maxReplicas=20, replicas=4)
    releases.upgrade(CHART, "speech", gpu_values(image={"tag": "0.1.1"}))
    gpu = groups(services)["gpu"]
    assert (gpu["minReplicas"], gpu["maxReplicas"], gpu["replicas"]) == (4, 20, 4)
    assert gpu["template"]["spec"]["containers"][0]["image"] == "paraserve:0.1.1"


def test_scaled_deployment_survives_an_upgrade(
    releases: helm.Config, services: RayServices
) -> None:
    install(releases, gpu_values())
    scale_deployment(services, NAME, "Punctuator", 6)
    scale_deployment(services, NAME, "Ingress", 5)
    releases.upgrade(CHART, "speech", gpu_values(settings={"log_level": "DEBUG"}))
    config = live_config(services)
    assert replicas(config) == {"Punctuator": 6, "Ingress": 5}
    assert config["applications"][0]["args"]["log_level"] == "DEBUG"


def test_scaling_is_undone_on_request(releases: helm.Config, services: RayServices) -> None:
    install(releases, gpu_values())
    scale_group(services, NAME, "gpu", maxReplicas=20)
    releases.upgrade(CHART, "speech", gpu_values(keepScaling=False))
    assert groups(services)["gpu"]["maxReplicas"] == 16


def test_scaling_of_an_object_that_has_changed_is_refused(
    releases: helm.Config, services: RayServices
) -> None:
    install(releases, gpu_values())
    stale = services.get(NAME)
    scale_group(services, NAME, "gpu", maxReplicas=20)
    version = {
        "op": "test",
        "path": "/metadata/resourceVersion",
        "value": stale["metadata"]["resourceVersion"],
    }
    with pytest.raises(client.ApiException) as refused:
        services.patch(NAME, [version])
    assert refused.value.status in {409, 422}


class HeadsKubernetes(IKubernetesHttpApiClient):
    """What Ray's autoscaler sees of Kubernetes, with the rights of the head's account."""

    def __init__(self, kube: KubeServer) -> None:
        self._client = httpx.Client(
            base_url=kube.url,
            verify=False,
            trust_env=False,
            headers={"Authorization": "Bearer admin-token", "Impersonate-User": account("head")},
        )

    def get(self, path: str) -> Json:
        return _answer(self._client.get(_context(path)))

    def patch(
        self, path: str, payload: Any, content_type: str = "application/json-patch+json"
    ) -> Json:
        headers = {"Content-Type": content_type}
        return _answer(self._client.patch(_context(path), json=payload, headers=headers))

    def delete(self, path: str) -> Json:
        return _answer(self._client.delete(_context(path)))


def _context(path: str) -> str:
    group = "/api/v1" if path.startswith("pods") else "/apis/ray.io/v1"
    return f"{group}/namespaces/{NAMESPACE}/{path}"


def _answer(response: httpx.Response) -> Json:
    response.raise_for_status()
    content: Json = response.json()
    return content


@pytest.fixture
def ray_cluster(releases: helm.Config, services: RayServices, kube: KubeServer) -> Iterator[Json]:
    """The RayCluster that the operator would make of the RayService."""
    install(releases, gpu_values())
    body = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": f"{NAME}-abcde", "namespace": NAMESPACE},
        "spec": services.get(NAME)["spec"]["rayClusterConfig"],
    }
    context = ("ray.io", "v1", NAMESPACE, "rayclusters")
    with kube.api_client() as api_client:
        api = client.CustomObjectsApi(api_client)
        yield as_json(api.create_namespaced_custom_object(*context, body))
        api.delete_namespaced_custom_object(*context, f"{NAME}-abcde")


def test_rays_autoscaler_scales_the_gpu_group_up_to_its_bound(
    ray_cluster: Json, kube: KubeServer
) -> None:
    kubernetes = HeadsKubernetes(kube)
    provider = KubeRayProvider(
        ray_cluster["metadata"]["name"],
        {"namespace": NAMESPACE, "head_node_type": "headgroup"},
        gcs_client=None,
        k8s_api_client=kubernetes,
    )

    def gpu_replicas() -> int:
        live = kubernetes.get(f"rayclusters/{ray_cluster['metadata']['name']}")
        specs = {spec["groupName"]: spec for spec in live["spec"]["workerGroupSpecs"]}
        return int(specs["gpu"]["replicas"])

    provider.launch({"gpu": 3}, "first")
    assert gpu_replicas() == 5
    provider.launch({"gpu": 40}, "second")
    assert gpu_replicas() == 16
    assert "capped by maxReplicas" in str(provider.poll_errors()[0])


def test_rays_autoscaler_reads_the_resources_of_the_groups(ray_cluster: Json) -> None:
    types = _derive_autoscaling_config_from_ray_cr(ray_cluster)["available_node_types"]
    offered = {name: entry["resources"] for name, entry in types.items()}
    assert offered["headgroup"]["CPU"] == 0
    assert "GPU" not in offered["headgroup"]
    assert (offered["cpu"]["CPU"], offered["gpu"]["GPU"]) == (8, 1)
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (2, 16)
