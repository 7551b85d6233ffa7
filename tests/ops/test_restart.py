"""Worker pods are replaced one by one."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.core.errors import ClusterError
from serve_app.ops.restart import Choose, all_workers, restart_pods, workers_of_group, workers_with
from tests.fakes.recorded_kube import CORE, SERVICES, RecordedKube, cluster_status, pod, ray_service


class Operated(RecordedKube):
    """A cluster whose operator replaces a deleted pod after two looks."""

    def __init__(self, replaces: bool = True) -> None:
        applications = {
            "paraserve": {"deployments": {"Recognizer": {"replicas": [{"node_ip": "10.0.0.2"}]}}}
        }
        proxy = f"{CORE}/services/http:speech-a-head-svc:8265/proxy/api/serve/applications/"
        pods = [
            pod("c1", "cpu", podIP="10.0.0.1"),
            pod("g1", "gpu", podIP="10.0.0.2"),
            pod("g2", "gpu", podIP="10.0.0.3"),
        ]
        super().__init__(
            {
                SERVICES: {"items": [ray_service()]},
                f"{CORE}/pods": {"items": pods},
                proxy: {"applications": applications},
            }
        )
        self.replaces = replaces
        self.pods = pods
        self.deleted: list[str] = []
        self.now = 0.0

    def delete(self, path: str, uid: str) -> None:
        name = path.rsplit("/", 1)[1]
        self.deleted.append(name)
        assert all(self._is_ready(each) for each in self.pods), "one at a time"
        (gone,) = (each for each in self.pods if each["metadata"]["uid"] == uid)
        self.pods.remove(gone)
        if self.replaces:
            group = gone["metadata"]["labels"]["ray.io/group"]
            self.pods.append(pod(f"{name}-new", group, ready=False))

    def pause(self, duration_s: float) -> None:
        self.now += duration_s
        if self.now % 4 == 0:
            for each in self.pods:
                each["status"]["conditions"][0]["status"] = "True"

    def restart(self, choose: Choose) -> int:
        return restart_pods(
            self, None, choose, lambda told: None, 60.0, clock=lambda: self.now, pause=self.pause
        )

    @staticmethod
    def _is_ready(each: dict[str, Any]) -> bool:
        return bool(each["status"]["conditions"][0]["status"] == "True")


def test_next_pod_is_evicted_only_after_the_last_is_replaced() -> None:
    kube = Operated()
    assert kube.restart(all_workers) == 3
    assert kube.deleted == ["c1", "g1", "g2"]


def test_group_is_restarted_alone() -> None:
    kube = Operated()
    kube.restart(workers_of_group("gpu"))
    assert kube.deleted == ["g1", "g2"]


def test_deployment_means_the_pods_that_hold_it() -> None:
    kube = Operated()
    kube.restart(workers_with("Recognizer"))
    assert kube.deleted == ["g1"]


def test_pod_that_is_not_replaced_ends_the_restart() -> None:
    kube = Operated(replaces=False)
    with pytest.raises(ClusterError, match="c1 was not replaced within 60 s, so the others stay"):
        kube.restart(all_workers)
    assert kube.deleted == ["c1"]


def test_nothing_restarts_during_a_rollout() -> None:
    kube = Operated()
    pending = cluster_status("speech-b", {"Recognizer": "UPDATING"})
    kube.answers[SERVICES] = {"items": [ray_service(pendingServiceStatus=pending)]}
    with pytest.raises(ClusterError, match="a rollout is under way"):
        kube.restart(all_workers)


def test_missing_choice_is_reported() -> None:
    with pytest.raises(ClusterError, match="no worker pod"):
        Operated().restart(workers_of_group("tpu"))
