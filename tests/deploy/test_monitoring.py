"""Dashboards and alerts ask for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import ray

from serve_app.metrics import METRICS
from tests.deploy.charting import CHART, EVERYTHING, combined, only, ready_values, render

# Put on by Ray and by the PodMonitor.
_COMMON_LABELS = {
    "deployment",
    "replica",
    "application",
    "ray_io_cluster",
    "ray_io_group",
    "le",
    "ip",
}
_SUFFIXES = ("_bucket", "_sum", "_count")


def dashboard_queries() -> Iterator[str]:
    for path in sorted((CHART / "files" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield target["expr"].replace("$cluster", ".*")


def alert_queries() -> list[str]:
    objects = render(combined(ready_values("many-gpus"), EVERYTHING))
    (group,) = only(objects, "PrometheusRule")["spec"]["groups"]
    return [rule["expr"] for rule in group["rules"]]


def selectors(node: Any) -> Iterator[Any]:
    """Yields the vector selectors in a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "vs"):
        inner = getattr(node, name, None)
        if inner is not None:
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


@cache
def names_in_ray() -> frozenset[str]:
    """Returns what looks like a metric's name in Ray Serve and in Ray's agent of a node."""
    folder = Path(ray.__file__).parent / "serve" / "_private"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    reporter = folder.parents[1] / "dashboard" / "modules" / "reporter" / "reporter_agent.py"
    text += reporter.read_text(encoding="utf-8")
    return frozenset(re.findall(r'"((?:serve|node)_[a-z_]+)"', text))


@pytest.mark.parametrize("query", [*dashboard_queries(), *alert_queries()])
def test_query_asks_for_metrics_and_labels_that_exist(query: str) -> None:
    found = list(selectors(promql_parser.parse(query)))
    assert found, query
    for selector in found:
        name = selector.name.removeprefix("ray_")
        if name.startswith(("serve_", "node_")):
            assert name in names_in_ray()
            continue
        metric = METRICS.get(name) or METRICS[_without_suffix(name)]
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= {*metric.labels, *_COMMON_LABELS}


def _without_suffix(name: str) -> str:
    (base,) = (name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix))
    assert METRICS[base].kind == "histogram"
    return base


@pytest.mark.parametrize("query", [*dashboard_queries(), *alert_queries()])
def test_query_groups_by_labels_that_exist(query: str) -> None:
    known = {label for metric in METRICS.values() for label in metric.labels} | _COMMON_LABELS
    for group in re.findall(r"\bby \(([^)]*)\)", query):
        assert {label.strip() for label in group.split(",")} <= known


def test_every_alert_is_explained_in_the_operators_page() -> None:
    objects = render(combined(ready_values("many-gpus"), EVERYTHING))
    (group,) = only(objects, "PrometheusRule")["spec"]["groups"]
    page = (CHART.parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in group["rules"]:
        assert rule["alert"] in page


def test_every_metric_of_a_stage_is_on_a_dashboard_or_known_not_to_be() -> None:
    shown = " ".join(dashboard_queries())
    hidden = {name for name in METRICS if name not in shown}
    assert hidden <= {
        "paraserve_audio_in_flight_seconds",
        "paraserve_recordings_open",
        "paraserve_queued_items",
        "paraserve_items_expired_total",
        "paraserve_models_loaded",
        "paraserve_requests_uploading",
        "paraserve_keys_stale_seconds",
    }
