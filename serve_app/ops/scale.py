"""Changes the size of deployments and worker groups so that `helm upgrade` keeps it.

A change has three parts: the RayService's `spec`; the annotation `ANNOTATION`, which records
the change and from which the chart renders the same numbers at an upgrade; and the ownership
of the fields, which returns to the tool that applied them (`serve_app.ops.field_ownership`),
so that its next server-side apply does not conflict.

KubeRay does not apply a worker group's bounds to a running cluster (it ignores them when it
compares, because the autoscaler writes them as well; ray-project/kuberay issue 4568), so they
are written to the RayClusters too. The group's PodDisruptionBudget follows, as the chart would
render it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import yaml

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops import scale_plan
from serve_app.ops.field_ownership import returned_ownership
from serve_app.ops.json_view import JsonView, read_yaml
from serve_app.ops.kube import (
    DISRUPTION_BUDGET,
    OLD_DISRUPTION_BUDGET,
    RAY_CLUSTER,
    RAY_SERVICE,
    Kind,
    Kube,
    Operation,
)
from serve_app.ops.scale_plan import Change, ScaleRequest
from serve_app.ops.serve_config import DEPLOYMENTS
from serve_app.ops.service import find_service, read_state

ANNOTATION = "paraserve.dev/scale"
_MAY_GO_ANNOTATION = "paraserve.dev/max-unavailable"
_NOT_FOUND = 404
_CONFLICT = 409
_ATTEMPTS = 5


Result = TypeVar("Result")


def scale_deployment(
    kube: Kube, name: str | None, deployment: str, request: ScaleRequest
) -> list[str]:
    """Changes the number of replicas of a deployment, or its bounds; no replica restarts.

    Args:
        kube: namespace.
        name: of the RayService or the release; None for the only one.
        deployment: name, or the stage's name in the settings.
        request: its new size.

    Returns:
        Sentences that describe the change.

    Raises:
        ClusterError: the size is not possible.
        ClusterRefused: the API server refuses.
    """
    request.check()
    full = DEPLOYMENTS.get(deployment.lower(), deployment)
    return _write(kube, name, lambda service: scale_plan.of_deployment(service, full, request))


def scale_group(kube: Kube, name: str | None, group: str, request: ScaleRequest) -> list[str]:
    """Changes the bounds of a worker group in the RayService and in its running clusters.

    Args:
        kube: namespace.
        name: of the RayService or the release; None for the only one.
        group: name of the worker group.
        request: its new size.

    Returns:
        Sentences that describe the change.

    Raises:
        ClusterError: the size is not possible.
        ClusterRefused: the API server refuses.
    """
    request.check()
    told = _write(kube, name, lambda service: scale_plan.of_group(service, group, request))
    state = read_state(find_service(kube, name))
    for cluster in state.clusters:
        try:
            told.append(_scale_running(kube, cluster.name, group, request))
        except ClusterRefused as error:
            raise ClusterRefused(
                f"the RayService is changed, but not the running RayCluster {cluster.name}: "
                f"{error}; until then it keeps its old bounds",
                error.status,
            ) from None
    return told + _scale_budget(kube, name, group)


def replace_serve_config(kube: Kube, name: str, text: str, expected: str | None = None) -> None:
    """Replaces the Serve config without recording it, so that the next upgrade renders its own.

    Args:
        kube: namespace.
        name: of the RayService.
        text: new Serve config.
        expected: leave any other current config alone.

    Raises:
        ClusterError: every attempt conflicted with someone else's change.
        ClusterRefused: the API server refuses.
    """

    def once() -> None:
        service = kube.get(RAY_SERVICE, name)
        if expected not in (None, service.at("spec", "serveConfigV2").text()):
            return
        operation = Operation("replace", "/spec/serveConfigV2", text)
        patched = kube.patch(RAY_SERVICE, name, [_as_read(service), operation])
        _return_ownership(kube, name, patched)

    _retried(once)


def _scale_running(kube: Kube, cluster: str, group: str, request: ScaleRequest) -> str:
    def once() -> str:
        live = kube.get(RAY_CLUSTER, cluster)
        groups = live.at("spec", "workerGroupSpecs")
        operations = scale_plan.group_operations(groups, group, request, "/spec/workerGroupSpecs")
        kube.patch(RAY_CLUSTER, cluster, [_as_read(live), *operations])
        return f"the running RayCluster {cluster} is changed as well"

    return _retried(once)


def _scale_budget(kube: Kube, name: str | None, group: str) -> list[str]:
    """Gives a group's disruption budget the number that the chart would render now."""

    def once() -> list[str]:
        service = find_service(kube, name)
        found = f"{service.at('metadata', 'name').text()}-{group}"
        kind, budget = _budget(kube, found)
        may_go = budget.at("metadata", "annotations", _MAY_GO_ANNOTATION).text()
        if not may_go.isdecimal():
            return []
        num_left = max(0, scale_plan.num_sure(service, group) - int(may_go))
        if num_left == budget.at("spec", "minAvailable").count():
            return []
        operation = Operation("replace", "/spec/minAvailable", num_left)
        patched = kube.patch(kind, found, [_as_read(budget), operation])
        _return_ownership(kube, found, patched, kind)
        return [f"a drain now leaves at least {num_left} of its pods"]

    return _retried(once)


def _budget(kube: Kube, name: str) -> tuple[Kind, JsonView]:
    """Returns a disruption budget with its kind; an empty one if there is none."""
    for kind in (DISRUPTION_BUDGET, OLD_DISRUPTION_BUDGET):
        try:
            return kind, kube.get(kind, name)
        except ClusterRefused as error:
            if error.status != _NOT_FOUND:
                raise
    return DISRUPTION_BUDGET, JsonView(None)


def _write(kube: Kube, name: str | None, plan: Callable[[JsonView], Change]) -> list[str]:
    """Writes the change that the plan makes for the current object."""

    def once() -> list[str]:
        service = find_service(kube, name)
        change = plan(service)
        found = service.at("metadata", "name").text()
        operations = [_as_read(service), *change.operations, _note(service, change)]
        _return_ownership(kube, found, kube.patch(RAY_SERVICE, found, operations))
        return list(change.told)

    return _retried(once)


def _retried(once: Callable[[], Result]) -> Result:
    """Repeats a change that conflicts with someone else's, on the new object.

    Raises:
        ClusterError: every attempt conflicted.
        ClusterRefused: the API server refuses for another reason.
    """
    for _ in range(_ATTEMPTS):
        try:
            return once()
        except ClusterRefused as error:
            if error.status != _CONFLICT:
                raise
    raise ClusterError(
        f"the object was changed by someone else during each of {_ATTEMPTS} attempts: see who "
        "writes it (kubectl get rayservice -o yaml --show-managed-fields), then try again"
    )


def _as_read(read: JsonView) -> Operation:
    """Makes the API server refuse the patch with 409 if the object has changed since."""
    version = read.at("metadata", "resourceVersion").text()
    return Operation("replace", "/metadata/resourceVersion", version)


def _return_ownership(kube: Kube, name: str, patched: JsonView, kind: Kind = RAY_SERVICE) -> None:
    latest: JsonView | None = patched

    def once() -> None:
        nonlocal latest
        live = latest or kube.get(kind, name)
        latest = None  # the next attempt reads it again
        owners = returned_ownership(live.at("metadata", "managedFields"))
        if owners is not None:
            operation = Operation("replace", "/metadata/managedFields", owners)
            kube.patch(kind, name, [_as_read(live), operation])

    _retried(once)


def _note(service: JsonView, change: Change) -> Operation:
    annotations = service.at("metadata", "annotations")
    noted = read_yaml(annotations.at(ANNOTATION).text(), f"annotation {ANNOTATION}")
    kind, name = change.kind, change.name
    document = noted.mapping()
    entries = noted.at(kind).mapping()
    entries[name] = {**noted.at(kind, name).mapping(), **change.options}
    document[kind] = entries
    text = yaml.safe_dump(document, sort_keys=True)
    if not annotations.is_there:
        return Operation("add", "/metadata/annotations", {ANNOTATION: text})
    return Operation("add", f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}", text)
