"""KubeRay's resource definitions: for a server that is older than they are, and strict.

The test server (Kubernetes 1.20) takes the definitions only when what it does not
know is removed; the rules that this removes are checked here instead.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.charting import YAML_LOADER, Json

_GROUP = "ray.io"
# Kinds of others that the chart makes on request. Their own definitions are not part
# of this project, so the server takes any content of them here.
_FOREIGN = (
    ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
)


def read_crds(folder: Path) -> dict[str, Json]:
    """Returns KubeRay's definitions by kind; RayCronJob's is derived if it is not there.

    Its specification holds that of a RayJob under `jobTemplate`.
    Source: KubeRay 1.7, `ray-operator/apis/ray/v1/raycronjob_types.go`.
    """
    found: dict[str, Json] = {}
    for path in sorted(folder.glob("*ray.io_*")):
        text = path.read_text(encoding="utf-8")
        definition: Json = (
            json.loads(text) if path.suffix == ".json" else yaml.load(text, YAML_LOADER)
        )
        found[definition["spec"]["names"]["kind"]] = definition
    found.setdefault("RayCronJob", _cron_job_from(found["RayJob"]))
    return found


def _cron_job_from(ray_job: Json) -> Json:
    definition = copy.deepcopy(ray_job)
    definition["metadata"] = {"name": f"raycronjobs.{_GROUP}"}
    definition["spec"]["names"] = {
        "kind": "RayCronJob",
        "listKind": "RayCronJobList",
        "plural": "raycronjobs",
        "singular": "raycronjob",
    }
    properties = schema_of(definition)["properties"]
    properties["spec"] = {
        "type": "object",
        "required": ["jobTemplate", "schedule"],
        "properties": {
            "jobTemplate": properties["spec"],
            "schedule": {"type": "string"},
            "suspend": {"type": "boolean"},
            "timeZone": {"type": "string"},
        },
    }
    return definition


def schema_of(definition: Json) -> Json:
    """Returns the OpenAPI schema of a definition's version v1."""
    versions = [entry for entry in definition["spec"]["versions"] if entry["name"] == "v1"]
    schema: Json = versions[0]["schema"]["openAPIV3Schema"]
    return schema


def definitions_for(crds: dict[str, Json]) -> list[Json]:
    """Returns what the test server is given: KubeRay's, lowered, and others' kinds."""
    lowered = [_lower_definition(definition) for definition in crds.values()]
    return lowered + [_permissive(*names) for names in _FOREIGN]


def _lower_definition(definition: Json) -> Json:
    lowered = copy.deepcopy(definition)
    lowered.pop("status", None)
    lowered["spec"]["versions"] = [
        entry for entry in lowered["spec"]["versions"] if entry["name"] == "v1"
    ]
    version = lowered["spec"]["versions"][0]
    version["storage"] = True
    version["schema"]["openAPIV3Schema"] = _lower(version["schema"]["openAPIV3Schema"])
    lowered["spec"].pop("conversion", None)
    return lowered


def _lower(node: Any) -> Any:
    if isinstance(node, list):
        return [_lower(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    lowered = {
        key: _lower(value)
        for key, value in node.items()
        if key != "x-kubernetes-validations" and not (key == "default" and value == "")
    }
    keys = lowered.get("x-kubernetes-list-map-keys")
    if isinstance(keys, list):
        items = lowered["items"]
        # A key of a list map must be required or have a default.
        bare = [key for key in keys if "default" not in items["properties"][key]]
        items["required"] = sorted({*items.get("required", []), *bare})
    return lowered


def _permissive(group: str, version: str, kind: str, plural: str) -> Json:
    definition: Json = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }
    if group.endswith("k8s.io"):
        # The server demands that a protected group names its review.
        definition["metadata"]["annotations"] = {
            "api-approved.kubernetes.io": "unapproved, for tests"
        }
    return definition


def strict(schema: Json) -> Json:
    """Returns the schema such that unknown keys are errors, as `kubectl --validate=strict`.

    The server prunes them without a word. Left open: what the definition leaves open
    itself, and `metadata`, which the server checks.
    """
    closed = _close(schema)
    closed["properties"].setdefault("metadata", {})
    closed["properties"]["metadata"] = {"type": "object"}
    result: Json = json.loads(json.dumps(closed))
    return result


def _close(node: Any) -> Any:
    if isinstance(node, list):
        return [_close(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _close(value) for key, value in node.items()}
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("type", None)
        closed["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    properties = closed.get("properties")
    is_object_schema = closed.get("type") == "object" and isinstance(properties, dict)
    if is_object_schema and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
