"""Every variable of Ray that a deployment sets is explained, and is one that Ray reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import ray
import yaml

from tests.deploy.charting import ROOT, Json, cluster_specs, combined, only, ready_values, render

# Read by Ray's C++ processes, whose source is not installed.
# Source: Ray 2.60, src/ray/common/ray_config_def.h.
_OF_RAYLET = {"RAY_worker_register_timeout_seconds", "RAY_gcs_server_port_wait_time_s"}
_TITLE = "## Ray's environment variables"


def documented() -> tuple[set[str], set[str]]:
    """Returns the variables of the two tables: set, and left at Ray's default."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page[page.index(_TITLE) :].split("\n## ")[0]
    ours, theirs = section.split("Considered and left")
    rows = [
        re.findall(r"`((?:RAY|HAPROXY)_\w+)`", line.split("|")[1])
        for line in ours.splitlines()
        if line.startswith("|")
    ]
    left = [
        re.findall(r"`(RAY_\w+)`", line.split("|")[1])
        for line in theirs.splitlines()
        if line.startswith("|")
    ]
    return {name for row in rows for name in row}, {name for row in left for name in row}


def variables(spec: Json) -> set[str]:
    return {
        entry["name"]
        for part in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        for entry in part["template"]["spec"]["containers"][0]["env"]
        if entry["name"].startswith(("RAY_", "HAPROXY_"))
    }


def of_the_chart() -> set[str]:
    packed = combined(ready_values("many-gpus"), {"serve": {"replicaPlacement": "Pack"}})
    return variables(cluster_specs(only(render(packed), "RayService"))[0])


def of_the_plain_cluster() -> set[str]:
    text = (ROOT / "deploy" / "ray-cluster.yaml").read_text(encoding="utf-8")
    return variables(yaml.safe_load(text)["spec"])


def test_every_variable_that_is_set_is_explained_and_none_else() -> None:
    assert documented()[0] == of_the_chart()


def test_plain_cluster_sets_what_the_chart_sets() -> None:
    optional = {"RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY"}
    assert of_the_plain_cluster() == of_the_chart() - optional


def test_image_sets_no_variable_that_is_not_explained() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"\b(RAY_\w+)=", text)) <= documented()[0]


@pytest.fixture(scope="module")
def names_in_ray() -> set[str]:
    folder = Path(ray.__file__).parent
    paths = [*folder.glob("_private/**/*.py"), *folder.glob("serve/_private/**/*.py")]
    paths += folder.glob("_common/**/*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    return set(re.findall(r"RAY_\w+", text))


def test_every_variable_of_the_tables_is_one_that_ray_reads(names_in_ray: set[str]) -> None:
    ours, left = documented()
    assert left
    assert not ours & left
    known = {name for name in ours | left if name.startswith("RAY_")} - _OF_RAYLET
    assert known <= names_in_ray
