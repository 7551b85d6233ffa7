"""The owners of an object's fields, which server-side apply records.

A patch takes the fields that it changes from the manager that applied them. The Serve config
(one string) and the worker groups (one list) are single fields, so a later apply of any other
change in them would conflict. The fields of `spec` therefore return to the manager that
applies the object; the annotation stays ours.
"""

from __future__ import annotations

from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import FIELD_MANAGER

_SPEC = "f:spec"


def returned_ownership(managed: JsonView) -> list[object] | None:
    """Returns `metadata.managedFields` with our part of `spec` returned to the applier.

    Args:
        managed: the current list.

    Returns:
        None if nothing needs to be returned: we own nothing of `spec`, or no manager applies the
        object (Helm 3 and `kubectl create` record no owners).
    """
    entries = [entry.mapping() for entry in managed.each()]
    taken = [entry for entry in entries if _is_ours(entry) and _fields(entry).at(_SPEC).is_there]
    owner = _applier(entries)
    if not taken or owner is None:
        return None
    fields = _fields(owner).mapping()
    for entry in taken:
        ours = _fields(entry).mapping()
        fields[_SPEC] = _merged(fields.get(_SPEC), ours.pop(_SPEC))
        entry["fieldsV1"] = ours
    owner["fieldsV1"] = fields
    return [entry for entry in entries if not _is_ours(entry) or entry["fieldsV1"]]


def _is_ours(entry: dict[str, object]) -> bool:
    return entry.get("manager") == FIELD_MANAGER


def _fields(entry: dict[str, object]) -> JsonView:
    return JsonView(entry.get("fieldsV1"))


def _applier(entries: list[dict[str, object]]) -> dict[str, object] | None:
    """Returns the entry of the tool that applies the object, preferably Helm's."""
    applied = [
        entry
        for entry in entries
        if entry.get("operation") == "Apply" and not entry.get("subresource")
    ]
    named = [entry for entry in applied if str(entry.get("manager")).startswith("helm")]
    return next(iter(named or applied), None)


def _merged(under: object, over: object) -> object:
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over if isinstance(over, dict) else under
    merged = dict(under)
    for key, value in over.items():
        merged[key] = _merged(merged[key], value) if key in merged else value
    return merged
