"""The played operator on a real API server without nodes: what it makes is accepted there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import helm_python as helm
import pytest

from tests.deploy import cluster as server
from tests.deploy.charting import Json
from tests.deploy.crds import definitions_for
from tests.e2e import operator_objects as objects
from tests.e2e.kube_api import CORE, RAY, KubeApi
from tests.e2e.nullable import with_nullable_scalars
from tests.e2e.operator import FINALIZER, PlayedOperator
from tests.e2e.release import NAME, NAMESPACE, ReleaseUnderTest, Target
from tests.e2e.service_names import ServiceNames

pytestmark = pytest.mark.k8s

BATCH = {"source": "/recordings/*.flac", "output": "/tmp/texts"}


class Stage:
    """A release, the operator that acts on it, and what it has made."""

    def __init__(self, api: KubeApi, release: ReleaseUnderTest) -> None:
        self.release = release
        self.api = api
        self.operator = PlayedOperator(api, NAMESPACE, cron_gate=True)

    def act(self) -> None:
        for _ in range(5):
            self.operator.reconcile()

    def items(self, plural: str, group: str = RAY) -> list[Json]:
        return self.api.items(self.operator.path(group, plural))

    def kinds_of_pods(self, cluster: str) -> list[str]:
        pods = self.operator.pods(cluster)
        return sorted(pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    found = server.assets()
    if found is None:
        if os.environ.get("TESTS_MUST_RUN"):
            pytest.fail(server.HOW_TO_GET_THEM)
        pytest.skip(server.HOW_TO_GET_THEM)
    monkeypatch.setattr(
        server,
        "definitions_for",
        lambda crds: [with_nullable_scalars(definition) for definition in definitions_for(crds)],
    )
    with server.kube_server(*found, tmp_path) as kube:
        api = KubeApi(kube.url, kube.ca_file, server._ADMIN_TOKEN, "kuberay-operator")
        api.create(f"{CORE}/namespaces", {"metadata": {"name": NAMESPACE}})
        target = Target(kube.kubeconfig, "paraserve", ("1", "2"), is_played=True)
        with helm.Config(kubeconfig_path=kube.kubeconfig, namespace=NAMESPACE) as releases:
            yield Stage(api, ReleaseUnderTest(target, releases))


def test_operator_follows_a_release_through_its_changes(stage: Stage) -> None:
    release = stage.release
    release.install()
    stage.act()
    service = release.service()
    assert service["metadata"]["finalizers"] == [FINALIZER]
    reasons = [condition["reason"] for condition in service["status"]["conditions"]]
    assert reasons == ["Initializing", "NoActiveCluster"]
    (cluster,) = stage.items("rayclusters")
    name = cluster["metadata"]["name"]
    assert stage.kinds_of_pods(name) == ["head", "worker"]
    names = ServiceNames(stage.api)
    names.refresh()
    assert names.addresses(f"{name}-head-svc.{NAMESPACE}.svc.cluster.local") == []

    # A changed size stays in the cluster, a changed image makes another; Helm is not refused.
    release.upgrade({"workerGroups": {"cpu": {"maxReplicas": 4}}})
    stage.act()
    assert [item["metadata"]["name"] for item in stage.items("rayclusters")] == [name]
    release.upgrade({"image": {"tag": "2"}})
    stage.act()
    assert [item["metadata"]["name"] for item in stage.items("rayclusters")] != [name]

    release.uninstall()
    stage.act()
    assert stage.items("rayservices") == []


def test_operator_makes_clusters_of_jobs_and_schedules(stage: Stage) -> None:
    release, operator = stage.release, stage.operator
    release.install()
    release.upgrade({"batch": {**BATCH, "job": {"enabled": True}}})
    stage.act()
    (job,) = stage.items("rayjobs")
    name = job["status"]["rayClusterName"]
    assert stage.kinds_of_pods(name) == ["head", "worker"]
    cluster = stage.api.find(operator.path(RAY, "rayclusters", name))
    assert cluster is not None
    operator._jobs._submit({"kind": "RayJob", **job}, cluster)
    (submitter,) = stage.items("jobs", "/apis/batch/v1")
    (container,) = submitter["spec"]["template"]["spec"]["containers"]
    assert container["args"][0].startswith("ray job submit ")
    assert job["spec"]["entrypoint"] in container["args"][0]


def test_operator_keeps_a_cluster_with_redis_until_redis_is_empty(stage: Stage) -> None:
    release, operator = stage.release, stage.operator
    redis = {"enabled": True, "redisAddress": "redis:6379"}
    release.values["gcsFaultTolerance"] = redis
    release.install()
    stage.act()
    (cluster,) = stage.items("rayclusters")
    assert cluster["metadata"]["finalizers"] == [objects.REDIS_FINALIZER]
    release.kubectl("delete", "rayservice", NAME, "--wait=false")
    stage.act()
    # Without nodes pods do not end by themselves.
    release.kubectl("delete", "raycluster,pods", "--all", "--force", "--wait=false")
    stage.act()
    (job,) = stage.items("jobs", "/apis/batch/v1")
    assert len(stage.items("rayclusters")) == 1
    job["status"]["succeeded"] = 1
    stage.api.replace(
        f"{operator.path('/apis/batch/v1', 'jobs', job['metadata']['name'])}/status", job
    )
    stage.act()
    assert stage.items("rayclusters") == []
