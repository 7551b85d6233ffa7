"""`paraserve cluster scale` on a real API server, under Helm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.kube import FIELD_MANAGER, RAY_CLUSTER, RAY_SERVICE, Kind, Kube, Operation
from serve_app.ops.restart import RestartLimits, _Restart, _Waiter
from serve_app.ops.scale import (
    ANNOTATION,
    replace_serve_config,
    scale_deployment,
    scale_group,
)
from serve_app.ops.scale_plan import GroupSize, ScaleRequest, of_deployment
from serve_app.ops.service import find_service, read_state
from tests.deploy.charting import CHART
from tests.deploy.cluster import KubeServer
from tests.deploy.live import NAME, NAMESPACE, gpu_values, groups, install, live_config, replicas
from tests.deploy.operator import create_cluster, play_operator
from tests.deploy.scaling import RayServices

pytestmark = pytest.mark.k8s


@pytest.fixture
def admin(kube: KubeServer) -> Iterator[Kube]:
    with kube.api_client() as api_client:
        yield Kube(api_client, NAMESPACE)


@pytest.fixture
def installed(releases: helm.Config, services: RayServices) -> helm.Config:
    install(releases, gpu_values())
    return releases


@pytest.fixture
def running(installed: helm.Config, admin: Kube) -> Iterator[str]:
    """The RayCluster that the operator makes of the RayService."""
    with create_cluster(admin, NAME, "abcde") as name:
        play_operator(admin, NAME, active=name)
        yield name


def scaled_bounds(config: dict[str, Any], deployment: str) -> tuple[int, int]:
    (entry,) = (
        entry for entry in config["applications"][0]["deployments"] if entry["name"] == deployment
    )
    scaling = entry["autoscaling_config"]
    return scaling["min_replicas"], scaling["max_replicas"]


def test_fixed_deployment_survives_an_upgrade_that_changes_other_settings(
    installed: helm.Config, admin: Kube, services: RayServices
) -> None:
    told = scale_deployment(admin, NAME, "punctuator", ScaleRequest(replicas=6))
    assert told == ["Punctuator: 4 -> 6 replicas; no replica restarts"]
    installed.upgrade(CHART, "speech", gpu_values(settings={"log_level": "DEBUG"}))
    config = live_config(services)
    assert replicas(config)["Punctuator"] == 6
    assert config["applications"][0]["args"]["log_level"] == "DEBUG"


def test_bounds_of_an_autoscaled_deployment_survive_an_upgrade_with_their_policy(
    installed: helm.Config, admin: Kube, services: RayServices
) -> None:
    scale_deployment(admin, None, "recognizer", ScaleRequest(minimum=3, maximum=12))
    installed.upgrade(CHART, "speech", gpu_values(settings={"log_level": "DEBUG"}))
    config = live_config(services)
    assert scaled_bounds(config, "Recognizer") == (3, 12)
    assert "QueuedAudioPolicy" in str(config["applications"][0]["deployments"])


def test_scaling_leaves_the_arguments_alone_so_that_no_replica_restarts(
    installed: helm.Config, admin: Kube, services: RayServices
) -> None:
    before = live_config(services)["applications"][0]["args"]
    scale_deployment(admin, NAME, "recognizer", ScaleRequest(maximum=12))
    assert live_config(services)["applications"][0]["args"] == before


def test_group_survives_an_upgrade_and_reaches_the_running_cluster(
    running: str, installed: helm.Config, admin: Kube, services: RayServices
) -> None:
    told = scale_group(admin, NAME, "gpu", ScaleRequest(minimum=4, maximum=20))
    assert told[0] == "group gpu: 2 to 16 (now 2) -> 4 to 20 (now 4) pods; no pod restarts"
    live = admin.get(RAY_CLUSTER, running)
    (gpu,) = (
        each
        for each in live.at("spec", "workerGroupSpecs").each()
        if each.at("groupName").text() == "gpu"
    )
    assert (gpu.at("minReplicas").count(), gpu.at("maxReplicas").count()) == (4, 20)
    installed.upgrade(CHART, "speech", gpu_values(image={"tag": "0.1.1"}))
    spec = groups(services)["gpu"]
    assert (spec["minReplicas"], spec["maxReplicas"], spec["replicas"]) == (4, 20, 4)
    assert spec["template"]["spec"]["containers"][0]["image"] == "paraserve:0.1.1"


def test_only_the_annotation_is_owned_by_scaling_in_the_end(
    installed: helm.Config, admin: Kube, services: RayServices
) -> None:
    scale_deployment(admin, NAME, "punctuator", ScaleRequest(replicas=6))
    scale_group(admin, NAME, "gpu", ScaleRequest(maximum=20))
    ours = [
        entry["fieldsV1"]
        for entry in services.get(NAME)["metadata"]["managedFields"]
        if entry["manager"] == FIELD_MANAGER
    ]
    assert ours == [{"f:metadata": {"f:annotations": {f"f:{ANNOTATION}": {}}}}]


def test_patch_of_an_object_that_has_changed_is_refused_with_409(
    installed: helm.Config, admin: Kube
) -> None:
    version = admin.get(RAY_SERVICE, NAME).at("metadata", "resourceVersion").text()
    scale_group(admin, NAME, "gpu", ScaleRequest(maximum=20))
    stale = Operation("replace", "/metadata/resourceVersion", version)
    with pytest.raises(ClusterRefused) as refused:
        admin.patch(RAY_SERVICE, NAME, [stale])
    assert refused.value.status == 409


class _Crossed(Kube):
    """Somebody else writes between our reading and our writing, a number of times."""

    times = 0

    def get(self, kind: Kind, name: str) -> Any:
        answer = super().get(kind, name)
        if self.times > 0:
            self.times -= 1
            key = "/metadata/annotations/touched"
            super().patch(kind, name, [Operation("add", key, str(self.times))])
        return answer


def test_scaling_that_was_crossed_is_done_again_on_the_new_object(
    installed: helm.Config, kube: KubeServer, services: RayServices
) -> None:
    with kube.api_client() as api_client:
        crossed = _Crossed(api_client, NAMESPACE)
        crossed.times = 2
        scale_group(crossed, NAME, "gpu", ScaleRequest(maximum=20))
    live = services.get(NAME)
    assert groups(services)["gpu"]["maxReplicas"] == 20
    assert live["metadata"]["annotations"]["touched"] == "0"


def test_scaling_with_repeated_conflicts_fails_with_the_reason(
    installed: helm.Config, kube: KubeServer, services: RayServices
) -> None:
    with kube.api_client() as api_client:
        crossed = _Crossed(api_client, NAMESPACE)
        crossed.times = 99
        with pytest.raises(ClusterError, match="during each of 5 attempts"):
            scale_group(crossed, NAME, "gpu", ScaleRequest(maximum=20))
    assert groups(services)["gpu"]["maxReplicas"] == 16


def test_missing_right_is_named(installed: helm.Config, kube: KubeServer) -> None:
    with kube.api_client(impersonate="stranger") as api_client:
        stranger = Kube(api_client, NAMESPACE)
        with pytest.raises(ClusterRefused) as refused:
            scale_group(stranger, NAME, "gpu", ScaleRequest(maximum=20))
    assert refused.value.status == 403
    assert str(refused.value) == (
        f"stranger may not get rayservices {NAME} in asr; rbac.operators of the chart grants "
        "what `paraserve cluster` needs"
    )


def test_more_replicas_than_the_gpus_hold_are_refused(installed: helm.Config, admin: Kube) -> None:
    with pytest.raises(ClusterError, match=r"need 30 GPUs at least, but .* may have 16"):
        scale_deployment(admin, NAME, "recognizer", ScaleRequest(minimum=30, maximum=40))


def test_room_for_a_restart_is_made_in_the_running_cluster_only(
    running: str, admin: Kube, services: RayServices
) -> None:
    waiter = _Waiter(lambda told: None, time.monotonic, time.sleep)
    restart = _Restart(admin, read_state(find_service(admin, NAME)), RestartLimits(), waiter)
    before = restart._size("gpu")
    restart._resize("gpu", GroupSize(3, 17, 3), remove="worker-1")
    live = admin.get(RAY_CLUSTER, running)
    (gpu,) = (
        each
        for each in live.at("spec", "workerGroupSpecs").each()
        if each.at("groupName").text() == "gpu"
    )
    assert restart._size("gpu") == GroupSize(3, 17, 3)
    assert gpu.at("scaleStrategy").mapping() == {"workersToDelete": ["worker-1"]}
    assert groups(services)["gpu"]["maxReplicas"] == 16
    restart._resize("gpu", before)
    assert restart._size("gpu") == before


def test_ingress_replica_of_a_restart_is_not_recorded_and_helm_owns_the_config(
    installed: helm.Config, admin: Kube, services: RayServices
) -> None:
    before = services.get(NAME)["spec"]["serveConfigV2"]
    change = of_deployment(admin.get(RAY_SERVICE, NAME), "Ingress", ScaleRequest(replicas=5))
    text = str(change.operations[0].value)
    replace_serve_config(admin, NAME, text)
    live = services.get(NAME)
    assert replicas(live_config(services))["Ingress"] == 5
    assert ANNOTATION not in live["metadata"].get("annotations", {})
    replace_serve_config(admin, NAME, before, expected="something else")
    assert replicas(live_config(services))["Ingress"] == 5
    replace_serve_config(admin, NAME, before, expected=text)
    assert services.get(NAME)["spec"]["serveConfigV2"] == before
    installed.upgrade(CHART, "speech", gpu_values(settings={"log_level": "DEBUG"}))
    assert live_config(services)["applications"][0]["args"]["log_level"] == "DEBUG"
