"""Changes the size of deployments and worker groups, such that `helm upgrade` keeps it.

Three things happen to the RayService: its `spec` changes; the annotation `ANNOTATION`
notes what was changed, which the chart reads at an upgrade and renders the same; and the
tool that applied the fields stays their owner (`serve_app.ops.field_ownership`), so that its
next server-side apply meets no conflict.

KubeRay does not pass a worker group's bounds on to a cluster that runs (it leaves them
out when it compares, since the autoscaler writes them as well; ray-project/kuberay issue
4568), so these are written to the RayClusters too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import yaml

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops import scale_plan
from serve_app.ops.field_ownership import returned_ownership
from serve_app.ops.json_view import JsonView, read_yaml
from serve_app.ops.kube import Kube, Operation
from serve_app.ops.scale_plan import Change, ScaleRequest
from serve_app.ops.serve_config import DEPLOYMENTS
from serve_app.ops.service import RAY, find_service, read_state, service_path

ANNOTATION = "paraserve.dev/scale"
_CONFLICT = 409
_ATTEMPTS = 5


Result = TypeVar("Result")


def scale_deployment(
    kube: Kube, name: str | None, deployment: str, request: ScaleRequest
) -> list[str]:
    """Changes the number of replicas of a deployment, or its bounds; no replica restarts.

    Args:
        kube: where.
        name: of the RayService; None for the only one.
        deployment: name, or the stage's name in the settings.
        request: what it shall be.

    Returns:
        Sentences on what was changed.

    Raises:
        ClusterError: it cannot be done so.
        ClusterRefused: the API server refuses.
    """
    request.check()
    full = DEPLOYMENTS.get(deployment.lower(), deployment)
    return _write(kube, name, lambda service: scale_plan.of_deployment(service, full, request))


def scale_group(kube: Kube, name: str | None, group: str, request: ScaleRequest) -> list[str]:
    """Changes the bounds of a worker group, of the RayService and of what runs.

    Args:
        kube: where.
        name: of the RayService; None for the only one.
        group: name of the worker group.
        request: what it shall be.

    Returns:
        Sentences on what was changed.

    Raises:
        ClusterError: it cannot be done so.
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
    return told


def _scale_running(kube: Kube, cluster: str, group: str, request: ScaleRequest) -> str:
    path = kube.path("rayclusters", cluster, group=RAY)

    def once() -> str:
        live = kube.get(path)
        groups = live.at("spec", "workerGroupSpecs")
        operations = scale_plan.group_operations(groups, group, request, "/spec/workerGroupSpecs")
        kube.patch(path, [_as_read(live), *operations])
        return f"the running RayCluster {cluster} follows"

    return _retried(once)


def _write(kube: Kube, name: str | None, plan: Callable[[JsonView], Change]) -> list[str]:
    """Writes the change that the plan makes of the object as it is."""

    def once() -> list[str]:
        service = find_service(kube, name)
        change = plan(service)
        path = service_path(kube, service.at("metadata", "name").text())
        patched = kube.patch(path, [_as_read(service), *change.operations, _note(service, change)])
        _return_ownership(kube, path, patched)
        return list(change.told)

    return _retried(once)


def _retried(once: Callable[[], Result]) -> Result:
    """Repeats what somebody else's change has crossed, on the object as it is then.

    Raises:
        ClusterError: somebody else was faster every time.
        ClusterRefused: another refusal.
    """
    for _ in range(_ATTEMPTS):
        try:
            return once()
        except ClusterRefused as error:
            if error.status != _CONFLICT:
                raise
    raise ClusterError(
        f"the object changed under each of {_ATTEMPTS} tries: see who writes it "
        "(kubectl get rayservice -o yaml --show-managed-fields), then try again"
    )


def _as_read(read: JsonView) -> Operation:
    """Makes the API server refuse the patch of an object that is no longer as it was read.

    Kubernetes answers 409 to another resourceVersion than its own.
    """
    version = read.at("metadata", "resourceVersion").text()
    return Operation("replace", "/metadata/resourceVersion", version)


def _return_ownership(kube: Kube, path: str, patched: JsonView) -> None:
    latest: JsonView | None = patched

    def once() -> None:
        nonlocal latest
        live = latest or kube.get(path)
        latest = None  # a second try reads it anew
        owners = returned_ownership(live.at("metadata", "managedFields"))
        if owners is not None:
            operation = Operation("replace", "/metadata/managedFields", owners)
            kube.patch(path, [_as_read(live), operation])

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
