"""What makes KubeRay start a second cluster, and what does not."""

from __future__ import annotations

from pathlib import Path

import helm_python as helm
import pytest
import yaml

from tests.deploy.charting import CHART, Json, cluster_specs, combined, only, ready_values, render

_BOUNDS = ("replicas", "minReplicas", "maxReplicas")


def cluster_of(objects: list[Json]) -> Json:
    """Returns the specification, without what KubeRay changes in place."""
    (spec,) = cluster_specs(only(objects, "RayService"))
    for group in spec["workerGroupSpecs"]:
        for bound in _BOUNDS:
            del group[bound]
    return spec


def with_changes(changes: Json) -> Json:
    return cluster_of(render(combined(ready_values("many-gpus"), changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"log_level": "DEBUG"}},
        {"settings": {"punctuator": {"deployment": {"num_replicas": 8}}}},
        {"workerGroups": {"gpu": {"minReplicas": 3, "maxReplicas": 30, "replicas": 3}}},
        {"networkPolicy": {"enabled": False}},
        {"monitoring": {"podMonitor": {"interval": "30s"}}},
        {"serve": {"upgradeStrategy": "None"}},
    ],
)
def test_change_that_needs_no_new_cluster_keeps_its_pods(changes: Json) -> None:
    assert with_changes(changes) == with_changes({})


@pytest.mark.parametrize(
    "changes",
    [
        {"image": {"tag": "99.0.0"}},
        {"settings": {"recognizer": {"pack": "paraformer-large-vanilla"}}},
        {"pods": {"annotations": {"rotated": "today"}}},
    ],
)
def test_change_that_needs_other_pods_makes_another_cluster(changes: Json) -> None:
    assert with_changes(changes) != with_changes({})


def test_newer_chart_with_the_same_image_leaves_the_pods_alone(tmp_path: Path) -> None:
    with helm.Chart.load(CHART) as chart:
        chart.save_dir(tmp_path)
    newer = tmp_path / "paraserve"
    metadata = yaml.safe_load((newer / "Chart.yaml").read_text(encoding="utf-8"))
    (newer / "Chart.yaml").write_text(yaml.safe_dump({**metadata, "version": "9.9.9"}))
    with helm.Chart.load(newer) as chart:
        texts = chart.render(ready_values("many-gpus"), name="speech", namespace="asr")
    later = [yaml.safe_load(texts["paraserve/templates/rayservice.yaml"])]
    assert later[0]["metadata"]["labels"]["helm.sh/chart"] == "paraserve-9.9.9"
    assert cluster_of(later) == with_changes({})
