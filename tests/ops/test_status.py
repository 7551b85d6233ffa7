"""The state in one table."""

from __future__ import annotations

from serve_app.core.errors import ClusterRefused
from serve_app.ops.status import read_status
from tests.fakes.recorded_kube import CLUSTERS, CORE, SERVICES, RecordedKube, pod, ray_service

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
            f"{CORE}/pods": {"items": [pod("g1", "gpu"), pod("g2", "gpu", ready=False)]},
            SERVE: {"applications": {"paraserve": {"deployments": {"Recognizer": DEPLOYMENT}}}},
            f"{CORE}/pods/http:g1:8080/proxy/metrics": METRICS,
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
        "no numbers of replicas from Serve: olga may not get services/proxy",
        "no metrics of 1 of 1 pods: olga may not get services/proxy",
    )


def test_missing_token_of_ray_is_reported_with_its_secret() -> None:
    kube = cluster()
    kube.answers[SERVE] = ClusterRefused("log in", 401)
    (note,) = read_status(kube, None).notes
    assert "set RAY_AUTH_TOKEN, or have the right to get the Secret ray-auth" in note
