"""Worker pods are replaced one by one, with room made first."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import RAY_CLUSTER, RAY_SERVICE, Kind, Operation
from serve_app.ops.restart import (
    NO_NODE_TIMEOUT_S,
    Choose,
    RestartLimits,
    all_workers,
    restart_pods,
    workers_of_group,
    workers_with,
)
from tests.fakes.recorded_kube import (
    CORE,
    SERVICES,
    RecordedKube,
    cluster_status,
    pod,
    ray_service,
    serve_config,
)

PROXY = f"{CORE}/services/http:speech-a-head-svc:8265/proxy"


class Operated(RecordedKube):
    """A cluster on which KubeRay and Serve are played.

    A pod that is being deleted counts as one of its group until it is gone. A new pod becomes a
    live Ray node, and is ready once it has an ingress replica: when a pod with one goes, or when
    there are more ingress replicas than ready pods.

    Args:
        workers: names of the workers by group, all ready.
        num_nodes: pods for which there are Kubernetes nodes.
        is_autoscaled: whether Ray's autoscaler removes idle workers above the minimum.
        drain_s: how long a deleted pod takes to go.
    """

    def __init__(
        self,
        workers: dict[str, list[str]],
        num_nodes: int = 99,
        is_autoscaled: bool = False,
        drain_s: float = 4.0,
    ) -> None:
        super().__init__({})
        self.now = 0.0
        self.told: list[str] = []
        self.deleted: list[str] = []
        self.num_ready_at_deletion: list[int] = []
        self.num_nodes, self.drain_s = num_nodes, drain_s
        self.service = ray_service(serve_config(deployments=[]))
        self.groups: list[dict[str, Any]] = [
            {"groupName": group, "replicas": len(names), "minReplicas": len(names)}
            | {"maxReplicas": len(names)}
            for group, names in workers.items()
        ]
        self.is_autoscaled = is_autoscaled
        self.pods: list[dict[str, Any]] = []
        for group, names in workers.items():
            for name in names:
                self._create(name, group, ready=True)
        self.answer()

    def _create(self, name: str, group: str, ready: bool) -> None:
        homeless = len(self.pods) >= self.num_nodes
        each = pod(name, group, ready, podIP="" if homeless else f"10.0.0.{name}")
        if homeless:
            each["status"]["conditions"].append(
                {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}
            )
        each["spec"]["terminationGracePeriodSeconds"] = 100
        self.pods.append(each)

    def answer(self) -> None:
        """Updates what the API server and Ray answer."""
        addresses = [each["status"]["podIP"] for each in self.pods if each["status"]["podIP"]]
        nodes = [{"node_ip": address, "state": "ALIVE"} for address in addresses]
        recognizers = [{"node_ip": "10.0.0.g1"}]
        applications = {
            "paraserve": {
                "status": "RUNNING",
                "deployments": {"Recognizer": {"replicas": recognizers}},
            }
        }
        self.answers.update(
            {
                SERVICES: {"items": [self.service]},
                f"{SERVICES}/speech": self.service,
                f"{CORE}/pods": {"items": self.pods},
                f"{PROXY}/api/v0/nodes": {"data": {"result": {"result": nodes}}},
                f"{PROXY}/api/serve/applications/": {"applications": applications},
                "/apis/ray.io/v1/namespaces/asr/rayclusters/speech-a": {
                    "spec": {
                        "enableInTreeAutoscaling": self.is_autoscaled,
                        "workerGroupSpecs": self.groups,
                    }
                },
            }
        )

    def patch(self, kind: Kind, name: str, operations: Any) -> JsonView:
        if kind == RAY_SERVICE:
            for each in operations:
                if each.path == "/spec/serveConfigV2":
                    self.service["spec"]["serveConfigV2"] = each.value
        else:
            assert kind == RAY_CLUSTER
            for each in operations:
                self._resize(each)
        self.answer()
        return JsonView(self.service)

    def _resize(self, operation: Operation) -> None:
        *_, index, key = operation.path.split("/")
        self.groups[int(index)][key] = operation.value
        if key == "scaleStrategy":
            strategy: Any = operation.value
            for each in list(self.pods):
                if each["metadata"]["name"] in strategy["workersToDelete"]:
                    self._begin_deletion(each)

    def delete(self, kind: Kind, name: str, uid: str) -> None:
        (going,) = (each for each in self.pods if each["metadata"]["uid"] == uid)
        self._begin_deletion(going)
        self.answer()

    def _begin_deletion(self, each: dict[str, Any]) -> None:
        if "deletionTimestamp" in each["metadata"]:
            return
        if not each["status"]["podIP"]:
            self.pods.remove(each)  # no kubelet has anything to end
            return
        assert not any("deletionTimestamp" in other["metadata"] for other in self.pods), (
            "one by one"
        )
        each["metadata"]["deletionTimestamp"] = self.now
        self.deleted.append(each["metadata"]["name"])
        self.num_ready_at_deletion.append(sum(map(self._is_ready, self.pods)))

    def pause(self, duration_s: float) -> None:
        self.now += duration_s
        for each in list(self.pods):
            if self.now - each["metadata"].get("deletionTimestamp", self.now) >= self.drain_s:
                self.pods.remove(each)
                # Serve has moved its replicas to a free worker.
                self._make_one_ready()
        for group in self.groups:
            self._reconcile(group)
        config = yaml.safe_load(self.service["spec"]["serveConfigV2"])
        for part in config["applications"][0]["deployments"]:
            surplus = part["num_replicas"] - sum(map(self._is_ready, self.pods))
            if part["name"] == "Ingress" and surplus > 0:
                self._make_one_ready()
        self.answer()

    def _reconcile(self, group: dict[str, Any]) -> None:
        name = group["groupName"]
        members = [p for p in self.pods if p["metadata"]["labels"]["ray.io/group"] == name]
        named = group.get("scaleStrategy", {}).get("workersToDelete", [])
        counted = [each for each in members if each["metadata"]["name"] not in named]
        for number in range(group["replicas"] - len(counted)):
            self._create(f"{name}{self.now:.0f}{number}", name, ready=False)
        if self.is_autoscaled and len(counted) > group["minReplicas"]:
            idle = [each for each in counted if not self._is_ready(each)]
            assert not idle, "the autoscaler removes the additional worker"
        assert len(counted) <= group["replicas"], "KubeRay removes any pod"

    def _make_one_ready(self) -> None:
        for each in self.pods:
            is_going = "deletionTimestamp" in each["metadata"]
            if each["status"]["podIP"] and not is_going and not self._is_ready(each):
                each["status"]["conditions"][0]["status"] = "True"
                return

    def restart(self, choose: Choose, allow_downtime: bool = False) -> int:
        return restart_pods(
            self,
            None,
            choose,
            self.told.append,
            RestartLimits(allow_downtime=allow_downtime),
            clock=lambda: self.now,
            pause=self.pause,
        )

    @property
    def sizes(self) -> dict[str, tuple[int, int, int]]:
        return {
            each["groupName"]: (each["minReplicas"], each["maxReplicas"], each["replicas"])
            for each in self.groups
        }

    @staticmethod
    def _is_ready(each: dict[str, Any]) -> bool:
        is_going = "deletionTimestamp" in each["metadata"]
        return not is_going and each["status"]["conditions"][0]["status"] == "True"


@pytest.mark.parametrize("is_autoscaled", [False, True])
def test_only_worker_goes_when_its_successor_serves(is_autoscaled: bool) -> None:
    kube = Operated({"cpu": ["c1"]}, is_autoscaled=is_autoscaled)
    before = kube.service["spec"]["serveConfigV2"]
    assert kube.restart(all_workers) == 1
    assert kube.deleted == ["c1"]
    assert kube.num_ready_at_deletion == [1]
    assert kube.sizes == {"cpu": (1, 1, 1)}
    assert kube.service["spec"]["serveConfigV2"] == before


def test_each_pod_goes_only_when_the_last_is_replaced() -> None:
    kube = Operated({"cpu": ["c1"], "gpu": ["g1", "g2"]})
    assert kube.restart(all_workers) == 3
    assert kube.deleted == ["c1", "g1", "g2"]
    assert min(kube.num_ready_at_deletion) >= 1
    assert kube.sizes == {"cpu": (1, 1, 1), "gpu": (2, 2, 2)}
    assert len(kube.pods) == 3


def test_group_is_restarted_alone() -> None:
    kube = Operated({"cpu": ["c1"], "gpu": ["g1", "g2"]})
    kube.restart(workers_of_group("gpu"))
    assert kube.deleted == ["g1", "g2"]


def test_deployment_means_the_pods_that_hold_it() -> None:
    kube = Operated({"cpu": ["c1"], "gpu": ["g1", "g2"]})
    kube.restart(workers_with("Recognizer"))
    assert kube.deleted == ["g1"]


def test_replacement_counts_as_soon_as_its_ray_node_lives() -> None:
    """It is ready only when it has a replica, which it may never get."""
    kube = Operated({"gpu": ["g1", "g2"]})
    kube.restart(workers_with("Recognizer"))
    ready = [each["metadata"]["name"] for each in kube.pods if kube._is_ready(each)]
    assert len(kube.pods) == 2
    assert "g2" in ready


def test_without_room_nothing_is_deleted_and_the_cost_is_told() -> None:
    kube = Operated({"cpu": ["c1"]}, num_nodes=1)
    with pytest.raises(ClusterError) as refused:
        kube.restart(all_workers)
    told = str(refused.value)
    assert "no room for another worker of group cpu (no node for cpu" in told
    assert "0/3 nodes" in told
    assert "--allow-downtime: every request is then refused until" in told
    assert NO_NODE_TIMEOUT_S <= kube.now < NO_NODE_TIMEOUT_S + 10
    assert kube.deleted == []
    assert [each["metadata"]["name"] for each in kube.pods] == ["c1"]
    assert kube.sizes == {"cpu": (1, 1, 1)}


def test_without_room_a_restart_needs_consent() -> None:
    kube = Operated({"cpu": ["c1"]}, num_nodes=1)
    assert kube.restart(all_workers, allow_downtime=True) == 1
    assert kube.deleted == ["c1"]
    assert any("every request is then refused" in told for told in kube.told)
    assert kube.sizes == {"cpu": (1, 1, 1)}


def test_pod_that_does_not_go_ends_the_restart_after_its_grace_period() -> None:
    kube = Operated({"gpu": ["g1", "g2"]}, drain_s=10_000)
    with pytest.raises(ClusterError, match="g1 was not replaced within 400 s, so the other pods"):
        kube.restart(all_workers)
    assert "g2" not in kube.deleted
    assert kube.now < 500
    waits = [told for told in kube.told if told.startswith("waiting for the end")]
    assert len(waits) > 5


def test_missing_right_is_told_before_anything_changes() -> None:
    kube = Operated({"cpu": ["c1"]})
    kube.answers[f"{PROXY}/api/v0/nodes"] = ClusterRefused("olga may not get services/proxy", 403)
    with pytest.raises(ClusterRefused, match="olga may not get services/proxy"):
        kube.restart(all_workers)
    assert kube.deleted == []
    assert kube.sizes == {"cpu": (1, 1, 1)}


def test_nothing_restarts_while_a_rollout_is_in_progress() -> None:
    kube = Operated({"cpu": ["c1"]})
    pending = cluster_status("speech-b", {"Recognizer": "UPDATING"})
    kube.answers[SERVICES] = {"items": [ray_service(pendingServiceStatus=pending)]}
    with pytest.raises(ClusterError, match="a rollout is in progress"):
        kube.restart(all_workers)


def test_nothing_chosen_is_told() -> None:
    with pytest.raises(ClusterError, match="no worker pod"):
        Operated({"cpu": ["c1"]}).restart(workers_of_group("tpu"))
