"""Replaces worker pods one after another without losing a request.

The RayService keeps its specification, so neither Helm nor KubeRay has anything to undo. For
each worker group the restart first makes room: one more worker in the running RayCluster. It
then deletes one pod at a time. The pod's preStop hook drains it: Serve starts the replicas on
the free worker, and the pod ends when its requests have ended. KubeRay replaces it, and the
replacement is the room for the next one. With the last pod the group gets its old size back.

A pod that is being deleted leaves the Service at once. If no other pod of the Service is ready,
an additional ingress replica on the free worker makes that one ready first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops import scale_plan
from serve_app.ops.clusters import unschedulable
from serve_app.ops.dashboard import open_dashboard
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import POD, RAY_CLUSTER, Kube, Operation
from serve_app.ops.scale import replace_serve_config
from serve_app.ops.scale_plan import GroupSize, ScaleRequest, group_size
from serve_app.ops.serve_config import read_config
from serve_app.ops.service import ServiceState, find_service, is_ready_pod, pods_of, read_state

# Picks the pods to restart out of the workers of a RayService.
Choose: TypeAlias = Callable[[Kube, JsonView, ServiceState, list[JsonView]], list[JsonView]]

ROOM_TIMEOUT_S = 600.0
"""Longest wait for one more worker, including pulling its image."""

NO_NODE_TIMEOUT_S = 120.0
"""Longest wait for a Kubernetes node for it; a cluster autoscaler may add one."""

READY_TIMEOUT_S = 180.0
"""Longest wait for an additional ingress replica to make its worker ready."""

_MARGIN_S = 300.0
"""Time beyond a pod's grace period in which its replacement must be running."""

_POLL_S = 2.0
_REPEAT_S = 30.0
_MAX_SURGE = 3
_WORKERS = "worker"
_GROUPS = "/spec/workerGroupSpecs"


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """What a restart may cost.

    Attributes:
        timeout_s: longest wait for one pod; None for its grace period and a margin.
        allow_downtime: restart even if requests will be refused meanwhile.
    """

    timeout_s: float | None = None
    allow_downtime: bool = False


def restart_pods(
    kube: Kube,
    name: str | None,
    choose: Choose,
    on_progress: Callable[[str], None],
    limits: RestartLimits,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Replaces the chosen worker pods of the cluster that serves.

    Args:
        kube: namespace.
        name: of the RayService or the release; None for the only one.
        choose: picks the pods out of the workers.
        on_progress: called with sentences about the progress.
        limits: what the restart may cost.
        clock: monotonic time in s.
        pause: waits for a number of s.

    Returns:
        The number of replaced pods.

    Raises:
        ClusterError: a rollout is in progress, nothing is chosen, there is no room, or a
            replacement did not start in time.
        ClusterRefused: the API server refuses.
    """
    service = find_service(kube, name)
    state = read_state(service)
    if state.active is None or state.pending is not None:
        raise ClusterError("a rollout is in progress: wait for it (rollout wait), then restart")
    restart = _Restart(kube, state, limits, _Waiter(on_progress, clock, pause))
    chosen = choose(kube, service, state, restart.workers())
    if not chosen:
        raise ClusterError("no worker pod to restart")
    restart.live_addresses()  # a missing right is reported before anything changes
    groups = list(dict.fromkeys(map(_group, chosen)))
    with restart.ingress_size_kept():
        for group in groups:
            restart.replace(group, [pod for pod in chosen if _group(pod) == group])
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
    """Chooses the workers with replicas of a deployment, according to Serve."""

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


class _TimedOut(Exception):
    """A condition did not hold in time."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Waits for conditions and reports what it waits for."""

    on_progress: Callable[[str], None]
    clock: Callable[[], float]
    pause: Callable[[float], None]

    def until(self, holds: Callable[[], bool], what: str, limit_s: float) -> None:
        """Waits until a condition holds.

        Raises:
            _TimedOut: it did not within `limit_s`.
        """
        began_s = self.clock()
        reported_s = began_s
        while not holds():
            now_s = self.clock()
            if now_s - began_s >= limit_s:
                raise _TimedOut
            if now_s - reported_s >= _REPEAT_S:
                reported_s = now_s
                self.on_progress(f"waiting for {what} ({now_s - began_s:.0f} of {limit_s:.0f} s)")
            self.pause(_POLL_S)


@dataclass(slots=True)
class _Restart:
    """A restart of workers of one cluster."""

    kube: Kube
    state: ServiceState
    limits: RestartLimits
    waiter: _Waiter
    surged_config: str | None = field(default=None, init=False)

    @property
    def cluster(self) -> str:
        return self.state.active.name if self.state.active else ""

    def workers(self, group: str | None = None) -> list[JsonView]:
        """Returns the worker pods, of one group or all."""
        return [
            pod
            for pod in pods_of(self.kube, self.state.clusters)
            if pod.at("metadata", "labels", "ray.io/node-type").text() == _WORKERS
            and group in (None, _group(pod))
        ]

    def live_addresses(self) -> set[str]:
        """Returns the IP addresses of the live Ray nodes.

        Raises:
            ClusterError: the dashboard cannot be reached.
        """
        service = find_service(self.kube, self.state.name)
        return open_dashboard(self.kube, service, self.state.active).live_addresses()

    def live_workers(self, group: str) -> list[JsonView]:
        """Returns the pods of a group whose Ray nodes are alive and not being deleted."""
        try:
            addresses = self.live_addresses()
        except ClusterRefused:
            return []  # the head is busy; the next poll tries again
        return [
            pod
            for pod in self.workers(group)
            if pod.at("status", "podIP").text() in addresses and not _is_going(pod)
        ]

    def replace(self, group: str, pods: Sequence[JsonView]) -> None:
        """Replaces pods of one group."""
        size = self._size(group)
        has_room = self._make_room(group, size)
        is_restored = not has_room
        try:
            for number, pod in enumerate(pods, 1):
                told = f"{number} of {len(pods)} of group {group}: {_name(pod)}"
                self._keep_service_up(pod, has_room)
                if has_room and number == len(pods):
                    self._resize(group, size, remove=_name(pod))
                    is_restored = True
                    self._wait_until_gone(group, pod, size.replicas, told)
                    self._resize(group, size)
                else:
                    self.kube.delete(POD, _name(pod), pod.at("metadata", "uid").text())
                    self._wait_until_gone(group, pod, size.replicas + has_room, told)
        finally:
            if not is_restored:
                self._remove_room(group, size)

    def _make_room(self, group: str, size: GroupSize) -> bool:
        """Adds a worker to a group; returns False if there is no room and that is allowed.

        Raises:
            ClusterError: there is no room for another worker.
        """
        number = size.replicas + 1
        known = {pod.at("metadata", "uid").text() for pod in self.workers(group)}
        self.waiter.on_progress(f"making room: group {group} gets one more worker ({number})")
        larger = GroupSize(
            # Ray's autoscaler would remove an idle worker above the minimum.
            minimum=max(size.minimum, number) if self._is_autoscaled() else size.minimum,
            maximum=max(size.maximum, number),
            replicas=number,
        )
        self._resize(group, larger)
        reason = ["KubeRay created no pod"]
        began_s = self.waiter.clock()

        def is_there() -> bool:
            new = [
                pod
                for pod in self.workers(group)
                if pod.at("metadata", "uid").text() not in known and not _is_going(pod)
            ]
            if new:
                why = unschedulable(new[0])
                reason[0] = f"no node for {_name(new[0])}: {why}" if why else "it did not start"
                if why and self.waiter.clock() - began_s >= NO_NODE_TIMEOUT_S:
                    raise _TimedOut
            return any(
                pod.at("metadata", "uid").text() not in known for pod in self.live_workers(group)
            )

        try:
            self.waiter.until(is_there, "the additional worker", ROOM_TIMEOUT_S)
        except _TimedOut:
            self._remove_room(group, size)
            cost = self._cost(group)
            self._need_consent(f"no room for another worker of group {group} ({reason[0]})", cost)
            return False
        except BaseException:
            self._remove_room(group, size)
            raise
        return True

    def _cost(self, group: str) -> str:
        others = len(self.live_workers(group)) - 1
        if others > 0:
            return (
                "requests then wait until the replicas of each deleted pod have started again, "
                "usually within a minute, and fail after replacement_timeout_s"
            )
        return (
            "every request is then refused until the pod's replacement is ready, usually after "
            "30 to 90 s"
        )

    def _need_consent(self, problem: str, cost: str) -> None:
        """Goes on only if downtime is allowed.

        Raises:
            ClusterError: it is not.
        """
        if not self.limits.allow_downtime:
            raise ClusterError(
                f"{problem}; the remaining pods were not restarted. Free a node or shrink another "
                f"group, or use --allow-downtime: {cost}"
            )
        self.waiter.on_progress(f"{problem}: {cost}")

    def _keep_service_up(self, pod: JsonView, has_room: bool) -> None:
        """Makes sure that another pod of the Service is ready before this one is deleted.

        Raises:
            ClusterError: none is, and downtime is not allowed.
        """
        if self._is_another_ready(pod):
            return
        problem = f"no other worker than {_name(pod)} is ready"
        cost = self._cost(_group(pod))
        if not has_room:
            self._need_consent(problem, cost)
            return
        for _ in range(_MAX_SURGE):
            self._add_ingress_replica()
            with suppress(_TimedOut):
                self.waiter.until(
                    lambda: self._is_another_ready(pod),
                    "an ingress replica on the additional worker",
                    READY_TIMEOUT_S / _MAX_SURGE,
                )
                return
        self._need_consent(f"{problem}, even with more ingress replicas", cost)

    def _is_another_ready(self, pod: JsonView) -> bool:
        uid = pod.at("metadata", "uid").text()
        return any(
            is_ready_pod(each) and each.at("metadata", "uid").text() != uid
            for each in self.workers()
        )

    def _add_ingress_replica(self) -> None:
        self.waiter.on_progress("adding an ingress replica, so that the additional worker serves")
        service = find_service(self.kube, self.state.name)
        minimum, maximum = read_config(service).main.bounds("Ingress")
        request = ScaleRequest(replicas=minimum + 1)
        if read_config(service).main.deployments["Ingress"].autoscaling is not None:
            request = ScaleRequest(minimum=minimum + 1, maximum=max(maximum, minimum + 1))
        change = scale_plan.of_deployment(service, "Ingress", request)
        self.surged_config = str(change.operations[0].value)
        replace_serve_config(self.kube, self.state.name, self.surged_config)

    @contextmanager
    def ingress_size_kept(self) -> Iterator[None]:
        """Restores the number of ingress replicas after the block."""
        service = find_service(self.kube, self.state.name)
        before = service.at("spec", "serveConfigV2").text()
        try:
            yield
        finally:
            if self.surged_config is not None:
                replace_serve_config(self.kube, self.state.name, before, self.surged_config)
                self.waiter.on_progress("the ingress has its number of replicas back")

    def _wait_until_gone(self, group: str, pod: JsonView, num_wanted: int, told: str) -> None:
        """Waits until a pod is gone, the group is complete, and Serve is healthy.

        Raises:
            ClusterError: that took too long.
        """
        self.waiter.on_progress(f"{told} finishes its requests")
        uid = pod.at("metadata", "uid").text()
        grace_s = pod.at("spec", "terminationGracePeriodSeconds").number(30.0)
        limit_s = self.limits.timeout_s
        if limit_s is None:
            limit_s = grace_s + _MARGIN_S

        def is_replaced() -> bool:
            if any(each.at("metadata", "uid").text() == uid for each in self.workers(group)):
                return False
            return len(self.live_workers(group)) >= num_wanted and self._serve_is_healthy()

        try:
            self.waiter.until(is_replaced, f"the end or the replacement of {_name(pod)}", limit_s)
        except _TimedOut:
            raise ClusterError(
                f"{_name(pod)} was not replaced within {limit_s:.0f} s, so the other pods stay; "
                "see `paraserve cluster doctor`"
            ) from None

    def _serve_is_healthy(self) -> bool:
        try:
            service = find_service(self.kube, self.state.name)
            details = open_dashboard(self.kube, service, self.state.active).applications()
        except ClusterRefused:
            return False
        return all(
            application.at("status").text("RUNNING") == "RUNNING"
            for _, application in details.pairs()
        )

    def _remove_room(self, group: str, size: GroupSize) -> None:
        """Gives a group its old size back, without the worker that serves least."""
        pods = [pod for pod in self.workers(group) if not _is_going(pod)]
        idle = [pod for pod in pods if not is_ready_pod(pod)]
        if len(pods) > size.replicas and not idle:
            self.waiter.on_progress(
                f"group {group} keeps its additional worker, which serves already; remove it with "
                f"paraserve cluster scale group {group} --min {size.minimum} --max {size.maximum} "
                f"--replicas {size.replicas}"
            )
            return
        surplus = len(pods) > size.replicas
        self._resize(group, size, remove=_name(idle[-1]) if surplus else None)

    def _size(self, group: str) -> GroupSize:
        live = self.kube.get(RAY_CLUSTER, self.cluster)
        specs = live.at("spec", "workerGroupSpecs").each()
        return next(group_size(spec) for spec in specs if spec.at("groupName").text() == group)

    def _is_autoscaled(self) -> bool:
        live = self.kube.get(RAY_CLUSTER, self.cluster)
        return live.at("spec", "enableInTreeAutoscaling").is_true

    def _resize(self, group: str, size: GroupSize, remove: str | None = None) -> None:
        """Changes a group of the running cluster.

        Args:
            group: its name.
            size: its new size.
            remove: pod that KubeRay must remove; otherwise it picks any pod.
        """
        request = ScaleRequest(size.minimum, size.maximum, size.replicas)
        live = self.kube.get(RAY_CLUSTER, self.cluster)
        groups = live.at("spec", "workerGroupSpecs")
        operations = scale_plan.group_operations(groups, group, request, _GROUPS)
        index = operations[0].path.removeprefix(f"{_GROUPS}/").split("/")[0]
        strategy = {"workersToDelete": [] if remove is None else [remove]}
        operations.append(Operation("add", f"{_GROUPS}/{index}/scaleStrategy", strategy))
        self.kube.patch(RAY_CLUSTER, self.cluster, operations)


def _name(pod: JsonView) -> str:
    return pod.at("metadata", "name").text()


def _group(pod: JsonView) -> str:
    return pod.at("metadata", "labels", "ray.io/group").text()


def _is_going(pod: JsonView) -> bool:
    return pod.at("metadata", "deletionTimestamp").is_there
