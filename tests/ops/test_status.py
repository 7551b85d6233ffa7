"""The state in one table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from serve_app.core.errors import ClusterRefused
from serve_app.ops.status import read_status
from tests.fakes.recorded_kube import (
    CLUSTERS,
    CORE,
    SERVICES,
    RecordedKube,
    cluster_status,
    head_pod,
    pod,
    ray_cluster,
    ray_service,
)

SERVE = f"{CORE}/services/http:speech-a-head-svc:8265/proxy/api/serve/applications/"
DEPLOYMENT = {
    "status": "UPSCALING",
    "target_num_replicas": 3,
    "replicas": [{"state": "RUNNING"}, {"state": "RUNNING"}, {"state": "STARTING"}],
}
METRICS = 'ray_paraserve_queued_audio_seconds{application="paraserve",deployment="Recognizer"} 42.0'


def cluster() -> RecordedKube:
    service = ray_service()
    running = {"spec": service["spec"]["rayClusterConfig"]}
    return RecordedKube(
        {
            SERVICES: {"items": [service]},
            f"{CLUSTERS}/speech-a": running,
            CLUSTERS: {"items": [ray_cluster("speech-a")]},
            f"{CORE}/pods": {
                "items": [head_pod(), pod("g1", "gpu"), pod("g2", "gpu", ready=False)]
            },
            SERVE: {"applications": {"paraserve": {"deployments": {"Recognizer": DEPLOYMENT}}}},
            f"{CORE}/pods/http:g1:8080/proxy/metrics": METRICS,
            f"{CORE}/pods/http:speech-a-head:8080/proxy/metrics": "",
        }
    )


def test_row_shows_replicas_limits_gpus_and_queued_audio() -> None:
    status = read_status(cluster(), None)
    (row,) = (row for row in status.deployments if row.name == "Recognizer")
    assert (row.status, row.running, row.target) == ("UPSCALING", 2, 3)
    assert (row.minimum, row.maximum, row.num_gpus) == (2, 8, 0.75)
    assert (row.waiting, row.waiting_unit) == (42.0, "s audio")
    assert status.notes == ()


def test_groups_count_the_pods_that_are_ready() -> None:
    status = read_status(cluster(), None)
    gpu = status.groups[1]
    assert (gpu.name, gpu.ready, gpu.replicas, gpu.gpus_per_pod) == ("gpu", 1, 2, 1)
    assert (status.gpus_needed, status.gpus_offered) == (3, 8)


def test_what_may_not_be_read_is_noted_and_the_rest_is_there() -> None:
    kube = cluster()
    refused = ClusterRefused("olga may not get services/proxy", 403)
    kube.answers |= {SERVE: refused, f"{CORE}/pods/http:g1:8080/proxy/metrics": refused}
    status = read_status(kube, None)
    assert [row.running for row in status.deployments] == [None] * 4
    assert [row.status for row in status.deployments] == ["HEALTHY"] * 4
    assert status.notes == (
        "no replica counts from Serve: olga may not get services/proxy",
        "no metrics of 1 of 2 pods: olga may not get services/proxy",
    )


def test_missing_token_of_ray_is_reported_with_its_secret() -> None:
    kube = cluster()
    kube.answers[SERVE] = ClusterRefused("log in", 401)
    (note,) = read_status(kube, None).notes
    assert "set RAY_AUTH_TOKEN, or get the right to read the Secret ray-auth" in note


NOW = datetime(2026, 11, 28, 6, 20, tzinfo=UTC)
SWITCHED = {"type": "UpgradeInProgress", "lastTransitionTime": "2026-11-28T06:10:00Z"}


def test_every_cluster_of_the_release_has_a_row_with_its_age_and_what_it_waits_for() -> None:
    kube = cluster()
    service = ray_service(pendingServiceStatus=cluster_status("speech-b", {"Ingress": "UPDATING"}))
    kube.answers[SERVICES] = {"items": [service]}
    going = {"deletionTimestamp": "x", "finalizers": ["ray.io/gcs-ft-redis-cleanup-finalizer"]}
    kube.answers[CLUSTERS] = {
        "items": [
            ray_cluster("speech-b", "2026-11-28T06:15:00Z"),
            ray_cluster("speech-a"),
            ray_cluster("speech-9", "2026-11-28T04:00:00Z"),
            ray_cluster("speech-8", "2026-11-28T03:00:00Z", **going),
        ]
    }
    kube.answers[f"{CORE}/pods"] = {"items": [head_pod(), head_pod("speech-b")]}
    found = read_status(kube, None, NOW).clusters
    assert [(each.name, each.role, each.age_s / 60, each.waits_for) for each in found] == [
        (
            "speech-8",
            "old",
            200,
            "its pods to finish their requests, then it is deleted (after the job that empties "
            "Redis)",
        ),
        ("speech-9", "old", 140, "its deletion, 60 s after it stopped serving"),
        ("speech-a", "active", 20, ""),
        ("speech-b", "pending", 5, "Ingress"),
    ]
    assert {each.cpus for each in found} == {"6"}


def test_old_cluster_says_when_it_is_deleted() -> None:
    kube = cluster()
    service = ray_service(conditions=[SWITCHED])
    service["spec"]["rayClusterDeletionDelaySeconds"] = 3660
    kube.answers[SERVICES] = {"items": [service]}
    kube.answers[CLUSTERS] = {"items": [ray_cluster("speech-9")]}
    (old,) = read_status(kube, None, NOW).clusters
    assert old.waits_for == "its deletion in about 51m (3660 s after it stopped serving)"


@pytest.mark.parametrize(
    ("pods", "problem"),
    [
        ([], "the head of speech-a has no pod"),
        ([head_pod(ready=False, phase="Pending")], "is not ready (speech-a-head: Pending)"),
        (
            [
                head_pod(
                    ready=False,
                    containerStatuses=[
                        {"name": "ray-head", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
                    ],
                )
            ],
            "(speech-a-head: ray-head is in CrashLoopBackOff)",
        ),
    ],
)
def test_head_that_is_down_is_a_problem_although_kuberay_reports_ready(
    pods: list[dict[str, Any]], problem: str
) -> None:
    kube = cluster()
    kube.answers[f"{CORE}/pods"] = {"items": [*pods, pod("g1", "gpu")]}
    status = read_status(kube, None)
    (found,) = status.problems
    assert problem in found
    # The dashboard of a head that is down would only time out.
    assert not [path for _, path, _ in kube.sent if "8265" in path]


def test_head_that_is_being_deleted_is_a_problem() -> None:
    kube = cluster()
    head = head_pod()
    head["metadata"]["deletionTimestamp"] = "2026-11-28T06:19:59Z"
    kube.answers[f"{CORE}/pods"] = {"items": [head]}
    assert read_status(kube, None).problems == (
        "the head of speech-a is being deleted (speech-a-head)",
    )
