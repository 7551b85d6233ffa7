"""The chart's values: commented, mirrored from the code, and refused when wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest

from tests.deploy.charting import (
    CHART,
    READY_MADE,
    ROOT,
    Json,
    cluster_specs,
    load_script,
    only,
    ready_values,
    render,
)

OPEN: Json = {"settings": {"auth": {"mode": "off"}}}
ONE_GPU: Json = {"workerGroups": {"gpu": {"enabled": True}}}


def gpus(recognizer: float, punctuator: float, num_replicas: int = 1) -> Json:
    deployment = {"num_gpus": recognizer, "num_replicas": num_replicas}
    return {
        **ONE_GPU,
        "settings": {
            "profile": "paraformer-large",
            "auth": {"mode": "off"},
            "recognizer": {"deployment": deployment},
            "punctuator": {"deployment": {"num_gpus": punctuator}},
        },
    }


def refusal(values: Json, name: str = "speech") -> str:
    with pytest.raises(helm.HelmError) as refused:
        render(values, name=name)
    return str(refused.value)


def test_derived_files_are_those_of_the_code() -> None:
    for script in ("generate_chart.py", "generate_dashboards.py"):
        outputs = dict(load_script(ROOT / "deploy" / script).outputs())
        for path, content in outputs.items():
            assert path.read_text(encoding="utf-8") == content, f"{path.name}: run `make chart`"


def test_chart_has_no_profile_that_the_code_has_not() -> None:
    wanted = load_script(ROOT / "deploy" / "generate_chart.py").profiles()
    assert {path.name for path in (CHART / "files" / "profiles").iterdir()} == set(wanted)


def test_every_object_of_the_schema_is_closed() -> None:
    with helm.Chart.load(CHART) as chart:
        schema = chart.schema
    assert schema is not None
    assert list(_open_objects(schema, "")) == []


def _open_objects(node: Any, path: str) -> Iterator[str]:
    """Yields the places of objects that list their keys and take others, too."""
    if isinstance(node, list):
        for index, entry in enumerate(node):
            yield from _open_objects(entry, f"{path}/{index}")
    elif isinstance(node, dict):
        lists_keys = node.get("type") == "object" and "properties" in node
        if lists_keys and node.get("additionalProperties") is not False:
            yield path
        for key, value in node.items():
            yield from _open_objects(value, f"{path}/{key}")


def test_linter_finds_no_fault() -> None:
    found = helm.lint(CHART, values=ready_values("demo-cpu"), strict=True)
    assert [message for message in found["messages"] if message["severity"] > 1] == []
    assert found["errors"] == []


@pytest.mark.parametrize("name", READY_MADE)
def test_ready_made_values_render(name: str) -> None:
    assert any(item["kind"] == "RayService" for item in render(ready_values(name)))


def test_fractions_that_leave_a_rest_on_every_gpu_are_refused() -> None:
    message = refusal(gpus(0.3, 0.25))
    assert "The GPU fractions do not add up" in message
    assert "0.3 of Recognizer" in message


def test_replicas_that_do_not_fit_are_refused() -> None:
    message = refusal(gpus(0.5, 0.2, num_replicas=2))
    assert "The replicas need 2 GPUs at least, but workerGroups may have 1" in message


@pytest.mark.parametrize(
    ("recognizer", "punctuator"), [(0.5, 0.25), (0.75, 0.25), (0.34, 0.33), (0.6, 0.4)]
)
def test_fractions_that_fill_a_gpu_are_accepted(recognizer: float, punctuator: float) -> None:
    assert render(gpus(recognizer, punctuator))


def test_replica_of_more_gpus_than_a_pod_has_is_refused() -> None:
    assert "asks for 2 GPUs in one replica" in refusal(gpus(2, 0.25))


def test_gpu_without_a_group_that_has_one_is_refused() -> None:
    values = {"settings": {"profile": "paraformer-large", "auth": {"mode": "off"}}}
    assert "no enabled group of workerGroups has any" in refusal(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"recognizr": {}}, "additional properties 'recognizr' not allowed"),
        (
            {"settings": {"recognizer": {"packs": "x"}}},
            "at '/settings/recognizer': additional properties 'packs' not allowed",
        ),
        (
            {"settings": {"recognizer": {"deployment": {"num_replicas": -1}}}},
            "at '/settings/recognizer/deployment/num_replicas': minimum: got -1, want 1",
        ),
        (
            {"workerGroups": {"cpu": {"minReplicas": -1}}},
            "at '/workerGroups/cpu/minReplicas': minimum: got -1, want 0",
        ),
        (
            {"deployments": {"Recognizer": {"num_replica": 2}}},
            "at '/deployments/Recognizer': additional properties 'num_replica' not allowed",
        ),
        ({"fullnameOverride": "x" * 60}, "at '/fullnameOverride': maxLength: got 60, want 47"),
    ],
)
def test_value_against_the_schema_is_refused_by_name(values: Json, sentence: str) -> None:
    faults = [line for line in refusal(values).splitlines() if line.startswith("- at")]
    assert len(faults) == 1
    assert sentence in faults[0]


def test_name_that_kuberay_would_refuse_is_refused() -> None:
    message = refusal(OPEN, name="r" * 50)
    assert "has 60 characters, but KubeRay takes at most 47" in message


def test_service_without_keys_must_be_requested_explicitly() -> None:
    assert "No API keys: set apiKeys.existingSecret" in refusal({})
    assert render(OPEN)


def test_farewell_shorter_than_a_request_is_refused() -> None:
    values = {**OPEN, "pods": {"terminationGracePeriodSeconds": 30}}
    assert "is 30, but a request may take 3600 s" in refusal(values)


def test_settings_that_the_chart_sets_are_refused() -> None:
    assert "additional properties 'http' not allowed" in refusal({"settings": {"http": {}}})


def spools(values: Json) -> dict[str, Json]:
    """Returns the spool of the head and of each group."""
    (cluster,) = cluster_specs(only(render(values), "RayService"))
    parts = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    parts["head"] = cluster["headGroupSpec"]
    return {
        name: volume["emptyDir"]
        for name, part in parts.items()
        for volume in part["template"]["spec"]["volumes"]
        if volume["name"] == "spool"
    }


def test_spool_is_on_disk_or_in_memory_as_is_set() -> None:
    assert all("medium" not in spool for spool in spools(OPEN).values())
    in_memory = {**OPEN, "pods": {"spoolMedium": "Memory"}}
    assert [spool["medium"] for spool in spools(in_memory).values()] == ["Memory", "Memory"]


def test_spool_of_one_group_may_be_another() -> None:
    cpu: Json = {"cpu": {"pod": {"spoolMedium": "Memory"}, "tmpSize": "2Gi"}}
    found = spools({**OPEN, "workerGroups": cpu})
    assert found["cpu"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert "medium" not in found["head"]


def test_other_media_of_the_spool_are_refused() -> None:
    assert "at '/pods/spoolMedium'" in refusal({**OPEN, "pods": {"spoolMedium": "tmpfs"}})


def test_group_with_bounds_the_wrong_way_round_is_refused() -> None:
    values = {**OPEN, "workerGroups": {"cpu": {"minReplicas": 9}}}
    assert "minReplicas 9 above its maxReplicas 4" in refusal(values)
