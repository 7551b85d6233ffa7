"""Fields are given back to the tool that applies them."""

from __future__ import annotations

from serve_app.ops.field_ownership import returned_ownership
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import FIELD_MANAGER

HELM = {
    "manager": "helm",
    "operation": "Apply",
    "fieldsV1": {"f:metadata": {"f:labels": {}}, "f:spec": {"f:upgradeStrategy": {}}},
}
OURS = {
    "manager": FIELD_MANAGER,
    "operation": "Update",
    "fieldsV1": {
        "f:metadata": {"f:annotations": {"f:paraserve.dev/scale": {}}},
        "f:spec": {"f:serveConfigV2": {}},
    },
}


def test_spec_goes_back_and_the_annotation_stays() -> None:
    owners = returned_ownership(JsonView([HELM, OURS]))
    assert owners == [
        {
            **HELM,
            "fieldsV1": {
                "f:metadata": {"f:labels": {}},
                "f:spec": {"f:upgradeStrategy": {}, "f:serveConfigV2": {}},
            },
        },
        {**OURS, "fieldsV1": {"f:metadata": {"f:annotations": {"f:paraserve.dev/scale": {}}}}},
    ]


def test_nothing_is_given_back_twice() -> None:
    owners = returned_ownership(JsonView([HELM, OURS]))
    assert returned_ownership(JsonView(owners)) is None


def test_without_a_tool_that_applies_nothing_is_given_back() -> None:
    assert returned_ownership(JsonView([{**HELM, "operation": "Update"}, OURS])) is None


def test_helm_is_preferred_to_others_that_apply() -> None:
    other = {"manager": "labeller", "operation": "Apply", "fieldsV1": {"f:metadata": {}}}
    owners = returned_ownership(JsonView([other, HELM, OURS]))
    assert owners is not None
    assert owners[0] == other
