"""A release from its install to its end, on real nodes, with the requests that each step costs.

The tests are steps of one journey and run in this order; each begins when the release has
settled after the one before. E2E_BUDGET_S bounds the time: what no longer fits is skipped,
and says so; the uninstall always runs.
"""

from __future__ import annotations

import json
import time

import pytest

from serve_app.transcript.cer import character_error_rate
from tests.deploy.charting import Json
from tests.e2e.conftest import Steps
from tests.e2e.redis import ADDRESS, num_keys, redis_objects
from tests.e2e.release import NAME, ReleaseUnderTest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SPOKEN = "今天杭州的天气怎么样？"
STAGES = ("ingress", "segmenter", "recognizer", "punctuator")


@pytest.fixture
def settled(release: ReleaseUnderTest, steps: Steps) -> ReleaseUnderTest:
    """The release when nothing is under way and no old cluster is left."""
    steps.skip_without_time()
    release.wait_settled()
    release.wait(lambda: len(release.clusters()) == 1, "old clusters to go", 120)
    return release


@pytest.fixture
def two_workers(settled: ReleaseUnderTest) -> ReleaseUnderTest:
    """The release with two replicas of each stage, for which two workers are needed."""
    scale_to_two(settled)
    return settled


def scale_to_two(release: ReleaseUnderTest) -> None:
    """Scales each stage to two replicas and waits until two workers are ready."""
    if len(release.ready_workers()) < 2:
        release.cluster("scale", "group", "cpu", "--min", "2")
        for stage in STAGES:
            release.cluster("scale", stage, "--replicas", "2")
    release.wait(lambda: len(release.ready_workers()) >= 2, "two workers", 240)
    release.wait_settled()
    # The disruption budget is computed when the chart is rendered.
    release.upgrade({})
    release.wait_settled()


def test_install_is_ready_and_transcribes_with_a_key(
    release: ReleaseUnderTest, steps: Steps
) -> None:
    with steps.step("install to Ready", under_load=False) as row:
        started = time.monotonic()
        release.install()
        release.wait_settled(400)
        row.took_s = time.monotonic() - started
    release.spoken = release.transcribe()
    assert character_error_rate(SPOKEN, release.spoken) <= 0.2
    with steps.step("nothing, for comparison") as row:
        time.sleep(15)
    assert len(row.right) == len(row.requests)


def test_helm_test_transcribes(settled: ReleaseUnderTest, steps: Steps) -> None:
    with steps.step("helm test", under_load=False) as row:
        started = time.monotonic()
        told = settled.test()
        row.took_s = time.monotonic() - started
    assert "error rate" in told


def test_commands_tell_the_state(settled: ReleaseUnderTest, steps: Steps) -> None:
    with steps.step("cluster status, doctor, rollout, logs") as row:
        status = json.loads(settled.cluster("status", "--json"))
        findings = json.loads(settled.cluster("doctor", "--json", "--no-hub", exit_codes=(0, 1)))
        progress = settled.cluster("rollout", "status")
        logs = settled.cluster("logs", "--stage", "ingress")
    assert status["state"]["active"]["name"] == settled.active_cluster()
    assert [finding["problem"] for finding in findings if finding["is_certain"]] == []
    assert "serves on 1 pods" in progress
    assert "request" in logs
    assert len(row.right) == len(row.requests)


def test_scaling_loses_nothing(settled: ReleaseUnderTest, steps: Steps) -> None:
    with steps.step("cluster scale to two workers") as row:
        scale_to_two(settled)
    assert len(row.right) == len(row.requests)


def test_settings_upgrade_loses_nothing(settled: ReleaseUnderTest, steps: Steps) -> None:
    before = settled.active_cluster()
    with steps.step("settings upgrade") as row:
        settled.upgrade({"settings": {"log_level": "DEBUG"}})
        settled.wait_settled()
    assert settled.active_cluster() == before
    assert len(row.right) == len(row.requests)


def test_image_upgrade_loses_nothing(settled: ReleaseUnderTest, steps: Steps) -> None:
    before = settled.active_cluster()
    with steps.step("image upgrade") as row:
        settled.upgrade({"image": {"tag": settled.target.tags[1]}})
        settled.wait(lambda: settled.active_cluster() != before, "the next cluster", 240)
        settled.wait_settled()
    assert settled.images() == {f"{settled.target.repository}:{settled.target.tags[1]}"}
    assert len(row.right) == len(row.requests)


def test_rollback_loses_nothing(settled: ReleaseUnderTest, steps: Steps) -> None:
    before = settled.active_cluster()
    with steps.step("rollback") as row:
        settled.rollback()
        settled.wait(lambda: settled.active_cluster() != before, "the next cluster", 240)
        settled.wait_settled()
    assert settled.images() == {f"{settled.target.repository}:{settled.target.tags[0]}"}
    assert len(row.right) == len(row.requests)


def test_restart_loses_nothing(two_workers: ReleaseUnderTest, steps: Steps) -> None:
    before = {pod["metadata"]["uid"] for pod in two_workers.pods("worker")}
    with steps.step("cluster restart of all workers") as row:
        two_workers.cluster("restart", "--timeout", "240")
        two_workers.wait_settled()
    after = {pod["metadata"]["uid"] for pod in two_workers.ready_workers()}
    assert not before & after
    assert len(row.right) == len(row.requests)


def test_drain_of_a_node_loses_nothing(two_workers: ReleaseUnderTest, steps: Steps) -> None:
    release = two_workers
    heads = {pod["spec"]["nodeName"] for pod in release.pods("head")}
    nodes = {pod["spec"]["nodeName"] for pod in release.ready_workers()} - heads
    if not nodes:
        pytest.skip("NOT RUN: every worker shares its node with the head")
    node = nodes.pop()
    with steps.step("drain of a worker's node") as row:
        options = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"]
        selector = f"--pod-selector=ray.io/cluster={release.active_cluster()}"
        release.kubectl("drain", node, *options, selector)
        release.wait(lambda: len(release.ready_workers()) >= 2, "a replacement", 240)
        release.wait_settled()
    release.kubectl("uncordon", node)
    assert len(row.right) == len(row.requests)


def test_eviction_of_one_of_two_workers_loses_nothing(
    two_workers: ReleaseUnderTest, steps: Steps
) -> None:
    release = two_workers
    first, second = [pod["metadata"]["name"] for pod in release.ready_workers()][:2]
    with steps.step("eviction of one of two workers") as row:
        assert release.evict(first)
        assert not release.evict(second), "the disruption budget allows two at once"
        wait_replaced(release, first)
    assert len(row.right) == len(row.requests)


def test_deletion_of_one_of_two_workers_loses_nothing(
    two_workers: ReleaseUnderTest, steps: Steps
) -> None:
    release = two_workers
    name = release.ready_workers()[0]["metadata"]["name"]
    with steps.step("deletion of one of two workers") as row:
        release.kubectl("delete", "pod", name, "--wait=false")
        wait_replaced(release, name)
    assert len(row.right) == len(row.requests)


def test_forced_deletion_is_counted(two_workers: ReleaseUnderTest, steps: Steps) -> None:
    """Nothing is asserted of the requests: what a pod held is gone with it."""
    release = two_workers
    name = release.ready_workers()[0]["metadata"]["name"]
    with steps.step("deletion by force of one of two workers"):
        release.kubectl("delete", "pod", name, "--force", "--grace-period=0")
        wait_replaced(release, name)


def test_loss_of_the_head_is_counted(settled: ReleaseUnderTest, steps: Steps) -> None:
    """Nothing is asserted of the requests: without Redis the cluster starts anew."""
    with steps.step("head deleted by force, without Redis"):
        kill_head(settled)


def test_loss_of_the_head_with_redis_loses_nothing(settled: ReleaseUnderTest, steps: Steps) -> None:
    release = settled
    for body in redis_objects(release.redis_image):
        release.create(body)
    release.kubectl("wait", "pod/e2e-redis", "--for=condition=Ready", "--timeout=120s")
    before = release.active_cluster()
    with steps.step("upgrade that adds Redis") as row:
        release.upgrade({"gcsFaultTolerance": {"enabled": True, "redisAddress": ADDRESS}})
        release.wait(lambda: release.active_cluster() != before, "the next cluster", 240)
        release.wait_settled()
    assert len(row.right) == len(row.requests)
    assert num_keys(release) > 0
    with steps.step("head deleted by force, with Redis") as row:
        kill_head(release)
    assert len(row.right) == len(row.requests)


def test_batch_job_runs(settled: ReleaseUnderTest, steps: Steps) -> None:
    with steps.step("RayJob") as row:
        batch = {"source": "/recordings/*.flac", "output": "/tmp/texts"}
        settled.upgrade({"batch": {**batch, "job": {"enabled": True}}})
        settled.wait(lambda: _job_states(settled) == {"SUCCEEDED"}, "the job", 300)
    assert len(row.right) == len(row.requests)


def test_batch_cron_job_runs(settled: ReleaseUnderTest, steps: Steps) -> None:
    with steps.step("RayCronJob", under_load=False) as row:
        started = time.monotonic()
        cron = {"enabled": True, "schedule": "* * * * *"}
        settled.upgrade({"batch": {"job": {"enabled": False}, "cron": cron}})
        settled.wait(lambda: "SUCCEEDED" in _job_states(settled), "a job of the schedule", 300)
        settled.upgrade({"batch": {"cron": {"enabled": False}}})
        row.took_s = time.monotonic() - started


def test_uninstall_leaves_nothing(release: ReleaseUnderTest, steps: Steps) -> None:
    with steps.step("uninstall", under_load=False) as row:
        started = time.monotonic()
        if release.values.get("gcsFaultTolerance", {}).get("enabled"):
            # As NOTES.txt says, so that KubeRay can empty Redis.
            release.kubectl("delete", "rayservice", NAME, "--timeout=240s")
            release.wait(lambda: release.clusters() == [], "the cluster to be gone", 240)
            assert num_keys(release) == 0
        release.uninstall()
        release.wait(lambda: not _ray_pods(release), "Ray's pods to be gone", 300)
        row.took_s = time.monotonic() - started
    assert _left(release) == []


def wait_replaced(release: ReleaseUnderTest, name: str) -> None:
    """Waits until a worker is gone and another is ready in its place."""

    def replaced() -> bool:
        names = {pod["metadata"]["name"] for pod in release.items("pods")}
        return name not in names and len(release.ready_workers()) >= 2

    release.wait(replaced, "a replacement", 240)
    release.wait_settled()


def kill_head(release: ReleaseUnderTest) -> None:
    """Deletes the head by force and waits until another serves."""
    (head,) = release.pods("head")
    release.kubectl("delete", "pod", head["metadata"]["name"], "--force", "--grace-period=0")

    def replaced() -> bool:
        heads = [pod["metadata"]["uid"] for pod in release.pods("head")]
        return bool(heads) and head["metadata"]["uid"] not in heads

    release.wait(replaced, "another head", 120)
    release.wait(release.head_is_ready, "the head to be ready", 240)
    release.wait_settled()


def _job_states(release: ReleaseUnderTest) -> set[str]:
    jobs: list[Json] = release.items("rayjob")
    return {job.get("status", {}).get("jobStatus", "") for job in jobs}


def _ray_pods(release: ReleaseUnderTest) -> list[Json]:
    return release.items("pods", "--selector", "ray.io/cluster")


def _left(release: ReleaseUnderTest) -> list[str]:
    kinds = "rayservice,raycluster,rayjob,pod,service,secret,configmap,role,rolebinding,pdb,job"
    names = release.kubectl("get", kinds, "--output", "name").split()
    return [name for name in names if NAME in name]
