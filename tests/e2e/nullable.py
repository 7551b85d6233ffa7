"""Definitions whose scalars may be null.

Kubernetes 1.20, built with a Go of today, takes "" and 0 for null and refuses them where the
definition does not allow it; an operator writes empty messages and counts of 0.
"""

from __future__ import annotations

import copy

from tests.deploy.charting import Json
from tests.deploy.crds import schema_of

_SCALARS = ("string", "integer", "number", "boolean")


def with_nullable_scalars(definition: Json) -> Json:
    """Returns the definition with every scalar of spec and status nullable, but keys of lists."""
    changed = copy.deepcopy(definition)
    properties = schema_of(changed).get("properties", {})
    for part in ("spec", "status"):
        _allow_null(properties.get(part, {}), ())
    return changed


def _allow_null(schema: Json, keys: tuple[str, ...]) -> None:
    for name, child in (schema.get("properties") or {}).items():
        if child.get("type") in _SCALARS and name not in keys:
            child["nullable"] = True
        _allow_null(child, ())
    items = schema.get("items")
    if isinstance(items, dict):
        _allow_null(items, tuple(schema.get("x-kubernetes-list-map-keys", ())))
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        if values.get("type") in _SCALARS:
            values["nullable"] = True
        _allow_null(values, ())
