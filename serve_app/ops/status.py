"""The state of a release in one table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.clusters import ReleaseCluster, head_problem, read_clusters
from serve_app.ops.dashboard import open_dashboard
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import RAY_CLUSTER, Kube
from serve_app.ops.queue_metrics import GAUGES, read_waiting
from serve_app.ops.scale_plan import (
    demands_of,
    gpus_of_pod,
    group_size,
    num_gpus_needed,
    num_gpus_offered,
)
from serve_app.ops.serve_config import Application, ServeConfig, read_config
from serve_app.ops.service import ServiceState, find_service, is_ready_pod, pods_of, read_state


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """A deployment; values that could not be read are None.

    Attributes:
        application: that it belongs to.
        name: of the deployment.
        status: as Serve reported it to KubeRay.
        running: replicas that run.
        target: replicas that Serve wants now.
        minimum: minimum number of replicas in the configuration.
        maximum: maximum number of replicas in the configuration.
        num_gpus: of a replica.
        waiting: length of its queue.
        waiting_unit: unit of the queue's length.
    """

    application: str
    name: str
    status: str
    running: int | None
    target: int | None
    minimum: int
    maximum: int
    num_gpus: float
    waiting: float | None
    waiting_unit: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A worker group: ready pods, wanted pods, and the bounds."""

    name: str
    ready: int | None
    replicas: int
    minimum: int
    maximum: int
    gpus_per_pod: int


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a release.

    Attributes:
        state: the RayService's status.
        problems: why the service does not work, although KubeRay's status may say so.
        clusters: all RayClusters of the release, the oldest first.
        deployments: of all applications.
        groups: worker groups of the cluster that serves.
        gpus_needed: by the minimum numbers of replicas.
        gpus_offered: by the worker groups at their maximum.
        notes: what could not be read, and why.
    """

    state: ServiceState
    problems: tuple[str, ...]
    clusters: tuple[ReleaseCluster, ...]
    deployments: tuple[DeploymentRow, ...]
    groups: tuple[GroupRow, ...]
    gpus_needed: int
    gpus_offered: int
    notes: tuple[str, ...]


def read_status(kube: Kube, name: str | None, now: datetime | None = None) -> Status:
    """Returns the state of a release. Parts that cannot be read are named in the notes.

    Args:
        kube: namespace.
        name: of the RayService or the release; None for the only one.
        now: current time.

    Raises:
        ClusterError: there is no such RayService, or it is not Paraserve's.
        ClusterRefused: it may not be read.
    """
    service = find_service(kube, name)
    state = read_state(service)
    config = read_config(service)
    notes: list[str] = []
    pods = _pods(kube, state, notes)
    groups = _groups(kube, service, state, notes)
    problems = _problems(state, pods)
    # A head that is down answers only after a timeout.
    details = JsonView() if problems else _details(kube, service, state, notes)
    amounts: dict[tuple[str, str], float] | None = None
    if pods:
        waiting = read_waiting(kube, [pod for pod in pods if is_ready_pod(pod)])
        amounts = dict(waiting.amounts)
        if waiting.problem:
            notes.append(waiting.problem)
    rows = [
        _row(application, deployment, state, details, amounts)
        for application in config.applications
        for deployment in application.deployments
    ]
    return Status(
        state,
        problems,
        _clusters(kube, service, state, pods or [], now or datetime.now(UTC), notes),
        tuple(rows),
        tuple(_group_row(spec, pods) for spec in groups.each()),
        *_gpus(config, groups),
        tuple(notes),
    )


def _gpus(config: ServeConfig, groups: JsonView) -> tuple[int, int]:
    return num_gpus_needed(demands_of(config)), num_gpus_offered(groups)


def _problems(state: ServiceState, pods: list[JsonView] | None) -> tuple[str, ...]:
    if state.active is None or pods is None:
        return ()
    problem = head_problem(state.active, pods)
    return () if problem is None else (problem,)


def _clusters(
    kube: Kube,
    service: JsonView,
    state: ServiceState,
    pods: list[JsonView],
    now: datetime,
    notes: list[str],
) -> tuple[ReleaseCluster, ...]:
    try:
        return tuple(read_clusters(kube, service, state, pods, now))
    except ClusterRefused as error:
        notes.append(f"no list of RayClusters: {error}")
        return ()


def _pods(kube: Kube, state: ServiceState, notes: list[str]) -> list[JsonView] | None:
    try:
        return pods_of(kube, state.clusters)
    except ClusterRefused as error:
        notes.append(f"no pods: {error}")
        return None


def _groups(kube: Kube, service: JsonView, state: ServiceState, notes: list[str]) -> JsonView:
    """Returns the worker groups of the running cluster, which the autoscaler resizes."""
    if state.active is not None:
        try:
            cluster = kube.get(RAY_CLUSTER, state.active.name)
            return cluster.at("spec", "workerGroupSpecs")
        except ClusterRefused as error:
            notes.append(f"worker groups as configured, not as they run: {error}")
    return service.at("spec", "rayClusterConfig", "workerGroupSpecs")


def _details(kube: Kube, service: JsonView, state: ServiceState, notes: list[str]) -> JsonView:
    try:
        return open_dashboard(kube, service, state.active or state.pending).applications()
    except ClusterError as error:
        notes.append(f"no replica counts from Serve: {error}")
        return JsonView()


def _row(
    application: Application,
    deployment: str,
    state: ServiceState,
    details: JsonView,
    amounts: dict[tuple[str, str], float] | None,
) -> DeploymentRow:
    told = details.at(application.name, "deployments", deployment)
    minimum, maximum = application.bounds(deployment)
    running = sum(
        1 for replica in told.at("replicas").each() if replica.at("state").text() == "RUNNING"
    )
    target = told.at("target_num_replicas")
    key = (application.name, deployment)
    return DeploymentRow(
        application.name,
        deployment,
        told.at("status").text(_status(state, key)),
        running if told.is_there else None,
        target.count() if target.is_there else None,
        minimum,
        maximum,
        application.num_gpus(deployment),
        None if amounts is None else amounts.get(key),
        GAUGES[deployment].unit,
    )


def _status(state: ServiceState, key: tuple[str, str]) -> str:
    for cluster in state.clusters:
        for part in cluster.deployments:
            if (part.application, part.name) == key:
                return part.status
    return "unknown"


def _group_row(spec: JsonView, pods: list[JsonView] | None) -> GroupRow:
    name = spec.at("groupName").text()
    size = group_size(spec)
    ready = None
    if pods is not None:
        ready = sum(
            is_ready_pod(pod) and pod.at("metadata", "labels", "ray.io/group").text() == name
            for pod in pods
        )
    gpus = gpus_of_pod(spec.at("template", "spec"))
    return GroupRow(name, ready, size.replicas, size.minimum, size.maximum, gpus)
