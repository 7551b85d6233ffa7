"""How far a rollout has come."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.core.errors import ClusterError
from serve_app.ops.json_view import JsonView
from serve_app.ops.rollout import progress_of, wait_for_rollout
from serve_app.ops.service import ServiceState, read_state
from tests.fakes.recorded_kube import cluster_status, healthy_status, ray_service


def state(**status: Any) -> ServiceState:
    return read_state(JsonView(ray_service(**status)))


STARTING = cluster_status("speech-b", {"Recognizer": "UPDATING"}, "DEPLOYING")
FAILED = cluster_status(
    "speech-b",
    {"Recognizer": "DEPLOY_FAILED"},
    "DEPLOY_FAILED",
    "Traceback ...\nPackNotFound: no pack x\n",
)
READY = cluster_status("speech-b", {"Recognizer": "HEALTHY"})


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"observedGeneration": 2}, "KubeRay has not processed the last change yet"),
        ({"activeServiceStatus": {}}, "KubeRay has not created a cluster yet"),
        (
            {"pendingServiceStatus": STARTING},
            "cluster speech-b (3 of 3 workers) waits for Recognizer",
        ),
        ({"pendingServiceStatus": READY}, "cluster speech-b is ready; traffic is moving to it"),
        ({"conditions": []}, "cluster speech-a has no endpoint yet: no condition Ready yet"),
    ],
)
def test_awaited_state_is_shown(status: dict[str, Any], told: str) -> None:
    progress = progress_of(state(**status))
    assert (progress.is_done, progress.failure, progress.told) == (False, None, told)


def test_service_that_has_settled_is_done() -> None:
    assert progress_of(state()).is_done


def test_failure_tells_the_end_of_the_traceback() -> None:
    progress = progress_of(state(pendingServiceStatus=FAILED))
    assert progress.failure == "Recognizer of paraserve: PackNotFound: no pack x"


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, duration_s: float) -> None:
        self.now += duration_s


def wait(states: list[ServiceState], timeout_s: float = 60.0) -> list[str]:
    clock = Clock()
    told: list[str] = []

    def read() -> ServiceState:
        return states.pop(0) if len(states) > 1 else states[0]

    wait_for_rollout(read, told.append, timeout_s, clock=clock, pause=clock.pause)
    return told


def test_readiness_of_a_moment_is_not_the_end() -> None:
    told = wait([state(), state(pendingServiceStatus=STARTING), state()])
    assert told == [
        "cluster speech-a serves on 3 pods",
        "cluster speech-b (3 of 3 workers) waits for Recognizer",
        "cluster speech-a serves on 3 pods",
    ]


def test_timeout_names_the_awaited_state() -> None:
    with pytest.raises(ClusterError, match="not complete after 60 s: cluster speech-b"):
        wait([state(pendingServiceStatus=STARTING)])


def test_failure_ends_the_waiting_at_once() -> None:
    with pytest.raises(ClusterError, match="PackNotFound: no pack x"):
        wait([state(pendingServiceStatus=FAILED)])


def test_status_without_a_generation_is_believed() -> None:
    status = healthy_status()
    assert progress_of(state(**status | {"observedGeneration": None})).is_done
