"""How an operator's scaling is written, such that `helm upgrade` keeps it.

Three things happen to the RayService:

1. `spec` changes: the bounds of a worker group, or the Serve config;
2. the annotation `paraserve.dev/scale` says what was changed. The chart reads it at an
   upgrade (`lookup`) and renders the same;
3. Helm is given back the ownership of the fields in `spec` that this has taken:
   server-side apply would refuse the next upgrade that changes anything else in them,
   since `serveConfigV2` is one string and `workerGroupSpecs` one list.
"""

from __future__ import annotations

from typing import Any

import yaml
from kubernetes import client

from tests.deploy.charting import Json, as_json

FIELD_MANAGER = "paraserve-scale"
ANNOTATION = "paraserve.dev/scale"
JSON_PATCH = "application/json-patch+json"


class RayServices:
    """The RayServices of a namespace.

    Args:
        api_client: whose rights are used.
        namespace: where they are.
    """

    def __init__(self, api_client: client.ApiClient, namespace: str) -> None:
        self._api = client.CustomObjectsApi(api_client)
        self._namespace = namespace

    def get(self, name: str) -> Json:
        return as_json(self._api.get_namespaced_custom_object(*self._context(name)))

    def patch(self, name: str, operations: list[Json]) -> Json:
        patched = self._api.patch_namespaced_custom_object(
            *self._context(name),
            operations,
            field_manager=FIELD_MANAGER,
            _content_type=JSON_PATCH,
        )
        return as_json(patched)

    def _context(self, name: str) -> tuple[str, str, str, str, str]:
        return "ray.io", "v1", self._namespace, "rayservices", name


def scale_group(services: RayServices, name: str, group: str, **bounds: int) -> None:
    """Changes replicas, minReplicas or maxReplicas of a worker group."""
    live = services.get(name)
    groups = live["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (index,) = (i for i, entry in enumerate(groups) if entry["groupName"] == group)
    context = f"/spec/rayClusterConfig/workerGroupSpecs/{index}"
    operations: list[Json] = [
        {"op": "replace", "path": f"{context}/{bound}", "value": value}
        for bound, value in bounds.items()
    ]
    _write(services, live, {"workerGroups": {group: bounds}}, operations)


def scale_deployment(services: RayServices, name: str, deployment: str, replicas: int) -> None:
    """Changes the fixed number of replicas of a Serve deployment."""
    live = services.get(name)
    config: Json = yaml.safe_load(live["spec"]["serveConfigV2"])
    for entry in config["applications"][0]["deployments"]:
        if entry["name"] == deployment:
            entry["num_replicas"] = replicas
    text = yaml.safe_dump(config, sort_keys=True)
    operation = {"op": "replace", "path": "/spec/serveConfigV2", "value": text}
    _write(services, live, {"deployments": {deployment: {"num_replicas": replicas}}}, [operation])


def _write(services: RayServices, live: Json, change: Json, operations: list[Json]) -> None:
    metadata = live["metadata"]
    scaling: Json = yaml.safe_load(metadata.get("annotations", {}).get(ANNOTATION, "{}"))
    for kind, entries in change.items():
        for entry, options in entries.items():
            scaling.setdefault(kind, {}).setdefault(entry, {}).update(options)
    key = ANNOTATION.replace("/", "~1")
    patched = services.patch(
        metadata["name"],
        [
            _unchanged(live),
            *operations,
            {"op": "add", "path": f"/metadata/annotations/{key}", "value": yaml.safe_dump(scaling)},
        ],
    )
    owners = [*metadata["managedFields"], _owner_of_annotation(patched)]
    services.patch(
        metadata["name"],
        [
            _unchanged(patched),
            {"op": "replace", "path": "/metadata/managedFields", "value": _once(owners)},
        ],
    )


def _unchanged(live: Json) -> Json:
    """An operation that fails if somebody else has written in between."""
    version = live["metadata"]["resourceVersion"]
    return {"op": "test", "path": "/metadata/resourceVersion", "value": version}


def _owner_of_annotation(patched: Json) -> Json:
    (mine,) = (entry for entry in patched["metadata"]["managedFields"] if _is_ours(entry))
    fields: Json = {"f:metadata": {"f:annotations": {f"f:{ANNOTATION}": {}}}}
    return {**mine, "fieldsV1": fields}


def _once(owners: list[Json]) -> list[Json]:
    """Leaves out what an earlier scaling of ours has left."""
    return [*(entry for entry in owners[:-1] if not _is_ours(entry)), owners[-1]]


def _is_ours(entry: Any) -> bool:
    return bool(entry["manager"] == FIELD_MANAGER)
