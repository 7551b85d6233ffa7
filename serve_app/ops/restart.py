"""Replaces worker pods one after another, such that no request is lost.

Nothing of the RayService changes, so neither Helm nor KubeRay has anything to undo. A pod
that is told to go drains first (the chart's preStop hook): Serve starts replacements
elsewhere, and the pod ends when its replicas have finished what they had begun. The next
one goes only when as many pods are ready as before. Serve itself has no call to restart
a replica, and a change of its config would start the replicas of all deployments anew at
each later upgrade.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from serve_app.core.errors import ClusterError
from serve_app.ops.dashboard import open_dashboard
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import Kube
from serve_app.ops.service import ServiceState, find_service, is_ready_pod, pods_of, read_state

# Picks the pods to restart out of the workers of a RayService.
Choose: TypeAlias = Callable[[Kube, JsonView, ServiceState, list[JsonView]], list[JsonView]]
_POLL_S = 2.0
_WORKERS = "worker"


def restart_pods(
    kube: Kube,
    name: str | None,
    choose: Choose,
    on_progress: Callable[[str], None],
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Replaces the chosen worker pods of the cluster that serves.

    Args:
        kube: where.
        name: of the RayService; None for the only one.
        choose: picks the pods out of the workers.
        on_progress: told what happens.
        timeout_s: for each pod, at most.
        clock: in s.
        pause: waits for a number of s.

    Returns:
        How many were replaced.

    Raises:
        ClusterError: a rollout is under way, nothing is chosen, or a replacement did not
            come in time.
        ClusterRefused: the API server refuses.
    """
    service = find_service(kube, name)
    state = read_state(service)
    if state.active is None or state.pending is not None:
        raise ClusterError("a rollout is under way: wait for it (rollout wait), then restart")
    chosen = choose(kube, service, state, _workers(kube, state))
    if not chosen:
        raise ClusterError("no worker pod to restart")
    for number, pod in enumerate(chosen, 1):
        pod_name = pod.at("metadata", "name").text()
        group = _group(pod)
        num_before = _num_ready(_workers(kube, state), group)
        kube.delete(kube.path("pods", pod_name), pod.at("metadata", "uid").text())
        on_progress(f"{number} of {len(chosen)}: {pod_name} of {group} ends what it has begun")
        deadline = clock() + timeout_s
        while not _is_replaced(_workers(kube, state), pod, num_before):
            if clock() >= deadline:
                raise ClusterError(
                    f"{pod_name} was not replaced within {timeout_s:.0f} s, so the others stay; "
                    "see `paraserve cluster doctor`"
                )
            pause(_POLL_S)
    return len(chosen)


def all_workers(
    kube: Kube, service: JsonView, state: ServiceState, pods: list[JsonView]
) -> list[JsonView]:
    """Chooses every worker."""
    return pods


def workers_of_group(group: str) -> Choose:
    """Chooses the workers of a group."""

    def choose(
        kube: Kube, service: JsonView, state: ServiceState, pods: list[JsonView]
    ) -> list[JsonView]:
        return [pod for pod in pods if _group(pod) == group]

    return choose


def workers_with(deployment: str) -> Choose:
    """Chooses the workers that hold replicas of a deployment, as Serve tells."""

    def choose(
        kube: Kube, service: JsonView, state: ServiceState, pods: list[JsonView]
    ) -> list[JsonView]:
        details = open_dashboard(kube, service, state.active).applications()
        addresses = {
            replica.at("node_ip").text()
            for _, application in details.pairs()
            for replica in application.at("deployments", deployment, "replicas").each()
        }
        return [pod for pod in pods if pod.at("status", "podIP").text() in addresses]

    return choose


def _workers(kube: Kube, state: ServiceState) -> list[JsonView]:
    return [
        pod
        for pod in pods_of(kube, state.clusters)
        if pod.at("metadata", "labels", "ray.io/node-type").text() == _WORKERS
    ]


def _group(pod: JsonView) -> str:
    return pod.at("metadata", "labels", "ray.io/group").text()


def _num_ready(pods: Sequence[JsonView], group: str) -> int:
    return sum(is_ready_pod(pod) and _group(pod) == group for pod in pods)


def _is_replaced(pods: Sequence[JsonView], pod: JsonView, num_before: int) -> bool:
    uid = pod.at("metadata", "uid").text()
    if any(other.at("metadata", "uid").text() == uid for other in pods):
        return False
    return _num_ready(pods, _group(pod)) >= num_before
