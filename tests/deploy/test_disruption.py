"""What drains, evictions and scale-downs of nodes may take from the service, and what it costs."""

from __future__ import annotations

import helm_python as helm
import pytest
import yaml

from serve_app.ops.kube import Kube
from serve_app.ops.scale import scale_group as scale_by_command
from serve_app.ops.scale_plan import ScaleRequest
from tests.deploy.charting import (
    CHART,
    EVERYTHING,
    READY_MADE,
    ROOT,
    Json,
    cluster_specs,
    combined,
    notes,
    only,
    pods_within,
    ready_values,
    render,
    serve_config,
)
from tests.deploy.cluster import KubeServer
from tests.deploy.live import NAME, NAMESPACE, gpu_values, install, kubectl
from tests.deploy.scaling import RayServices, scale_group


def budgets(values: Json) -> dict[str, Json]:
    """Returns the specification of each PodDisruptionBudget by its name."""
    return {
        item["metadata"]["name"]: item["spec"]
        for item in render(values)
        if item["kind"] == "PodDisruptionBudget"
    }


def groups_of(minimum: int, **changes: int) -> Json:
    cpu = {"minReplicas": minimum, "replicas": max(minimum, 2), "maxReplicas": 8}
    return combined(
        ready_values("demo-cpu"),
        {"workerGroups": {"cpu": cpu}, "podDisruptionBudget": changes},
    )


def test_each_worker_group_has_a_budget_of_a_number_that_kubernetes_can_compute() -> None:
    found = budgets(ready_values("many-gpus"))
    assert set(found) == {"speech-paraserve-cpu", "speech-paraserve-gpu"}
    for spec in found.values():
        assert spec["minAvailable"] == 1
        assert "maxUnavailable" not in spec
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize(
    ("minimum", "changes", "left"), [(2, {}, 1), (5, {}, 4), (5, {"maxUnavailable": 2}, 3)]
)
def test_budget_leaves_the_least_number_less_what_may_go(
    minimum: int, changes: dict[str, int], left: int
) -> None:
    (spec,) = budgets(groups_of(minimum, **changes)).values()
    assert spec["minAvailable"] == left


def test_group_without_an_autoscaler_counts_its_replicas() -> None:
    values = combined(
        groups_of(1),
        {"autoscaler": {"enabled": False}, "workerGroups": {"cpu": {"replicas": 4}}},
    )
    (spec,) = budgets(values).values()
    assert spec["minAvailable"] == 3


@pytest.mark.parametrize("minimum", [0, 1])
def test_budget_of_a_group_of_one_lets_every_drain_through(minimum: int) -> None:
    (spec,) = budgets(groups_of(minimum)).values()
    assert spec["minAvailable"] == 0


def test_budget_selects_the_workers_of_its_group_and_no_batch_worker() -> None:
    values = combined(ready_values("many-gpus"), EVERYTHING)
    selected: dict[str, set[str]] = {}
    for name, spec in budgets(values).items():
        wanted = dict(spec["selector"]["matchLabels"])
        group = wanted.pop("ray.io/group")
        for item in render(values):
            for pod in pods_within(item):
                labels = pod["metadata"].get("labels", {})
                if wanted.items() <= labels.items():
                    selected.setdefault(name, set()).add(item["kind"])
        assert name == f"speech-paraserve-{group}"
    assert selected == {name: {"RayService"} for name in budgets(values)}


def test_budgets_can_be_switched_off() -> None:
    values = combined(ready_values("many-gpus"), {"podDisruptionBudget": {"enabled": False}})
    assert budgets(values) == {}


def left(kube: KubeServer) -> str:
    """Returns how many pods of the group cpu a drain leaves."""
    query = "jsonpath={.spec.minAvailable}"
    return kubectl(kube, "get", "pdb", f"{NAME}-cpu", "-o", query).stdout


@pytest.mark.k8s
def test_budget_follows_at_once_and_the_next_upgrade_agrees(
    releases: helm.Config, services: RayServices, kube: KubeServer
) -> None:
    install(releases, gpu_values())
    with kube.api_client() as api_client:
        admin = Kube(api_client, NAMESPACE)
        told = scale_by_command(admin, NAME, "cpu", ScaleRequest(minimum=4, maximum=8))
    assert "a drain now leaves at least 3 of its pods" in told
    assert left(kube) == "3"
    releases.upgrade(CHART, "speech", gpu_values(settings={"log_level": "DEBUG"}))
    assert left(kube) == "3"


@pytest.mark.k8s
def test_budget_follows_a_group_that_was_scaled_by_hand(
    releases: helm.Config, services: RayServices, kube: KubeServer
) -> None:
    install(releases, gpu_values())
    assert left(kube) == "1"
    scale_group(services, NAME, "cpu", minReplicas=4)
    releases.upgrade(CHART, "speech", gpu_values())
    assert left(kube) == "3"


@pytest.mark.parametrize("name", ["demo-cpu", "one-gpu"])
def test_notes_say_what_a_drain_of_the_only_worker_costs_and_how_to_make_room(name: str) -> None:
    text = notes(ready_values(name))
    assert "The group cpu may have a single worker." in text
    assert "paraserve cluster scale group cpu --min 2 --max 2 -n asr" in text
    assert "single worker" not in notes(ready_values("many-gpus"))


def test_notes_say_what_a_change_of_settings_costs_with_one_recognizer() -> None:
    assert "There is one recognizer" in notes(ready_values("demo-cpu"))
    surge = {"serve": {"replicaSurgePercent": 100}}
    assert "There is one recognizer" not in notes(combined(ready_values("demo-cpu"), surge))


def test_replicas_start_before_old_ones_stop_where_that_is_asked_for() -> None:
    surge = combined(ready_values("one-gpu"), {"serve": {"replicaSurgePercent": 100}})
    for application in serve_config(render(surge))["applications"]:
        stages = {entry["name"] for entry in application["deployments"]}
        assert {"Ingress", "Segmenter", "Recognizer"} <= stages
        assert all(entry["max_surge_percent"] == 100 for entry in application["deployments"])
    plain = str(serve_config(render(ready_values("one-gpu"))))
    assert "max_surge_percent" not in plain


@pytest.mark.parametrize("name", READY_MADE)
def test_nodes_of_pods_with_long_grace_are_left_alone_by_node_autoscalers(name: str) -> None:
    (spec,) = cluster_specs(only(render(ready_values(name)), "RayService"))
    for part in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        annotations = part["template"]["metadata"]["annotations"]
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def test_own_annotation_wins_over_the_protection_of_nodes() -> None:
    own = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
    values = combined(ready_values("demo-cpu"), {"pods": {"annotations": own}})
    (spec,) = cluster_specs(only(render(values), "RayService"))
    annotations = spec["headGroupSpec"]["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"


def test_workers_of_the_plain_cluster_finish_their_requests_before_they_end() -> None:
    path = ROOT / "deploy" / "ray-cluster.yaml"
    (cluster,) = cluster_specs(yaml.safe_load(path.read_text(encoding="utf-8")))
    for group in cluster["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        *hook, limit_s = container["lifecycle"]["preStop"]["exec"]["command"]
        assert hook == ["python", "/etc/paraserve/scripts/drain.py"]
        assert float(limit_s) < spec["terminationGracePeriodSeconds"]
        (scripts,) = (entry for entry in spec["volumes"] if entry["name"] == "scripts")
        # The commands at the head of the file make it.
        assert f"create configmap {scripts['configMap']['name']}" in path.read_text(
            encoding="utf-8"
        )


@pytest.mark.parametrize(("placement", "value"), [("Spread", None), ("Pack", "1")])
def test_replicas_are_packed_where_that_is_asked_for(placement: str, value: str | None) -> None:
    values = combined(ready_values("many-gpus"), {"serve": {"replicaPlacement": placement}})
    (spec,) = cluster_specs(only(render(values), "RayService"))
    # The controller, which places replicas, runs on the head.
    env = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    found = {entry["name"]: entry.get("value") for entry in env}
    assert found.get("RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY") == value
