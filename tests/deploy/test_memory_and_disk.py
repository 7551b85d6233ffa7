"""Memory and disk of the pods: they fit together, and values that do not fit are refused."""

from __future__ import annotations

import shlex

import pytest
import yaml

from tests.deploy.charting import (
    EVERYTHING,
    READY_MADE,
    ROOT,
    Json,
    cluster_specs,
    combined,
    only,
    ready_values,
    render,
)
from tests.deploy.test_values import refusal

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_MINIMUM_OF_RAY = 75 * 2**20


def num_bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def parts_of(item: Json) -> list[Json]:
    """Returns the head and the worker groups of every cluster in an object."""
    return [
        part
        for spec in cluster_specs(item)
        for part in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    ]


def every_part() -> list[Json]:
    values = [ready_values(name) for name in READY_MADE]
    values.append(combined(ready_values("many-gpus"), EVERYTHING))
    plain = yaml.safe_load((ROOT / "deploy" / "ray-cluster.yaml").read_text(encoding="utf-8"))
    parts = [part for each in values for item in render(each) for part in parts_of(item)]
    return parts + parts_of(plain)


def shared_memory(part: Json) -> int:
    (volume,) = (
        volume
        for volume in part["template"]["spec"]["volumes"]
        if volume["name"] == "shared-memory"
    )
    assert volume["emptyDir"]["medium"] == "Memory"
    return num_bytes(volume["emptyDir"]["sizeLimit"])


def test_object_store_fits_into_shared_memory_and_both_into_the_limit() -> None:
    for part in every_part():
        store = int(part["rayStartParams"]["object-store-memory"])
        assert _MINIMUM_OF_RAY <= store <= 0.95 * shared_memory(part)
        limits = part["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert 2 * shared_memory(part) <= num_bytes(limits["memory"])


def test_pods_ask_for_the_disk_that_logs_and_uploads_take() -> None:
    for part in every_part():
        requests = part["template"]["spec"]["containers"][0]["resources"]["requests"]
        assert num_bytes(requests["ephemeral-storage"]) >= 2**30


def test_logs_of_ray_are_rotated_before_they_fill_the_disk() -> None:
    for part in every_part():
        env = part["template"]["spec"]["containers"][0]["env"]
        variables = {entry["name"]: entry.get("value") for entry in env}
        assert int(variables["RAY_ROTATION_MAX_BYTES"]) == 64 * 2**20
        assert variables["RAY_ROTATION_BACKUP_COUNT"] == "2"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"workerGroups": {"cpu": {"sharedMemory": "3Gi"}}},
            "workerGroups.cpu.sharedMemory is 3Gi, more than half of the memory limit 4Gi",
        ),
        (
            {"head": {"sharedMemory": "64Mi"}},
            "head.sharedMemory is 64Mi: Ray's object store needs at least 100Mi",
        ),
        (
            {"workerGroups": {"cpu": {"rayStartParams": {"object-store-memory": "2000000000"}}}},
            "Ray would put it on disk",
        ),
        (
            {
                "pods": {"spoolMedium": "Memory"},
                "settings": {"admission": {"max_bytes": 4 * 2**30}},
            },
            "leave nothing of the memory limit 4Gi",
        ),
    ],
)
def test_memory_that_does_not_fit_is_refused(values: Json, sentence: str) -> None:
    assert sentence in refusal(combined(ready_values("demo-cpu"), values))


def test_object_store_of_the_operators_own_size_is_kept() -> None:
    group: Json = {"rayStartParams": {"object-store-memory": "200000000"}}
    values = combined(ready_values("demo-cpu"), {"workerGroups": {"cpu": group}})
    (spec,) = cluster_specs(only(render(values), "RayService"))
    (worker,) = spec["workerGroupSpecs"]
    assert worker["rayStartParams"] == {"object-store-memory": "200000000"}


def test_containers_may_start_slowly_on_a_busy_node() -> None:
    for part in every_part():
        container = part["template"]["spec"]["containers"][0]
        probe = container["startupProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] >= 300
        assert probe["exec"] == container["livenessProbe"]["exec"]
        variables = {entry["name"]: entry.get("value") for entry in container["env"]}
        # Ray's own limit of 30 s ends the raylet of a node that is busy.
        assert int(variables["RAY_worker_register_timeout_seconds"]) >= 300


def test_probes_ask_the_pod_itself_whatever_proxy_is_set() -> None:
    for part in every_part():
        container = part["template"]["spec"]["containers"][0]
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            script = container[name]["exec"]["command"][-1]
            calls = [call for call in script.split("&&") if "wget" in call]
            assert calls
            assert all("--no-proxy" in shlex.split(call) for call in calls)


def test_probe_of_the_image_asks_the_container_itself_whatever_proxy_is_set() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    probe = text[text.index("\nHEALTHCHECK ") :].lstrip().split("\n\n")[0]
    assert '"wget", "--no-proxy"' in probe or "wget --no-proxy" in probe
