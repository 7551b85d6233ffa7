"""What KubeRay writes back when it adds its finalizer: the object, as Go encodes it.

The operator reads an object into Go structures and sends them back by Update. Structures
without a pointer appear even if they are empty, empty values with `omitempty` disappear,
and quantities get their canonical form. What differs from the object before then belongs to
the operator, and server-side apply by Helm conflicts with it. Seen with KubeRay 1.7.0:
`scaleStrategy: {}` in each worker group.

Source: kubernetes/api v0.36 (core/v1/types.go), KubeRay 1.7 (apis/ray/v1).
"""

from __future__ import annotations

import copy
from decimal import ROUND_CEILING, Decimal
from typing import Any

from kubernetes import client

from tests.deploy.charting import Json, as_json

FINALIZER = "ray.io/rayservice-finalizer"
MANAGER = "kuberay-operator"
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P")
# Structures without a pointer: always written.
_WORKER_GROUP = {"scaleStrategy": dict}
_CONTAINER = {"resources": dict}
# Plain fields with `omitempty`, which an empty value drops.
_DROPPED_FROM_A_CONTAINER = ("args", "command", "env", "envFrom", "ports", "volumeMounts")
_DROPPED_FROM_A_PROBE = (
    "failureThreshold",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
)
_DROPPED_FROM_A_POD = (
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "priorityClassName",
    "restartPolicy",
    "serviceAccountName",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
)


def canonical_quantity(given: str | int | float) -> str:
    """Returns a quantity as Kubernetes writes it: 1000m is 1, 0.5 is 500m, 2048Mi is 2Gi.

    Source: apimachinery, api/resource/quantity.go, `CanonicalizeBytes`.
    """
    text = str(given)
    number = text.rstrip("numkKMGTPi")
    suffix = text[len(number) :]
    if suffix.endswith("i"):
        amount = Decimal(number) * 1024 ** _BINARY.index(suffix)
        whole = int(amount.to_integral_value(ROUND_CEILING))
        return _with_largest_suffix(whole, 1024, _BINARY)
    amount = Decimal(number) * Decimal(1000) ** _DECIMAL.index(suffix)
    whole = int(amount.to_integral_value(ROUND_CEILING))
    return _with_largest_suffix(whole, 1000, _DECIMAL)


def _with_largest_suffix(whole: int, base: int, suffixes: tuple[str, ...]) -> str:
    if whole == 0:
        return "0"
    index = 0
    while whole % base == 0 and index + 1 < len(suffixes):
        whole //= base
        index += 1
    return f"{whole}{suffixes[index]}"


def cluster_as_written(spec: Json) -> Json:
    """Returns the specification of a RayCluster as the operator writes it."""
    written = copy.deepcopy(spec)
    _write_resources((written.get("autoscalerOptions") or {}).get("resources"))
    _write_pod(written["headGroupSpec"]["template"])
    for group in written["workerGroupSpecs"]:
        for name, kind in _WORKER_GROUP.items():
            group.setdefault(name, kind())
        _write_pod(group["template"])
    return written


def service_as_written(spec: Json) -> Json:
    """Returns the specification of a RayService as the operator writes it."""
    written = copy.deepcopy(spec)
    written["rayClusterConfig"] = cluster_as_written(written["rayClusterConfig"])
    for name in ("suspend", "excludeHeadPodFromServeSvc"):
        _drop_empty(written, (name,))
    if "serveService" in written:
        written["serveService"].setdefault("status", {"loadBalancer": {}})
    return written


def job_as_written(spec: Json) -> Json:
    """Returns the specification of a RayJob as the operator writes it."""
    written = copy.deepcopy(spec)
    written["rayClusterSpec"] = cluster_as_written(written["rayClusterSpec"])
    _write_pod(written["submitterPodTemplate"])
    _drop_empty(written, ("suspend", "ttlSecondsAfterFinished", "metadata"))
    return written


def _write_pod(template: Json) -> None:
    template.setdefault("metadata", {})
    _drop_empty(template["metadata"], ("annotations", "labels"))
    spec = template["spec"]
    _drop_empty(spec, _DROPPED_FROM_A_POD)
    for container in spec["containers"] + spec.get("initContainers", []):
        _write_container(container)
    for volume in spec.get("volumes", []):
        empty = volume.get("emptyDir") or {}
        _drop_empty(empty, ("medium",))
        if "sizeLimit" in empty:
            empty["sizeLimit"] = canonical_quantity(empty["sizeLimit"])
        for source in volume.values():
            if isinstance(source, dict):
                _drop_empty(source, ("readOnly", "items"))


def _write_container(container: Json) -> None:
    for name, kind in _CONTAINER.items():
        container.setdefault(name, kind())
    _write_resources(container["resources"])
    _drop_empty(container, _DROPPED_FROM_A_CONTAINER)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        _drop_empty(container.get(probe) or {}, _DROPPED_FROM_A_PROBE)
    for mount in container.get("volumeMounts", []):
        _drop_empty(mount, ("readOnly", "subPath", "subPathExpr"))
    for variable in container.get("env", []):
        _drop_empty(variable, ("value",))
        field = (variable.get("valueFrom") or {}).get("resourceFieldRef")
        if field is not None:
            field.setdefault("divisor", "0")


def _write_resources(resources: Json | None) -> None:
    for kind in ("requests", "limits"):
        amounts = (resources or {}).get(kind)
        if amounts:
            for name, amount in amounts.items():
                amounts[name] = canonical_quantity(amount)
    _drop_empty(resources or {}, ("requests", "limits", "claims"))


def _drop_empty(record: Json, names: tuple[str, ...]) -> None:
    for name in names:
        if name in record and record[name] in (None, "", 0, False, [], {}):
            del record[name]


def add_finalizer(api_client: client.ApiClient, namespace: str, name: str) -> Json:
    """Writes a RayService as the operator does when it first sees it."""
    api = client.CustomObjectsApi(api_client)
    context = ("ray.io", "v1", namespace, "rayservices", name)
    live: dict[str, Any] = as_json(api.get_namespaced_custom_object(*context))
    live["metadata"]["finalizers"] = [FINALIZER]
    live["metadata"].pop("managedFields", None)
    live["spec"] = service_as_written(live["spec"])
    written = api.replace_namespaced_custom_object(*context, live, field_manager=MANAGER)
    return as_json(written)


def remove_finalizer(api_client: client.ApiClient, namespace: str, name: str) -> None:
    """Lets a RayService go, as the operator does when its clusters are gone."""
    client.CustomObjectsApi(api_client).patch_namespaced_custom_object(
        *("ray.io", "v1", namespace, "rayservices", name),
        {"metadata": {"finalizers": None}},
        field_manager=MANAGER,
        _content_type="application/merge-patch+json",
    )


def fields_of_operator(live: Json) -> list[str]:
    """Returns the top-level fields of `spec` that the operator owns."""
    return [
        field
        for entry in live["metadata"]["managedFields"]
        if entry["manager"] == MANAGER
        for field in entry["fieldsV1"].get("f:spec", {})
    ]
