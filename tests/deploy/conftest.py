"""One API server for all deployment tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import helm_python as helm
import pytest
from kubernetes import client

from tests.deploy.charting import Json
from tests.deploy.cluster import HOW_TO_GET_THEM, KubeServer, assets, kube_server
from tests.deploy.crds import read_crds
from tests.deploy.live import NAMESPACE
from tests.deploy.scaling import RayServices


@pytest.fixture(scope="package")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """A real API server with KubeRay's definitions."""
    found = assets()
    if found is None:
        _missing()
    binaries, crds = found
    with kube_server(binaries, crds, tmp_path_factory.mktemp("kube")) as server:
        with server.api_client() as api_client:
            body = client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE))
            client.CoreV1Api(api_client).create_namespace(body)
        yield server


@pytest.fixture(scope="session")
def crds() -> dict[str, Json]:
    """KubeRay's definitions by kind."""
    folder = Path(os.environ.get("KUBERAY_CRDS", ""))
    if not any(folder.glob("*ray.io_*")):
        _missing()
    return read_crds(folder)


@pytest.fixture
def releases(kube: KubeServer) -> Iterator[helm.Config]:
    """Helm on that server, in the namespace `asr`; releases are removed afterwards."""
    with helm.Config(kubeconfig_path=kube.kubeconfig, namespace=NAMESPACE) as config:
        yield config
        for release in config.list(all_states=True):
            config.uninstall(release["name"])
    _remove_claims(kube)


@pytest.fixture
def services(kube: KubeServer) -> Iterator[RayServices]:
    with kube.api_client() as api_client:
        yield RayServices(api_client, NAMESPACE)


def _remove_claims(kube: KubeServer) -> None:
    """Removes the claims that the chart keeps; no controller is there to release them."""
    with kube.api_client() as api_client:
        api = client.CoreV1Api(api_client)
        for claim in api.list_namespaced_persistent_volume_claim(NAMESPACE).items:
            name = claim.metadata.name if claim.metadata and claim.metadata.name else ""
            api.delete_namespaced_persistent_volume_claim(name, NAMESPACE)
            api.patch_namespaced_persistent_volume_claim(
                name, NAMESPACE, {"metadata": {"finalizers": None}}
            )


def _missing() -> NoReturn:
    if os.environ.get("TESTS_MUST_RUN"):
        pytest.fail(HOW_TO_GET_THEM)
    pytest.skip(HOW_TO_GET_THEM)
