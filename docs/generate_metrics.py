"""Writes docs/metrics.md from the table of metrics: `python docs/generate_metrics.py`."""

from __future__ import annotations

from pathlib import Path

from serve_app.metrics import METRICS

TARGET = Path(__file__).with_name("metrics.md")
HEAD = """# Metrics

Written by `python docs/generate_metrics.py`. Every node of the Ray cluster serves its own at
`http://NODE:PORT/metrics` in Prometheus' format, where PORT is `cluster.metrics_port` or what
`ray start --metrics-export-port` was given (KubeRay: 8080), with `ray_` before each name. Beside
the labels below each has `deployment`, `replica` and `application`. Ray's and HAProxy's own metrics
(`ray_serve_*`, `ray_component_*`) come from the same place. A counter starts at 0
with its replica, so that an increase over its first event is seen; those by model, key or an
unforeseen error code start with their first event.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def metrics_page() -> str:
    return HEAD + "".join(
        f"| `ray_{metric.name}` | {metric.kind} | {', '.join(metric.labels)} "
        f"| {metric.description} |\n"
        for metric in METRICS.values()
    )


if __name__ == "__main__":
    TARGET.write_text(metrics_page(), encoding="utf-8")
