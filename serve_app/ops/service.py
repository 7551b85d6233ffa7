"""A RayService and its status, as KubeRay reports it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import POD, RAY_SERVICE, Kube

_FAILED = frozenset({"DEPLOY_FAILED"})
_NOT_FOUND = 404
_RELEASE_LABEL = "app.kubernetes.io/instance"
_LABEL_VALUE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the conditions of an object."""

    kind: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """A deployment, as Serve reported it to KubeRay."""

    application: str
    name: str
    status: str
    message: str


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The RayCluster that serves, or the one that will.

    Attributes:
        name: of the RayCluster.
        state: as KubeRay reports it, such as `ready`.
        ready_workers: pods that are ready.
        desired_workers: pods that KubeRay wants.
        head_service: name of the head's Service; empty before it exists.
        applications: status of each.
        messages: Serve's message on each application.
        deployments: of all applications.
    """

    name: str
    state: str
    ready_workers: int
    desired_workers: int
    head_service: str
    applications: dict[str, str]
    messages: dict[str, str]
    deployments: tuple[DeploymentState, ...]

    @property
    def failures(self) -> list[str]:
        """Failures that waiting does not repair, one sentence each."""
        parts = [
            f"{part.name} of {part.application}: {_last_line(part.message) or part.status}"
            for part in self.deployments
            if part.status in _FAILED
        ]
        whole = [
            f"{name}: {_last_line(self.messages[name]) or status}"
            for name, status in self.applications.items()
            if status in _FAILED
        ]
        return parts or whole

    @property
    def unready(self) -> list[str]:
        """Deployments or applications that are not healthy yet."""
        if not self.applications:
            return ["the application"]
        waiting = [part.name for part in self.deployments if part.status != "HEALTHY"]
        late = [name for name, status in self.applications.items() if status != "RUNNING"]
        return waiting or late


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The state of a RayService.

    Attributes:
        name: of the RayService.
        generation: number of the current specification.
        observed: generation that KubeRay last acted on; None if unknown.
        conditions: as KubeRay reports them.
        active: the cluster that has the traffic; None before the first.
        pending: the cluster that will get it; None unless an upgrade is in progress.
        num_endpoints: pods that take requests.
    """

    name: str
    generation: int
    observed: int | None
    conditions: tuple[Condition, ...]
    active: ClusterState | None
    pending: ClusterState | None
    num_endpoints: int

    def condition(self, kind: str) -> Condition | None:
        return next((entry for entry in self.conditions if entry.kind == kind), None)

    @property
    def is_ready(self) -> bool:
        ready = self.condition("Ready")
        return ready is not None and ready.status == "True"

    @property
    def clusters(self) -> list[ClusterState]:
        return [cluster for cluster in (self.active, self.pending) if cluster is not None]


def find_service(kube: Kube, name: str | None) -> JsonView:
    """Returns a RayService of the namespace.

    Args:
        kube: namespace.
        name: of the RayService or of the Helm release; None for the only RayService.

    Raises:
        ClusterError: there is none, or several and no name.
        ClusterRefused: the API server refuses.
    """
    try:
        if name is not None:
            return kube.get(RAY_SERVICE, name)
        found = kube.list(RAY_SERVICE)
    except ClusterRefused as error:
        if error.status != _NOT_FOUND:
            raise
        found = _of_release(kube, name)
        if not found:
            raise ClusterError(_why_absent(kube, name)) from None
    if len(found) != 1:
        names = ", ".join(entry.at("metadata", "name").text() for entry in found)
        raise ClusterError(
            f"several RayServices in {kube.namespace} ({names}): name one of them"
            if found
            else f"no RayService in {kube.namespace}: choose another with -n, or install the chart"
        )
    return found[0]


def _of_release(kube: Kube, name: str | None) -> Sequence[JsonView]:
    """Returns the RayServices of a Helm release."""
    if name is None or not _LABEL_VALUE.fullmatch(name):
        return []
    try:
        return kube.list(RAY_SERVICE, label_selector=f"{_RELEASE_LABEL}={name}")
    except ClusterRefused:
        return []


def _why_absent(kube: Kube, name: str | None) -> str:
    if not kube.has_ray():
        return "the cluster does not know RayService: install the KubeRay operator (1.7+)"
    return f"no RayService {name} in {kube.namespace}: see `paraserve cluster status -n NAMESPACE`"


def read_state(service: JsonView) -> ServiceState:
    """Returns the status of a RayService."""
    status = service.at("status")
    observed = status.at("observedGeneration")
    return ServiceState(
        name=service.at("metadata", "name").text(),
        generation=service.at("metadata", "generation").count(),
        observed=observed.count() if observed.is_there else None,
        conditions=tuple(_condition(entry) for entry in status.at("conditions").each()),
        active=_cluster(status.at("activeServiceStatus")),
        pending=_cluster(status.at("pendingServiceStatus")),
        num_endpoints=status.at("numServeEndpoints").count(),
    )


def pods_of(kube: Kube, clusters: Sequence[ClusterState]) -> list[JsonView]:
    """Returns the pods of these clusters.

    Raises:
        ClusterRefused: the API server refuses.
    """
    names = ",".join(cluster.name for cluster in clusters)
    if not names:
        return []
    return list(kube.list(POD, label_selector=f"ray.io/cluster in ({names})"))


def is_ready_pod(pod: JsonView) -> bool:
    """Returns whether the pod is ready and not being deleted."""
    if pod.at("metadata", "deletionTimestamp").is_there:
        return False
    return any(
        entry.at("type").text() == "Ready" and entry.at("status").text() == "True"
        for entry in pod.at("status", "conditions").each()
    )


def _condition(entry: JsonView) -> Condition:
    kind, status = entry.at("type").text(), entry.at("status").text()
    return Condition(kind, status, entry.at("reason").text(), entry.at("message").text())


def _cluster(status: JsonView) -> ClusterState | None:
    name = status.at("rayClusterName").text()
    if not name:
        return None
    cluster = status.at("rayClusterStatus")
    applications = dict(status.at("applicationStatuses").pairs())
    return ClusterState(
        name=name,
        state=cluster.at("state").text("unknown"),
        ready_workers=cluster.at("readyWorkerReplicas").count(),
        desired_workers=cluster.at("desiredWorkerReplicas").count(),
        head_service=cluster.at("head", "serviceName").text(),
        applications={key: value.at("status").text() for key, value in applications.items()},
        messages={key: value.at("message").text() for key, value in applications.items()},
        deployments=tuple(
            DeploymentState(key, name, part.at("status").text(), part.at("message").text())
            for key, value in applications.items()
            for name, part in value.at("serveDeploymentStatuses").pairs()
        ),
    )


def _last_line(message: str) -> str:
    """Returns the error at the end of a remote traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else ""
